"""Reuses shards of earlier runs, so that after data was added only new shards are written."""

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
from storage.made_files import is_whole


@dataclass(frozen=True)
class WrittenShard:
    """A shard of an earlier run: the folder of its examples, its number there, and the number of shards there."""

    folder: str
    number: int
    shards: int


def shard_key(rows: Sequence[Row], fingerprint: str, settings: IngestionSettings) -> str:
    """A digest of everything that the examples of a shard depend on.

    Args:
      rows: the rows of the shard, all of one span.
      fingerprint: fingerprint of the span's files.
      settings: settings of the ingestion.
    """
    digest = hashlib.sha256(fingerprint.encode())
    # Everything that the examples depend on, except the rows and the files.
    depends_on = (
        settings.code,
        as_dict(settings.image),
        settings.max_pixels,
        settings.pages,
        settings.originals,
        settings.store,
    )
    digest.update(json.dumps(depends_on, sort_keys=True).encode())
    for row in rows:
        digest.update(repr(row).encode())
    return digest.hexdigest()


def find_written_shards(examples: str) -> dict[str, WrittenShard]:
    """Finds the shards of earlier runs, by key. Runs whose examples have changed since they were written don't count.

    Args:
      examples: folder of the examples of this run. The orchestrator puts those of earlier runs beside it.
    """
    parent, own = os.path.split(examples.rstrip("/"))
    found: dict[str, WrittenShard] = {}
    for name in fileio.listdir(parent) if fileio.isdir(parent) else []:
        folder = os.path.join(parent, name.rstrip("/"))
        if name.rstrip("/") == own or not fileio.exists(os.path.join(folder, SHARDS_FILE)):
            continue
        if "://" not in folder and not is_whole(folder):
            continue
        known = read_shards(folder)
        found |= {shard.key: WrittenShard(folder, number, len(known)) for number, shard in enumerate(known)}
    return found


def take_over(written: WrittenShard, examples: str, number: int, shards: int, splits: Sequence[str], index_part: str) -> int:
    """Links the files of an earlier run's shard into this run; copies them if they are not on one local disk.

    Args:
      written: the shard of the earlier run.
      examples: folder of the examples of this run.
      number: number of the shard in this run.
      shards: number of shards in this run.
      splits: names of all splits.
      index_part: path for the shard's part of the index.

    Returns:
      Number of rows of the index in the shard: images and rejected files.
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
