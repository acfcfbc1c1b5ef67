"""TensorFlow Serving's log of requests (`LoggingConfig`), TFRecord files of PredictionLog, as captured requests."""

import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pyarrow as pa
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from base.errors import UserError
from base.inputs import check_regular
from images.dataset.tfrecord import read_items
from images.file_settings import FileSettings
from pipeline.captured.answers import describe_answers

_IMAGES: Final = "image_bytes"  # inputs and outputs are named by models.export
_ANSWERS: Final = {"probabilities", "label", "labels"}
_ROWS: Final = 1000  # of a table, but for those of its last request

logger = logging.getLogger("fpn")


def read_prediction_logs(
    path: Path, settings: FileSettings, since: datetime | None = None, *, multi_label: bool = False
) -> Iterator[pa.Table]:
    """Reads the logged requests of image files that were answered with `probabilities`, `label` and `labels`.

    Everything else in a log is passed over, and counted in a warning. A log does not tell a request's id, and not always its
    time; `request`, `image` and a time that is not known are null. There is an embedding if the client has asked for one, by
    the signature `embed`.

    Args:
      path: a TFRecord file, or a folder in which all files are such.
      settings: how the model's image files are read.
      since: with a time zone; requests that are known to be earlier are passed over.
      multi_label: whether an image can have any number of classes, which a log does not tell.

    Yields:
      About a thousand rows, with a schema of `columns.make_schema`.

    Raises:
      UserError: there is no such file.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file; give the TFRecord that TensorFlow Serving has written, or its folder")
    batches: list[pa.RecordBatch] = []
    others = 0
    for log in _read_logs(sorted(path.iterdir()) if path.is_dir() else [path]):
        if since and 0 < log.log_metadata.timestamp_secs < since.timestamp():
            continue
        if not (batch := _as_batch(log, settings, multi_label)):
            others += 1
            continue
        if batches and (sum(map(len, batches)) >= _ROWS or not batches[0].schema.equals(batch.schema, check_metadata=True)):
            yield pa.Table.from_batches(batches)
            batches = []
        batches.append(batch)
    if batches:
        yield pa.Table.from_batches(batches)
    if others:
        logger.warning("%s: passed over %d logs that have no image files, or no probabilities, label and labels", path, others)


def _read_logs(paths: list[Path]) -> Iterator[PredictionLog]:
    for path in paths:
        check_regular(path, "request log")
        with path.open("rb") as file:
            for item in read_items(file, path.stat().st_size):
                if item.reason:
                    logger.warning("%s: at byte %d: %s", path, item.start, item.reason)
                    continue
                try:
                    yield PredictionLog.FromString(item.record)
                except DecodeError:
                    logger.warning("%s: at byte %d: no PredictionLog", path, item.start)


def _as_batch(log: PredictionLog, settings: FileSettings, multi_label: bool) -> pa.RecordBatch | None:
    """The rows of a request; None if it has no image files, or not the answers to each of them."""
    inputs, outputs = log.predict_log.request.inputs, log.predict_log.response.outputs
    if _IMAGES not in inputs or not outputs.keys() >= _ANSWERS:
        return None
    try:
        files = tf.make_ndarray(inputs[_IMAGES])
        answers = {name: tf.make_ndarray(tensor) for name, tensor in outputs.items()}
    except (TypeError, ValueError):  # no tensors
        return None
    labels, rows = answers["labels"], files.shape
    of_each = all(values.shape[:1] == rows for values in answers.values()) and labels.shape == answers["probabilities"].shape
    if not files.size or files.dtype != object or len(rows) != 1 or labels.ndim != 2 or not of_each:
        return None
    classes = [name.decode() for name in labels[0]]
    spec, seconds = log.predict_log.response.model_spec, log.log_metadata.timestamp_secs
    columns = {
        "time": [datetime.fromtimestamp(seconds, UTC) if seconds else None] * len(files),
        "version": [spec.version.value] * len(files),
        "row": range(len(files)),
    }
    return describe_answers(files.tolist(), answers, settings, classes, spec.name, multi_label, columns)
