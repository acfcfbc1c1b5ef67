"""Finds the tables that a data set is read from: the manifest, or tables with usual names and usual columns."""

import posixpath
import re
from collections import defaultdict
from typing import Final

from base.errors import UserError
from images.dataset import imports, listing, manifest, table_files
from images.dataset.columns import guess_columns
from images.dataset.listing import File
from images.dataset.row import SPLIT_NAMES, Row
from images.dataset.tree import DOCUMENTS, split_folders, split_of, split_of_shard
from images.settings import SourceSettings

_USUAL: Final = re.compile("labels?|metadata|manifest|annotations?")  # alone, or with the name of a split: trainLabels.csv
_TRIED: Final = 1000  # first lines of a table which, and one in a hundred after them, may name a file that is there
_MAX_IMPORTS: Final = 50  # files that may be import files; more are rather one beside each image


def find_tables(folder: str, files: dict[str, File], settings: SourceSettings) -> dict[str, str]:
    """Finds the manifest; or else files of labelling tools; or else tables with usual names that lie the fewest folders deep.

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
    try:
        if settings.layout == "auto" and (found := _find_imports(folder, files, settings)):
            return found
    except UserError as error:
        raise UserError(f"{error}; or set data.layout to class if folders give the classes") from error
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


def _find_imports(folder: str, files: dict[str, File], settings: SourceSettings) -> dict[str, str]:
    """Files that `imports` reads and that name images that are there or remote; with splits by their names or folders."""
    paths = [path for path in files if path.lower().endswith(imports.SUFFIXES) and not files[path].reason]
    kinds = {path: kind for path in paths if (kind := imports.kind_of(folder, path))} if len(paths) <= _MAX_IMPORTS else {}
    kinds = {path: kind for path, kind in kinds.items() if "instances" in path} or kinds  # not COCO's captions, key points
    named = {
        path: (split_of_shard(path) or split_of(posixpath.basename(posixpath.dirname(path)))) if kind in imports.BY_FILE else ""
        for path, kind in kinds.items()
    }
    found = {path: split for path, split in named.items() if _is_usable(folder, path, files, settings, split)}
    _check_splits(folder, {path: split for path, split in found.items() if kinds[path] in imports.BY_FILE})
    return found if len(found) > 1 else dict.fromkeys(found, "")


def _with_splits(tables: dict[str, str]) -> dict[str, str]:
    """The tables of one folder, or those of split folders with the splits of these."""
    folders = {path: posixpath.dirname(path) for path in tables}
    if len(set(folders.values())) == 1:
        return tables
    splits = split_folders({posixpath.basename(folder) for folder in folders.values()})
    return {path: split for path, folder in folders.items() if (split := splits.get(posixpath.basename(folder), ""))}


def _is_usable(folder: str, name: str, files: dict[str, File], settings: SourceSettings, split: str) -> bool:
    """Whether the table has columns for file and class, and names files that are there."""
    table = imports.open_table(folder, name, settings.columns)
    columns = guess_columns(table.name, table.columns, settings.columns)
    if columns.path not in table.columns or columns.label not in table.columns:
        return False
    where = table.columns.index(columns.path)
    names = manifest.file_names(folder, table, name, files, split)
    tried = (values for number, (_, values) in enumerate(table.lines) if number < _TRIED or number % 100 == 0)
    found = (names.find(str(values[where])) for values in tried)
    return any(path in files or (table.kind and listing.is_remote(path)) for path in found)


def _check_splits(folder: str, tables: dict[str, str]) -> None:
    if len(tables) > 1 and ("" in tables.values() or len(set(tables.values())) < len(tables)):
        first, second, *_ = sorted(tables)
        raise UserError(f"{folder}: {first} and {second} may both be the manifest; set data.manifest to one")
