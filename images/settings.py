"""Settings for listing and reading a data set. They have no defaults; the configuration sets every value."""

from dataclasses import dataclass
from typing import Final, Literal

from images.file_settings import FileSettings, Pages
from models.image_settings import ImageSettings, Store

ColumnType = Literal["text", "integer", "real"]
Duplicates = Literal["report", "group"]
Originals = Literal["auto", "copy", "reference"]
Layout = Literal["auto", "class", "split/class", "class/split", "folder/class"]
MANIFEST: Final = "manifest.csv"  # if no other is asked for


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Names of the columns of a manifest, or of the features of a TFRecord file.

    Attributes:
      path: column of the file's path, relative to the manifest's folder.
      label: column of the class or classes.
      group: column of the group; images of one group stay in one split.
      split: column of the split: train, eval or test.
      types: types of other columns, by name.
    """

    path: str
    label: str
    group: str
    split: str
    types: dict[str, ColumnType]

    @property
    def by_role(self) -> dict[str, str]:
        """The columns with a fixed meaning: role to column name."""
        return {"path": self.path, "label": self.label, "group": self.group, "split": self.split}


@dataclass(frozen=True, kw_only=True)
class SplitShares:
    """Hash buckets per split: a split gets its number of buckets divided by the sum of all.

    Attributes:
      stratify: whether every split gets the same share of each class, as far as groups allow.
    """

    train: int
    eval: int
    test: int
    stratify: bool

    @property
    def buckets(self) -> dict[str, int]:
        """Number of hash buckets by split."""
        return {"train": self.train, "eval": self.eval, "test": self.test}


@dataclass(frozen=True, kw_only=True)
class SpanShares:
    """The spans whose images are used for training.

    Attributes:
      newest: number of spans, the newest, of which the whole train split is used.
      replay: share of the train split of the others that is used, 0..1.
    """

    newest: int
    replay: float


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a data folder was read when a run began; see `dataset.reading`.

    Attributes:
      sources: by the prefix of each span, what it was read from, such as "class folders"; the prefix is "" without spans.
      classes: names of the classes, sorted; empty for data that is not for training.
      groups: whether the data has groups.
      splits: whether the data itself has splits.
    """

    sources: dict[str, str]
    classes: tuple[str, ...]
    groups: bool
    splits: bool


@dataclass(frozen=True, kw_only=True)
class SourceSettings:
    """How the images, labels, groups and splits of a data folder are found.

    Attributes:
      manifest: name of the manifest in the folder.
      corrections: path of a table of labels that stand in for the data's, relative to the data folder; see
        `dataset.corrections`.
      layout: what the names of class folders and of those around them mean; auto: seen from the names.
      columns: columns of the manifest.
      splits: how rows without a split are divided.
      spans: which spans are used for training; None: all.
      labels: the classes to use; None: all.
      multi_label: whether an image can have any number of classes.
      allow_links: whether links that lead out of the folder are followed.
      labelled: false for data that is not for training. Then labels and class folders are optional, splits in the data are
        ignored, and all images go into one split.
      folds: number of folds of a cross-validation; None for the splits train, eval and test.
      reading: how the data was read when the run began, which then holds; None if it is decided by what is there.
    """

    manifest: str
    corrections: str | None
    layout: Layout
    columns: Columns
    splits: SplitShares
    spans: SpanShares | None
    labels: tuple[str, ...] | None
    multi_label: bool
    allow_links: bool
    labelled: bool
    folds: int | None
    reading: Reading | None


@dataclass(frozen=True, kw_only=True)
class IngestionSettings(SourceSettings):
    """Settings of the component ImageExampleGen.

    Attributes:
      pages: see `FileSettings`.
      max_pixels: see `FileSettings`.
      image: the images that the network sees.
      duplicates: with "group", duplicates count as one group and so are in one split.
      near_duplicates: number of bits, of 64, in which the perceptual hashes of near duplicates may differ.
      max_rejected: largest accepted share of unusable files.
      originals: whether the examples of the splits that a Trainer reads hold the image files ("copy"), or the decoded pixels in
        their place ("reference"); "auto": by the size of all files. Those of other splits hold the files.
      store: how decoded pixels are kept: as they are, or as files of the network's size; see `preprocessing.store_image`.
      code: any text; when it changes, the component runs again.
    """

    pages: Pages
    max_pixels: int
    image: ImageSettings
    duplicates: Duplicates
    near_duplicates: int
    max_rejected: float
    originals: Originals
    store: Store
    code: str

    @property
    def files(self) -> FileSettings:
        """How each file is read."""
        return FileSettings(
            max_pixels=self.max_pixels, pages=self.pages, intensity=self.image.intensity, window=self.image.window
        )
