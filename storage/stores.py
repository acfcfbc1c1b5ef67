"""Beam's file systems, and what they lack on s3://; loads neither TFX nor TensorFlow.

Beam makes a new client of boto3 for each file, which takes longer than to read one, and can't write an empty file to S3.
"""

import copy
import functools
import importlib.util
import io
import os
import tempfile
from typing import Any, BinaryIO

from apache_beam.io.aws import s3io
from apache_beam.io.aws.clients.s3.boto3_client import Client
from apache_beam.io.filesystem import CompressionTypes, FileSystem
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from base.errors import UserError

if FileSystems._pipeline_options is None:  # Beam's s3:// fails without any, and before the first pipeline there are none
    FileSystems.set_options(PipelineOptions([]))


def file_system(uri: str) -> FileSystem:
    """Beam's file system of a URI.

    Raises:
      UserError: there is none, or it lacks a package.
    """
    check_packages(uri)
    try:
        return FileSystems.get_filesystem(uri)
    except ValueError as error:
        scheme = uri.partition("://")[0]
        raise UserError(f"{uri}: there is no file system for {scheme}://; give a local path, gs:// or s3://") from error


def check_packages(uri: str) -> None:
    """Makes sure that what a URI needs is installed.

    Raises:
      UserError: it isn't.
    """
    if uri.startswith("s3://") and importlib.util.find_spec("boto3") is None:
        raise UserError(
            f"{uri}: s3:// needs the package boto3: .venv/bin/uv pip install --python .venv/bin/python --constraints "
            "requirements.lock -e '.[s3]'"
        )


def check_bucket(folder: str) -> None:
    """Fails at once if there is no such bucket, to which TensorFlow would try to write for minutes.

    Args:
      folder: a URI; nothing is asked unless it is of gs:// or s3://.

    Raises:
      UserError: a package is missing.
      OSError: the bucket can't be listed.
    """
    root = folder.rstrip("/") + "/"
    check_packages(root)
    try:
        if root.startswith("s3://"):
            bucket, prefix = s3io.parse_s3_path(root, object_optional=True)
            _client(os.getpid()).client.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1)
        elif root.startswith("gs://"):
            next(iter(file_system(root)._list(root)), None)
    except Exception as error:  # each has its own
        raise OSError(str(error)) from error


def open_to_read(path: str) -> BinaryIO:
    """Opens a file as it is, compressed or not, local or on one of Beam's file systems."""
    check_packages(path)
    if path.startswith("s3://"):
        return s3().open(path, "rb")
    return FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED)


def open_to_write(path: str) -> BinaryIO:
    """Opens a file to be written, local or on one of Beam's file systems; on a store it is there when it is closed."""
    check_packages(path)
    if path.startswith("s3://"):
        return _Upload(path)  # type: ignore[return-value]
    return FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED)


def s3() -> s3io.S3IO:
    """Beam's operations on S3, with the one connection of this process."""
    return s3io.S3IO(client=copy.copy(_client(os.getpid())))  # a copy, for it holds what is being read


@functools.cache
def _client(process: int) -> Client:
    return Client(PipelineOptions([]))


class _Upload:
    """A file on the disk that becomes an object when it is closed; not if writing it has failed."""

    def __init__(self, path: str) -> None:
        self._place = s3io.parse_s3_path(path)
        self._file = tempfile.NamedTemporaryFile("w+b")  # noqa: SIM115

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> "_Upload":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind:
            self._file.close()
        else:
            self.close()

    def close(self) -> None:
        if not self._file.closed:
            with self._file:
                self._file.flush()
                try:
                    _client(os.getpid()).client.upload_file(self._file.name, *self._place)
                except Exception as error:  # boto3 has its own
                    raise OSError(str(error)) from error

    def fileno(self) -> int:
        raise io.UnsupportedOperation("an object is on no disk")
