"""Writes the examples of a shard."""

import os
from types import TracebackType
from typing import NamedTuple

import tensorflow as tf
from tfx.dsl.io import fileio

from components.files import aside
from components.image_example_gen.layout import decoded_folder, shard_path


class Examples(NamedTuple):
    """One image as serialised tf.Examples.

    Attributes:
      whole: with the file, for all who read examples.
      decoded: with the pixels that the network sees in place of the file, so that Transform need not read and decode it;
        None where ingestion can't know them.
    """

    whole: bytes
    decoded: bytes | None


class SplitWriters:
    """The examples of one shard: TFRecord files in each split that has any, and likewise of those that are decoded.

    The files are not compressed: images are already, and of the rest compression would cost more time than it saves.
    """

    def __init__(self, folder: str, shard: int, shards: int) -> None:
        self._folder = folder
        self._shard = shard
        self._shards = shards
        self._writers: dict[str, tf.io.TFRecordWriter] = {}

    def write(self, split: str, examples: Examples) -> None:
        self._write(shard_path(self._folder, split, self._shard, self._shards), examples.whole)
        if examples.decoded is not None:
            self._write(shard_path(decoded_folder(self._folder), split, self._shard, self._shards), examples.decoded)

    def _write(self, path: str, example: bytes) -> None:
        if path not in self._writers:
            fileio.makedirs(os.path.dirname(path))
            self._writers[path] = tf.io.TFRecordWriter(aside(path))
        self._writers[path].write(example)

    def __enter__(self) -> "SplitWriters":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        for path, writer in self._writers.items():
            writer.close()
            if kind is None:
                fileio.rename(aside(path), path, overwrite=True)
            else:
                fileio.remove(aside(path))
