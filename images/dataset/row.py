"""A row: one image of a data set, before it is opened."""

import re
from dataclasses import dataclass, field
from typing import Any, Final

from models import features

LEADS_OUT: Final = "leads out of the data folder; allow with data.allow_links"
LABEL_MISSING: Final = "label missing"
LOST: Final = "lost"  # kind of the reason of a row that stands for a stretch of a damaged TFRecord file
UNLABELLED: Final = "unlabelled"  # the only split of data that is not for training

# Names that a split may have in folders, manifests and file names; the private test of a Kaggle competition is the final one.
SPLIT_NAMES: Final = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("eval", "val", "valid", "validation", "dev", "publictest"), "eval"),
    **dict.fromkeys(("test", "testing", "tst", "privatetest"), "test"),
}

Meta = dict[str, str | int | float]
NO_META: Final[Meta] = {}  # shared, as an empty dict would take a third of a row's memory


@dataclass(frozen=True, slots=True)
class Row:
    """One image that was found, used or set aside.

    Attributes:
      path: relative to the data folder, or a URI or an absolute path outside of it.
      labels: names of the classes: one, or for multi-label data any number, sorted and without repeats.
      group: rows of one group are in one split; if the data has no groups, this is the row's name.
      split: train, eval or test; in cross-validation fold_1, fold_2..., or test if the data gives that; "" if the row is set
        aside, has no split yet, or is of an old span that training leaves out.
      meta: other columns of the manifest; a missing number has no entry.
      reason: why the image is set aside without being opened, a `Reason` if there is a detail; "" if it is used.
      size: bytes of the file, or of the image in the record; 0 if not known.
      record: position of the image in the TFRecord or Parquet file `path`, from 0; None if `path` is an image file.
      span: number of the span that the image came with; 0 for data without spans.
      lost_records: about how many records are lost, if the row stands for a stretch of a damaged TFRecord file; else 0.
    """

    path: str
    labels: tuple[str, ...]
    group: str
    split: str
    meta: Meta = field(default_factory=lambda: NO_META)
    reason: str = ""
    size: int = 0
    record: int | None = None
    span: int = 0
    lost_records: int = 0

    @property
    def name(self) -> str:
        """Name of the image in examples and tables: its path, or "path:record"."""
        return self.path if self.record is None else f"{self.path}:{self.record}"

    def in_split(self, split: str) -> "Row":
        """A copy of the row with another split; several times as fast as `dataclasses.replace`."""
        return Row(
            self.path,
            self.labels,
            self.group,
            split,
            self.meta,
            self.reason,
            self.size,
            self.record,
            self.span,
            self.lost_records,
        )

    @property
    def label(self) -> str:
        """The classes as written in a manifest: "cat", or for multi-label data "cat|dog" or ""."""
        return features.join_labels(self.labels)


def split_page(name: str) -> tuple[str, int]:
    """The name of a file or record, and the page of it, from 0, that the name of an image stands for, such as "scan.tif#2"."""
    file, number, page = name.rpartition("#")
    return (file, int(page)) if number and re.fullmatch(r"\d+", page) else (name, 0)


def split_label(text: str) -> tuple[str, ...]:
    """Splits the text of several labels, for example "dog | cat|dog" to ("cat", "dog")."""
    return tuple(sorted({part.strip() for part in features.split_labels(text, multi_label=True)} - {""}))


def label_text(value: Any) -> str:
    """The class that a value of a table stands for: "1" for 1 and 1.0, "cat" for " cat ", "" for None and NaN."""
    if value is None or value != value:
        return ""
    return str(int(value) if isinstance(value, float) and value.is_integer() else value).strip()
