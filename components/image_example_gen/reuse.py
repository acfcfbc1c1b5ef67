"""Shards that an earlier run has written already: data that was added leaves the others as they are."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass

from pyarrow import parquet
from tfx.dsl.io import fileio

from images.dataset.listing import open_file
from images.dataset.row import Row
from images.index import INDEX_FILE
from images.layout import SHARDS_FILE, decoded_folder, read_shards, shard_path
from images.settings import IngestionSettings
from images.shards import link_or_copy
from models.packing import as_dict
from storage.files import replace_file


@dataclass(frozen=True)
class WrittenShard:
    """A shard of an earlier run: the folder of its examples, its number there, and how many there are."""

    folder: str
    number: int
    shards: int


def shard_key(rows: Sequence[Row], fingerprint: str, settings: IngestionSettings) -> str:
    """A digest of all that the shard's examples depend on.

    Args:
      rows: of the shard, all of one span.
      fingerprint: of the span's files.
      settings: of ingestion.
    """
    digest = hashlib.sha256(fingerprint.encode())
    # All that they depend on beside the rows and the files.
    depends_on = (settings.code, as_dict(settings.image), settings.max_pixels, settings.pages)
    digest.update(json.dumps(depends_on, sort_keys=True).encode())
    for row in rows:
        digest.update(repr(row).encode())
    return digest.hexdigest()


def find_written(examples: str) -> dict[str, WrittenShard]:
    """The shards of earlier runs, by key.

    Args:
      examples: where the examples of this run go; those of earlier runs are beside it, as the orchestrator lays them out.
    """
    parent, own = os.path.split(examples.rstrip("/"))
    found: dict[str, WrittenShard] = {}
    for name in fileio.listdir(parent) if fileio.isdir(parent) else []:
        folder = os.path.join(parent, name.rstrip("/"))
        if name.rstrip("/") == own or not fileio.exists(os.path.join(folder, SHARDS_FILE)):
            continue
        known = read_shards(folder)
        found |= {shard.key: WrittenShard(folder, number, len(known)) for number, shard in enumerate(known)}
    return found


def take_over(written: WrittenShard, examples: str, number: int, shards: int, splits: Sequence[str], index_part: str) -> int:
    """Takes the files of an earlier run's shard: as links on a local disk, else as copies.

    Args:
      written: the shard.
      examples: where the examples of this run go.
      number: of the shard in this run.
      shards: how many this run has.
      splits: names of all splits.
      index_part: file for the shard's part of the index.

    Returns:
      Number of images and files in it.
    """
    for old_folder, folder in ((written.folder, examples), (decoded_folder(written.folder), decoded_folder(examples))):
        for split in splits:
            old = shard_path(old_folder, split, written.number, written.shards)
            if fileio.exists(old):
                new = shard_path(folder, split, number, shards)
                fileio.makedirs(os.path.dirname(new))
                link_or_copy(old, new)
    with open_file(os.path.join(written.folder, INDEX_FILE)) as file:
        table = parquet.ParquetFile(file).read_row_group(written.number)
    replace_file(index_part, lambda part: parquet.write_table(table, part))
    return table.num_rows
