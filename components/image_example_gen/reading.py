"""Reads files."""

import os
from collections.abc import Iterator

import tensorflow as tf
from tfx.dsl.io import fileio

from components.image_example_gen.decoding import RejectedImage
from components.image_example_gen.source import Row


def read_files(folder: str, rows: list[Row]) -> Iterator[bytes | RejectedImage]:
    for row in rows:
        try:
            with fileio.open(os.path.join(folder, row.path), "rb") as file:
                yield file.read()
        except (OSError, tf.errors.OpError) as error:
            yield RejectedImage(f"unreadable: {error}")
