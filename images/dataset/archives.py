"""Reads zip and tar archives in place: a path may go through an archive, as in data/archive.zip/cat/1.jpg.

A compressed tar has no way to one of its files but through all before it. So it is decompressed once per process, into a
temporary file without a name, which the system deletes when the process ends in any way. No file is ever unpacked.
"""

import bz2
import contextlib
import gzip
import io
import lzma
import os
import re
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import IO, Any, BinaryIO, Final

from base.errors import UserError
from base.inputs import open_regular

_COMPRESSED: Final = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
SUFFIXES: Final = (".zip", ".tar", *_COMPRESSED)
_SUFFIX: Final = rf"(?:{'|'.join(map(re.escape, sorted(SUFFIXES, reverse=True)))})"
_INSIDE: Final = re.compile(rf"{_SUFFIX}/(?=.)", re.IGNORECASE | re.DOTALL)
_OPENERS: Final[dict[bytes, Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
_MOST: Final = (2**30, 100)  # bytes that any archive may unpack to, and those that are added for each of its bytes
_FREE_SHARE: Final = 0.9  # of the temporary folder's free space that a decompressed tar may fill
_CHUNK: Final = 2**20
_MAX_OPEN: Final = 256
_MAX_COMPRESSED: Final = 100  # in a folder; all must stay open
_ERRORS: Final = (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError)


def members(archive: str) -> dict[str, int]:
    """The sizes in bytes of the files in an archive, by path.

    Raises:
      UserError: it is no archive that can be read.
    """
    found = _open(archive)
    if isinstance(found, zipfile.ZipFile):
        return {member.filename: member.file_size for member in found.infolist() if not member.is_dir()}
    return {path: size for path, (_, size) in found.places.items()}


def without_suffix(path: str) -> str:
    """The path of an archive, or of a file in one, up to the archive's suffix; any other path as it is."""
    return re.split(rf"{_SUFFIX}(?:/|$)", path, maxsplit=1, flags=re.IGNORECASE)[0]


def check_number(folder: str, paths: Sequence[str]) -> None:
    """Raises UserError if a folder has too many compressed tar archives; `paths` are all of its archives."""
    compressed = sum(path.lower().endswith(_COMPRESSED) for path in paths)
    if compressed > _MAX_COMPRESSED:
        raise UserError(
            f"{folder}: {compressed} compressed tar archives, {_MAX_COMPRESSED} are the most; decompress them to .tar"
        )


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
    return member in (found.NameToInfo if isinstance(found, zipfile.ZipFile) else found.places)


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
        start, size = found.places[member]
    except (KeyError, RuntimeError, NotImplementedError) as error:  # not there; encrypted; an unknown compression
        raise OSError(f"{archive}: {error.args[0]}") from error
    except zipfile.BadZipFile as error:
        raise OSError(f"{archive}: {error}") from error
    file = open_regular(archive) if found.decompressed is None else _Shared(found.decompressed)
    return io.BufferedReader(_Member(archive, file, start, size))


@dataclass(frozen=True)
class _Tar:
    """The list of a tar's files: where each begins, and its size; and the whole tar if it was compressed."""

    places: dict[str, tuple[int, int]]
    decompressed: BinaryIO | None


class _Shared:
    """A file that is read in several places at the same time."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._next = 0

    def seek(self, offset: int) -> None:
        self._next = offset

    def read(self, size: int) -> bytes:
        content = os.pread(self._file.fileno(), size, self._next)
        self._next += len(content)
        return content

    def close(self) -> None:
        """Leaves the file open for others."""


class _Member(io.RawIOBase):
    """A file of an archive, which is read as it is asked for; what is wrong with the archive is an OSError."""

    def __init__(self, archive: str, file: IO[bytes] | _Shared, start: int, size: int) -> None:
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


def _open(archive: str) -> zipfile.ZipFile | _Tar:
    found = os.stat(archive)
    return _open_once(archive, found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=_MAX_OPEN)
def _open_once(archive: str, modified: int, size: int) -> zipfile.ZipFile | _Tar:
    """The list of an archive's files, which is read once while the archive is the same."""
    try:
        if archive.lower().endswith(".zip"):
            found = zipfile.ZipFile(open_regular(archive))
            _check_size(sum(member.file_size for member in found.infolist()), size)
            return found
        with open_regular(archive) as file:
            head = file.read(8)
            file.seek(0)
            opener = next((opener for magic, opener in _OPENERS.items() if head.startswith(magic)), None)
            if opener is None:
                return _Tar(_list_tar(file), None)
            decompressed = _decompress(opener(file), size)
            return _Tar(_list_tar(decompressed), decompressed)
    except _ERRORS as error:
        raise UserError(
            f"{archive}: no archive that can be read ({error}); unpack it, and give the folder as data.path"
        ) from error


def _list_tar(file: BinaryIO) -> dict[str, tuple[int, int]]:
    with tarfile.open(fileobj=file, mode="r:") as tar:
        found = {member.name.removeprefix("./"): (member.offset_data, member.size) for member in tar if member.isreg()}
        file.seek(tar.offset)  # tarfile takes a damaged header for the end
        if file.read(tarfile.BLOCKSIZE) not in (b"", bytes(tarfile.BLOCKSIZE)):
            raise tarfile.ReadError(f"damaged or truncated after {len(found)} files")
        return found


def _decompress(packed: IO[bytes], size: int) -> BinaryIO:
    free = _FREE_SHARE * shutil.disk_usage(tempfile.gettempdir()).free
    file = tempfile.TemporaryFile(prefix="fpn-archive-")  # noqa: SIM115 - stays open as long as the list of its files
    try:
        while content := packed.read(_CHUNK):
            file.write(content)
            _check_size(file.tell(), size)
            if file.tell() > free:
                raise OSError(f"no space for it in {tempfile.gettempdir()}; set TMPDIR to a folder with more")
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file


def _check_size(unpacked: int, size: int) -> None:
    """Raises OSError if an archive of `size` bytes has suspiciously many bytes in it."""
    if unpacked > _MOST[0] + _MOST[1] * size:
        raise OSError(f"it has {size:,} bytes, and would have more than {_MOST[0] + _MOST[1] * size:,} when unpacked")
