"""Files on any file system that are there as a whole or not at all."""

import contextlib
import os
from collections.abc import Iterator

import tensorflow as tf


@contextlib.contextmanager
def replaced(path: str) -> Iterator[str]:
    """Gives a hidden name in the same folder; the file that is written there takes its own name at the end.

    Where an exception ends it, what was there stays, and the unfinished file is removed.

    Args:
      path: local, or on one of TensorFlow's file systems.
    """
    folder, name = os.path.split(path)
    unfinished = os.path.join(folder, f".{name}")
    try:
        yield unfinished
        tf.io.gfile.rename(unfinished, path, overwrite=True)
    except BaseException:
        if tf.io.gfile.exists(unfinished):
            tf.io.gfile.remove(unfinished)
        raise
