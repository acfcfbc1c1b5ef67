"""Reads a data set from a manifest, a CSV, JSON Lines or Parquet table with one line per image."""

import difflib
import itertools
import math
import os
import posixpath
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final

from base.errors import UserError, shorten
from images.dataset import imports, listing
from images.dataset.columns import guess_columns
from images.dataset.file_names import FileNames
from images.dataset.listing import File
from images.dataset.row import LABEL_MISSING, NO_META, SPLIT_NAMES, Meta, Row, label_text, split_label
from images.dataset.table_files import SUFFIXES, Table
from images.settings import MANIFEST, Columns, SourceSettings

_OTHER: Final = "manifest.parquet"
_TABLES: Final = (*SUFFIXES, ".json", ".xml")
_CLASSES: Final = {"a CVAT file": "tags", "a Label Studio file": "choices", "a Datumaro file": "labels"}
_SHARED_METAS: Final = 10_000
_ROLES: Final = ("path", "label", "group", "split")
_UNLABELLED_ROLES: Final = ("path", "label", "group")  # for data that is not for training


def find_manifest(folder: str, files: dict[str, File], settings: SourceSettings) -> str | None:
    """Finds the manifest in the data folder.

    Args:
      folder: the data folder, for messages.
      files: the files of the folder, by path.
      settings: settings of the data set. With the default name a manifest is optional and may also be manifest.parquet. For
        data that is not `labelled` that is so with any name.

    Returns:
      Path of the manifest in the folder; None if there is none.

    Raises:
      UserError: a manifest with another name is missing, has a wrong suffix, or must not be opened.
    """
    name = settings.manifest
    if name not in files and (name == MANIFEST or not settings.labelled):
        if MANIFEST in files:
            return MANIFEST
        if _OTHER not in files:
            return None
        name = _OTHER
    if not name.lower().endswith(_TABLES):
        raise UserError(f"data.manifest: {name} must end in {', '.join(_TABLES[:-1])} or {_TABLES[-1]}")
    if name not in files:
        raise UserError(f"{folder}: no manifest {name}; correct data.manifest, or leave it out if there is none")
    if files[name].reason:
        raise UserError(f"{folder}/{name}: {files[name].reason}")
    return name


def read_manifest(
    folder: str, name: str, files: dict[str, File], settings: SourceSettings, split: str = ""
) -> tuple[list[Row], list[str]]:
    """Reads a manifest.

    Args:
      folder: the data folder.
      name: path of the manifest in the folder; the paths in the manifest are relative to the manifest's own folder.
      files: the files of the folder, by path.
      settings: settings of the data set. For data that is not `labelled`, the label is optional, and only path, label and
        group are read.
      split: the split of rows that have none of their own.

    Returns:
      One row per line, and lines that tell a person how it is read. Rows without a label and rows whose file must not be
      opened are set aside.

    Raises:
      UserError: a column, a value or a file is missing or wrong.
    """
    table = imports.open_table(folder, name, settings.columns)
    guessed = guess_columns(table.name, table.columns, settings.columns)
    columns, lines = _with_known_split(table, guessed, settings.columns)
    names = file_names(folder, table, name, files, split)
    labelled = settings.labelled
    _check_columns(table, columns, labelled)
    roles = _ROLES if labelled else _UNLABELLED_ROLES
    where = {
        role: table.columns.index(name) for role, name in columns.by_role.items() if role in roles and name in table.columns
    }
    converters = _converters(table, columns) if labelled else []
    labels: dict[str | tuple[str, ...], tuple[str, ...]] = {}
    metas: dict[tuple[Any, ...], Meta] = {}  # most tables have few different ones, which rows then share
    rows: dict[str, Row] = {}
    numbers = array("q")  # of the lines of `rows`
    for number, values in lines:
        written = _path_text(values[where["path"]])
        if not written.strip() or "\0" in written:
            raise UserError(f"{table.name}: {table.unit} {number} has no {columns.path}; mend or remove it")
        path = names.find(written)
        if path in rows:
            raise UserError(
                f"{table.name}: {table.unit}s {numbers[list(rows).index(path)]} and {number} name the same file, {path}; "
                f"keep one of them"
            )
        numbers.append(number)
        value = values[where["label"]] if "label" in where else ""
        text = value if isinstance(value, tuple) else label_text(value)
        if text not in labels:
            labels[text] = _labels(table, path, text, settings)
        row_split = _split(table, number, values[where["split"]], split) if "split" in where else split
        group = _text(values[where["group"]]) if "group" in where else ""
        meta = _meta(values, number, converters, table) if converters else NO_META
        if len(metas) < _SHARED_METAS:
            meta = metas.setdefault(tuple(meta.items()), meta)
        rows[path] = Row(path, labels[text], group or path, row_split, meta)
    if labelled and table.kind in _CLASSES and rows and not any(row.labels for row in rows.values()):
        raise UserError(
            f"{table.name}: no image has a class; in {table.kind} the {_CLASSES[table.kind]} of images are the classes, "
            f"and boxes and other shapes are not; give each image one, or set data.layout to class if folders give the classes"
        )

    elsewhere = listing.look_up(folder, (path for path in rows if path not in files), settings.allow_links)
    missing = [path for path in rows if path not in files and path not in elsewhere]
    if missing:
        number = numbers[list(rows).index(missing[0])]
        raise UserError(
            f"{table.name}: {len(missing)} of {len(rows)} files are missing, the first in {table.unit} {number}: {missing[0]} "
            f"(paths are relative to the manifest's folder); add the files or remove the {table.unit}s"
        )
    needs_label = labelled and not settings.multi_label
    for path, row in rows.items():
        file = files.get(path) or elsewhere[path]
        reason = file.reason or (LABEL_MISSING if needs_label and not row.labels else "")
        rows[path] = Row(path, row.labels, row.group, row.split, row.meta, reason, file.size)
    notes = []
    if table.kind:
        notes.append(f"Data: read from {name}, {table.kind}")
    elif columns != settings.columns or name != settings.manifest:
        told = f", {columns.split} the split" if columns.split != settings.columns.split else ""
        notes.append(f"Data: read from {name}: {columns.path} is the file, {columns.label} the class{told}")
    if names.by_name:
        notes.append(f"Data: {names.by_name} files that {name} names without folder or suffix are found by their names")
    return list(rows.values()), notes


def _with_known_split(table: Table, columns: Columns, given: Columns) -> tuple[Columns, Iterator[tuple[int, list[Any]]]]:
    """The columns, without a guessed column of the split if the first line has no split in it; and the lines."""
    first = list(itertools.islice(table.lines, 1))
    if columns.split != given.split:
        where = table.columns.index(columns.split)
        if not any(_text(values[where]).lower() in SPLIT_NAMES for _, values in first):
            columns = replace(columns, split=given.split)
    return columns, itertools.chain(first, table.lines)


def _labels(table: Table, path: str, found: str | tuple[str, ...], settings: SourceSettings) -> tuple[str, ...]:
    if isinstance(found, str):
        return split_label(found) if settings.multi_label else ((found,) if found else ())
    if len(found) > 1 and settings.labelled and not settings.multi_label:
        raise UserError(
            f"{table.name}: {path} has {len(found)} classes, {found[0]} and {found[1]}; "
            f"set data.multi_label to true, or keep one"
        )
    return found


def _split(table: Table, number: int, value: Any, otherwise: str) -> str:
    given = _text(value)
    if table.kind and not given:
        return otherwise
    if given.lower() not in SPLIT_NAMES:
        raise UserError(
            f"{table.name}: {table.unit} {number} has the split {shorten(given) or '(none)'}; use train, eval or test"
        )
    return SPLIT_NAMES[given.lower()]


def file_names(folder: str, table: Table, name: str, files: dict[str, File], split: str = "") -> FileNames:
    """Finds the files that a table names; see `read_manifest` for the arguments."""
    base = posixpath.dirname(name)
    return FileNames(table.name, files, base, split, lambda written: _path_in(folder, base, written), bool(table.kind))


def files_elsewhere(
    folder: str, name: str, files: dict[str, File], settings: SourceSettings, split: str = ""
) -> dict[str, File]:
    """The existing files that a manifest names and that a listing of the folder does not contain, by path.

    The arguments are those of `read_manifest`.
    """
    table = imports.open_table(folder, name, settings.columns)
    columns = guess_columns(table.name, table.columns, settings.columns)
    if columns.path not in table.columns:
        return {}
    where = table.columns.index(columns.path)
    names = file_names(folder, table, name, files, split)
    paths = {names.find(_path_text(values[where])) for _, values in table.lines}
    return listing.look_up(folder, sorted(paths - files.keys()), settings.allow_links)


def _path_in(folder: str, base: str, written: str) -> str:
    """Normalises a path of the manifest; a path inside the data folder becomes relative to that folder, as in the listing."""
    if listing.is_remote(written):
        return written.removeprefix(folder.rstrip("/") + "/")
    if not os.path.isabs(written):
        return posixpath.normpath(posixpath.join(base, written))
    path = os.path.normpath(written)
    if not listing.is_remote(folder):
        for root in (os.path.abspath(folder), os.path.realpath(folder)):
            if path.startswith(root + "/"):
                return path.removeprefix(root + "/")
    return path


def _check_columns(table: Table, columns: Columns, labelled: bool) -> None:
    found = table.columns
    if repeated := next((column for column, count in Counter(found).items() if count > 1), None):
        raise UserError(f"{table.name}: two columns are called {shorten(repeated)}; rename one of them")
    wanted = [
        (f"{name} for the {role}", name, f"data.columns.{role}")
        for role, name in columns.by_role.items()
        # The columns of group and split are optional if they have their default names.
        if (labelled or role in ("path", "group")) and not (role in ("group", "split") and name == role)
    ]
    wanted += [(column, column, "data.columns.types") for column in columns.types if labelled]
    for text, column, key in wanted:
        if column not in found:
            near = difflib.get_close_matches(column, found, n=1)
            hint = f"; is it {near[0]}?" if near else "."
            named = shorten(", ".join(found), 300) or "none"
            raise UserError(f"{table.name}: no column {text}, found {named}{hint} Set {key} or add the column")


def _converters(table: Table, columns: Columns) -> list[tuple[str, int, Callable[[Any], Any]]]:
    """(name, position, conversion) of each column without a role; a conversion returns None for a missing number."""
    roles = set(columns.by_role.values())
    types = columns.types
    known: dict[str, str] = {}  # one string per value, shared by all lines

    def text(value: Any) -> str:
        return known.setdefault(found := _text(value), found)

    def as_it_is(value: Any) -> str | int | float | None:
        return _integer(value) if isinstance(value, int) else _real(value) if isinstance(value, float) else text(value)

    kinds = {"text": text, "integer": _integer, "real": _real}
    return [
        (name, position, kinds[types[name]] if name in types else as_it_is)
        for position, name in enumerate(table.columns)
        if name not in roles
    ]


def _meta(values: list[Any], number: int, converters: list[tuple[str, int, Callable[[Any], Any]]], table: Table) -> Meta:
    meta: Meta = {}
    for name, position, convert in converters:
        try:
            value = convert(values[position])
        except ValueError as error:
            raise UserError(
                f"{table.name}: {table.unit} {number} has {shorten(repr(values[position]))} as {name}, which is {error}; "
                f"mend it, or change data.columns.types"
            ) from error
        if value is not None:
            meta[name] = value
    return meta


def _path_text(value: Any) -> str:
    return value.removeprefix("./") if isinstance(value, str) else _text(value)


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else "" if value is None or value != value else str(value)


def _integer(value: Any) -> int | None:
    text = _text(value)
    try:
        number = int(text) if text else 0
    except ValueError as error:
        raise ValueError("no integer") from error
    if not -(2**63) <= number < 2**63:
        raise ValueError("beyond 64 bits")
    return number if text else None


def _real(value: Any) -> float | None:
    text = _text(value)
    try:
        number = float(text) if text else 0.0
    except ValueError as error:
        raise ValueError("no number") from error
    if not math.isfinite(number):
        raise ValueError("not finite")
    return number if text else None
