"""Finds the listed file that a table means: by its path, by a path from Windows, by a name without its folder or suffix."""

import posixpath
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Final

from base.errors import UserError
from images.dataset.tree import DOCUMENTS, split_of

_DRIVE: Final = re.compile(r"[A-Za-z]:[\\/]")


class FileNames:
    """Finds files by what a table writes.

    Attributes:
      by_name: how many files were found by a name without its folder or suffix.
    """

    def __init__(self, table: str, paths: Iterable[str], base: str, split: str, normalise: Callable[[str], str]) -> None:
        """Takes a table's files.

        Args:
          table: path of the table, for messages.
          paths: paths of all listed files, relative to the data folder.
          base: the table's folder in the data folder; "" if it is the same.
          split: the split that the table is for, or "".
          normalise: from a path as written to one relative to the data folder.
        """
        self._table = table
        self._paths = paths if isinstance(paths, dict) else frozenset(paths)
        self._base = f"{base}/" if base else ""
        self._split = split
        self._normalise = normalise
        self._by_stem: dict[str, list[str]] | None = None
        self.by_name = 0

    def find(self, written: str) -> str:
        """The path of a file, relative to the data folder; that as written if no such file is listed.

        Raises:
          UserError: it is a path on a Windows drive, or several files may be meant.
        """
        if not self._base and written in self._paths:
            return written
        path = self._normalise(written)
        if path in self._paths:
            return path
        if _DRIVE.match(written):
            raise UserError(
                f"{self._table}: {written} is on a drive of Windows; write paths that are relative to the table's folder"
            )
        if "\\" in written:
            path = self._normalise(written.replace("\\", "/"))
        return path if path in self._paths else self._find_by_stem(path) or path

    def _find_by_stem(self, path: str) -> str:
        if self._by_stem is None:
            self._by_stem = defaultdict(list)
            for listed in self._paths:
                if listed.startswith(self._base) and not listed.lower().endswith(DOCUMENTS):
                    name = posixpath.basename(listed)
                    for key in {posixpath.splitext(listed)[0], name, posixpath.splitext(name)[0]}:
                        self._by_stem[key].append(listed)
        name = path.removeprefix(self._base)
        found = self._by_stem.get(path if "/" in name else name, [])
        if len(found) > 1 and self._split:
            inside = [listed for listed in found if any(split_of(part) == self._split for part in listed.split("/")[:-1])]
            found = inside or found
        if len(found) > 1:
            raise UserError(f"{self._table}: {name} may be {found[0]} or {found[1]}; write the paths of the files")
        self.by_name += len(found)
        return found[0] if found else ""
