"""The answers of a model to the test images: a Parquet file with one row per image."""

import io
import json
import os
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from models import features

PREDICTIONS_FILE: Final = "predictions.parquet"
_CANDIDATE, _BASELINE = "probabilities", "baseline_probabilities"
_SETS, _ANSWERED, _UNUSUAL = "label_set", "answered", "unusual"
_METADATA: Final = b"fpn"


@dataclass(frozen=True)
class Predictions:
    """The images of the test split, with the answers of a model and of the model that it is compared with.

    Attributes:
      rows: one row per image, with the raw features except the image itself: features.FILENAME, GROUP, FORMAT, HEIGHT, ..., the
        meta/ columns, and features.LABEL (for multi-label data "a|b" or "").
      classes: names of the classes, in the order of the probabilities.
      multi_label: whether an image can have any number of classes.
      probabilities: float32 [images, classes], 0..1.
      baseline: float32 [images, classes], 0..1, of the served model; None if there is none.
      sets: bool [images, classes], which classes are in each image's set; None if the model gives none.
      answered: bool [images], whether the answer is not features.UNKNOWN; None if the model does not tell.
      unusual: float32 [images], 0..100, how unusual each image is (see `models.unusual`); None if the model does not tell.
      not_finite: number of images whose probabilities were no finite numbers; they are 0 here.
    """

    rows: pd.DataFrame
    classes: list[str]
    multi_label: bool
    probabilities: np.ndarray
    baseline: np.ndarray | None = None
    not_finite: int = 0
    sets: np.ndarray | None = None
    answered: np.ndarray | None = None
    unusual: np.ndarray | None = None

    @cached_property  # each slice asks for it
    def labels(self) -> np.ndarray:
        """int64 [images], positions in `classes`, -1 for unknown ones; for multi-label data uint8 [images, classes], 0 or 1."""
        position = {name: number for number, name in enumerate(self.classes)}
        texts = self.rows[features.LABEL]
        if not self.multi_label:
            return texts.map(position).fillna(-1).to_numpy(np.int64)
        labels = np.zeros((len(texts), len(self.classes)), np.uint8)
        for row, text in enumerate(texts):
            labels[row, [position[name] for name in features.split_labels(text, multi_label=True) if name in position]] = 1
        return labels

    @cached_property  # each slice asks for it
    def groups(self) -> np.ndarray:
        """int64 [images], the number of each image's group, from 0."""
        return pd.factorize(self.rows[features.GROUP])[0].astype(np.int64)

    def answers(self, probabilities: np.ndarray | None = None) -> np.ndarray:
        """The answer to each image.

        Args:
          probabilities: such as `baseline`; those of the model if not given.

        Returns:
          The most probable class, int64 [images]. For multi-label data uint8 [images, classes], 1 for each class with a
          probability of at least 0.5.
        """
        values = self.probabilities if probabilities is None else probabilities
        return (values >= 0.5).astype(np.uint8) if self.multi_label else values.argmax(axis=-1)

    def write(self, folder: str) -> None:
        """Writes `PREDICTIONS_FILE` into a folder."""
        from storage.files import replace_file  # takes seconds, which `find_shortcuts` does not need

        table = pa.Table.from_pandas(self.rows, preserve_index=False)
        for name, values in ((_CANDIDATE, self.probabilities), (_BASELINE, self.baseline), (_SETS, self.sets)):
            if values is not None:
                flat = pa.array(values.astype(bool if name == _SETS else np.float32).ravel())
                table = table.append_column(name, pa.FixedSizeListArray.from_arrays(flat, len(self.classes)))
        for name, values in ((_ANSWERED, self.answered), (_UNUSUAL, self.unusual)):
            if values is not None:
                table = table.append_column(name, pa.array(values))
        metadata = json.dumps(
            {"classes": self.classes, "multi_label": self.multi_label, "not_finite": self.not_finite}
        ).encode()
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), _METADATA: metadata})
        replace_file(os.path.join(folder, PREDICTIONS_FILE), lambda file: parquet.write_table(table, file))

    @classmethod
    def read(cls, folder: str) -> "Predictions":
        """Reads the file that `write` writes."""
        from tfx.dsl.io import fileio

        with fileio.open(os.path.join(folder, PREDICTIONS_FILE), "rb") as file:
            table = parquet.read_table(io.BytesIO(file.read()))
        metadata = json.loads(table.schema.metadata[_METADATA])

        def matrix(name: str) -> np.ndarray | None:
            if name not in table.column_names:
                return None
            values = table.column(name).combine_chunks().flatten().to_numpy(zero_copy_only=False)
            return values.reshape(-1, len(metadata["classes"]))

        probabilities = matrix(_CANDIDATE)
        assert probabilities is not None
        answered, unusual = (
            table.column(name).to_numpy() if name in table.column_names else None for name in (_ANSWERED, _UNUSUAL)
        )
        own = (_CANDIDATE, _BASELINE, _SETS, _ANSWERED, _UNUSUAL)
        rows = table.drop_columns([name for name in own if name in table.column_names]).to_pandas()
        not_finite = metadata.get("not_finite", 0)  # missing in files of earlier releases
        classes, multi_label = metadata["classes"], metadata["multi_label"]
        told = matrix(_SETS), answered, unusual
        return cls(rows, classes, multi_label, probabilities, matrix(_BASELINE), not_finite, *told)
