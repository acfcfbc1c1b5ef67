"""Writes files on any file system so that they are there as a whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import tensorflow as tf


@contextlib.contextmanager
def replaced(path: str, files: Any = tf.io.gfile) -> Iterator[str]:
    """Yields a hidden path in the same folder; at the end, the file written there is renamed to `path`.

    After an exception, the old file stays, and the unfinished file is removed.

    Args:
      path: local, or on one of the file systems.
      files: module with `rename`, `exists` and `remove`: TensorFlow's `gfile`, or TFX's `fileio`, which knows s3://, too.
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
