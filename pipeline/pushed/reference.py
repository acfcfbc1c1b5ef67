"""What a pushed model's later answers are compared with: its training images, its answers to the eval split, its metrics."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from base.errors import UserError
from components.pusher.classes import read_labels
from components.pusher.integrity import read_record
from components.pusher.record import Record
from evaluation.results import Metric
from images.index import INDEX_FILE
from models import features

# Columns of the index and of captured requests, and the features whose names statistics and schemas use for them.
SUMMARIES: Final = {
    "format": features.FORMAT,
    "width": features.WIDTH,
    "height": features.HEIGHT,
    "channels": features.CHANNELS,
    "bytes": features.BYTES,
    **{name.partition("/")[2]: name for name in features.SUMMARIES},
}
_MOST: Final = 5000  # training images; more would only find what is too small to matter


@dataclass(frozen=True)
class Answers:
    """Answers of a model.

    Attributes:
      rows: a row for each, with `label`, "unknown" where the model abstains, and `unusual`, a percentile or NaN.
      probabilities: float32 [N, classes], 0..1.
      embeddings: float32 [N, d]; d is 0 if the model gives none.
    """

    rows: pd.DataFrame
    probabilities: np.ndarray
    embeddings: np.ndarray


@dataclass(frozen=True)
class Reference:
    """What is known of a pushed version.

    Attributes:
      version: its folder.
      classes: names of its classes, in the order of the probabilities.
      images: summaries of training images, one of each group, with the columns `SUMMARIES`; None if they are not known.
      answers: to images of the eval split, one of each group, in random order; None if they are not known.
      metrics: of the test split, by name, those with an interval.
      missing: why `images` or `answers` is None, by name, with the cure.
    """

    version: Path
    classes: list[str]
    images: pd.DataFrame | None
    answers: Answers | None
    metrics: dict[str, Metric]
    missing: dict[str, str]


def read_reference(version: Path, place: Path | None) -> Reference:
    """Reads the reference of a version.

    Args:
      version: its folder.
      place: folder of the run that has trained it, or of that run's examples; the run that its record names if None.

    Raises:
      UserError: `place` has no index of images, or a file is damaged.
    """
    record, answers_file = read_record(str(version)) or Record(), version / features.REFERENCE
    classes = record.classes or read_labels(str(version))
    if not classes:
        raise UserError(f"{version}: names no classes; give a model that a run has pushed")
    index = _find_index(place or Path(record.run_folder)) if place or record.run_folder else None
    if place and not index:
        raise UserError(f"--reference {place}: no {INDEX_FILE} there; give the folder of a run, or of its examples")
    missing = {}
    if not index:
        missing["images"] = "the run that made the model is not here; give --reference with its folder, or that of its examples"
    if not answers_file.is_file():
        missing["answers"] = f"the model has no {features.REFERENCE}; train it again with this release"
    return Reference(
        version,
        classes,
        _read_images(index) if index else None,
        _read_answers(answers_file, classes) if "answers" not in missing else None,
        {
            name: Metric(metric["value"], metric["lower"], metric["upper"])
            for name, metric in record.metrics.items()
            if metric["lower"] is not None
        },
        missing,
    )


def as_answers(table: pa.Table) -> Answers:
    """The answers in a table with the columns `label`, `unusual`, `probabilities` and `embedding`, each may have nulls."""
    rows = table.select(["label", "unusual"]).to_pandas()
    rows["unusual"] = rows["unusual"].astype(float)
    return Answers(rows, as_matrix(table["probabilities"]), as_matrix(table["embedding"]))


def as_matrix(column: pa.ChunkedArray) -> np.ndarray:
    """A column of N lists of equal length as float32 [N, d], 0 for what is no finite number; d is 0 if there is a null."""
    size = 0 if column.null_count else column.type.list_size
    parts = [part.flatten().to_numpy(zero_copy_only=False).reshape(len(part), size) for part in column.chunks if size]
    matrix = np.concatenate([np.zeros((0 if size else len(column), size), np.float32), *parts]).astype(np.float32)
    return np.where(np.isfinite(matrix), matrix, 0)


def _find_index(place: Path) -> Path | None:
    """The index in a folder of examples, or in that of a run's."""
    if not (place / INDEX_FILE).is_file():
        from pipeline.records.outputs import find_examples

        place = find_examples(place) or place
    return place / INDEX_FILE if (place / INDEX_FILE).is_file() else None


def _read_images(index: Path) -> pd.DataFrame:
    try:
        images = pd.read_parquet(index, columns=[*SUMMARIES, "split", "group"], filters=[("split", "==", "train")])
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{index}: can't be read ({reason}); give --reference with another run of this release") from error
    images = images.sample(frac=1, random_state=0).drop_duplicates("group")
    return images[list(SUMMARIES)].head(_MOST).reset_index(drop=True)


def _read_answers(file: Path, classes: list[str]) -> Answers:
    try:
        table = parquet.read_table(file)
        if json.loads(table.schema.metadata[b"classes"]) != classes:
            raise UserError(f"{file}: is of a model of other classes; push the model again")
        table = table.take(np.random.default_rng(0).permutation(len(table)))
        if "group" in table.column_names:  # not in models of an earlier release
            table = table.take(np.unique(table["group"].to_numpy(), return_index=True)[1])
            table = table.take(np.random.default_rng(1).permutation(len(table)))
        return as_answers(table)
    except (pa.ArrowException, OSError, LookupError, TypeError, ValueError) as error:
        raise UserError(f"{file}: is damaged ({error!r}); push the model again") from error
