"""A sample of the eval split with the model's answers, beside the model: later images are compared with it."""

import io
import json
import os
from collections.abc import Mapping
from typing import Final

import numpy as np
import pyarrow as pa
import tensorflow as tf
from pyarrow import parquet

from models import features

REFERENCE_ROWS: Final = 2000  # at most


class Spread:
    """Keeps some rows of a table of unknown length, evenly spread over it."""

    def __init__(self, most: int) -> None:
        """Makes it; `most` is the number of rows that are kept in the end, up to three times as many meanwhile."""
        self._most = most
        self._step = 1
        self._length = 0
        self._rows: list[np.ndarray] = []
        self._values: list[np.ndarray] = []

    def add(self, values: np.ndarray) -> None:
        """Adds the next rows [n, d]."""
        self._keep(np.arange(self._length, self._length + len(values)), values)
        self._length += len(values)
        if sum(map(len, self._rows)) > 2 * self._most:
            self._step *= 2
            rows, found = np.concatenate(self._rows), np.concatenate(self._values)
            self._rows, self._values = [], []
            self._keep(rows, found)

    def _keep(self, rows: np.ndarray, values: np.ndarray) -> None:
        chosen = rows % self._step == 0
        self._rows.append(rows[chosen])
        self._values.append(values[chosen])

    def kept(self) -> tuple[np.ndarray, np.ndarray]:
        """The numbers of the kept rows, int64 [n], ascending, and their values [n, d]."""
        rows, values = np.concatenate(self._rows), np.concatenate(self._values)
        chosen = np.linspace(0, len(rows) - 1, min(len(rows), self._most)).round().astype(np.int64)
        return rows[chosen], values[chosen]


def write_reference(path: str, answers: Mapping[str, np.ndarray], true: list[str | None], classes: list[str]) -> None:
    """Writes `features.REFERENCE` into a SavedModel's folder.

    Args:
      path: the folder.
      answers: to each image, as the signature `embed` gives them; `unusual` only if the model has it.
      true: the true classes, several as `features.join_labels` joins them; None where they are unknown.
      classes: names of the classes, in the order of the probabilities; they are in the file's metadata as well.
    """
    table = pa.table(
        {
            "embedding": fixed_size_lists(answers["embedding"].astype(np.float16)),
            "probabilities": fixed_size_lists(answers["probabilities"]),
            "label": pa.array([label.decode() for label in answers["label"]], pa.string()),
            "unusual": pa.array(answers["unusual"]) if "unusual" in answers else pa.nulls(len(true), pa.float32()),
            "true": pa.array(true, pa.string()),
        }
    ).replace_schema_metadata({"classes": json.dumps(classes)})
    content = io.BytesIO()
    parquet.write_table(table, content)
    name = os.path.join(path, features.REFERENCE)
    tf.io.gfile.makedirs(os.path.dirname(name))
    with tf.io.gfile.GFile(name, "wb") as file:
        file.write(content.getvalue())


def fixed_size_lists(values: np.ndarray) -> pa.FixedSizeListArray:
    """A column of N lists from [N, d]."""
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
