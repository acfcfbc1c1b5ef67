"""Reads zip archives in place: a path may go through an archive, as in data/archive.zip/cat/1.jpg."""

import os
import zipfile
from collections.abc import Iterator
from functools import lru_cache
from typing import IO

from base.errors import UserError


def members(archive: str) -> Iterator[tuple[str, int]]:
    """Yields path and size in bytes of each file in an archive.

    Raises:
      UserError: it is no archive that can be read.
    """
    for member in _open(archive).infolist():
        if not member.is_dir():
            yield member.filename, member.file_size


def split_path(path: str) -> tuple[str, str] | None:
    """The archive and the file in it that a path leads to, ("data/a.zip", "cat/1.jpg"); None if it goes through no archive."""
    if ".zip/" not in path.lower() or os.path.exists(path):
        return None
    end = path.lower().index(".zip/") + len(".zip")
    return (path[:end], path[end + 1 :]) if os.path.isfile(path[:end]) else None


def open_member(archive: str, member: str) -> IO[bytes]:
    """Opens a file of an archive.

    Raises:
      OSError: there is no such file in it, or it can't be read.
      UserError: it is no archive that can be read.
    """
    try:
        return _open(archive).open(member)
    except (KeyError, RuntimeError, NotImplementedError) as error:  # not there; encrypted; an unknown compression
        raise OSError(f"{archive}: {error.args[0]}") from error


def _open(archive: str) -> zipfile.ZipFile:
    found = os.stat(archive)
    return _open_once(archive, found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=16)
def _open_once(archive: str, modified: int, size: int) -> zipfile.ZipFile:
    """The list of an archive's files is long, so it is read once, while the archive stays the same."""
    try:
        return zipfile.ZipFile(archive)
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{archive}: no zip archive that can be read ({error}); unpack it, and give the folder as data.path"
        ) from error
