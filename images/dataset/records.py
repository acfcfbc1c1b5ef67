"""Reads a data set from TFRecord files of tf.Example, also from a prepared TensorFlow Datasets directory.

Needs neither TensorFlow nor tensorflow_datasets.
"""

import gzip
import json
import posixpath
import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, BinaryIO, Final

import google_crc32c
import pyarrow as pa
from apache_beam.io.filesystems import FileSystems

from base.errors import UserError
from images.dataset import listing
from images.dataset.listing import File
from images.dataset.prepared import FEATURES_FILE, INFO_FILE
from images.dataset.row import NO_META, SPLIT_NAMES, Meta, Row, split_label
from images.reason import Reason
from images.settings import SourceSettings
from models import features

_RECORD_FILE: Final = re.compile(r"(\.tfrecords?|\.tfrec|\.tfr|\.record|-\d{5}-of-\d{5})(\.(gz|gzip|zlib|z))?$", re.IGNORECASE)
_TFDS_SPLIT: Final = re.compile(r"-([^-]+)\.tfrecord-\d{5}-of-\d{5}$")
_LONGEST: Final = 2**31  # bytes; no tf.Example is longer
_PIECE: Final = 2**24  # bytes
_GZIP: Final = b"\x1f\x8b"


@dataclass(frozen=True)
class _Layout:
    """The features in which records hold the image and the label.

    Attributes:
      images: features that may hold the encoded image; the first one that a record has is used.
      labels: features that may hold the label or labels, as text or number; the first one that a record has is used.
      names: names of the classes by number; None: numbers are used as names.
    """

    images: tuple[str, ...]
    labels: tuple[str, ...]
    names: tuple[str, ...] | None = None


def is_record_file(path: str) -> bool:
    """Whether the name is one of a TFRecord file, such as `x.tfrecord`, `x.tfrec.gz` or `x-00000-of-00010`."""
    return _RECORD_FILE.search(path) is not None


def read_record_files(folder: str, files: dict[str, File], settings: SourceSettings, home: str | None) -> list[Row]:
    """Reads labels, groups and splits from all TFRecord files of a data folder.

    The split comes from the feature that `data.columns.split` names. Without it, the split comes from the file's name, such
    as `train-00000-of-00010`, `digits-test.tfrecord` or `validation/x.tfrecord`, if all names have a split and there are at
    least two different splits.

    Args:
      folder: the data folder.
      files: the files of the folder, by path, at least one of them a TFRecord file.
      settings: settings of the data set. If it is `labelled`, the features in `columns.types` become the meta of the rows.
      home: the TensorFlow Datasets directory in the folder, of whose files alone the data consists; None if there is none.

    Returns:
      One row per record. Damaged records, records without an image or with an unknown class number, and files that are not
      TFRecord files are set aside. In a TensorFlow Datasets directory, splits other than train, validation and test are
      skipped.

    Raises:
      UserError: the description of the directory, or a value, can't be used.
    """
    prepared = home is not None
    if home:
        files = {path: file for path, file in files.items() if path.startswith(f"{home}/")}
    labelled = settings.labelled
    layout = _tfds_layout(listing.join(folder, home or ""), labelled) if prepared else _layout(settings.columns.label)
    paths = [path for path in files if is_record_file(path)]
    splits = {path: split for path in paths if (split := _tfds_split(path) if prepared else _split_of(path))}
    if prepared and labelled:
        paths = [path for path in paths if path in splits]
    if not labelled or len(splits) < len(paths) or len(set(splits.values())) < 2:
        splits = {}
    rows = []
    for path, file in files.items():
        if path in paths or is_record_file(path):
            continue
        if not (prepared and path.endswith((".json", ".txt"))):
            rows.append(Row(path, (), path, "", reason=file.reason or "not a TFRecord file", size=file.size))
    for path in paths:
        if files[path].reason:
            rows.append(Row(path, (), path, "", reason=files[path].reason))
        else:
            rows += _rows_of_file(folder, path, splits.get(path, ""), layout, settings)
    if any(not row.split for row in rows if not row.reason):
        rows = [replace(row, split="") for row in rows]
    return rows


def read_images(folder: str, path: str, numbers: Iterable[int]) -> Iterator[tuple[bytes, str]]:
    """Reads encoded images from one TFRecord file, in one pass if the numbers are in ascending order.

    Args:
      folder: the data folder.
      path: path of the TFRecord file in the folder.
      numbers: positions of the records, from 0.

    Yields:
      For each number a pair: the image and "", or b"" and the reason why there is no image.
    """
    home = listing.join(folder, posixpath.dirname(path))
    prepared = all(_exists(home, name) for name in (INFO_FILE, FEATURES_FILE))
    layout = _tfds_layout(home, labelled=False) if prepared else _layout("")
    records: Iterator[tuple[int, bytes, str]] = iter(())
    position, record, reason = -1, b"", ""
    for number in numbers:
        if number < position or position == -1:
            records = _enumerate_records(listing.join(folder, path))
            position = -1
        while position < number:
            try:
                position, record, reason = next(records)
            except StopIteration:
                position, record, reason = number, b"", reason or "the file has no such record any more"
        try:
            yield (b"", reason) if reason else (_image(_parse(record), layout), "")
        except ValueError as error:
            yield b"", error.args[0]


def _rows_of_file(folder: str, path: str, split: str, layout: _Layout, settings: SourceSettings) -> Iterator[Row]:
    for number, record, reason in _enumerate_records(listing.join(folder, path)):
        row = Row(path, (), "", split, record=number)
        if not reason:
            try:
                example = _parse(record)
                row = _fill_row(row, example, layout, settings)
            except ValueError as error:
                reason = error.args[0]
        yield replace(row, group=row.group or row.name, split="" if reason else row.split, reason=reason)


def _fill_row(row: Row, example: pa.RecordBatch, layout: _Layout, settings: SourceSettings) -> Row:
    columns = settings.columns
    size = len(_image_scalar(example, layout).as_buffer())
    labelled = settings.labelled
    texts = _labels(example, layout, settings)
    if settings.multi_label:
        labels = split_label(features.LABEL_SEPARATOR.join(texts))
    else:
        labels = (features.LABEL_SEPARATOR.join(texts),) if texts else ()
    given = "".join(_texts(example, columns.split)) if labelled else ""
    if given and given.lower() not in SPLIT_NAMES:
        raise UserError(f"{row.name} has the split {given}; use train, eval or test")
    group = "".join(_texts(example, columns.group))
    meta: Meta = {}
    for name, kind in columns.types.items() if labelled else ():
        for value in _values(example, name)[:1]:
            try:
                text = _to_text(value)
                meta[name] = text if kind == "text" else int(text) if kind == "integer" else float(text)
            except ValueError as error:
                raise UserError(f"{row.name} has {value!r} as {name}, which is no {kind}; change data.columns.types") from error
    split = SPLIT_NAMES.get(given.lower(), row.split)
    return replace(row, labels=labels, group=group, split=split, meta=meta or NO_META, size=size)


# Records


def _enumerate_records(path: str) -> Iterator[tuple[int, bytes, str]]:
    """Yields (number, record, "") or (number, b"", reason); ends after damage that can't be skipped."""
    number = -1
    try:
        with listing.open_file(path) as raw:
            for number, (record, reason) in enumerate(_read_records(_decompress(raw))):
                yield number, record, reason
    except (OSError, EOFError, zlib.error) as error:
        yield number + 1, b"", Reason("unreadable from here on", str(error))


def _decompress(raw: BinaryIO) -> BinaryIO:
    """Decompresses gzip, which is detected by the content: TensorFlow's writers do not set a suffix."""
    header = raw.read(12)
    raw.seek(0)
    if header.startswith(_GZIP) and not _is_length(header):
        return gzip.GzipFile(fileobj=raw)  # type: ignore[return-value]
    return raw


def _is_length(header: bytes) -> bool:
    return len(header) == 12 and struct.unpack("<I", header[8:])[0] == _masked_crc(header[:8])


def _masked_crc(content: bytes) -> int:
    crc = google_crc32c.value(content)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _read_records(file: BinaryIO) -> Iterator[tuple[bytes, str]]:
    """Yields (record, "") or (b"", reason).

    The format is that of tensorflow/core/lib/io/record_writer.h: length, its checksum, bytes, their checksum.
    """
    while header := file.read(12):
        if not _is_length(header):
            yield b"", Reason("damaged from here on", "no TFRecord")
            return
        (length,) = struct.unpack("<Q", header[:8])
        content = _read_bytes(file, length + 4) if length < _LONGEST else b""
        if len(content) < length + 4:
            yield b"", Reason("damaged from here on", "truncated")
            return
        record = content[:-4]
        damaged = struct.unpack("<I", content[-4:])[0] != _masked_crc(record)
        yield (b"", Reason("damaged", "wrong checksum")) if damaged else (record, "")


def _read_bytes(file: BinaryIO, count: int) -> bytes:
    """Reads in pieces, because the length may be wrong, and a single read would allocate memory for all of it."""
    pieces = []
    while count and (piece := file.read(min(count, _PIECE))):
        pieces.append(piece)
        count -= len(piece)
    return b"".join(pieces)


# tf.Example


@cache
def _decoder() -> Any:
    from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder

    return ExamplesToRecordBatchDecoder()


def _parse(record: bytes) -> pa.RecordBatch:
    """A tf.Example as a table with one row and one column of lists per feature; raises ValueError if it is damaged."""
    try:
        return _decoder().DecodeBatch([record])
    except RuntimeError as error:
        raise ValueError(Reason("damaged", "no tf.Example")) from error


def _values(example: pa.RecordBatch, name: str) -> list[Any]:
    index = example.schema.get_field_index(name)
    return [] if index < 0 else example.column(index).to_pylist()[0] or []


def _to_text(value: Any) -> str:
    if not isinstance(value, bytes):
        return str(value)
    try:
        return value.decode().strip()
    except UnicodeDecodeError as error:
        raise ValueError("a label, group or split that is not UTF-8") from error


def _texts(example: pa.RecordBatch, name: str) -> list[str]:
    return [text for value in _values(example, name) if (text := _to_text(value))]


def _labels(example: pa.RecordBatch, layout: _Layout, settings: SourceSettings) -> list[str]:
    for name in layout.labels:
        values = _values(example, name)
        if _is_hot(values, layout, settings.multi_label):
            values = [number for number, value in enumerate(values) if value]
            if not values:
                return []
        if layout.names is not None and values:
            unknown = [value for value in values if not 0 <= value < len(layout.names)]
            if unknown and not settings.labelled:
                return []
            if unknown:
                raise ValueError("label missing" if unknown == [-1] else f"no class has the number {unknown[0]}")
            return [layout.names[value] for value in values]
        if texts := [text for value in values if (text := _to_text(value))]:
            return texts
    return []


def _is_hot(values: list[Any], layout: _Layout, multi_label: bool) -> bool:
    """Whether the values are one per class, 1 for those of the image, and not the numbers of its classes.

    Two values may be either in multi-label data, so there they are numbers, as [0, 1] of two classes.
    """
    several = len(values) == len(layout.names) if layout.names is not None else len(values) > (2 if multi_label else 1)
    return len(values) > 1 and several and all(value in (0, 1) for value in values)


def _image_scalar(example: pa.RecordBatch, layout: _Layout) -> Any:
    for name in layout.images:
        index = example.schema.get_field_index(name)
        if index >= 0 and pa.types.is_large_binary(example.schema.field(index).type.value_type):
            values = example.column(index).flatten()
            if len(values):
                return values[0]
    raise ValueError(f"the record has no {layout.images[0]}")


def _image(example: pa.RecordBatch, layout: _Layout) -> bytes:
    return _image_scalar(example, layout).as_py()


# Names


def _layout(label: str) -> _Layout:
    """The usual feature names of TensorFlow's examples and of this project, and the label column's name."""
    return _Layout(("image/encoded", "image"), ("image/class/text", features.LABEL, "image/class/label", label))


def _split_of(path: str) -> str:
    """The split that is a word in the file's name, else in the name of its folder; "" if there are none or several."""
    for part in reversed(path.split("/")[-2:]):
        found = {SPLIT_NAMES[word] for word in re.split(r"[-_.]", part.lower()) if word in SPLIT_NAMES}
        if found:
            return found.pop() if len(found) == 1 else ""
    return ""


def _tfds_split(path: str) -> str:
    found = _TFDS_SPLIT.search(path)
    return SPLIT_NAMES.get(found[1].lower(), "") if found else ""


def _exists(folder: str, name: str) -> bool:
    return FileSystems.exists(listing.join(folder, name))


def _read_json(folder: str, name: str) -> dict[str, Any]:
    with listing.open_file(listing.join(folder, name)) as file:
        try:
            return json.load(file)
        except ValueError as error:
            raise UserError(f"{folder}/{name}: not JSON ({error}); prepare the data set again") from error


def _tfds_layout(folder: str, labelled: bool) -> _Layout:
    """The layout by features.json, in its present format or the one from before 2022."""
    kind = _read_json(folder, INFO_FILE).get("fileFormat", "tfrecord")
    if kind != "tfrecord":
        raise UserError(f"{folder}: a TensorFlow Datasets directory in {kind} files; prepare it with file_format='tfrecord'")
    found = {"Image": "", "ClassLabel": ""}
    for name, feature in _tfds_features(_read_json(folder, FEATURES_FILE)).items():
        kind = _tfds_class(feature)
        if kind == "Sequence":
            kind = _tfds_class(feature.get("sequence", {}).get("feature", {}))
        if kind in found and not found[kind]:
            found[kind] = name
    for kind, name in found.items():
        if not name and (labelled or kind == "Image"):
            raise UserError(f"{folder}/{FEATURES_FILE}: no feature of the type {kind}; it takes a data set for classification")
    image, label = found["Image"], found["ClassLabel"]
    if not label:
        return _Layout((image,), ())
    names_file = f"{label.replace('/', '.')}.labels.txt"
    if not _exists(folder, names_file):
        return _Layout((image,), (label,))
    with listing.open_file(listing.join(folder, names_file)) as file:
        return _Layout((image,), (label,), tuple(name for line in file.read().decode().splitlines() if (name := line.strip())))


def _tfds_class(feature: dict[str, Any]) -> str:
    return str(feature.get("pythonClassName") or feature.get("type", "")).rpartition(".")[2]


def _tfds_features(description: dict[str, Any]) -> dict[str, Any]:
    content = description.get("featuresDict") or description.get("content") or {}
    content = json.loads(content) if isinstance(content, str) else content
    return content.get("features", content)
