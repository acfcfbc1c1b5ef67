"""Redirects what libraries print."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO


@contextlib.contextmanager
def output_to(log: Path) -> Iterator[TextIO]:
    """Appends everything that is written to standard output and standard error to a file, also what C++ code writes.

    Args:
      log: path of the file.

    Yields:
      The real standard error.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        with open(os.dup(saved[1]), "w", encoding="utf-8", buffering=1) as screen:
            yield screen
    finally:
        for stream in (sys.stdout, sys.stderr):
            _flush(stream)
        for number, copy in enumerate(saved, start=1):
            os.dup2(copy, number)
            os.close(copy)


def _flush(stream: TextIO) -> None:
    """Writes out what a stream holds back; if the disk is full, discards it, so that it doesn't turn up on the screen later."""
    try:
        stream.flush()
    except OSError:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())
        stream.flush()


def quiet_libraries() -> contextlib.AbstractContextManager[TextIO]:
    """Discards everything that is printed, such as TensorFlow's start-up lines; yields the real standard error."""
    return output_to(Path(os.devnull))
