"""Writes whole files on any file system."""

from collections.abc import Callable
from typing import Any

from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from models.files import replaced


def replace_file(path: str, write: Callable[[Any], Any]) -> None:
    """Writes a file so that it is there as a whole or not at all.

    Args:
      path: local, or on one of Beam's file systems.
      write: gets the open binary file.
    """
    with (
        replaced(path) as unfinished,
        FileSystems.create(unfinished, compression_type=CompressionTypes.UNCOMPRESSED) as file,
    ):
        write(file)
