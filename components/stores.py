"""Which file systems there are, for what loads neither TFX nor TensorFlow."""

import importlib.util

from apache_beam.io.filesystem import FileSystem
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from components.errors import UserError

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
