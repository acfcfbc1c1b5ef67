"""Reads zip and tar archives in place: a path may go through an archive, as in data/archive.zip/cat/1.jpg."""

import io
import os
import re
import tarfile
import zipfile
from functools import lru_cache
from typing import BinaryIO, Final

from base.errors import UserError

SUFFIXES: Final = (".zip", ".tar")
_PATH: Final = re.compile(r"(.+?\.(?:zip|tar))/(.+)", re.IGNORECASE | re.DOTALL)


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
    match = _PATH.fullmatch(path)
    return (match[1], match[2]) if match and os.path.isfile(match[1]) else None


def open_member(archive: str, member: str) -> BinaryIO:
    """Opens a file of an archive.

    Raises:
      OSError: there is no such file in it, or it can't be read.
      UserError: it is no archive that can be read.
    """
    found = _open(archive)
    try:
        if isinstance(found, zipfile.ZipFile):
            return found.open(member)  # type: ignore[return-value]
        start, size = found[member]
    except (KeyError, RuntimeError, NotImplementedError) as error:  # not there; encrypted; an unknown compression
        raise OSError(f"{archive}: {error.args[0]}") from error
    with open(archive, "rb") as file:
        file.seek(start)
        content = file.read(size)
    if len(content) < size:
        raise OSError(f"{archive}: is truncated")
    return io.BytesIO(content)


def _open(archive: str) -> zipfile.ZipFile | dict[str, tuple[int, int]]:
    found = os.stat(archive)
    return _open_once(archive, found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=64)
def _open_once(archive: str, modified: int, size: int) -> zipfile.ZipFile | dict[str, tuple[int, int]]:
    """The list of an archive's files, which is read once while the archive is the same; of a tar, start and size of each."""
    try:
        if archive.lower().endswith(".zip"):
            return zipfile.ZipFile(archive)
        with open(archive, "rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            found = {member.name.removeprefix("./"): (member.offset_data, member.size) for member in tar if member.isreg()}
            file.seek(tar.offset)  # tarfile takes a damaged header for the end
            if file.read(tarfile.BLOCKSIZE) not in (b"", bytes(tarfile.BLOCKSIZE)):
                raise tarfile.ReadError(f"damaged or truncated after {len(found)} files")
            return found
    except (OSError, zipfile.BadZipFile, tarfile.TarError) as error:
        raise UserError(
            f"{archive}: no archive that can be read ({error}); unpack it, and give the folder as data.path"
        ) from error
