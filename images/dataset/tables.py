"""Finds the tables that a data set is read from: the manifest, or tables with usual names and usual columns."""

import posixpath
import re
from collections import defaultdict
from itertools import islice
from typing import Final

from base.errors import UserError
from images.dataset import manifest, table_files
from images.dataset.columns import guess_columns
from images.dataset.listing import File
from images.dataset.row import SPLIT_NAMES, Row
from images.dataset.tree import DOCUMENTS, split_folders
from images.settings import SourceSettings

_USUAL: Final = re.compile("labels?|metadata|manifest|annotations?")  # alone, or with the name of a split: trainLabels.csv
_TRIED: Final = 20  # lines of a table, one of which must name a file that is there


def find_tables(folder: str, files: dict[str, File], settings: SourceSettings) -> dict[str, str]:
    """Finds the manifest, or else the tables with usual names that lie the fewest folders deep.

    Args:
      folder: the data folder, for messages.
      files: the files of the folder, by path.
      settings: settings of the data set. With a `layout` other than "auto", only the manifest is looked for.

    Returns:
      Path of each table in the folder: the split that its name or its folder gives, or "". Empty if there are none.

    Raises:
      UserError: the manifest can't be used, or several tables may be the manifest.
    """
    if name := manifest.find_manifest(folder, files, settings):
        return {name: ""}
    by_depth: dict[int, dict[str, str]] = defaultdict(dict)
    for path in files if settings.layout == "auto" else ():
        if path.lower().endswith(table_files.SUFFIXES) and not files[path].reason:
            stem = posixpath.splitext(posixpath.basename(path))[0].casefold()
            words = re.findall(r"[^\W_]+", _USUAL.sub(" ", stem))
            if not words or (len(words) == 1 and words[0] in SPLIT_NAMES):
                by_depth[path.count("/")][path] = SPLIT_NAMES[words[0]] if words else ""
    for depth in sorted(by_depth):
        tables = _with_splits(by_depth[depth])
        try:
            usable = {path: split for path, split in tables.items() if _is_usable(folder, path, files, settings, split)}
            _check_splits(folder, usable)
        except UserError as error:
            raise UserError(f"{error}; or set data.layout to class if folders give the classes") from error
        if usable:
            return usable
    return {}


def read_tables(
    folder: str, tables: dict[str, str], files: dict[str, File], settings: SourceSettings
) -> tuple[list[Row], list[str]]:
    """Reads tables as `manifest.read_manifest` reads one.

    Raises:
      UserError: as there, or two tables name the same file.
    """
    rows: dict[str, Row] = {}
    notes: list[str] = []
    for name, split in tables.items():
        found, lines = manifest.read_manifest(folder, name, files, settings, split)
        if twice := next((row.path for row in found if row.path in rows), None):
            raise UserError(f"{folder}: {' and '.join(tables)} name the same file, {twice}; keep it in one of them")
        rows |= {row.path: row for row in found}
        notes += lines
    left_out = sum(not path.lower().endswith(DOCUMENTS) for path in files.keys() - rows.keys()) if notes else 0
    if left_out:
        notes.append(f"Data: {left_out} files that {' and '.join(tables)} does not name are left out")
    return list(rows.values()), notes


def describe_tables(tables: dict[str, str]) -> str:
    """What the data set is read from, for `Reading.sources`."""
    return f"the {'tables' if len(tables) > 1 else 'manifest'} {' and '.join(sorted(tables))}"


def _with_splits(tables: dict[str, str]) -> dict[str, str]:
    """The tables of one folder, or those of split folders with the splits of these."""
    folders = {path: posixpath.dirname(path) for path in tables}
    if len(set(folders.values())) == 1:
        return tables
    splits = split_folders({posixpath.basename(folder) for folder in folders.values()})
    return {path: split for path, folder in folders.items() if (split := splits.get(posixpath.basename(folder), ""))}


def _is_usable(folder: str, name: str, files: dict[str, File], settings: SourceSettings, split: str) -> bool:
    """Whether the table has columns for file and class, and names files that are there."""
    table = table_files.open_table(folder, name)
    columns = guess_columns(table.name, table.columns, settings.columns)
    if columns.path not in table.columns or columns.label not in table.columns:
        return False
    where = table.columns.index(columns.path)
    names = manifest.file_names(folder, table, name, files, split)
    return any(names.find(str(values[where])) in files for _, values in islice(table.lines, _TRIED))


def _check_splits(folder: str, tables: dict[str, str]) -> None:
    if len(tables) > 1 and ("" in tables.values() or len(set(tables.values())) < len(tables)):
        first, second, *_ = sorted(tables)
        raise UserError(f"{folder}: {first} and {second} may both be the manifest; set data.manifest to one")
