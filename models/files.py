"""Files on any file system that are there as a whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import tensorflow as tf


@contextlib.contextmanager
def replaced(path: str, files: Any = tf.io.gfile) -> Iterator[str]:
    """Gives a hidden name in the same folder; the file that is written there takes its own name at the end.

    Where an exception ends it, what was there stays, and the unfinished file is removed.

    Args:
      path: local, or on one of the file systems.
      files: what has `rename`, `exists` and `remove`: TensorFlow's file systems, or TFX's `fileio`, which knows s3://, too.
    """
    folder, name = os.path.split(path)
    unfinished = os.path.join(folder, f".{name}")
    try:
        yield unfinished
        files.rename(unfinished, path, overwrite=True)
    except BaseException:
        if files.exists(unfinished):
            files.remove(unfinished)
        raise
