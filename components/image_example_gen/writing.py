"""Writes whole files on any file system: aside first, then renamed."""

import os
from collections.abc import Callable
from types import TracebackType
from typing import Any

import tensorflow as tf
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems
from tfx.dsl.io import fileio


def replace_file(path: str, write: Callable[[Any], Any]) -> None:
    """Writes a file so that it is there as a whole or not at all.

    Args:
      path: local, or on one of Beam's file systems.
      write: gets the open binary file.
    """
    aside = _aside(path)
    with FileSystems.create(aside, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        write(file)
    fileio.rename(aside, path, overwrite=True)


class SplitWriters:
    """The examples of one shard, a TFRecord file in each split that has any.

    The files are not compressed: images are already, and of the rest compression would cost more time than it saves.
    """

    def __init__(self, folder: str, shard: int, shards: int) -> None:
        self._folder = folder
        self._name = f"data_tfrecord-{shard:05d}-of-{shards:05d}"
        self._writers: dict[str, tf.io.TFRecordWriter] = {}

    def write(self, split: str, example: bytes) -> None:
        if split not in self._writers:
            self._writers[split] = tf.io.TFRecordWriter(_aside(self._path(split)))
        self._writers[split].write(example)

    def _path(self, split: str) -> str:
        return os.path.join(self._folder, f"Split-{split}", self._name)

    def __enter__(self) -> "SplitWriters":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        for split, writer in self._writers.items():
            writer.close()
            if kind is None:
                fileio.rename(_aside(self._path(split)), self._path(split), overwrite=True)
            else:
                fileio.remove(_aside(self._path(split)))


def _aside(path: str) -> str:
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name}")
