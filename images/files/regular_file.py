"""Reads files whose names someone else has chosen."""

import os
from pathlib import Path
from typing import Final

from base.inputs import open_regular
from images.files.pixels import RejectedImage

LONGEST: Final = 2**31 - 1  # bytes; no tf.Example is longer


def read_regular_file(path: str | Path) -> bytes:
    """Reads a whole file; a link counts as what it leads to.

    Raises:
      RejectedImage: larger than `LONGEST`.
      OSError: it can't be read, or is no regular file, which is then not opened.
    """
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > LONGEST:
            raise RejectedImage("larger than 2 GiB")
        return file.read()
