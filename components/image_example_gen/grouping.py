"""Keeps duplicates in one split: hashes all images before the splits are made, and checks the written splits."""

import io
import itertools
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet
from scipy import sparse
from scipy.sparse import csgraph
from tfx.dsl.io import fileio

from components.spread import spread
from images.dataset.source import Row
from images.duplicates import group_by_hash, number_values
from images.files.perceptual_hash import near_pairs
from images.index import SCHEMA
from images.loading import Loader
from images.settings import IngestionSettings
from images.shards import pack, unpack
from storage.files import replace_file

_HASHES: Final = pa.schema([SCHEMA.field(name) for name in ("group", "content_hash", "perceptual_hash")])
_MAX_LINKS_IN_MEMORY: Final = 4_000_000  # links in memory at a time
_SPLIT_PRIORITY: Final = ("test", "eval", "train", "")  # a group in several splits goes to the first of these


class _HashShard(beam.DoFn):
    """Writes a file with the groups and hashes of the images for each element (number, packed rows); yields its path."""

    def __init__(self, data: str, folder: str, settings: IngestionSettings) -> None:
        self._data = data
        self._folder = folder
        self._settings = settings

    def setup(self) -> None:
        self._loader = Loader(self._data, self._settings)

    def process(self, element: tuple[int, bytes]) -> Iterator[str]:
        number, rows = element
        found = [image for image, example in self._loader.load(unpack(rows)) if example is not None]
        table = pa.Table.from_pylist([image._asdict() for image in found], _HASHES)
        path = _part(self._folder, number)
        replace_file(path, lambda file: parquet.write_table(table, file))
        yield path


def _part(folder: str, number: int) -> str:
    return os.path.join(folder, f".hashes-{number:05d}.parquet")


def hash_images(pipeline: beam.Pipeline, data: str, shards: list[list[Row]], folder: str, settings: IngestionSettings) -> None:
    """Decodes all images and writes their hashes, for `read_hashes`.

    Args:
      pipeline: an empty pipeline, which is run here.
      data: the data folder.
      shards: the rows of each shard; their splits are not used.
      folder: a folder to which all workers can write.
      settings: as in `Loader`.
    """
    packed = [(number, pack(shard)) for number, shard in enumerate(shards)]
    spread(pipeline, "HashShard", _HashShard(data, folder, settings), packed)


def read_hashes(folder: str, shards: int) -> pa.Table:
    """Reads the files that `hash_images` has written, and deletes them.

    Args:
      folder: as in `hash_images`.
      shards: number of shards.

    Returns:
      The columns `group`, `content_hash` and `perceptual_hash`, one row per readable image.
    """
    tables = [_HASHES.empty_table()]
    for number in range(shards):
        with fileio.open(_part(folder, number), "rb") as file:
            tables.append(parquet.read_table(io.BytesIO(file.read())))
        fileio.remove(_part(folder, number))
    return pa.concat_tables(tables)


@dataclass(frozen=True)
class Grouping:
    """Rows after duplicates were put into one group.

    Attributes:
      rows: the given rows, some with another group or split.
      counts: `grouped`: images in groups that were joined because of duplicates. `largest`: images in the largest of these
        groups. `moved`: images in another split than the data gives.
    """

    rows: list[Row]
    counts: dict[str, int]


def group_duplicates(rows: list[Row], hashes: pa.Table, near: int) -> Grouping:
    """Joins all groups that are linked by duplicates, directly or through other groups.

    If the data puts images of a joined group into several splits, all of them go to test, or to eval if none is in test. So
    the given test split stays complete, and results on it can be compared with published ones; train can best spare images.

    Args:
      rows: the data set, with the groups and splits that the data gives.
      hashes: columns `group`, `content_hash` and `perceptual_hash`, one row per readable image.
      near: as in `find_duplicates`.
    """
    names = pa.array([row.group for row in rows], pa.string())
    values, looks = group_by_hash(hashes["perceptual_hash"])
    # The nodes of the graph are numbered: first the groups, then the contents, then the perceptual hashes.
    groups = pc.index_in(hashes["group"], names.unique()).to_numpy()
    contents = number_values(hashes["content_hash"]) + len(names)
    first_look = len(names) + len(hashes)
    links = itertools.chain(
        [(groups, contents), (groups, looks + first_look)],
        ((one + first_look, two + first_look) for one, two, _ in near_pairs(values, near)),
    )
    part_of_group = _component_numbers(first_look + len(hashes), links)
    parts = part_of_group[pc.index_in(names, names.unique()).to_numpy()].tolist()

    named: dict[int, set[str]] = defaultdict(set)
    given: dict[int, set[str]] = defaultdict(set)
    for row, part in zip(rows, parts, strict=True):
        if not row.reason:
            named[part].add(row.group)
            given[part].add(row.split)
    sizes: Counter[int] = Counter()
    moved = 0
    result = []
    for row, part in zip(rows, parts, strict=True):
        if not row.reason and len(named[part]) > 1:
            split = next(split for split in _SPLIT_PRIORITY if split in given[part])
            sizes[part] += 1
            moved += row.split not in ("", split)
            row = replace(row, group=min(named[part]), split=split)
        result.append(row)
    return Grouping(result, {"grouped": sizes.total(), "largest": max(sizes.values(), default=0), "moved": moved})


def _component_numbers(nodes: int, links: Iterable[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """The number of each node's connected component; links are read in parts, as all may not fit into memory."""
    parts = np.arange(nodes)

    def join(ends: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
        one, two = (parts[np.concatenate(side)] for side in zip(*ends, strict=True))
        graph = sparse.coo_array((np.ones(len(one), bool), (one, two)), (nodes, nodes))
        return csgraph.connected_components(graph, directed=False)[1][parts]

    waiting: list[tuple[np.ndarray, np.ndarray]] = []
    count = 0
    for link in links:
        waiting.append(link)
        count += len(link[0])
        if count > _MAX_LINKS_IN_MEMORY:
            parts, waiting, count = join(waiting), [], 0
    return join(waiting) if waiting else parts


def check_groups(index: pa.Table) -> None:
    """Checks in the written index that all images of a group are in one split.

    Args:
      index: the columns `group` and `split` ("" if set aside).

    Raises:
      RuntimeError: a group is in two splits. That is a bug, whatever the data.
    """
    taken = index.filter(pc.not_equal(index["split"], ""))
    groups = taken.select(["group", "split"]).group_by("group").aggregate([("split", "count_distinct"), ("split", "min_max")])
    spread = groups.filter(pc.greater(groups["split_count_distinct"], 1))
    if len(spread):
        group = spread.slice(0, 1).to_pylist()[0]
        raise RuntimeError(
            f"{len(spread)} groups were written to two splits, the first {group['group']} "
            f"({group['split_min_max']['min']} and {group['split_min_max']['max']})"
        )
