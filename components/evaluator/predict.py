"""Predicts the test split with one or two models, in a Beam pipeline whose elements are files of examples."""

import os
from collections.abc import Iterator, Sequence

import apache_beam as beam
import numpy as np
import pandas as pd
import pyarrow as pa
import tensorflow as tf
from tfx.dsl.io import fileio
from tfx_bsl.coders import example_coder

from base.errors import UserError
from components.spread import spread
from evaluation.predictions import Predictions
from models import features
from models.records import read_records

_DROPPED_FEATURES = (features.ENCODED, features.PIXELS)


class _Model:
    """An exported model. The baseline has the candidate's classes, perhaps in another order."""

    def __init__(self, folder: str) -> None:
        self._loaded = tf.saved_model.load(folder)
        with fileio.open(os.path.join(folder, "assets", features.LABEL_VOCABULARY)) as file:
            self.classes = file.read().splitlines()

    def predict(self, examples: tf.Tensor) -> dict[str, np.ndarray]:
        """The outputs by name, such as `probabilities`, for serialised raw examples, string [N]."""
        outputs = self._loaded.signatures["predict_examples"](examples=examples)
        return {name: values.numpy() for name, values in outputs.items()}


class _PredictFile(beam.DoFn):
    """Writes a part of the predictions for each element (number, file of raw examples); yields the part's folder."""

    def __init__(self, models: Sequence[str], folder: str, batch_size: int, multi_label: bool) -> None:
        self._folders = models
        self._folder = folder
        self._batch_size = batch_size
        self._multi_label = multi_label

    def setup(self) -> None:
        self._models = [_Model(folder) for folder in self._folders]
        self._decoder = example_coder.ExamplesToRecordBatchDecoder()

    def process(self, element: tuple[int, str]) -> Iterator[str]:
        number, file = element
        rows: list[pd.DataFrame] = []
        answers: list[list[np.ndarray]] = [[] for _ in self._models]
        sets: list[np.ndarray] = []
        answered: list[np.ndarray] = []
        unusual: list[np.ndarray] = []
        for batch in read_records(file).batch(self._batch_size).prefetch(1):
            outputs = [model.predict(batch) for model in self._models]
            for found, output in zip(answers, outputs, strict=True):
                found.append(output["probabilities"])
            if "label_set" in outputs[0]:
                sets.append(outputs[0]["label_set"])
            if "label" in outputs[0] and features.UNKNOWN not in self._models[0].classes:
                answered.append(outputs[0]["label"] != features.UNKNOWN.encode())
            if "unusual" in outputs[0]:
                unusual.append(outputs[0]["unusual"])
            rows.append(_scalar_features(self._decoder.DecodeBatch(batch.numpy())))
        classes = self._models[0].classes
        if rows:
            candidate, *rest = (np.concatenate(found) for found in answers)
            images = _add_groups(pd.concat(rows, ignore_index=True), file)
        else:  # an ExampleGen other than ImageExampleGen may leave an empty file
            candidate, *rest = (np.zeros((0, len(model.classes)), np.float32) for model in self._models)
            images = pd.DataFrame()
        baseline = _align(_without_gaps(rest[0])[0], self._models[1].classes, classes) if rest else None
        candidate, not_finite = _without_gaps(candidate)
        part = _part_folder(self._folder, number)
        fileio.makedirs(part)
        told = (np.concatenate(found) if found else None for found in (sets, answered, unusual))
        Predictions(images, classes, self._multi_label, candidate, baseline, not_finite, *told).write(part)
        yield part


def _without_gaps(probabilities: np.ndarray) -> tuple[np.ndarray, int]:
    """Sets the rows to 0 that have a value that is not finite, so that all else can be computed; also returns their number."""
    gaps = ~np.isfinite(probabilities).all(axis=-1)
    return np.where(gaps[:, None], np.float32(0), probabilities), int(gaps.sum())


def _scalar_features(batch: pa.RecordBatch) -> pd.DataFrame:
    """A table with one row per image and one column per feature that has one value; several labels become one text."""
    columns = {}
    for name in batch.schema.names:
        if name in _DROPPED_FEATURES:
            continue
        values = batch.column(name)
        if name == features.LABEL:
            texts = ([item.decode() for item in items or []] for items in values.to_pylist())
            columns[name] = pd.Series([features.join_labels(sorted(items)) for items in texts], dtype=object)
        else:
            flat = values.flatten().to_pandas()
            if len(flat) != batch.num_rows:
                continue  # not a raw feature of `models.features`
            columns[name] = flat.str.decode("utf-8") if flat.dtype == object else flat
    return pd.DataFrame(columns)


def _add_groups(images: pd.DataFrame, file: str) -> pd.DataFrame:
    """Adds the column of groups if there is none; then each image is a group of its own.

    Raises:
      UserError: the images have no names or labels. That can happen with an ExampleGen other than ImageExampleGen.
    """
    for name in (features.FILENAME, features.LABEL):
        if name not in images:
            raise UserError(f"{file}: each example needs {name} with one value; give the ExampleGen examples that have it")
    return images if features.GROUP in images else images.assign(**{features.GROUP: images[features.FILENAME]})


def _align(probabilities: np.ndarray, known: list[str], wanted: list[str]) -> np.ndarray:
    """Reorders the columns from the classes `known` to the classes `wanted`; a class that is not known gets probability 0."""
    aligned = np.zeros((len(probabilities), len(wanted)), np.float32)
    for column, name in enumerate(wanted):
        if name in known:
            aligned[:, column] = probabilities[:, known.index(name)]
    return aligned


def _part_folder(folder: str, number: int) -> str:
    return os.path.join(folder, f".part-{number:05d}")


def predict(
    pipeline: beam.Pipeline, files: Sequence[str], models: Sequence[str], folder: str, batch_size: int, multi_label: bool
) -> None:
    """Predicts all files, and writes one part per file to `folder`.

    Args:
      pipeline: an empty pipeline, which is run here.
      files: TFRecord files of raw examples.
      models: folders of the SavedModels: the candidate's, and the baseline's if there is one.
      folder: folder of the parts, for `take_parts`.
      batch_size: images per step.
      multi_label: whether an image can have any number of classes.
    """
    spread(pipeline, "PredictFile", _PredictFile(models, folder, batch_size, multi_label), list(enumerate(files)))


def take_parts(folder: str, files: int) -> Predictions:
    """Reads all parts as one, in the order of the files, and deletes them; `files` is the number of files."""
    parts = [Predictions.read(_part_folder(folder, number)) for number in range(files)]

    def joined(name: str) -> np.ndarray | None:
        found = [values for part in parts if (values := getattr(part, name)) is not None]
        return np.concatenate(found) if found else None

    predictions = Predictions(
        pd.concat([part.rows for part in parts], ignore_index=True),
        parts[0].classes,
        parts[0].multi_label,
        np.concatenate([part.probabilities for part in parts]),
        joined("baseline"),
        sum(part.not_finite for part in parts),
        joined("sets"),
        joined("answered"),
        joined("unusual"),
    )
    for number in range(files):
        fileio.rmtree(_part_folder(folder, number))
    return predictions
