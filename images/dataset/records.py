"""Reads a data set from TFRecord files of tf.Example, also from a prepared TensorFlow Datasets directory.

Needs neither TensorFlow nor tensorflow_datasets.
"""

import json
import posixpath
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final

import pyarrow as pa
from apache_beam.io.filesystems import FileSystems

from base.errors import UserError
from base.inputs import MAX_RECORD_BYTES, parse_json_object
from images.dataset import archives, listing
from images.dataset.listing import File
from images.dataset.prepared import FEATURES_FILE, INFO_FILE
from images.dataset.row import LOST, NO_META, SPLIT_NAMES, Meta, Row, split_label
from images.dataset.tfrecord import Item, read_items
from images.reason import Reason, kind_of
from images.settings import SourceSettings
from models import features

_RECORD_FILE: Final = re.compile(
    r"(\.tfrecords?|\.tfrec|\.tfr|\.record|(?<!\.data)-\d{5}-of-\d{5})(\.(gz|gzip|zlib|z))?$", re.IGNORECASE
)
_TFDS_SPLIT: Final = re.compile(r"-([^-]+)\.tfrecord-\d{5}-of-\d{5}$")
_CURE: Final = "prepare the data set again"


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
    """Whether the name is one of a TFRecord file, such as `x.tfrecord`, `x.tfrec.gz` or `x-00000-of-00010`.

    TensorFlow's checkpoints, `x.data-00000-of-00001`, are none.
    """
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
      TFRecord files are set aside. So is a row for each stretch of a damaged file that may hold any number of records. In a
      TensorFlow Datasets directory, splits other than train, validation and test are skipped.

    Raises:
      UserError: the description of the directory, or a value, can't be used.
    """
    prepared = home is not None
    if home:
        files = {path: file for path, file in files.items() if path.startswith(f"{home}/")}
    described = listing.join(folder, home or "")
    labelled = settings.labelled
    layout = _tfds_layout(described, labelled) if prepared else _layout(settings.columns.label)
    lengths = _tfds_lengths(_read_json(described, INFO_FILE)) if prepared else {}
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
            found = _rows_of_file(folder, path, files[path].size, splits.get(path, ""), layout, settings)
            rows += _with_missing(found, path, lengths.get(path.rpartition("/")[2]), files[path].size)
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
    items: Iterator[tuple[int, Item]] = iter(())
    position, item = -1, Item(b"", "", 0, 0)
    for number in numbers:
        if number < position or position == -1:
            items = enumerate(_items(listing.join(folder, path)))
            position = -1
        while position < number:
            try:
                position, item = next(items)
            except StopIteration:
                gone = item.reason if item.lost else "the file has no such record any more"
                position, item = number, Item(b"", gone, 0, 0, lost=item.lost)
        try:
            yield (b"", _reading_reason(item)) if item.reason else (_image(_parse(item.record), layout), "")
        except ValueError as error:
            yield b"", error.args[0]


def _reading_reason(item: Item) -> str:
    return Reason("unreadable", item.reason) if item.lost else item.reason


def _rows_of_file(folder: str, path: str, size: int, split: str, layout: _Layout, settings: SourceSettings) -> list[Row]:
    rows: list[Row] = []
    lost: dict[int, Item] = {}
    whole = 0  # bytes of whole records
    for number, item in enumerate(_items(listing.join(folder, path), size)):
        row, reason = Row(path, (), "", split, record=number), item.reason
        if item.lost:
            lost[number] = item
        elif reason:
            reason = Reason("damaged", reason)
        else:
            try:
                row = _fill_row(row, _parse(item.record), layout, settings)
            except ValueError as error:
                reason = error.args[0]
        whole += 0 if item.lost else item.size
        rows.append(replace(row, group=row.group or row.name, reason=reason))
    each = whole / (len(rows) - len(lost)) if len(rows) > len(lost) else 0.0
    for number, item in lost.items():
        count = max(round(item.size / each), 1) if each else 0
        about = f", about {count:,} record{'s' if count > 1 else ''}" if count else ""
        reason = Reason(LOST, f"{item.size:,} bytes from byte {item.start:,} on{about} ({item.reason})")
        rows[number] = replace(rows[number], reason=reason, size=item.size, lost_records=count)
    return rows


def _with_missing(rows: list[Row], path: str, length: int | None, size: int) -> list[Row]:
    """Adds a row for records that a file should have and has not, as it was cut between two records.

    Args:
      rows: of the file.
      path: the file.
      length: number of records that it should have; None if that is not known.
      size: bytes of the file.
    """
    if length is None or len(rows) >= length or any(kind_of(row.reason) == LOST for row in rows):
        return rows
    missing = length - len(rows)
    count = round(size / len(rows) * missing) if rows else 0
    reason = Reason(LOST, f"{missing:,} of {length:,} records are not in the file ({INFO_FILE} lists them)")
    return [*rows, Row(path, (), path, "", reason=reason, size=count, record=len(rows), lost_records=missing)]


def _items(path: str, size: int = 0) -> Iterator[Item]:
    try:
        file = listing.open_file(path)
    except OSError as error:
        yield Item(b"", f"can't be read: {error.strerror or error}", 0, size, lost=True)
        return
    with file:
        yield from read_items(file, size)


def _fill_row(row: Row, example: pa.RecordBatch, layout: _Layout, settings: SourceSettings) -> Row:
    columns = settings.columns
    size = len(_image_scalar(example, layout).as_buffer())
    labelled = settings.labelled
    texts = _labels(example, layout, settings)
    labels: tuple[str, ...]
    if not settings.multi_label:
        labels = (features.join_labels(texts),) if texts else ()
    elif len(texts) == 1 and layout.names is None:
        labels = split_label(texts[0])  # as in a manifest
    else:
        labels = tuple(sorted(set(texts)))
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
            unknown = [value for value in values if not (isinstance(value, int) and 0 <= value < len(layout.names))]
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
    path = listing.join(folder, name)
    place = None if listing.is_remote(path) else archives.split_path(path)
    return FileSystems.exists(path) if place is None else archives.has_member(*place)


def _read_json(folder: str, name: str) -> dict[str, Any]:
    return parse_json_object(_read_text(folder, name), f"{folder}/{name}", _CURE)


def _read_text(folder: str, name: str) -> str:
    try:
        with listing.open_file(listing.join(folder, name)) as file:
            content = file.read(MAX_RECORD_BYTES + 1)
        if len(content) > MAX_RECORD_BYTES:
            raise UserError(f"{folder}/{name}: is larger than {MAX_RECORD_BYTES / 2**20:g} MiB; {_CURE}")
        return content.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{folder}/{name}: {getattr(error, 'strerror', None) or error}; {_CURE}") from error


def _tfds_layout(folder: str, labelled: bool) -> _Layout:
    """The layout by features.json, in its present format or the one from before 2022."""
    kind = _read_json(folder, INFO_FILE).get("fileFormat", "tfrecord")
    if kind != "tfrecord":
        raise UserError(f"{folder}: a TensorFlow Datasets directory in {kind} files; prepare it with file_format='tfrecord'")
    try:
        found = _tfds_feature_names(_read_json(folder, FEATURES_FILE))
    except (AttributeError, TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{folder}/{FEATURES_FILE}: not as TensorFlow Datasets writes it; {_CURE}") from error
    for kind, name in found.items():
        if not name and (labelled or kind == "Image"):
            raise UserError(f"{folder}/{FEATURES_FILE}: no feature of the type {kind}; it takes a data set for classification")
    image, label = found["Image"], found["ClassLabel"]
    if not label:
        return _Layout((image,), ())
    names_file = f"{label.replace('/', '.')}.labels.txt"
    if not _exists(folder, names_file):
        return _Layout((image,), (label,))
    lines = _read_text(folder, names_file).split("\n")
    return _Layout((image,), (label,), tuple(name for line in lines if (name := line.strip())))


def _tfds_feature_names(description: dict[str, Any]) -> dict[str, str]:
    """The name of the first image and of the first class label; "" if there is none."""
    found = {"Image": "", "ClassLabel": ""}
    for name, feature in _tfds_features(description).items():
        kind = _tfds_class(feature)
        if kind == "Sequence":
            kind = _tfds_class(feature.get("sequence", {}).get("feature", {}))
        if kind in found and not found[kind]:
            found[kind] = name
    return found


def _tfds_lengths(info: dict[str, Any]) -> dict[str, int]:
    """Name of each file to the number of its records, as far as it is given in the usual form."""
    lengths: dict[str, int] = {}
    try:
        for split in info.get("splits", []):
            shards = split.get("shardLengths", [])
            for number, length in enumerate(shards):
                name = f"{info['name']}-{split['name']}.tfrecord-{number:05d}-of-{len(shards):05d}"
                lengths[name] = int(length)
    except (AttributeError, KeyError, TypeError, ValueError):
        return {}
    return lengths


def _tfds_class(feature: dict[str, Any]) -> str:
    return str(feature.get("pythonClassName") or feature.get("type", "")).rpartition(".")[2]


def _tfds_features(description: dict[str, Any]) -> dict[str, Any]:
    content = description.get("featuresDict") or description.get("content") or {}
    content = json.loads(content) if isinstance(content, str) else content
    return content.get("features", content)
