"""Tables of answers: a Parquet file a shard, one of all groups, and the rejected files."""

import csv
import io
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import parquet
from tfx.dsl.io import fileio

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
_METADATA: Final = b"fpn"  # in the files' schema: {"classes": [name, ...], "multi_label": bool}
_REJECTED: Final = pa.schema([("path", pa.string()), ("label", pa.string()), ("reason", pa.string())])
Rejected = tuple[str, str, str]  # path, label, reason
_ROWS: Final = 1024  # images that are kept in memory before they are written
_GROUP_BYTES: Final = 2**27  # probabilities that groups are decided of at a time, about


@dataclass(frozen=True)
class Counts:
    """What the tables hold.

    Attributes:
      images: with an answer.
      labels: answer -> images; of multi-label data each class by itself.
      rejected: reason -> files.
      groups: None where each has one image.
      group_labels: answer -> groups.
    """

    images: int
    labels: dict[str, int]
    rejected: dict[str, int]
    groups: int | None
    group_labels: dict[str, int]


@dataclass(frozen=True)
class Tables:
    """Where the answers of one model to one data set are.

    Attributes:
      folder: local, or on one of Beam's file systems.
      classes: names, in the order of the probabilities.
      multi_label: whether an image can have any number of classes.
      shards: how many parts there are.
    """

    folder: str
    classes: list[str]
    multi_label: bool
    shards: int

    def path(self, shard: int) -> str:
        """The file of a shard's answers."""
        return os.path.join(self.folder, SCORES_FOLDER, f"part-{shard:05d}-of-{self.shards:05d}.parquet")

    def write(self, shard: int, answers: Iterable[Answers], rejected: Iterable[Rejected] = ()) -> None:
        """Writes a shard, whose file is there when all of it is.

        Args:
          shard: number, from 0.
          answers: taken one after the other, so that no more than a thousand images or so are in memory.
          rejected: files beside those of `answers`; looked at after these.
        """
        schema = self._schema(("path", pa.string()), ("group", pa.string()))
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
                    undecodable += [(image.path, _joined(image.labels), reason) for image, reason in some.rejected]
                    if sum(table.num_rows for table in tables) >= _ROWS:
                        writer.write_table(pa.concat_tables(tables))
                        tables = []
                writer.write_table(pa.concat_tables([*tables, schema.empty_table()]))
            table = pa.Table.from_pylist(
                [dict(zip(_REJECTED.names, item, strict=True)) for item in (*rejected, *undecodable)], _REJECTED
            )
            replace_file(self._rejected_path(shard), lambda file: parquet.write_table(table, file))

    def finish(self, rule: GroupRule) -> Counts:
        """Decides groups, and lists the rejected files in one table.

        Args:
          rule: how a group is answered.

        Raises:
          UserError: rule `share` names no class, or one that there is not.
        """
        labels: Counter[str] = Counter()
        hashes = []
        for table in self._parts(["group", "label"]):
            labels.update(table["label"].to_pylist())
            hashes.append(np.unique(_hashed(table["group"])))
        count, images = len(np.unique(np.concatenate(hashes))), labels.total()
        return Counts(
            images,
            self._by_class(labels),
            self._write_rejected(),
            count if count < images else None,
            self._by_class(self._write_groups(rule, images)) if count < images else {},
        )

    def _schema(self, *columns: tuple[str, pa.DataType]) -> pa.Schema:
        metadata = json.dumps({"classes": self.classes, "multi_label": self.multi_label}).encode()
        common = [("label", pa.string()), ("probability", pa.float32()), ("probabilities", pa.list_(pa.float32()))]
        return pa.schema([*columns, *common, ("true_label", pa.string())], metadata={_METADATA: metadata})

    def _to_table(self, answers: Answers, schema: pa.Schema) -> pa.Table:
        truths = (_joined(label for label in image.labels if label in self.classes) for image in answers.images)
        return pa.table(
            [
                [image.path for image in answers.images],
                [image.group for image in answers.images],
                answers.labels,
                answers.probabilities.max(axis=1, initial=0),
                _lists(answers.probabilities),
                [truth or None for truth in truths],
            ],
            schema=schema,
        )

    def _rejected_path(self, shard: int) -> str:
        """Hidden, so that who reads the folder of scores as a whole does not see it."""
        return os.path.join(self.folder, SCORES_FOLDER, f".rejected-{shard:05d}-of-{self.shards:05d}.parquet")

    def _parts(self, columns: list[str]) -> Iterator[pa.Table]:
        for shard in range(self.shards):
            with open_file(self.path(shard)) as file:
                for batch in parquet.ParquetFile(file).iter_batches(columns=columns):
                    yield pa.Table.from_batches([batch])

    def _by_class(self, labels: Counter[str]) -> dict[str, int]:
        if not self.multi_label:
            return {name: labels[name] for name in self.classes if labels[name]}
        counts: Counter[str] = Counter()
        for label, count in labels.items():
            counts.update(dict.fromkeys(label.split(features.LABEL_SEPARATOR) if label else [], count))
        return {name: counts[name] for name in self.classes if counts[name]}

    def _write_rejected(self) -> dict[str, int]:
        reasons: Counter[str] = Counter()

        def write(file: Any) -> None:
            text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
            writer = csv.writer(text, lineterminator="\n")
            writer.writerow(_REJECTED.names)
            for shard in range(self.shards):
                with open_file(self._rejected_path(shard)) as part:
                    rows = parquet.read_table(part).to_pylist()
                writer.writerows(row.values() for row in rows)
                reasons.update(row["reason"] for row in rows)
            text.detach()

        replace_file(os.path.join(self.folder, REJECTED_FILE), write)
        return dict(reasons.most_common())

    def _write_groups(self, rule: GroupRule, images: int) -> Counter[str]:
        """A part of the groups at a time, so that memory is enough for any number of images; returns answer -> groups."""
        parts = max(1, images * len(self.classes) * np.dtype(np.float32).itemsize // _GROUP_BYTES)
        schema = self._schema(("group", pa.string()), ("images", pa.int64()))
        labels: Counter[str] = Counter()

        def write(file: Any) -> None:
            with parquet.ParquetWriter(file, schema) as writer:
                for number in range(parts):
                    tables = []
                    for table in self._parts(["group", "probabilities", "true_label"]):
                        tables.append(table.filter(pa.array(_hashed(table["group"]) % parts == number)))
                    table = self._decide(pa.concat_tables(tables), rule, schema)
                    labels.update(table["label"].to_pylist())
                    writer.write_table(table)

        replace_file(os.path.join(self.folder, GROUPS_FILE), write)
        return labels

    def _decide(self, images: pa.Table, rule: GroupRule, schema: pa.Schema) -> pa.Table:
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
                _lists(probabilities.astype(np.float32)),
                [name if is_known else None for name, is_known in zip(self._names(truths), known, strict=True)],
            ],
            schema=schema,
        )

    def _names(self, answers: np.ndarray) -> list[str]:
        """int64 [N], positions, or uint8 [N, classes], 0 or 1, as text, of several names in alphabetical order."""
        if not self.multi_label:
            return [self.classes[position] for position in answers]
        return [_joined(sorted(self.classes[position] for position in np.nonzero(row)[0])) for row in answers]


def _joined(labels: Iterable[str]) -> str:
    return features.LABEL_SEPARATOR.join(labels)


def _lists(values: np.ndarray) -> pa.ListArray:
    """float32 [N, classes] as N lists."""
    offsets = np.arange(len(values) + 1, dtype=np.int32) * values.shape[1]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values.ravel()))


def _hashed(column: pa.ChunkedArray) -> np.ndarray:
    """uint64, the same for the same text on every machine."""
    return pd.util.hash_array(column.to_numpy().astype(object), categorize=False)
