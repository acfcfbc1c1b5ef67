"""Reads files whose names someone else has chosen: never a pipe, a device or a socket, which could wait or do something."""

import os
import stat
from pathlib import Path
from typing import Final

from images.files.pixels import RejectedImage
from images.reason import Reason

LONGEST: Final = 2**31 - 1  # bytes; no tf.Example is longer


def read_regular_file(path: str | Path) -> bytes:
    """Reads a whole file; a link counts as what it leads to.

    Raises:
      RejectedImage: not a regular file, which is then not opened; or larger than `LONGEST`.
      OSError: it can't be read.
    """
    _check(os.stat(path))
    # NONBLOCK: if it was replaced since, opening a pipe would wait for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb", buffering=0) as file:
        _check(os.fstat(descriptor))
        return file.readall()


def _check(found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise RejectedImage(Reason("unreadable", "not a regular file"))
    if found.st_size > LONGEST:
        raise RejectedImage("larger than 2 GiB")
