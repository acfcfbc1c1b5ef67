"""What a person should know of a run beside its figures: records with fields, which become text where they are shown."""

from dataclasses import dataclass
from typing import Any, TypeAlias


@dataclass(frozen=True)
class DuplicatesNote:
    """Duplicates among the images; of harmless ones there is nothing to tell.

    Attributes:
      counts: as `write_duplicates` gives them, with those of `group_duplicates` where these are grouped.
      table: where all of them are listed.
    """

    counts: dict[str, Any]
    table: str

    def lines(self) -> list[str]:
        """See `describe_duplicates`."""
        from images.duplicates import describe_duplicates

        return describe_duplicates(self.counts, self.table)


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
class NoBaselineNote:
    """There are thresholds on the change, and no earlier model."""

    def lines(self) -> list[str]:
        """One line."""
        return ["No earlier blessed model to compare with: thresholds on the change did not apply"]


@dataclass(frozen=True)
class OtherExamplesNote:
    """The examples are not of ImageExampleGen, which alone counts images and finds duplicates.

    Attributes:
      folder: of the examples.
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
      command: that registers it later.
    """

    reason: str
    command: str

    def lines(self) -> list[str]:
        """One line."""
        return [f"Pushed, but not registered: {self.reason}; later: {self.command}"]


@dataclass(frozen=True)
class LeftOutNote:
    """Images that a cross-validation has left out, for the data gives them as test."""

    images: int

    def lines(self) -> list[str]:
        """One line."""
        return [f"{self.images} images that the data gives as test were left out"]


Note: TypeAlias = (
    DuplicatesNote | AnomalyNote | NoBaselineNote | OtherExamplesNote | RegisteredNote | NotRegisteredNote | LeftOutNote
)
