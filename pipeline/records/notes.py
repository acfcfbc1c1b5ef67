"""What a person should know about a run besides its figures: records with fields, which become text where they are shown."""

from dataclasses import dataclass
from typing import Any, ClassVar


class Note:
    """What all notes have.

    Attributes:
      text: the line that the note is shown as, with its fields in braces.
    """

    text: ClassVar[str]

    def lines(self) -> list[str]:
        """The lines that the note is shown as; mostly one."""
        return [self.text.format_map(vars(self))]


@dataclass(frozen=True)
class DataNote(Note):
    """How the data is read, what was left out or skipped: a line of `Found.notes`."""

    line: str
    text = "{line}"


@dataclass(frozen=True)
class DuplicatesNote(Note):
    """Duplicates among the images; harmless ones give no lines.

    Attributes:
      counts: the counts from `write_duplicates`, and those from `group_duplicates` where duplicates are grouped.
      table: path of the table that lists all of them.
    """

    counts: dict[str, Any]
    table: str

    def lines(self) -> list[str]:
        """See `describe_duplicates`."""
        from images.duplicates import describe_duplicates

        return describe_duplicates(self.counts, self.table)


@dataclass(frozen=True)
class LostNote(Note):
    """Damaged TFRecord files have lost some of their bytes, though not so many that the run stops.

    Attributes:
      losses: what is lost, as `Losses.describe` says it.
      where: the table that lists all of it, as "table PATH", or the data that it is lost of.
    """

    losses: str
    where: str
    text = "{losses}; {where}"


@dataclass(frozen=True)
class AnomalyNote(Note):
    """An anomaly that the ExampleValidator has found.

    Attributes: see `components.example_validator.executor.Anomaly`.
    """

    split: str
    feature: str
    description: str
    text = "Anomaly: {split}: {feature}: {description}"


@dataclass(frozen=True)
class LabelsNote(Note):
    """Labels are probably wrong, or could not be looked at; nothing is said if all of them seem right.

    Attributes:
      images: number of images whose labels were looked at.
      issues: number of labels that are probably wrong.
      reason: why no labels were looked at; "" if some were.
      table: path of the table that lists the issues.
    """

    images: int
    issues: int
    reason: str
    table: str

    def lines(self) -> list[str]:
        """At most one."""
        if self.reason:
            return [f"No labels were looked at (labels.enabled): {self.reason}"]
        return [f"{self.issues:,} of {self.images:,} labels are probably wrong; table {self.table}"] if self.issues else []


@dataclass(frozen=True)
class DivergedNote(Note):
    """Training has diverged. `row` is that epoch's, from the history's file."""

    row: dict[str, str]

    def lines(self) -> list[str]:
        """See `describe_divergence`."""
        from models.history import describe_divergence

        return [describe_divergence(self.row)]


@dataclass(frozen=True)
class NoBaselineNote(Note):
    """There are thresholds on the change, but no served model that the run's model can be compared with."""

    text = "No served model to compare with: thresholds on the change did not apply"


@dataclass(frozen=True)
class NoBaseModelNote(Note):
    """Training was to start from the model that was pushed last, and there is none yet."""

    text = "No pushed model to start from (train.warm_start): training began anew"


@dataclass(frozen=True)
class OtherClassesNote(Note):
    """The model that was served before the run has other classes, and the configuration lets the run replace it.

    Attributes:
      folder: folder of the versions.
      difference: how the classes differ.
    """

    folder: str
    difference: str
    text = "Not compared with the served model in {folder}: its classes are others ({difference})"


@dataclass(frozen=True)
class OtherExamplesNote(Note):
    """The examples do not come from ImageExampleGen, the only ExampleGen that counts images and finds duplicates.

    Attributes:
      folder: the folder of the examples.
    """

    folder: str
    text = "No counts of images, classes, rejected files and duplicates: {folder} is of another ExampleGen"


@dataclass(frozen=True)
class RegisteredNote(Note):
    """The model is in the registry. Attributes: see `pipeline.pushed.registry.Registered`."""

    uri: str
    model: str
    version: str
    text = "Registered with MLflow at {uri}: version {version} of {model}"


@dataclass(frozen=True)
class NotRegisteredNote(Note):
    """The model was pushed, and the registry did not take it.

    Attributes:
      reason: why.
      command: the command that registers it later.
    """

    reason: str
    command: str
    text = "Pushed, but not registered: {reason}; later: {command}"


@dataclass(frozen=True)
class TrackedNote(Note):
    """A tracker has the run.

    Attributes:
      tracker: its name.
      place: where it has it.
    """

    tracker: str
    place: str
    text = "Tracked by {tracker}: {place}"


@dataclass(frozen=True)
class NotTrackedNote(Note):
    """A tracker does not have all of the run, which is none the worse for it.

    Attributes:
      tracker: its name.
      problem: why.
    """

    tracker: str
    problem: str
    text = "Not all of the run is tracked by {tracker}: {problem}"


@dataclass(frozen=True)
class LeftOutNote(Note):
    """Images that a cross-validation has left out, because the data assigns them to the test split."""

    images: int
    text = "{images} images that the data gives as test were left out"


@dataclass(frozen=True)
class RecoveredNote(Note):
    """What a killed run, or a disk, had left of the metadata store was recovered.

    Attributes:
      done: what was done; see `pipeline.records.recovery.recover`.
    """

    done: str
    text = "{done}"


@dataclass(frozen=True)
class MadeAgainNote(Note):
    """What an earlier run had made could not come from the cache, because files are gone or have changed.

    Attributes:
      component: the component that ran again.
      change: the first such file, and what is wrong with it.
    """

    component: str
    change: str
    text = "{component} was run again, for what it had made is not there any more as it was: {change}"
