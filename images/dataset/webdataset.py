"""Reads a data set from WebDataset's tar files: beside each image, `KEY.jpg`, is a file with its class, `KEY.cls`."""

import re
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Final

from base.errors import UserError, shorten
from base.inputs import parse_json_object
from images.dataset import listing
from images.dataset.archives import without_suffix
from images.dataset.columns import guess_columns
from images.dataset.listing import File
from images.dataset.row import LABEL_MISSING, Row, label_text, split_label
from images.dataset.shards import splits_of_shards
from images.dataset.tree import DOCUMENTS
from images.settings import SourceSettings

_IMAGES: Final = frozenset(
    ("jpg", "jpeg", "png", "webp", "ppm", "pgm", "tif", "tiff", "bmp", "gif", "avif", "jp2", "heic", "dcm")
)
_NUMBERED: Final = re.compile(r"(?:.*[-_/])?(\d{4,})\.(?:tar|tgz|tar\.gz)/[^/]+", re.IGNORECASE | re.DOTALL)
_MAX_JSON: Final = 2**20  # bytes


def has_samples(paths: Collection[str], settings: SourceSettings) -> bool:
    """Whether there are files with classes, or all images are in numbered tar files that have no folders inside."""
    if any(path.lower().endswith(".cls") for path in paths):
        return True
    if settings.layout != "auto":
        return False
    shards = [_NUMBERED.fullmatch(path) for path in paths if not path.lower().endswith(DOCUMENTS)]
    return all(shards) and any(shard[1].startswith("0") for shard in shards if shard)


def read_samples(folder: str, files: dict[str, File], settings: SourceSettings) -> list[Row]:
    """One row for each image. The split is a word in the tar file's name or folder, if that is so for all.

    Without files with classes, the classes are those in the `.json` file of each image. Images of one sample are one group.
    An image such as `KEY.seg.png` beside `KEY.jpg` is left out.

    Args:
      folder: the data folder.
      files: the files of the folder and of the archives in it, by path.
      settings: settings of the data set.

    Raises:
      UserError: there are no classes, or one can't be read, or the same split is in two folders.
    """
    images = _images(files)
    kind, key = _find_classes(folder, files, settings) if settings.labelled else (".cls", "")
    classes = _Samples([path for path in files if path.lower().endswith(kind)])
    samples = {path: classes.of(path) for path in images}
    sizes = Counter(samples.values())
    shards = {path: without_suffix(path) for path in images}
    splits = splits_of_shards(folder, set(shards.values())) if settings.labelled else dict.fromkeys(shards.values(), "")
    rows = []
    for path in images:
        sample = samples[path]
        text = _read_class(folder, sample, key) if settings.labelled and sample in files else ""
        labels = split_label(text) if settings.multi_label else ((text,) if text else ())
        reason = files[path].reason or ("" if text or not settings.labelled else LABEL_MISSING)
        group = sample if sizes[sample] > 1 else path
        rows.append(Row(path, labels, group, splits[shards[path]], reason=reason, size=files[path].size))
    return rows


class _Samples:
    """Which file with a class an image belongs to."""

    def __init__(self, paths: list[str]) -> None:
        self._exact = {_stem(path): path for path in paths}
        self._by_key = {_key(path): path for path in paths}

    def of(self, path: str) -> str:
        """The file with the class: a.1.cls for a.1.png, or a.target.cls for a.input.png; the image's stem if there is none."""
        stem = _stem(path)
        return self._exact.get(stem) or self._by_key.get(_key(path)) or stem


def _images(files: Mapping[str, File]) -> list[str]:
    """The images, without those such as a.seg.png beside a.jpg."""
    paths = [path for path in files if path.rpartition(".")[2].lower() in _IMAGES]
    stems = {_stem(path) for path in paths}
    return [path for path in paths if _key(path) == _stem(path) or _key(path) not in stems]


def _stem(path: str) -> str:
    """a.tar/000017.seg for a.tar/000017.seg.png"""
    return path.rpartition(".")[0]


def _key(path: str) -> str:
    """a.tar/000017 for a.tar/000017.seg.png"""
    folder, slash, name = path.rpartition("/")
    return f"{folder}{slash}{name.partition('.')[0]}"


def _find_classes(folder: str, files: Mapping[str, File], settings: SourceSettings) -> tuple[str, str]:
    """The suffix of the files with classes and, if they are JSON, the key of the class."""
    if any(path.lower().endswith(".cls") for path in files):
        return ".cls", ""
    images = {_stem(path) for path in _images(files)}
    first = next((path for path in files if path.lower().endswith(".json") and _stem(path) in images), None)
    keys = list(_read_json(folder, first)) if first else []
    key = guess_columns(f"{folder}/{first}", keys, settings.columns).label
    if key in keys:
        return ".json", key
    has = f"; the json files have {shorten(', '.join(keys))}: set data.columns.label if one of these is it" if keys else ""
    raise UserError(
        f"{folder}: numbered tar files are shards of a WebDataset, and these have no classes{has}\n"
        f"Put KEY.cls with the class beside each KEY.jpg, or set data.layout to class if each tar file is one class"
    )


def _read_class(folder: str, path: str, key: str) -> str:
    if key:
        return label_text(_read_json(folder, path).get(key))
    return _read(folder, path, 1024).strip()


def _read_json(folder: str, path: str) -> dict[str, object]:
    return parse_json_object(_read(folder, path, _MAX_JSON), f"{folder}/{path}", "mend or remove it")


def _read(folder: str, path: str, most: int) -> str:
    try:
        with listing.open_file(listing.join(folder, path)) as file:
            return file.read(most).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{folder}/{path}: can't be read ({error}); write the class as text") from error
