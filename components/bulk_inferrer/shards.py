"""Answers the images of a data set, a shard at a time, on the workers of an engine."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import apache_beam as beam

from components.bulk_inferrer.model import Image, Model
from components.bulk_inferrer.scores import Rejected, Tables
from components.spread import spread
from images.dataset.row import Row
from images.file_settings import FileSettings
from images.loading import read_checked
from images.shards import pack, unpack


class _ScoreShard(beam.DoFn):
    """Writes the tables of a shard for each element (number, packed rows); yields the number."""

    def __init__(self, data: str, settings: FileSettings, model: str, tables: Tables, batch_size: int) -> None:
        self._data = data
        self._settings = settings
        self._folder = model
        self._tables = tables
        self._batch_size = batch_size

    def setup(self) -> None:
        self._model = Model(self._folder, self._tables.embeddings)

    def process(self, element: tuple[int, bytes]) -> Iterator[int]:
        number, rows = element
        rejected: list[Rejected] = []
        images = self._read_images(unpack(rows), rejected)
        self._tables.write(number, self._model.answer(images, self._batch_size), rejected)
        yield number

    def _read_images(self, rows: list[Row], rejected: list[Rejected]) -> Iterator[Image]:
        for row, found, image in read_checked(self._data, rows, self._settings):
            if image is None:
                rejected.append((found.path, found.label, found.reason))
            else:
                yield Image(found.path, row.group, row.labels, image.encoded)


def score_shards(
    pipeline: beam.Pipeline,
    shards: Sequence[tuple[int, Iterable[Row]]],
    data: str,
    settings: FileSettings,
    model: str,
    tables: Tables,
    batch_size: int,
    tell: Callable[[str, int, int], None],
) -> None:
    """Answers all shards.

    Args:
      pipeline: an empty pipeline, which is run here.
      shards: number and rows of each shard.
      data: the data folder.
      settings: as in `decoding.normalise`.
      model: folder of the SavedModel.
      tables: the tables for the answers.
      batch_size: images per step.
      tell: as for `spread`.
    """
    packed = [(number, pack(list(rows))) for number, rows in shards]
    spread(pipeline, "ScoreShard", _ScoreShard(data, settings, model, tables, batch_size), packed, tell)
