"""A sample of the eval split with the model's answers, beside the model: later images are compared with it."""

import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import tensorflow as tf
from pyarrow import parquet

from models import features

REFERENCE_ROWS: Final = 2000  # at most


@dataclass(frozen=True)
class Sample:
    """Some images, evenly spread over the eval split.

    Attributes:
      rows: int64 [n], their numbers, ascending.
      embeddings: float32 [n, d].
    """

    rows: np.ndarray
    embeddings: np.ndarray


class Spread:
    """Keeps the embeddings of some images, evenly spread over any number."""

    def __init__(self, most: int) -> None:
        """Makes it; `most` is the number of images that are kept in the end, twice as many and a batch meanwhile."""
        self._most = most
        self._step = 1
        self._length = 0
        self._parts: list[Sample] = []

    def add(self, embeddings: np.ndarray) -> None:
        """Adds those of the next images [n, d]."""
        self._keep(Sample(np.arange(self._length, self._length + len(embeddings)), embeddings))
        self._length += len(embeddings)
        if sum(len(part.rows) for part in self._parts) > 2 * self._most:
            self._step *= 2
            whole, self._parts = self._whole(), []
            self._keep(whole)

    def _keep(self, part: Sample) -> None:
        chosen = part.rows % self._step == 0
        self._parts.append(Sample(part.rows[chosen], part.embeddings[chosen]))

    def _whole(self) -> Sample:
        rows, embeddings = ([getattr(part, name) for part in self._parts] for name in ("rows", "embeddings"))
        return Sample(np.concatenate(rows), np.concatenate(embeddings))

    def kept(self) -> Sample:
        """The images that are kept."""
        whole = self._whole()
        chosen = np.linspace(0, len(whole.rows) - 1, min(len(whole.rows), self._most)).round().astype(np.int64)
        return Sample(whole.rows[chosen], whole.embeddings[chosen])


def write_reference(
    path: str, answers: Mapping[str, np.ndarray], true: list[str | None], groups: np.ndarray, classes: list[str]
) -> None:
    """Writes `features.REFERENCE` into a SavedModel's folder.

    Args:
      path: the folder.
      answers: to each image, as the signature `embed` gives them; `unusual` only if the model has it.
      true: the true classes, several as `features.join_labels` joins them; None where they are unknown.
      groups: int64 [n], equal for images of one group.
      classes: names of the classes, in the order of the probabilities; they are in the file's metadata as well.
    """
    table = pa.table(
        {
            "embedding": fixed_size_lists(answers["embedding"].astype(np.float16)),
            "probabilities": fixed_size_lists(answers["probabilities"]),
            "label": pa.array([label.decode() for label in answers["label"]], pa.string()),
            "unusual": pa.array(answers["unusual"]) if "unusual" in answers else pa.nulls(len(true), pa.float32()),
            "true": pa.array(true, pa.string()),
            "group": pa.array(groups, pa.int64()),
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
