"""Tables of answers: one Parquet file per shard, one for all groups, and a table of the rejected files."""

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import parquet
from tfx.dsl.io import fileio

from base.errors import UserError
from base.tables import write_table
from components.bulk_inferrer.model import Answers
from evaluation.groups import combine
from evaluation.predictions import Predictions
from evaluation.settings import GroupRule
from images.dataset.listing import open_file
from images.index import REJECTED_FILE
from models import features
from models.files import replaced
from storage.files import replace_file
from storage.stores import open_to_write

SCORES_FOLDER: Final = "scores"
GROUPS_FILE: Final = "groups.parquet"
EMBEDDING: Final = "embedding"  # column
_METADATA: Final = b"fpn"  # in the files' schema: {"classes": [name, ...], "multi_label": bool}
_REJECTED: Final = pa.schema([("path", pa.string()), ("label", pa.string()), ("reason", pa.string())])
Rejected = tuple[str, str, str]  # path, label, reason
_ROWS: Final = 1024  # images that are collected in memory before they are written
_GROUP_BYTES: Final = 2**27  # approximate size of the probabilities from which groups are answered at a time


@dataclass(frozen=True)
class Counts:
    """Numbers of rows in the tables.

    Attributes:
      images: number of images with an answer.
      labels: answer -> number of images; for multi-label data each class is counted by itself.
      rejected: reason -> number of files.
      groups: number of groups; None if every group has one image.
      group_labels: answer -> number of groups.
    """

    images: int
    labels: dict[str, int]
    rejected: dict[str, int]
    groups: int | None
    group_labels: dict[str, int]


@dataclass(frozen=True)
class Tables:
    """The tables with the answers of one model to one data set.

    Attributes:
      folder: folder of the tables, local or on one of Beam's file systems.
      classes: names of the classes, in the order of the probabilities.
      multi_label: whether an image can have any number of classes.
      shards: number of shards.
      embeddings: whether images have a column `embedding`.
      sets: whether images have the columns `label_set`, the names of the classes in the set, and `set_size`.
      unusual: whether images have a column `unusual`.
    """

    folder: str
    classes: list[str]
    multi_label: bool
    shards: int
    embeddings: bool = False
    sets: bool = False
    unusual: bool = False

    def path(self, shard: int) -> str:
        """Path of the file with a shard's answers."""
        return os.path.join(self.folder, SCORES_FOLDER, f"part-{shard:05d}-of-{self.shards:05d}.parquet")

    def write(self, shard: int, answers: Iterable[Answers], rejected: Iterable[Rejected] = ()) -> None:
        """Writes a shard. Its file exists only when the shard is complete.

        Args:
          shard: number of the shard, from 0.
          answers: read one by one, so that only about a thousand images are in memory.
          rejected: rejected files in addition to those of `answers`; read after `answers`, which may add to it.
        """
        more = [("label_set", pa.list_(pa.string())), ("set_size", pa.int64())] if self.sets else []
        more += [("unusual", pa.float32())] if self.unusual else []
        more += [(EMBEDDING, pa.list_(pa.float32()))] if self.embeddings else []
        schema = self._schema(("path", pa.string()), ("group", pa.string()), more=more)
        path = self.path(shard)
        undecodable: list[Rejected] = []
        fileio.makedirs(os.path.dirname(path))
        with replaced(path, fileio) as unfinished:
            with (
                open_to_write(unfinished) as file,
                parquet.ParquetWriter(file, schema) as writer,
            ):
                tables: list[pa.Table] = []
                for some in answers:
                    tables.append(self._to_table(some, schema))
                    undecodable += [(image.path, features.join_labels(image.labels), reason) for image, reason in some.rejected]
                    if sum(table.num_rows for table in tables) >= _ROWS:
                        writer.write_table(pa.concat_tables(tables))
                        tables = []
                writer.write_table(pa.concat_tables([*tables, schema.empty_table()]))
            table = pa.Table.from_pylist(
                [dict(zip(_REJECTED.names, item, strict=True)) for item in (*rejected, *undecodable)], _REJECTED
            )
            replace_file(self._rejected_path(shard), lambda file: parquet.write_table(table, file))

    def finish(self, rule: GroupRule) -> Counts:
        """Writes the table of groups and the table of all rejected files, once all shards are written.

        Args:
          rule: how the answers to the images of a group are combined.

        Raises:
          UserError: rule `share` names no class, or a class that does not exist.
        """
        labels: Counter[str] = Counter()
        hashes = [np.zeros(0, np.uint64)]
        for table in self._parts(["group", "label"]):
            labels.update(table["label"].to_pylist())
            hashes.append(np.unique(_hash_texts(table["group"])))
        count, images = len(np.unique(np.concatenate(hashes))), labels.total()
        return Counts(
            images,
            self._by_class(labels),
            self._write_rejected(),
            count if count < images else None,
            self._by_class(self._write_groups(rule, images)) if count < images else {},
        )

    def _schema(self, *columns: tuple[str, pa.DataType], more: Sequence[tuple[str, pa.DataType]] = ()) -> pa.Schema:
        metadata = json.dumps({"classes": self.classes, "multi_label": self.multi_label}).encode()
        common = [("label", pa.string()), ("probability", pa.float32()), ("probabilities", pa.list_(pa.float32()))]
        return pa.schema([*columns, *common, ("true_label", pa.string()), *more], metadata={_METADATA: metadata})

    def _to_table(self, answers: Answers, schema: pa.Schema) -> pa.Table:
        sets: list[Any] = []
        if self.sets and answers.sets is not None:
            names = [[name for name, inside in zip(self.classes, row, strict=True) if inside] for row in answers.sets]
            sets = [names, answers.sets.sum(axis=1)]
        truths = (features.join_labels(label for label in image.labels if label in self.classes) for image in answers.images)
        return pa.table(
            [
                [image.path for image in answers.images],
                [image.group for image in answers.images],
                answers.labels,
                answers.probabilities.max(axis=1, initial=0),
                _to_lists(answers.probabilities),
                [truth or None for truth in truths],
                *sets,
                *([answers.unusual] if self.unusual else []),
                *([] if answers.embeddings is None else [_to_lists(answers.embeddings)]),
            ],
            schema=schema,
        )

    def _rejected_path(self, shard: int) -> str:
        """Path of a shard's rejected files; hidden, so that programs that read the whole folder of scores skip it."""
        return os.path.join(self.folder, SCORES_FOLDER, f".rejected-{shard:05d}-of-{self.shards:05d}.parquet")

    def _parts(self, columns: list[str]) -> Iterator[pa.Table]:
        for shard in range(self.shards):
            try:
                with open_file(self.path(shard)) as file:
                    for batch in parquet.ParquetFile(file).iter_batches(columns=columns):
                        yield pa.Table.from_batches([batch])
            except pa.ArrowException as error:
                raise UserError(f"{self.path(shard)}: is damaged ({error}); delete it, and start again") from error

    def _by_class(self, labels: Counter[str]) -> dict[str, int]:
        names = (*self.classes, features.UNKNOWN)
        if not self.multi_label:
            return {name: labels[name] for name in names if labels[name]}
        counts: Counter[str] = Counter()
        for label, count in labels.items():
            counts.update(dict.fromkeys(features.split_labels(label, self.multi_label), count))
        return {name: counts[name] for name in names if counts[name]}

    def _write_rejected(self) -> dict[str, int]:
        reasons: Counter[str] = Counter()

        def rows() -> Iterator[list[str]]:
            for shard in range(self.shards):
                with open_file(self._rejected_path(shard)) as part:
                    found = parquet.read_table(part).to_pylist()
                reasons.update(row["reason"] for row in found)
                yield from (list(row.values()) for row in found)

        replace_file(os.path.join(self.folder, REJECTED_FILE), lambda file: write_table(file, _REJECTED.names, rows()))
        return dict(reasons.most_common())

    def _write_groups(self, rule: GroupRule, images: int) -> Counter[str]:
        """Writes the table of groups; returns answer -> number of groups.

        A part of the groups is in memory at a time, so that any number of images is possible.
        """
        parts = max(1, images * len(self.classes) * np.dtype(np.float32).itemsize // _GROUP_BYTES)
        schema = self._schema(("group", pa.string()), ("images", pa.int64()))
        labels: Counter[str] = Counter()

        def write(file: Any) -> None:
            with parquet.ParquetWriter(file, schema) as writer:
                for number in range(parts):
                    tables = []
                    for table in self._parts(["group", "probabilities", "true_label"]):
                        tables.append(table.filter(pa.array(_hash_texts(table["group"]) % parts == number)))
                    table = self._answer_groups(pa.concat_tables(tables), rule, schema)
                    labels.update(table["label"].to_pylist())
                    writer.write_table(table)

        replace_file(os.path.join(self.folder, GROUPS_FILE), write)
        return labels

    def _answer_groups(self, images: pa.Table, rule: GroupRule, schema: pa.Schema) -> pa.Table:
        rows = images.select(["group", "true_label"]).to_pandas()
        has_truth = rows["true_label"].notna().groupby(rows["group"], sort=False).any()  # in the order of `combine`
        rows = rows.fillna({"true_label": ""}).rename(columns={"group": features.GROUP, "true_label": features.LABEL})
        values = images["probabilities"].combine_chunks().flatten().to_numpy().reshape(len(rows), len(self.classes))
        predictions = Predictions(rows, self.classes, self.multi_label, values)
        truths, probabilities, names = combine(predictions, rule.rule, rule.share, rule.positive)
        known = has_truth.to_numpy() & (True if self.multi_label else truths >= 0)
        return pa.table(
            [
                names,
                np.bincount(predictions.groups, minlength=len(names)),
                self._names(predictions.answers(probabilities)),
                probabilities.max(axis=1, initial=0).astype(np.float32),
                _to_lists(probabilities.astype(np.float32)),
                [name if is_known else None for name, is_known in zip(self._names(truths), known, strict=True)],
            ],
            schema=schema,
        )

    def _names(self, answers: np.ndarray) -> list[str]:
        """Answers as text, from positions, int64 [N], or from uint8 [N, classes], 0 or 1; names in alphabetical order."""
        if not self.multi_label:
            return [self.classes[position] for position in answers]
        return [features.join_labels(sorted(self.classes[position] for position in np.nonzero(row)[0])) for row in answers]


def _to_lists(values: np.ndarray) -> pa.ListArray:
    """Converts float32 [N, d] to N lists."""
    offsets = np.arange(len(values) + 1, dtype=np.int32) * values.shape[1]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values.ravel()))


def _hash_texts(column: pa.ChunkedArray) -> np.ndarray:
    """Hashes of texts, uint64, equal on every machine."""
    return pd.util.hash_array(column.to_numpy().astype(object), categorize=False)
