"""Shards: parts of a data set, each read and written by one worker."""

import contextlib
import os
import pickle
import zlib
from collections.abc import Iterable

from tfx.dsl.io import fileio

from images.dataset import source
from images.dataset.row import Row

_SHARD_ROWS, _SHARD_BYTES = 8192, 2**27  # approximate limits of one shard


def make_shards(rows: Iterable[source.Row], most: int = _SHARD_ROWS) -> list[list[source.Row]]:
    """Cuts the data set into shards.

    Args:
      rows: ordered so that the rows of one span follow each other, and those of one record file too.
      most: largest number of rows in a shard.

    Returns:
      Shards of up to `most` rows or about 128 MB. All rows of a shard are of one span. A record file is never divided among
      shards, so that it is read once.
    """
    shards: list[list[source.Row]] = []
    size = 0
    for row in rows:
        last = shards[-1][-1] if shards else None
        same_file = last is not None and row.record is not None and last.path == row.path
        full = bool(shards) and (size >= _SHARD_BYTES or len(shards[-1]) >= most)
        if last is None or row.span != last.span or (full and not same_file):
            shards.append([])
            size = 0
        shards[-1].append(row)
        size += row.size
    return shards


def pack(rows: list[Row]) -> bytes:
    """Rows as compressed bytes, because Beam pickles anything else several times between its steps."""
    return zlib.compress(pickle.dumps(rows), level=1)


def unpack(packed: bytes) -> list[Row]:
    """The rows that `pack` has packed."""
    return pickle.loads(zlib.decompress(packed))


def link_or_copy(old: str, new: str) -> None:
    """Makes a file available under a second name; the file must not be changed later."""
    with contextlib.suppress(OSError):  # left by a killed run: copying a file onto a second name of itself would empty it
        os.remove(new)
    try:
        os.link(old, new)
    except OSError:  # another file system, or not a local one
        fileio.copy(old, new, overwrite=True)
