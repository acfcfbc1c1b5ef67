"""What a person should know about a run besides its figures: records with fields, which become text where they are shown."""

from dataclasses import dataclass
from typing import Any, TypeAlias


@dataclass(frozen=True)
class DataNote:
    """How the data is read, what was left out or skipped: a line of `Found.notes`."""

    line: str

    def lines(self) -> list[str]:
        """One line."""
        return [self.line]


@dataclass(frozen=True)
class DuplicatesNote:
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
class LostNote:
    """Damaged TFRecord files have lost some of their bytes, though not so many that the run stops.

    Attributes:
      losses: what is lost, as `Losses.describe` says it.
      where: the table that lists all of it, as "table PATH", or the data that it is lost of.
    """

    losses: str
    where: str

    def lines(self) -> list[str]:
        """One line."""
        return [f"{self.losses}; {self.where}"]


@dataclass(frozen=True)
class AnomalyNote:
    """An anomaly that the ExampleValidator has found.

    Attributes: see `components.example_validator.executor.Anomaly`.
    """

    split: str
    feature: str
    description: str

    def lines(self) -> list[str]:
        """One line."""
        return [f"Anomaly: {self.split}: {self.feature}: {self.description}"]


@dataclass(frozen=True)
class DivergedNote:
    """Training has diverged. `row` is that epoch's, from the history's file."""

    row: dict[str, str]

    def lines(self) -> list[str]:
        """See `describe_divergence`."""
        from models.history import describe_divergence

        return [describe_divergence(self.row)]


@dataclass(frozen=True)
class NoBaselineNote:
    """There are thresholds on the change, but no served model that the run's model can be compared with."""

    def lines(self) -> list[str]:
        """One line."""
        return ["No served model to compare with: thresholds on the change did not apply"]


@dataclass(frozen=True)
class OtherClassesNote:
    """The model that was served before the run has other classes, and the configuration lets the run replace it.

    Attributes:
      folder: folder of the versions.
      difference: how the classes differ.
    """

    folder: str
    difference: str

    def lines(self) -> list[str]:
        """One line."""
        return [f"Not compared with the served model in {self.folder}: its classes are others ({self.difference})"]


@dataclass(frozen=True)
class OtherExamplesNote:
    """The examples do not come from ImageExampleGen, the only ExampleGen that counts images and finds duplicates.

    Attributes:
      folder: the folder of the examples.
    """

    folder: str

    def lines(self) -> list[str]:
        """One line."""
        return [f"No counts of images, classes, rejected files and duplicates: {self.folder} is of another ExampleGen"]


@dataclass(frozen=True)
class RegisteredNote:
    """The model is in the registry. Attributes: see `pipeline.pushed.registry.Registered`."""

    uri: str
    model: str
    version: str

    def lines(self) -> list[str]:
        """One line."""
        return [f"Registered with MLflow at {self.uri}: version {self.version} of {self.model}"]


@dataclass(frozen=True)
class NotRegisteredNote:
    """The model was pushed, and the registry did not take it.

    Attributes:
      reason: why.
      command: the command that registers it later.
    """

    reason: str
    command: str

    def lines(self) -> list[str]:
        """One line."""
        return [f"Pushed, but not registered: {self.reason}; later: {self.command}"]


@dataclass(frozen=True)
class LeftOutNote:
    """Images that a cross-validation has left out, because the data assigns them to the test split."""

    images: int

    def lines(self) -> list[str]:
        """One line."""
        return [f"{self.images} images that the data gives as test were left out"]


@dataclass(frozen=True)
class RecoveredNote:
    """What a killed run, or a disk, had left of the metadata store was recovered.

    Attributes:
      done: what was done; see `pipeline.records.recovery.recover`.
    """

    done: str

    def lines(self) -> list[str]:
        """One line."""
        return [self.done]


@dataclass(frozen=True)
class MadeAgainNote:
    """What an earlier run had made could not come from the cache, because files are gone or have changed.

    Attributes:
      component: the component that ran again.
      change: the first such file, and what is wrong with it.
    """

    component: str
    change: str

    def lines(self) -> list[str]:
        """One line."""
        return [f"{self.component} was run again, for what it had made is not there any more as it was: {self.change}"]


Note: TypeAlias = (
    DataNote
    | DuplicatesNote
    | LostNote
    | AnomalyNote
    | DivergedNote
    | NoBaselineNote
    | OtherClassesNote
    | OtherExamplesNote
    | RegisteredNote
    | NotRegisteredNote
    | LeftOutNote
    | RecoveredNote
    | MadeAgainNote
)
