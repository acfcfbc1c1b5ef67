"""Shards: the parts of a data set that one worker reads and writes, and the files that they become."""

import os
import pickle
import zlib
from collections.abc import Iterable

from tfx.dsl.io import fileio

from images.dataset import source
from images.dataset.row import Row

_SHARD_ROWS, _SHARD_BYTES = 8192, 2**27  # about, of one shard


def make_shards(rows: Iterable[source.Row], most: int = _SHARD_ROWS) -> list[list[source.Row]]:
    """Cuts the data set into parts that one worker reads and writes, one after the other.

    Args:
      rows: in an order in which those of one span, and of one record file, follow each other.
      most: rows of a shard.

    Returns:
      Shards of up to `most` rows or about 128 MB, each of one span; a record file is in one shard, so that it is read once.
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
    """Rows as Beam is to carry them: between its steps it packs what they hand over several times, which bytes are spared."""
    return zlib.compress(pickle.dumps(rows), level=1)


def unpack(packed: bytes) -> list[Row]:
    """The rows that `pack` was given."""
    return pickle.loads(zlib.decompress(packed))


def link_or_copy(old: str, new: str) -> None:
    """Gives a file, which nobody changes, a second name."""
    try:
        os.link(old, new)
    except OSError:  # another file system, or none of this machine
        fileio.copy(old, new, overwrite=True)
