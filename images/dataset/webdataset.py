"""Reads a data set from WebDataset's tar files: beside each image, `KEY.jpg`, is a file with its class, `KEY.cls`."""

from collections.abc import Iterable
from typing import Final

from base.errors import UserError
from images.dataset import listing
from images.dataset.archives import without_suffix
from images.dataset.listing import File
from images.dataset.row import LABEL_MISSING, Row, split_label
from images.dataset.tree import split_of_shard
from images.settings import SourceSettings

_IMAGES: Final = frozenset(("jpg", "jpeg", "png", "webp", "ppm", "pgm", "tif", "tiff", "bmp", "gif"))


def has_samples(paths: Iterable[str]) -> bool:
    """Whether there are files with classes."""
    return any(path.endswith(".cls") for path in paths)


def read_samples(folder: str, files: dict[str, File], settings: SourceSettings) -> list[Row]:
    """One row for each image; the split is a word in the tar file's name, if that is so in all names.

    Args:
      folder: the data folder.
      files: the files of the folder and of the archives in it, by path.
      settings: settings of the data set.

    Raises:
      UserError: a class can't be read.
    """
    keys = {path: _key(path) for path in files}
    classes = {key: path for path, (key, kind) in keys.items() if kind == "cls"}
    images = {path: key for path, (key, kind) in keys.items() if kind in _IMAGES}
    splits = {path: split_of_shard(without_suffix(path)) for path in images}
    if not settings.labelled or not all(splits.values()) or len(set(splits.values())) < 2:
        splits = dict.fromkeys(images, "")
    rows = []
    for path, key in images.items():
        text = _read_class(folder, classes[key]) if key in classes else ""
        labels = split_label(text) if settings.multi_label else ((text,) if text else ())
        reason = files[path].reason or ("" if text or not settings.labelled else LABEL_MISSING)
        rows.append(Row(path, labels, path, "" if reason else splits[path], reason=reason, size=files[path].size))
    return rows


def _key(path: str) -> tuple[str, str]:
    """The sample that a file belongs to, and its kind: ("a.tar/000017", "jpg")."""
    folder, slash, name = path.rpartition("/")
    key, _, kind = name.partition(".")
    return f"{folder}{slash}{key}", kind.lower()


def _read_class(folder: str, path: str) -> str:
    try:
        with listing.open_file(listing.join(folder, path)) as file:
            return file.read(1024).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{folder}/{path}: can't be read ({error}); write the class as text") from error
