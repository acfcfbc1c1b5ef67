"""Tables that name images of class folders and are not read, though they may say the classes."""

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from base.errors import UserError, shorten
from images.dataset import manifest, table_files
from images.dataset.columns import guess_columns
from images.dataset.listing import File
from images.settings import Columns

_TRIED: Final = 200  # lines of a table
_MAX_TABLES: Final = 20  # more are rather one beside each image
_LABELS: Final = re.compile("label|annotation", re.IGNORECASE)
_ONE_HOT: Final = {"0", "1", "0.0", "1.0"}


@dataclass(frozen=True)
class _Table:
    """A table that names images: `where` is the column of their names; `images` are the paths of some, by line of `lines`."""

    name: str
    columns: list[str]
    lines: list[list[Any]]
    where: int
    images: dict[int, str]

    @property
    def others(self) -> list[str]:
        """The columns beside that of the names."""
        return [name for number, name in enumerate(self.columns) if number != self.where]

    def label_column(self, columns: Columns) -> str:
        """The column with a usual name for the class, or of a table of labels the first that repeats few values; or else ""."""
        guessed = guess_columns(self.name, self.columns, columns).label
        if guessed in self.columns or not _LABELS.search(self.name):
            return guessed if guessed in self.columns else ""
        counts = {name: len({str(line[self.columns.index(name)]) for line in self.lines}) for name in self.others}
        return next((name for name, count in counts.items() if 2 <= count <= len(self.lines) / 5), "")

    def cure(self, label: str = "") -> str:
        """How to read the table, with the class in a column; one for the reader to name, if none is known."""
        if self._is_one_hot:
            return "its columns of 0 and 1 are not read: write the class of each image into one column"
        label = label or (self.others[0] if len(self.others) == 1 else "COLUMN")
        keys = {"manifest": self.name, "columns.path": self.columns[self.where], "columns.label": label}
        return "add " + " ".join(f"--set {shlex.quote(f'data.{key}={value}')}" for key, value in keys.items())

    @property
    def _is_one_hot(self) -> bool:
        """Whether several columns hold 0 and 1 alone."""
        values = [{str(line[number]).strip() for line in self.lines} for number in range(len(self.columns))]
        return sum(found <= _ONE_HOT for found in values) > 1


def check_unread(
    folder: str, files: dict[str, File], columns: Columns, label_of: Callable[[str], str], classes: list[str]
) -> list[str]:
    """Looks for tables at the top of class folders that name their images.

    Args:
      folder: the data folder.
      files: its files, by path.
      columns: the columns that the configuration names.
      label_of: from the path of an image to its class by its folder; "" if it has none.
      classes: names of some class folders, for messages.

    Returns:
      Lines that name tables that seem to hold no classes.

    Raises:
      UserError: a table may say other classes than the folders do.
    """
    notes = []
    for table in _find_tables(folder, files):
        images = {line: label for line, path in table.images.items() if (label := label_of(path))}
        if not images or any(_agrees(table, number, images) for number in range(len(table.columns))):
            continue
        label = table.label_column(columns)
        if not label:
            names = shorten(", ".join(table.others)) or "no other column"
            told = f"if the class is in it ({names}), {table.cure()}"
            notes.append(f"Data: {table.name} names images, too, and is not read; {told}")
            continue
        raise UserError(
            f"{folder}: {table.name} names the images, too, so they can be read in two ways; if its column {label} is the "
            f"class, {table.cure(label)}; if the folders ({', '.join(classes)}) are the classes, set data.layout to class"
        )
    return notes


def describe_unread(folder: str, files: dict[str, File]) -> str:
    """What to add to an error of missing class folders: a table that names images, and how to read it; "" if there is none."""
    for table in _find_tables(folder, files):
        return f"; {table.name} names images and is not read (it has {shorten(', '.join(table.columns))}): {table.cure()}"
    return ""


def _agrees(table: _Table, number: int, images: dict[int, str]) -> bool:
    """Whether a column holds the classes of the folders."""
    return all(str(table.lines[line][number]).strip() == label for line, label in images.items())


def _find_tables(folder: str, files: dict[str, File]) -> list[_Table]:
    """The tables that lie the fewest folders deep, if they name images."""
    paths = [path for path in files if path.lower().endswith(table_files.SUFFIXES) and not files[path].reason]
    depth = min((path.count("/") for path in paths), default=0)
    paths = [path for path in paths if path.count("/") == depth]
    found = (_open(folder, path, files) for path in paths[:_MAX_TABLES])
    return [table for table in found if table]


def _open(folder: str, path: str, files: dict[str, File]) -> _Table | None:
    try:
        table = table_files.open_table(folder, path)
        lines = [values for _, values in islice(table.lines, _TRIED)]
        names = manifest.file_names(folder, table, path, files)
        for where in range(len(table.columns) if len(lines) > 1 else 0):
            written = [str(values[where]).strip() for values in lines]
            if len(set(written)) < len(lines):
                continue
            images = {n: image for n, name in enumerate(written) if name and (image := names.find(name)) in files}
            if 2 * len(images) >= len(lines):
                return _Table(path, table.columns, lines, where, images)
    except UserError:
        pass  # no table, or one of names that many files have
    return None
