"""TFX's file operations on s3://, which TensorFlow has no file system for: by Beam's client, and so by the package boto3."""

import fnmatch
import io
import os
import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from apache_beam.io.aws import s3io
from apache_beam.io.filesystem import BeamIOError
from apache_beam.options.pipeline_options import PipelineOptions
from tfx.dsl.io import filesystem, filesystem_registry


class S3Files(filesystem.Filesystem):
    """Objects as files; folders are what names have in common, and need not be made."""

    SUPPORTED_SCHEMES = ("s3://",)

    @staticmethod
    def open(name: str, mode: str = "r") -> Any:
        """Opens for reading or writing; what is written is there when the file is closed."""
        if "w" not in mode and not _client().exists(name):
            raise filesystem.NotFoundError(f"{name}: no such object")
        file = _client().open(name, mode.replace("b", "") + "b")
        return file if "b" in mode else io.TextIOWrapper(file, encoding="utf-8")

    @staticmethod
    def copy(src: str, dst: str, overwrite: bool = False) -> None:
        _check_free(dst, overwrite)
        _client().copy(src, dst)

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
        """The names in a folder; those of folders end in a slash, as TensorFlow has them on gs://."""
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
        _client().delete(path)

    @staticmethod
    def rename(src: str, dst: str, overwrite: bool = False) -> None:
        _check_free(dst, overwrite)
        _client().rename(src, dst)

    @staticmethod
    def rmtree(path: str) -> None:
        failed = {name: error for name, error in _client().delete_files(list(_sizes(_folder(path)))).items() if error}
        if failed:
            raise BeamIOError("Delete operation failed", failed)

    @staticmethod
    def stat(path: str) -> Any:
        """As TensorFlow's: `length`, in bytes."""
        return SimpleNamespace(length=_client().size(path))

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


def _client() -> s3io.S3IO:
    return s3io.S3IO(options=PipelineOptions([]))


def _folder(path: str) -> str:
    return path.rstrip("/") + "/"


def _sizes(beginning: str) -> dict[str, int]:
    return dict(_client().list_files(beginning))


def _is_object(path: str) -> bool:
    return path.rstrip("/").count("/") > 2 and _client().exists(path)


def _check_free(path: str, overwrite: bool) -> None:
    if not overwrite and _is_object(path):
        raise FileExistsError(f"{path}: is there already")


filesystem_registry.DEFAULT_FILESYSTEM_REGISTRY.register(S3Files, priority=0)
