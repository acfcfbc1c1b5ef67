"""Writes the examples of a shard."""

import os
from types import TracebackType

import tensorflow as tf
from tfx.dsl.io import fileio

from components.files import aside


class SplitWriters:
    """The examples of one shard, a TFRecord file in each split that has any.

    The files are not compressed: images are already, and of the rest compression would cost more time than it saves.
    """

    def __init__(self, folder: str, shard: int, shards: int) -> None:
        self._folder = folder
        self._shard = shard
        self._shards = shards
        self._writers: dict[str, tf.io.TFRecordWriter] = {}

    def write(self, split: str, example: bytes) -> None:
        if split not in self._writers:
            self._writers[split] = tf.io.TFRecordWriter(aside(self._path(split)))
        self._writers[split].write(example)

    def _path(self, split: str) -> str:
        return shard_path(self._folder, split, self._shard, self._shards)

    def __enter__(self) -> "SplitWriters":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        for split, writer in self._writers.items():
            writer.close()
            if kind is None:
                fileio.rename(aside(self._path(split)), self._path(split), overwrite=True)
            else:
                fileio.remove(aside(self._path(split)))


def shard_path(folder: str, split: str, shard: int, shards: int) -> str:
    """The file of a shard's examples of one split."""
    return os.path.join(folder, f"Split-{split}", f"data_tfrecord-{shard:05d}-of-{shards:05d}")
