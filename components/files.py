"""Writes whole files on any file system: aside first, then renamed."""

import os
from collections.abc import Callable
from typing import Any

from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems
from tfx.dsl.io import fileio


def replace_file(path: str, write: Callable[[Any], Any]) -> None:
    """Writes a file so that it is there as a whole or not at all.

    Args:
      path: local, or on one of Beam's file systems.
      write: gets the open binary file.
    """
    unfinished = aside(path)
    with FileSystems.create(unfinished, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        write(file)
    fileio.rename(unfinished, path, overwrite=True)


def aside(path: str) -> str:
    """The hidden name, in the same folder, under which a file is written before it is renamed."""
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name}")
