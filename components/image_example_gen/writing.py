"""Writes the examples of a shard."""

import contextlib
import os
from types import TracebackType

import tensorflow as tf
from tfx.dsl.io import fileio

from images.layout import decoded_folder, shard_path
from images.loading import Examples
from models.files import replaced


class SplitWriters:
    """Writes the examples of one shard: a TFRecord file in each split that has any, and another with the decoded examples.

    The files are not compressed: images are compressed already, and for decoded pixels compression takes more time than it
    saves.
    """

    def __init__(self, folder: str, shard: int, shards: int) -> None:
        self._folder = folder
        self._shard = shard
        self._shards = shards
        self._writers: dict[str, tf.io.TFRecordWriter] = {}
        self._open = contextlib.ExitStack()

    def write(self, split: str, examples: Examples) -> None:
        self._write(shard_path(self._folder, split, self._shard, self._shards), examples.whole)
        if examples.decoded is not None:
            self._write(shard_path(decoded_folder(self._folder), split, self._shard, self._shards), examples.decoded)

    def _write(self, path: str, example: bytes) -> None:
        if path not in self._writers:
            fileio.makedirs(os.path.dirname(path))
            unfinished = self._open.enter_context(replaced(path))
            self._writers[path] = self._open.enter_context(tf.io.TFRecordWriter(unfinished))
        self._writers[path].write(example)

    def __enter__(self) -> "SplitWriters":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._open.__exit__(kind, error, traceback)
