"""What a version of a model was asked and has answered, as far as it was captured: a sample of the rows, and sums by hour."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from base.errors import UserError
from base.inputs import check_regular
from evaluation.intervals import estimate
from evaluation.predictions import Predictions
from evaluation.results import Metric
from models import features
from pipeline.captured.shards import read_captured
from pipeline.pushed.pushed_model import MAX_PIXELS, file_settings
from pipeline.pushed.reference import SUMMARIES, Reference, as_matrix

SAMPLE: Final = 2000  # rows; more would only find what is too small to matter
NUMBERS: Final = tuple(name for name in SUMMARIES if name not in ("format", "channels"))
_KEYS: Final = (["content_hash"], ["request", "row"])  # by which labels are found
_COLUMNS: Final = (
    "time",
    "version",
    "request",
    "row",
    "content_hash",
    *SUMMARIES,
    "embedding",
    "probabilities",
    "label",
    "unusual",
)


@dataclass(frozen=True)
class Traffic:
    """Captured rows of one version.

    Attributes:
      rows: how many there are.
      others: how many rows of other versions were passed over.
      sample: up to `SAMPLE` of the rows, in random order, with the columns of `pipeline.captured.columns`.
      hours: sums by hour: `rows`, `NUMBERS`, `confidence`, and the number of each label in a column "label/NAME".
      times: of the rows that have a true label.
      labelled: their answers and labels; rows with the same image are a group.
    """

    rows: int
    others: int
    sample: pa.Table
    hours: pd.DataFrame
    times: pd.Series
    labelled: Predictions

    def measure(self, names: Sequence[str], chosen: np.ndarray | slice = slice(None)) -> dict[str, Metric]:
        """Metrics of the labelled rows, or of those that are chosen, with their intervals."""
        labels, groups = self.labelled.labels[chosen], self.labelled.groups[chosen]
        return estimate(names, labels, self.labelled.probabilities[chosen], groups, "jackknife")


def read_traffic(place: Path, since: datetime | None, known: Reference, labels: Path | None) -> Traffic:
    """Reads captured rows, a shard at a time.

    Args:
      place: the folder of the shards, or TensorFlow Serving's request log, a file.
      since: earlier rows are passed over; None for all.
      known: the model's reference. Shards of a model of other classes are passed over, and if the name of the version's folder
        is a number, rows of other versions. Embeddings of another length than the reference's are left out.
      labels: a table of true labels, see `_read_labels`; None if there are none.

    Raises:
      UserError: there are no rows, a shard is damaged, or the labels can't be used.
    """
    version, classes = known.version, known.classes
    size = known.answers.embeddings.shape[1] if known.answers else 0
    truth = _read_labels(labels) if labels else None
    generator = np.random.default_rng(0)
    sample: pa.Table | None = None
    hours, labelled, probabilities = pd.DataFrame(), [], []
    rows = others = 0
    multi_label = False
    if not place.exists():
        raise UserError(f"{place}: no captured requests here; give the folder of fpn serve --capture, or a file of requests")
    for table in read_captured(place, since, _COLUMNS) if place.is_dir() else _read_log(place, since, version):
        mine = table.slice(0, 0) if json.loads(table.schema.metadata[b"classes"]) != classes else table
        if version.name.isdecimal():
            mine = mine.filter(pc.field("version") == int(version.name))
        others += table.num_rows - mine.num_rows
        if not mine.num_rows:
            continue
        rows += mine.num_rows
        multi_label = json.loads(table.schema.metadata[b"multi_label"])
        answers = as_matrix(mine["probabilities"])
        frame = mine.drop_columns(["embedding", "probabilities"]).to_pandas().assign(confidence=answers.max(axis=1), rows=1)
        frame["time"] = frame["time"].fillna(pd.Timestamp.now("UTC"))  # a log need not tell it
        hours = hours.add(_sum_up(frame), fill_value=0)
        if truth is not None:
            found = frame[["time", "content_hash", "request", "row"]].merge(truth, on=list(truth.columns[:-1]), how="left")
            has_label = (found["true"].notna() & (multi_label | found["true"].ne(""))).to_numpy()
            labelled.append(found[has_label])
            probabilities.append(answers[has_label])
        keyed = _with_embeddings(mine, max(size, 1)).append_column("key", pa.array(generator.random(len(mine))))
        keyed = pa.concat_tables([sample, keyed]) if sample else keyed
        sample = keyed.take(pc.select_k_unstable(keyed, SAMPLE, [("key", "ascending")]))
    if sample is None:
        what = f"{others:,} answers of other models or versions" if others else "no complete shard with answers"
        raise UserError(f"{place}: {what}, none of {version} since {since or 'the beginning'}; give another folder or --since")
    if labels and not any(map(len, labelled)):
        raise UserError(f"--labels {labels}: labels none of these {rows:,} answers; give a table of the same requests")
    found = pd.concat(labelled) if labelled else pd.DataFrame(columns=["time", "content_hash", "true"])
    named = pd.DataFrame({features.LABEL: found["true"], features.GROUP: found["content_hash"]}).reset_index(drop=True)
    of_labelled = np.concatenate([np.zeros((0, len(classes)), np.float32), *probabilities])
    predictions = Predictions(named, classes, multi_label, of_labelled)
    if labels and not multi_label and (predictions.labels < 0).all():
        raise UserError(f"--labels {labels}: none is a class of the model, such as {classes[0]}; give its names of the classes")
    return Traffic(rows, others, sample, hours, found["time"].reset_index(drop=True), predictions)


def _read_log(file: Path, since: datetime | None, version: Path) -> Iterator[pa.Table]:
    from components.bulk_inferrer.model import is_multi_label
    from pipeline.captured.prediction_logs import read_prediction_logs

    settings = file_settings(version, MAX_PIXELS, "first")
    for table in read_prediction_logs(file, settings, since, multi_label=is_multi_label(str(version))):
        yield table.select(_COLUMNS)


def _with_embeddings(table: pa.Table, size: int) -> pa.Table:
    """The table with a column `embedding` of lists of `size`, null if it has others: rows of one table have one type."""
    place, kind = table.schema.get_field_index("embedding"), pa.list_(pa.float16(), size)
    column = table["embedding"]
    return table.set_column(place, "embedding", column if column.type.list_size == size else pa.nulls(len(table), kind))


def _sum_up(frame: pd.DataFrame) -> pd.DataFrame:
    """Sums by hour, see `Traffic.hours`."""
    labels = pd.get_dummies(frame["label"], prefix="label", prefix_sep="/", dtype=np.int64)
    return pd.concat([frame[["rows", *NUMBERS, "confidence"]], labels], axis=1).groupby(frame["time"].dt.floor("h")).sum()


def _read_labels(path: Path) -> pd.DataFrame:
    """True labels: the columns of one of `_KEYS`, and `true`.

    Args:
      path: a CSV file with a column `label`, and `content_hash` or `request` and `row`.
    """
    check_regular(path, "--labels")
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except ValueError as error:
        raise UserError(f"--labels {path}: can't be read ({error}); give a CSV file") from error
    key = next((key for key in _KEYS if {*key, "label"} <= {*table.columns}), None)
    if key is None:
        raise UserError(f"--labels {path}: lacks columns; give label, and content_hash or request and row")
    if "row" in key:
        rows = pd.to_numeric(table["row"], errors="coerce")
        table["row"] = rows.where(rows.between(0, 2**31 - 1) & (rows % 1 == 0), -1).astype("int32")
    table = table[[*key, "label"]].drop_duplicates()
    if table.duplicated(key).any():
        raise UserError(f"--labels {path}: has two labels of the same {' and '.join(key)}; keep one")
    return table[[*key, "label"]].rename(columns={"label": "true"})
