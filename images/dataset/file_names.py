"""Finds the listed file that a table means: by its path, by a path from Windows, by a name without folder or suffix."""

import posixpath
import re
from collections.abc import Callable, Iterable
from itertools import takewhile
from typing import Final

from base.errors import UserError, shorten
from images.dataset.tree import DOCUMENTS, split_of

_DRIVE: Final = re.compile(r"[A-Za-z]:[\\/]")
_UPLOAD: Final = re.compile(r"[0-9a-f]{8}-")  # which Label Studio puts before the name of an uploaded file


class FileNames:
    """Finds files by what a table writes.

    Attributes:
      by_name: how many files were found by a name without its folder or suffix.
    """

    def __init__(
        self,
        table: str,
        paths: Iterable[str],
        base: str,
        split: str,
        normalise: Callable[[str], str],
        anywhere: bool = False,
    ) -> None:
        """Takes a table's files.

        Args:
          table: path of the table, for messages.
          paths: paths of all listed files, relative to the data folder.
          base: the table's folder in the data folder; "" if it is the same.
          split: the split that the table is for, or "".
          normalise: from a path as written to one relative to the data folder.
          anywhere: whether the files may be in any folder, as for tables that were written on another machine. Then the one
            with the same name is taken; if there are several, the one that shares most folders with the path as written.
        """
        self._table = table
        self._paths = paths if isinstance(paths, dict) else frozenset(paths)
        self._base = f"{base}/" if base and not anywhere else ""
        self._anywhere = anywhere
        self._split = split
        self._normalise = normalise
        self._indexes: dict[str, dict[str, list[str]]] = {}
        self.by_name = 0

    def find(self, written: str) -> str:
        """The path of a file, relative to the data folder; that as written if no such file is listed.

        Spaces around it belong to it only if there is such a file.

        Raises:
          UserError: it is a path on a Windows drive, or several files may be meant.
        """
        if not self._base and written in self._paths:
            return written
        path = self._normalise(written)
        if path in self._paths:
            return path
        if written != written.strip():
            return self.find(written.strip().removeprefix("./"))
        if self._anywhere:
            return self._find_by_name(written.replace("\\", "/")) or path
        if _DRIVE.match(written):
            raise UserError(
                f"{self._table}: {shorten(written)} is on a drive of Windows; "
                f"write paths that are relative to the table's folder"
            )
        if "\\" in written:
            path = self._normalise(written.replace("\\", "/"))
        return path if path in self._paths else self._find_by_name(path) or path

    def _find_by_name(self, path: str) -> str:
        name = path.removeprefix(self._base)
        if self._anywhere:
            found = self._find_anywhere(name)
        elif "/" in name:
            found = self._index("path without suffix").get(path, [])
        else:
            found = self._index("name").get(name, []) if "." in name else []
            found = found or self._index("name without suffix").get(name, [])
        if not found and "." in posixpath.basename(name):
            found = self._index("path, small suffix" if "/" in name else "name, small suffix").get(
                _small_suffix(path if "/" in name else name), []
            )
        if len(found) > 1 and self._split:
            inside = [listed for listed in found if any(split_of(part) == self._split for part in listed.split("/")[:-1])]
            found = inside or found
        if len(found) > 1:
            raise UserError(f"{self._table}: {name} may be {found[0]} or {found[1]}; write the paths of the files")
        self.by_name += len(found)
        return found[0] if found else ""

    def _find_anywhere(self, path: str) -> list[str]:
        *folders, name = path.split("/")
        index = self._index("name")
        found = index.get(name) or index.get(_UPLOAD.sub("", name, count=1)) or self._index("name without suffix").get(name, [])
        if len(found) < 2:
            return found
        shared = {listed: _shared(folders, listed.split("/")[:-1]) for listed in found}
        return [listed for listed in found if shared[listed] == max(shared.values())]

    def _index(self, of: str) -> dict[str, list[str]]:
        """The files of the table's folder that may be images, by a part of their path."""
        if of not in self._indexes:
            index = self._indexes[of] = {}
            for path in self._paths:
                if path.startswith(self._base) and not path.lower().endswith(DOCUMENTS):
                    key = path if of.startswith("path") else posixpath.basename(path)
                    key = _small_suffix(key) if of.endswith("small suffix") else key
                    key = posixpath.splitext(key)[0] if of.endswith("without suffix") else key
                    index.setdefault(key, []).append(path)
        return self._indexes[of]


def _small_suffix(path: str) -> str:
    stem, suffix = posixpath.splitext(path)
    return stem + suffix.lower()


def _shared(folders: list[str], others: list[str]) -> int:
    """The number of folders at the end of both paths that are the same."""
    return len(list(takewhile(lambda pair: pair[0] == pair[1], zip(reversed(folders), reversed(others), strict=False))))
