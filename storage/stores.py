"""Beam's file systems, and what they lack on s3://. Imports neither TFX nor TensorFlow.

On s3://, Beam creates a new boto3 client for each file, which takes longer than reading the file, and can't write an empty
file.
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

if FileSystems._pipeline_options is None:  # before the first pipeline there are no options, and Beam's s3:// fails without
    FileSystems.set_options(PipelineOptions([]))


def file_system(uri: str) -> FileSystem:
    """Beam's file system for a URI or path.

    Raises:
      UserError: there is none for the scheme, or a package that it needs is not installed.
    """
    check_packages(uri)
    try:
        return FileSystems.get_filesystem(uri)
    except ValueError as error:
        scheme = uri.partition("://")[0]
        raise UserError(f"{uri}: there is no file system for {scheme}://; give a local path, gs:// or s3://") from error


def check_packages(uri: str) -> None:
    """Checks that the package that a URI needs is installed.

    Raises:
      UserError: it is not.
    """
    if uri.startswith("s3://") and importlib.util.find_spec("boto3") is None:
        raise UserError(
            f"{uri}: s3:// needs the package boto3: .venv/bin/uv pip install --python .venv/bin/python --constraints "
            "requirements.lock -e '.[s3]'"
        )


def check_bucket(folder: str) -> None:
    """Fails at once if the bucket does not exist. TensorFlow would retry for minutes.

    Args:
      folder: a URI; only gs:// and s3:// are checked.

    Raises:
      UserError: a package that the URI needs is not installed.
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
    except Exception as error:  # each client raises exceptions of its own
        raise OSError(str(error)) from error


def open_to_read(path: str) -> BinaryIO:
    """Opens a file, local or on one of Beam's file systems, without decompressing it."""
    check_packages(path)
    if path.startswith("s3://"):
        return s3().open(path, "rb")
    return FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED)


def open_to_write(path: str) -> BinaryIO:
    """Opens a file for writing, local or on one of Beam's file systems; an object exists once the file is closed."""
    check_packages(path)
    if path.startswith("s3://"):
        return _Upload(path)  # type: ignore[return-value]
    return FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED)


def s3() -> s3io.S3IO:
    """Beam's operations on S3, with one connection for the whole process."""
    return s3io.S3IO(client=copy.copy(_client(os.getpid())))  # a copy, because the client keeps the state of a read


@functools.cache
def _client(process: int) -> Client:
    return Client(PipelineOptions([]))


class _Upload:
    """A local temporary file that is uploaded when it is closed, but not if an exception has ended its `with` block."""

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
                except Exception as error:  # boto3 raises exceptions of its own
                    raise OSError(str(error)) from error

    def fileno(self) -> int:
        raise io.UnsupportedOperation("an object is on no disk")
