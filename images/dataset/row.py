"""One image of the data set, before it is opened."""

from dataclasses import dataclass, field
from typing import Final

from models import features

LEADS_OUT: Final = "leads out of the data folder; allow with data.allow_links"
LABEL_MISSING: Final = "label missing"
UNLABELLED: Final = "unlabelled"  # the only split of data that is not for training

# What a split may be called in folders, manifests and names of files.
SPLIT_NAMES: Final = {
    "train": "train",
    "training": "train",
    "eval": "eval",
    "val": "eval",
    "valid": "eval",
    "validation": "eval",
    "test": "test",
}

Meta = dict[str, str | int | float]
NO_META: Final[Meta] = {}  # shared, for an empty dict of its own would be a third of a row


@dataclass(frozen=True, slots=True)
class Row:
    """One image that was found, whether it is taken or set aside.

    Attributes:
      path: relative to the data folder, or a URI or an absolute path outside of it.
      labels: names of its classes: one, or of multi-label data any number, sorted and without repeats.
      group: rows that share it are kept in one split; the name where the data has no groups.
      split: train, eval or test; in cross-validation fold_1, fold_2..., or test for what the data gives as such; "" if the
        row is set aside.
      meta: other columns of the manifest; a number that is missing has no entry.
      reason: why the image is set aside without being opened, a `Reason` where it has a detail; "" if it is taken.
      size: bytes of the file, or of the image in the record; 0 if not known.
      record: position of the image in `path`, from 0, if that is a TFRecord file.
      span: number of the part of the data that it came with; 0 of data without spans.
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

    @property
    def name(self) -> str:
        """What the image is called in examples and tables: its path, or "path:record"."""
        return self.path if self.record is None else f"{self.path}:{self.record}"

    def in_split(self, split: str) -> "Row":
        """The same row, assigned to a split; several times as fast as `dataclasses.replace`."""
        return Row(self.path, self.labels, self.group, split, self.meta, self.reason, self.size, self.record, self.span)

    @property
    def label(self) -> str:
        """The classes as a manifest has them: "cat", or of multi-label data "cat|dog" or ""."""
        return features.LABEL_SEPARATOR.join(self.labels)


def split_label(text: str) -> tuple[str, ...]:
    """ "dog | cat|dog" to ("cat", "dog")."""
    return tuple(sorted({part.strip() for part in text.split(features.LABEL_SEPARATOR)} - {""}))
