"""Reads zip and tar archives in place: a path may go through an archive, as in data/archive.zip/cat/1.jpg."""

import contextlib
import io
import os
import re
import tarfile
import zipfile
from collections.abc import Iterator
from functools import lru_cache
from typing import IO, Any, BinaryIO, Final

from base.errors import UserError
from base.inputs import open_regular

SUFFIXES: Final = (".zip", ".tar")
_INSIDE: Final = re.compile(r"\.(zip|tar)/(?=.)", re.IGNORECASE | re.DOTALL)


def members(archive: str) -> dict[str, int]:
    """The sizes in bytes of the files in an archive, by path.

    Raises:
      UserError: it is no archive that can be read.
    """
    found = _open(archive)
    if isinstance(found, zipfile.ZipFile):
        return {member.filename: member.file_size for member in found.infolist() if not member.is_dir()}
    return {path: size for path, (_, size) in found.items()}


def split_path(path: str) -> tuple[str, str] | None:
    """The archive and the file in it that a path leads to, ("data/a.zip", "cat/1.jpg"); None if it goes through no archive."""
    for match in _INSIDE.finditer(path):
        archive = path[: match.end() - 1]
        if os.path.isfile(archive):
            return archive, path[match.end() :]
    return None


def has_member(archive: str, member: str) -> bool:
    """Whether the archive holds the file; raises UserError if it is no archive that can be read."""
    found = _open(archive)
    return member in (found.NameToInfo if isinstance(found, zipfile.ZipFile) else found)


def open_member(archive: str, member: str) -> BinaryIO:
    """Opens a file of an archive.

    Raises:
      OSError: there is no such file in it, or it can't be read; also when it is read.
      UserError: it is no archive that can be read.
    """
    found = _open(archive)
    try:
        if isinstance(found, zipfile.ZipFile):
            return io.BufferedReader(_Member(archive, found.open(member), 0, found.getinfo(member).file_size))
        start, size = found[member]
    except (KeyError, RuntimeError, NotImplementedError) as error:  # not there; encrypted; an unknown compression
        raise OSError(f"{archive}: {error.args[0]}") from error
    except zipfile.BadZipFile as error:
        raise OSError(f"{archive}: {error}") from error
    return io.BufferedReader(_Member(archive, open_regular(archive), start, size))


class _Member(io.RawIOBase):
    """A file of an archive, which is read as it is asked for; what is wrong with the archive is an OSError."""

    def __init__(self, archive: str, file: IO[bytes], start: int, size: int) -> None:
        """Takes a file, and the part of it that is the member."""
        self._archive = archive
        self._file = file
        self._start = start
        self._size = size
        self._next = 0
        file.seek(start)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._next = max(offset + {os.SEEK_CUR: self._next, os.SEEK_END: self._size}.get(whence, 0), 0)
        with self._told():
            self._file.seek(self._start + min(self._next, self._size))
        return self._next

    def readinto(self, buffer: Any) -> int:
        with self._told():
            content = self._file.read(min(len(buffer), max(self._size - self._next, 0)))
        if not content and len(buffer) and self._next < self._size:
            raise OSError(f"{self._archive}: is truncated")
        buffer[: len(content)] = content
        self._next += len(content)
        return len(content)

    def close(self) -> None:
        self._file.close()
        super().close()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            raise
        except Exception as error:  # each compression raises exceptions of its own
            raise OSError(f"{self._archive}: {error}") from error


def _open(archive: str) -> zipfile.ZipFile | dict[str, tuple[int, int]]:
    found = os.stat(archive)
    return _open_once(archive, found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=64)
def _open_once(archive: str, modified: int, size: int) -> zipfile.ZipFile | dict[str, tuple[int, int]]:
    """The list of an archive's files, which is read once while the archive is the same; of a tar, start and size of each."""
    try:
        if archive.lower().endswith(".zip"):
            return zipfile.ZipFile(open_regular(archive))
        with open_regular(archive) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            found = {member.name.removeprefix("./"): (member.offset_data, member.size) for member in tar if member.isreg()}
            file.seek(tar.offset)  # tarfile takes a damaged header for the end
            if file.read(tarfile.BLOCKSIZE) not in (b"", bytes(tarfile.BLOCKSIZE)):
                raise tarfile.ReadError(f"damaged or truncated after {len(found)} files")
            return found
    except (OSError, zipfile.BadZipFile, tarfile.TarError) as error:
        raise UserError(
            f"{archive}: no archive that can be read ({error}); unpack it, and give the folder as data.path"
        ) from error
