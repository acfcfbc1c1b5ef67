"""TFX's file operations on s3://, for which TensorFlow has no file system. Uses Beam's client, and so the package boto3."""

import fnmatch
import io
import os
import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from apache_beam.io.filesystem import BeamIOError
from tfx.dsl.io import filesystem, filesystem_registry

from storage.stores import open_to_read, open_to_write, s3


class S3Files(filesystem.Filesystem):
    """Objects as files. A folder is a common prefix of object names and need not be created."""

    SUPPORTED_SCHEMES = ("s3://",)

    @staticmethod
    def open(name: str, mode: str = "r") -> Any:
        """Opens an object for reading or writing; a written object exists once the file is closed."""
        if "w" in mode:
            return open_to_write(name) if "b" in mode else _TextWriter(name)
        if not s3().exists(name):
            raise filesystem.NotFoundError(f"{name}: no such object")
        file = open_to_read(name)
        return file if "b" in mode else io.TextIOWrapper(file, encoding="utf-8")

    @staticmethod
    def copy(src: str, dst: str, overwrite: bool = False) -> None:
        _check_free(dst, overwrite)
        s3().copy(src, dst)

    @staticmethod
    def exists(path: str) -> bool:
        return _is_object(path) or S3Files.isdir(path)

    @staticmethod
    def glob(pattern: str) -> list[str]:
        beginning, depth = re.split(r"[*?\[]", pattern, maxsplit=1)[0], pattern.count("/")
        return [path for path in _sizes(beginning) if path.count("/") == depth and fnmatch.fnmatchcase(path, pattern)]

    @staticmethod
    def isdir(path: str) -> bool:
        return bool(_sizes(_folder(path)))

    @staticmethod
    def listdir(path: str) -> list[str]:
        """The names in a folder, sorted. Names of folders end in a slash, as TensorFlow lists them on gs://."""
        folder = _folder(path)
        found = [name.removeprefix(folder) for name in _sizes(folder)]
        if not found:
            raise filesystem.NotFoundError(f"{path}: no such folder")
        return sorted({name.partition("/")[0] + ("/" if "/" in name else "") for name in found if name})

    @staticmethod
    def makedirs(path: str) -> None:
        pass

    mkdir = makedirs

    @staticmethod
    def remove(path: str) -> None:
        if not _is_object(path):
            raise filesystem.NotFoundError(f"{path}: no such object")
        s3().delete(path)

    @staticmethod
    def rename(src: str, dst: str, overwrite: bool = False) -> None:
        _check_free(dst, overwrite)
        s3().rename(src, dst)

    @staticmethod
    def rmtree(path: str) -> None:
        if failed := {name: error for name, error in s3().delete_files(list(_sizes(_folder(path)))) if error}:
            raise BeamIOError("Delete operation failed", failed)

    @staticmethod
    def stat(path: str) -> Any:
        """An object with the attribute `length`, in bytes, as TensorFlow's."""
        return SimpleNamespace(length=s3().size(path))

    @staticmethod
    def walk(top: str, topdown: bool = True, onerror: Any = None) -> Iterator[tuple[str, list[str], list[str]]]:
        names = S3Files.listdir(top)
        folders = [name.rstrip("/") for name in names if name.endswith("/")]
        here = (top, folders, [name for name in names if not name.endswith("/")])
        if topdown:
            yield here
        for name in folders:
            yield from S3Files.walk(os.path.join(top, name), topdown, onerror)
        if not topdown:
            yield here


class _TextWriter:
    """A text file open for writing, UTF-8."""

    def __init__(self, path: str) -> None:
        self._file = open_to_write(path)

    def __enter__(self) -> "_TextWriter":
        return self

    def __exit__(self, *failure: Any) -> None:
        self._file.__exit__(*failure)

    def write(self, text: str) -> None:
        self._file.write(text.encode())

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self._file.close()


def _folder(path: str) -> str:
    return path.rstrip("/") + "/"


def _sizes(beginning: str) -> dict[str, int]:
    return dict(s3().list_files(beginning))


def _is_object(path: str) -> bool:
    return path.rstrip("/").count("/") > 2 and s3().exists(path)


def _check_free(path: str, overwrite: bool) -> None:
    if not overwrite and _is_object(path):
        raise FileExistsError(f"{path}: is there already")


filesystem_registry.DEFAULT_FILESYSTEM_REGISTRY.register(S3Files, priority=0)
