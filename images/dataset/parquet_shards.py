"""Reads a data set from Parquet files that hold the images themselves, as Hugging Face's datasets are published."""

import itertools
import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

import pyarrow as pa
from pyarrow import parquet

from base.errors import UserError
from images.dataset import listing
from images.dataset.columns import guess_columns
from images.dataset.listing import File
from images.dataset.row import Row, label_text, split_label
from images.dataset.shards import splits_of_shards
from images.dataset.tree import DOCUMENTS
from images.reason import Reason
from images.settings import SourceSettings
from models import features

_BATCH: Final = 64  # images in memory at a time
_LABELS: Final = 1024  # labels in memory at a time, as Parquet has them
_MAX_PREVIEWS: Final = 3  # images beside the Parquet files
_MAX_ROWS: Final = 2**27  # a few bytes of a Parquet file can stand for many rows


def find_shards(folder: str, files: dict[str, File]) -> list[str]:
    """The Parquet files with images, if there are no other files but documents and a few at the top, as previews; else none."""
    paths = [path for path in files if path.lower().endswith(".parquet")]
    others = [path for path in files if not path.lower().endswith(DOCUMENTS)]
    if not paths or len(others) > _MAX_PREVIEWS or any("/" in path for path in others):
        return []
    return [path for path in paths if not files[path].reason and _image_column(_open(folder, path).schema_arrow)]


def read_shards(folder: str, paths: list[str], settings: SourceSettings) -> list[Row]:
    """Reads the labels of all images; the split is a word in the file's name or folder, if that is so for all.

    Args:
      folder: the data folder.
      paths: paths of the files in the folder.
      settings: settings of the data set.

    Returns:
      One row per row of the files. Its `record` is its position in its file. Rows with an unknown class number are set aside.

    Raises:
      UserError: a file can't be read, there is no column for the class, or the same split is in two folders.
    """
    splits = splits_of_shards(folder, paths) if settings.labelled else dict.fromkeys(paths, "")
    rows: list[Row] = []
    for path in paths:
        rows += _rows_of_file(folder, path, splits[path], settings)
    return rows


def _rows_of_file(folder: str, path: str, split: str, settings: SourceSettings) -> Iterator[Row]:
    file = _open(folder, path)
    column = guess_columns(path, file.schema_arrow.names, settings.columns).label
    if column not in file.schema_arrow.names and settings.labelled:
        raise UserError(f"{folder}/{path}: no column {column} for the label; set data.columns.label to the right one")
    metadata = file.metadata
    size = sum(metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups))
    size //= max(metadata.num_rows, 1)
    names = _class_names(file.schema_arrow, column)
    known: dict[tuple[str, ...], tuple[str, ...]] = {}  # one tuple per class, shared by its rows
    for number, value in enumerate(_values(folder, path, file, column)):
        labels: tuple[str, ...] = ()
        reason = ""
        try:
            labels = _labels(value, names, settings.multi_label)
            labels = known.setdefault(labels, labels)
        except ValueError as error:
            reason = error.args[0] if settings.labelled else ""
        yield Row(path, labels, f"{path}:{number}", split, reason=reason, size=size, record=number)


def _values(folder: str, path: str, file: parquet.ParquetFile, column: str) -> Iterator[Any]:
    """The values of a column, row by row; None if there is no such column."""
    if column not in file.schema_arrow.names:
        yield from itertools.repeat(None, file.metadata.num_rows)
        return
    try:
        for batch in file.iter_batches(_LABELS, columns=[column]):
            yield from batch.column(0).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{folder}/{path}: can't be read ({error}); copy the file again") from error


def read_images(folder: str, path: str, numbers: Iterable[int]) -> Iterator[tuple[bytes, str]]:
    """Reads encoded images from one file, in one pass if the numbers are in ascending order.

    Yields:
      For each number a pair: the image and "", or b"" and the reason why there is no image.
    """
    images: Iterator[bytes] = iter(())
    position, content = -1, b""
    for number in numbers:
        if number < position or position == -1:
            images, position = _images(folder, path), -1
        try:
            while position < number:
                content = next(images)
                position += 1
            yield content, "" if content else "the row has no image"
        except StopIteration:
            yield b"", "the file has no such row any more"
        except (pa.ArrowException, OSError, UserError) as error:
            yield b"", Reason("unreadable", str(error))


def _images(folder: str, path: str) -> Iterator[bytes]:
    file = _open(folder, path)
    for batch in file.iter_batches(_BATCH, columns=[_image_column(file.schema_arrow)]):
        for value in batch.column(0).to_pylist():
            yield (value.get("bytes") if isinstance(value, dict) else value) or b""


def _open(folder: str, path: str) -> parquet.ParquetFile:
    place = listing.join(folder, path)
    try:
        file = parquet.ParquetFile(listing.open_file(place))
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{place}: no Parquet file that can be read ({error})") from error
    if file.metadata.num_rows > _MAX_ROWS:
        raise UserError(f"{place}: {file.metadata.num_rows:,} rows, {_MAX_ROWS:,} are the most; split the file")
    return file


def _image_column(schema: pa.Schema) -> str:
    """The first column of bytes, or of bytes and path; "" if there is none."""
    for field in schema:
        inner = field.type.field("bytes").type if pa.types.is_struct(field.type) and "bytes" in field.type.names else field.type
        if pa.types.is_binary(inner) or pa.types.is_large_binary(inner):
            return field.name
    return ""


def _class_names(schema: pa.Schema, column: str) -> list[str]:
    """The names of the classes by number, as Hugging Face's library writes them into the file; empty if there are none."""
    try:
        feature = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"][column]
        return (feature.get("names") or feature.get("feature", {}).get("names")) or []
    except (KeyError, ValueError, TypeError, AttributeError):
        return []


def _labels(value: Any, names: list[str], multi_label: bool) -> tuple[str, ...]:
    """The classes of a row; raises ValueError if it has a number that no class has."""
    values = value if isinstance(value, list) else [value]
    texts = [_label(item, names) for item in values if item is not None and item != -1]
    if not multi_label:
        text = features.join_labels(texts)
        return (text,) if text else ()
    if names or isinstance(value, list):
        return tuple(sorted({text for text in texts if text}))
    return split_label(features.join_labels(texts))  # as in a manifest


def _label(value: Any, names: list[str]) -> str:
    if not names or not isinstance(value, int):
        return label_text(value)
    if not 0 <= value < len(names):
        raise ValueError(f"no class has the number {value}")
    return names[value]
