"""Finds the images of a data folder with their labels, groups and splits, without opening an image.

Does not import TensorFlow, so that an error in a data folder is reported at once.
"""

import hashlib
from collections.abc import Callable, Collection, Set
from dataclasses import dataclass, field, replace
from functools import partial

from base.errors import UserError
from images.dataset import folders, listing, manifest, parquet_shards, records, tables, webdataset
from images.dataset.assignment import assign_splits, fold_names, hash_of, split_names
from images.dataset.corrections import apply_corrections, find_corrections, path_in_data
from images.dataset.listing import list_files, list_folder
from images.dataset.litter import describe_skipped
from images.dataset.losses import Losses, find_losses
from images.dataset.names import check_names
from images.dataset.prepared import find_prepared
from images.dataset.reading import check_reading, check_source, reading_of
from images.dataset.row import LABEL_MISSING, Row
from images.dataset.spans import Span, find_spans, root_of
from images.dataset.tree import find_arrangement
from images.dataset.unread_tables import check_unread, describe_unread
from images.settings import Reading, SourceSettings

__all__ = [
    "Found",
    "Row",
    "assign_splits",
    "find_rows",
    "fingerprint",
    "fold_names",
    "list_files",
    "read_rows",
    "root_of",
    "span_fingerprints",
    "split_names",
]


@dataclass(frozen=True)
class Found:
    """The contents of a data folder.

    Attributes:
      rows: one row per image, used or set aside, one span after the other. The order within a span is random, so that no
        shard holds one class only, but the same on every run. The rows of one TFRecord file are together, in its order.
      unlisted: number of files that are not part of the data set: files that the manifest does not name, images without
        labels beside split folders with labels, or files of a TensorFlow Datasets directory in splits other than train,
        validation and test.
      reading: how it was read.
      losses: what damaged TFRecord files have lost; None if nothing.
      notes: lines that tell a person how the data is read, where that is not plain.
    """

    rows: list[Row]
    unlisted: int
    reading: Reading
    losses: Losses | None
    notes: list[str] = field(default_factory=list)


def fingerprint(folder: str, settings: SourceSettings) -> str:
    """A digest that changes with the data: of the names, sizes and times of all files, also those outside the folder.

    Files outside the folder are those that a manifest names, and the corrections.

    Args:
      folder: the data folder.
      settings: settings of the data set; only `manifest`, `corrections`, `layout`, `columns`, `labelled` and
        `allow_links` matter.

    Raises:
      UserError: the folder can't be used.
    """
    return hashlib.sha256("".join(span_fingerprints(folder, settings).values()).encode()).hexdigest()


def span_fingerprints(folder: str, settings: SourceSettings) -> dict[int, str]:
    """The digest of each span, by number; see `fingerprint`."""
    root = root_of(folder)
    corrections = find_corrections(root, settings)
    return {span.number: _fingerprint(listing.join(root, span.prefix), settings, corrections) for span in find_spans(folder)}


def _fingerprint(folder: str, settings: SourceSettings, corrections: dict[str, listing.File]) -> str:
    files = list_files(folder, settings.allow_links) | corrections
    for name, split in tables.find_tables(folder, files, settings).items():
        files |= manifest.files_elsewhere(folder, name, files, settings, split)
    digest = hashlib.sha256()
    for path, file in files.items():
        digest.update(f"{path}\0{file.size}\0{file.modified}\0{file.reason}\n".encode())
    return digest.hexdigest()


def read_rows(folder: str, settings: SourceSettings) -> list[Row]:
    """Lists the data set with its splits; see `find_rows` and `assign_splits`."""
    return assign_splits(folder, find_rows(folder, settings).rows, settings)


def find_rows(folder: str, settings: SourceSettings, *, corrected: bool = True) -> Found:
    """Lists the data set: from tables, TFRecord files, Parquet or WebDataset files, or class folders; the first that are there.

    Args:
      folder: the data folder, or with `{SPAN}` the folders of several spans. For each, see `tables`, `records`,
        `parquet_shards`, `webdataset` and `tree`.
      settings: settings of the data set.
      corrected: whether the corrections are applied; their table is none of the data's own in either case.

    Returns:
      The rows, with the splits that the data itself gives.

    Raises:
      UserError: the folder or the manifest can't be used, or they are not as `settings.reading` says.
    """
    rows: list[Row] = []
    sources: dict[str, str] = {}
    unlisted = record_bytes = 0
    notes: dict[str, None] = {}  # in order; spans mostly have the same ones
    corrections = path_in_data(root_of(folder), settings)
    for span in find_spans(folder):
        found = _find_rows(listing.join(root_of(folder), span.prefix), span.prefix, settings, corrections)
        rows += [_in_span(row, span) for row in found.rows] if span.prefix else found.rows
        sources[span.prefix] = found.source
        unlisted += found.unlisted
        record_bytes += found.record_bytes
        notes |= dict.fromkeys(found.notes)
    if corrected:
        rows, lines = apply_corrections(root_of(folder), rows, settings)
        notes |= dict.fromkeys(lines)
    for number, row in enumerate(rows):  # in place: there may be millions
        checked = _check_label(row, settings.labels, settings.multi_label) if settings.labelled else row
        rows[number] = checked.in_split("") if checked.reason and checked.split else checked
    reading = reading_of(rows, sources, settings.labelled)
    check_reading(folder, reading, settings.reading)
    ordered = sorted(rows, key=lambda row: (row.span, hash_of(row.path), row.record or 0))
    return Found(ordered, unlisted, reading, find_losses(rows, record_bytes), list(notes))


def _in_span(row: Row, span: Span) -> Row:
    """The row with its path relative to the root of all spans. Groups keep their names, so they may extend over spans."""
    if listing.is_remote(row.path) or row.path.startswith("/"):
        return replace(row, span=span.number)
    moved = replace(row, path=f"{span.prefix}{row.path}", span=span.number)
    return replace(moved, group=moved.name) if row.group == row.name else moved


@dataclass(frozen=True)
class _Span:
    """The contents of one span: as `Found`; what it was read from; the size of its TFRecord files."""

    rows: list[Row]
    unlisted: int
    source: str
    record_bytes: int
    notes: list[str]


def _find_rows(folder: str, prefix: str, settings: SourceSettings, corrections: str) -> _Span:
    listed = list_folder(folder, settings.allow_links)
    files = listed.files
    if corrections.startswith(prefix):
        files.pop(corrections.removeprefix(prefix), None)
    source = _find_source(folder, files, settings)
    text = f"{source.text}, in archives" if listed.archived else source.text
    check_source(folder, prefix, text, settings.reading)
    rows, notes = source.read()
    used = {row.path for row in rows}
    if settings.labelled:
        notes = notes + check_names(folder, rows, settings.multi_label)
    record_bytes = sum(files[path].size for path in used & source.record_files)
    unlisted = len(source.files) - sum(path in source.files for path in used)
    return _Span(rows, unlisted, text, record_bytes, notes + describe_skipped(listed.skipped))


@dataclass(frozen=True)
class _Source:
    """What a span is read from.

    Attributes:
      text: as in `Reading.sources`.
      read: gives the rows, and lines that tell a person how they are read.
      files: paths of the files that may be part of the data set.
      record_files: those of them that are TFRecord files.
    """

    text: str
    read: Callable[[], tuple[list[Row], list[str]]]
    files: Set[str]
    record_files: Set[str] = frozenset()


def _find_source(folder: str, files: dict[str, listing.File], settings: SourceSettings) -> _Source:
    if named := tables.find_tables(folder, files, settings):
        read = partial(tables.read_tables, folder, named, files, settings)
        return _Source(tables.describe_tables(named), read, files.keys() - named.keys())
    if record_files := {path for path in files if records.is_record_file(path)}:
        home = find_prepared(folder, files)
        text = "TFRecord files" if home is None else f"a TensorFlow Datasets directory{f', {home}' if home else ''}"
        notes = [f"Data: read from {home}, a TensorFlow Datasets directory"] if home else []
        return _Source(
            text, lambda: (records.read_record_files(folder, files, settings, home), notes), record_files, record_files
        )
    if shards := parquet_shards.find_shards(folder, files):
        return _Source(
            "Parquet files with images", lambda: (parquet_shards.read_shards(folder, shards, settings), []), files.keys()
        )
    if webdataset.has_samples(files, settings):
        return _Source("WebDataset files", lambda: (webdataset.read_samples(folder, files, settings), []), files.keys())
    unread = settings.labelled and settings.layout == "auto"
    try:
        found = find_arrangement(folder, files, settings.layout, settings.labelled)
        rows = folders.read_folders(folder, files, found, settings.labelled)
    except UserError as error:
        raise UserError(f"{error}{describe_unread(folder, files) if unread else ''}") from error
    if unread:
        labels = {row.path: row.label for row in rows if not row.reason}
        classes = sorted(set(labels.values()))[:5]
        if len(classes) < 2 and (told := describe_unread(folder, files)):
            raise UserError(
                f"{folder}: a classifier needs two classes or more, found only {', '.join(classes) or 'none'}{told}"
            )
        found.notes += check_unread(folder, files, settings.columns, lambda path: labels.get(path, ""), classes)
    return _Source(found.describe(), lambda: (rows, found.notes), files.keys())


def _check_label(row: Row, known: Collection[str] | None, multi_label: bool) -> Row:
    """The row, set aside if it has no label or an unknown one."""
    if row.reason:
        return row
    if not row.labels and not multi_label:
        return replace(row, reason=LABEL_MISSING)
    if unknown := [label for label in row.labels if label not in known] if known is not None else None:
        return replace(row, reason=f"label {unknown[0]} is not in data.labels")
    return row
