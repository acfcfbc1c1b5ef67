"""Looks at a data set before it is configured: its classes, splits and columns, and the pixels of a sample of its files."""

import io
import re
import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from PIL import Image

from images.dataset.row import Row
from images.file_settings import FileSettings
from images.files.decoding import ImageFile, RejectedImage, normalise
from images.files.reading import read_files
from models import features

SAMPLE: Final = 120  # files that are opened
_MAX_VALUES: Final = 12  # of a column that is worth slicing by
_THUMBNAIL: Final = (128, 128)
_PNG_BITS: Final = 24  # offset of the number of bits per channel
# A name that begins with a letter and a number, or a number alone, before a separator: p17_003.png, 0042-left.jpg
_GROUP: Final = re.compile(r"([A-Za-z]*\d+)[-_ ]")

# Columns of groups, without case, spaces, hyphens and underscores.
_GROUP_COLUMNS: Final = frozenset(("patient", "patientid", "lesionid", "subjectid", "personid", "caseid"))


@dataclass(frozen=True)
class Survey:
    """What a data set has.

    Attributes:
      classes: images per class, over all splits.
      splits: images per split that the data itself gives.
      divided: images per class of those that have no split or are given as train, which may be divided further.
      columns: columns of the manifest beside the known ones that have few values.
      grouped: whether the data gives groups of several images.
      group_guess: (example, number of groups) if the names of files look like groups; else None.
      group_column: (name, number of values) of a column that looks like groups by its name; else None.
      tried: number of sampled files.
      failed: names of the sampled files that can't be used, each with the reason.
      formats: formats of the sampled files.
      heights: pixels, of the sampled images.
      widths: pixels, of the sampled images.
      channels: largest number of channels that differ from each other.
      bits: largest number of bits per channel, 8 or 16.
      properties: of each sampled image, the raw features that the file alone gives, with its label and group. The size in
        bytes is left out: it follows how much there is to see.
    """

    classes: Counter[str]
    splits: Counter[str]
    divided: Counter[str]
    columns: list[str] = field(default_factory=list)
    grouped: bool = False
    group_guess: tuple[str, int] | None = None
    group_column: tuple[str, int] | None = None
    tried: int = 0
    failed: list[str] = field(default_factory=list)
    formats: Counter[str] = field(default_factory=Counter)
    heights: list[int] = field(default_factory=list)
    widths: list[int] = field(default_factory=list)
    channels: int = 1
    bits: int = 8
    properties: list[dict[str, str | int | float]] = field(default_factory=list)

    @property
    def images(self) -> int:
        """Number of images that can be used, as far as the listing says."""
        return sum(self.splits.values())


def survey(folder: str, rows: Sequence[Row], settings: FileSettings) -> Survey:
    """Looks at all rows and at the files of some of them.

    Args:
      folder: the data folder.
      rows: of `dataset.source.find_rows`, in its order, which is random.
      settings: how files are read.
    """
    used = [row for row in rows if not row.reason]
    classes = Counter(label for row in used for label in row.labels)
    splits = Counter(row.split for row in used)
    images: list[ImageFile] = []
    properties: list[dict[str, str | int | float]] = []
    failed: list[str] = []
    sampled = used[:SAMPLE]
    for row, content in zip(sampled, read_files(folder, sampled), strict=True):
        try:
            if isinstance(content, RejectedImage):
                raise content
            images.append(normalise(content, row.path, settings)[0])
            properties.append(_properties(row, images[-1]))
        except RejectedImage as reason:
            failed.append(f"{row.name} ({reason})")
    return Survey(
        classes=classes,
        splits=splits,
        divided=Counter(label for row in used if row.split in ("", "train") for label in row.labels),
        columns=_columns(used),
        grouped=any(row.group != row.name for row in used),
        group_guess=_guess_groups(used),
        group_column=_group_column(used),
        tried=len(sampled),
        failed=failed,
        formats=Counter(image.original_format for image in images),
        heights=[image.height for image in images],
        widths=[image.width for image in images],
        channels=max((_channels(image) for image in images), default=1),
        bits=max((_bits(image) for image in images), default=8),
        properties=properties,
    )


def _properties(row: Row, image: ImageFile) -> dict[str, str | int | float]:
    return {
        features.FILENAME: row.name,
        features.LABEL: row.label,
        features.GROUP: row.group,
        features.FORMAT: image.format,
        features.HEIGHT: image.height,
        features.WIDTH: image.width,
        features.ASPECT: image.width / image.height,
        features.CHANNELS: image.channels,
    }


def _columns(rows: Sequence[Row]) -> list[str]:
    """Columns that all rows have, with two values to `_MAX_VALUES`, without those that name groups."""
    first = rows[0].meta if rows else {}
    values: dict[str, set[str | int | float]] = {column: set() for column in first if not _names_groups(column)}
    for row in rows:
        for column in list(values):
            if column not in row.meta:
                del values[column]
            elif len(values[column]) <= _MAX_VALUES:
                values[column].add(row.meta[column])
    return [column for column, found in values.items() if 2 <= len(found) <= _MAX_VALUES]


def _names_groups(column: str) -> bool:
    return re.sub(r"[ _-]", "", column.casefold()) in _GROUP_COLUMNS


def _group_column(rows: Sequence[Row]) -> tuple[str, int] | None:
    """The column whose name says that images of one value belong together, and its number of values."""
    if any(row.group != row.name for row in rows):
        return None
    for column in filter(_names_groups, rows[0].meta if rows else ()):
        if 2 <= len(values := {row.meta.get(column, "") for row in rows}) < len(rows):
            return column, len(values)
    return None


def _guess_groups(rows: Sequence[Row]) -> tuple[str, int] | None:
    """A beginning that names of several files share, and the number of such beginnings, if nearly all names have one."""
    if any(row.group != row.name for row in rows):
        return None
    found: Counter[str] = Counter()
    for row in rows:
        if match := _GROUP.match(row.path.rpartition("/")[2]):
            found[match[1]] += 1
    if found.total() < 0.9 * len(rows) or not 2 <= len(found) <= len(rows) / 2:
        return None
    return found.most_common(1)[0][0], len(found)


def _channels(image: ImageFile) -> int:
    """1 if all colours of the image are grey, else 3."""
    if image.channels < 3:
        return 1
    with Image.open(io.BytesIO(image.encoded)) as file:
        file.draft("RGB", _THUMBNAIL)  # JPEG files are decoded at a fraction of their size
        pixels = np.asarray(file.convert("RGB"))
    return 3 if (pixels != pixels[..., :1]).any() else 1


def _bits(image: ImageFile) -> int:
    return struct.unpack_from(">B", image.encoded, _PNG_BITS)[0] if image.format == "png" else 8
