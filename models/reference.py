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


def write_reference(
    path: str, answers: Mapping[str, np.ndarray], embeddings: np.ndarray, true: list[str | None], classes: list[str]
) -> None:
    """Writes `features.REFERENCE` into a SavedModel's folder.

    Args:
      path: the folder.
      answers: to each image, as the signatures give them: `probabilities`, `label`, and `unusual` if the model has it.
      embeddings: float [N, d].
      true: the true classes, several as `features.join_labels` joins them; None where they are unknown.
      classes: names of the classes, in the order of the probabilities; they are in the file's metadata as well.
    """
    table = pa.table(
        {
            "embedding": fixed_size_lists(embeddings.astype(np.float16)),
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
