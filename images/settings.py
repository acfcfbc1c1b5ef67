"""How a data set is listed, read and taken in: records without defaults, which are the configuration's to have."""

from dataclasses import dataclass
from typing import Final, Literal

from images.file_settings import FileSettings, Pages
from models.image_settings import ImageSettings

ColumnType = Literal["text", "integer", "real"]
Duplicates = Literal["report", "group"]
MANIFEST: Final = "manifest.csv"  # if no other is asked for


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Names of a manifest's columns, or of a record's features.

    Attributes:
      path: the file, relative to the manifest's folder.
      label: the class, or classes.
      group: what must not be spread over splits.
      split: train, eval or test.
      types: of other columns, by name.
    """

    path: str
    label: str
    group: str
    split: str
    types: dict[str, ColumnType]

    @property
    def by_role(self) -> dict[str, str]:
        """Those that have a meaning of their own."""
        return {"path": self.path, "label": self.label, "group": self.group, "split": self.split}


@dataclass(frozen=True, kw_only=True)
class SplitShares:
    """Hash buckets of each split.

    Attributes:
      stratify: whether every split gets the same share of each class, as far as groups allow.
    """

    train: int
    eval: int
    test: int
    stratify: bool

    @property
    def buckets(self) -> dict[str, int]:
        """By split."""
        return {"train": self.train, "eval": self.eval, "test": self.test}


@dataclass(frozen=True, kw_only=True)
class SourceSettings:
    """How a data folder's images, labels, groups and splits are found.

    Attributes:
      manifest: its name in the folder.
      columns: of the manifest.
      splits: for rows without a split.
      labels: the known classes; None: any.
      multi_label: whether an image can have any number of classes.
      allow_links: whether what leads out of the folder is followed.
      labelled: false for data that is not for training: labels are taken as far as they are there, class folders need not be,
        what the data says of splits does not count, and all goes into one.
      folds: of a cross-validation, instead of train, eval and test; None for these.
    """

    manifest: str
    columns: Columns
    splits: SplitShares
    labels: tuple[str, ...] | None
    multi_label: bool
    allow_links: bool
    labelled: bool
    folds: int | None


@dataclass(frozen=True, kw_only=True)
class IngestionSettings(SourceSettings):
    """Of the component.

    Attributes:
      pages: as of `FileSettings`, and so `max_pixels`.
      max_pixels: see there.
      image: what the network sees.
      duplicates: group: they count as one group and so share a split.
      near_duplicates: bits of 64 in which perceptual hashes of near duplicates may differ.
      max_rejected: share of unusable files that is still accepted.
      code: anything whose change must make the component run again.
    """

    pages: Pages
    max_pixels: int
    image: ImageSettings
    duplicates: Duplicates
    near_duplicates: int
    max_rejected: float
    code: str

    @property
    def files(self) -> FileSettings:
        """How each file is read."""
        return FileSettings(
            max_pixels=self.max_pixels, pages=self.pages, intensity=self.image.intensity, window=self.image.window
        )
