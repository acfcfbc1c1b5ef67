"""One version of a model: its SavedModel, called with batches."""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

import numpy as np
import orjson
import tensorflow as tf
from google.protobuf import empty_pb2, json_format, unknown_fields
from PIL import Image
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from images.files.decoding import RejectedImage, lacks_end, normalise
from pipeline.pushed.pushed_model import file_settings
from pipeline.serving.images import IMAGES
from pipeline.serving.protocol import DEFAULT_SIGNATURE

# If one image of a batch can't be decoded, the others are cancelled, and TensorFlow may report either error.
_UNREADABLE: Final = (
    tf.errors.InvalidArgumentError,
    tf.errors.OutOfRangeError,
    tf.errors.DataLossError,
    tf.errors.CancelledError,
    tf.errors.AbortedError,
    tf.errors.UnknownError,
)

_REFUSAL: Final = re.compile(r"could not correctly convert string: (.*)")  # see models.orientation.zero_unless

Columns = Mapping[str, Sequence[bytes]]  # input name -> its values
Answers = dict[str, np.ndarray]  # output name -> [N, ...]

EMBED: Final = "embed"  # name of a signature
WARMUP: Final = "assets.extra/tf_serving_warmup_requests"  # TFRecord of tensorflow.serving.PredictionLog


@dataclass(frozen=True)
class Answered:
    """What a model says to N rows.

    Attributes:
      answers: [rows without a failure, ...] for each output; empty if there are none.
      failures: why the others have no answer, by the number of the row.
    """

    answers: Answers
    failures: dict[int, str]


class Model:
    """A SavedModel in memory.

    Attributes:
      folder: the folder that it was loaded from.
      version: number of the version.
      inputs: names of the inputs of each signature that takes only strings [N].
      outputs: type and shape, [-1, ...], of each output of the default signature.
      labels: the names of the classes; none if the model does not tell them.
      multi_label: whether an image can have any number of classes.
      embeds: whether the signature `embed` gives all that the default one does, with embeddings.
      files: how image files are read.
      max_pixels: what an image may have; the same for all models.
    """

    max_pixels: ClassVar[int] = 100_000_000

    def __init__(self, folder: Path, version: int) -> None:
        """Loads a SavedModel and warms it up.

        Raises:
          Exception: whatever TensorFlow raises if the folder has no complete model, or if the warm-up fails.
        """
        self.folder = folder
        self.version = version
        self.files = file_settings(folder, self.max_pixels, "first")
        self._metadata: bytes | None = None
        self._loaded = tf.saved_model.load(str(folder))
        self.inputs: dict[str, list[str]] = {}
        self.labels: list[bytes] = []
        for name, signature in self._loaded.signatures.items():
            _, arguments = signature.structured_input_signature
            if arguments and all(spec.dtype == tf.string and spec.shape.rank == 1 for spec in arguments.values()):
                self.inputs[name] = sorted(arguments)
        if DEFAULT_SIGNATURE not in self.inputs:
            raise ValueError(f"no signature {DEFAULT_SIGNATURE} that takes image files")
        specs = self._loaded.signatures[DEFAULT_SIGNATURE].structured_outputs
        self.outputs = {name: (np.dtype(spec.dtype.as_numpy_dtype), _shape(spec)) for name, spec in sorted(specs.items())}
        self.multi_label = "label" in (found := self._outputs_of("transform_labels")) and found["label"].dtype == tf.float32
        self.embeds = self._outputs_of(EMBED).keys() >= {*self.outputs, "embedding"}
        self._warm_up()

    def _outputs_of(self, signature: str) -> Mapping[str, tf.TensorSpec]:
        signatures = self._loaded.signatures
        return signatures[signature].structured_outputs if signature in signatures else {}

    def run(self, signature: str, columns: Columns) -> Answered:
        """Answers a batch. Image files of any format that ingestion takes are read as it reads them.

        Args:
          signature: a key of `inputs`.
          columns: N values for each input of the signature.
        """
        failures: dict[int, str] = {}
        files: dict[int, bytes] = {}
        for row, file in enumerate(columns.get(IMAGES, ())):
            try:
                files[row] = normalise(file, "", self.files)[0].encoded
            except RejectedImage as reason:
                failures[row] = str(reason)
        good = [row for row in range(len(next(iter(columns.values())))) if row not in failures]
        rows = [{name: files[row] if name == IMAGES else values[row] for name, values in columns.items()} for row in good]
        try:
            return Answered(self._ask(signature, rows) if rows else {}, failures)
        except _UNREADABLE:
            return self._answer_singly(signature, dict(zip(good, rows, strict=True)), failures)

    def _answer_singly(self, signature: str, rows: dict[int, dict[str, bytes]], failures: dict[int, str]) -> Answered:
        """Answers row by row, to find those that can't be read."""
        found: list[Answers] = []
        for row, values in rows.items():
            try:
                found.append(self._ask(signature, [values]))
            except _UNREADABLE as error:
                failures[row] = _reason(error.message, values)
        return Answered({name: np.concatenate([each[name] for each in found]) for name in found[0]} if found else {}, failures)

    def _ask(self, signature: str, rows: Sequence[Mapping[str, bytes]]) -> Answers:
        tensors = {name: tf.constant([row[name] for row in rows], tf.string) for name in rows[0]}
        return {name: _in_rows(values, len(rows)) for name, values in self._loaded.signatures[signature](**tensors).items()}

    def metadata(self, name: str) -> bytes:
        """The signatures in JSON, in TensorFlow Serving's form; they are read from the file once."""
        if self._metadata is None:
            self._metadata = self._read_metadata(name)
        return self._metadata

    def _read_metadata(self, name: str) -> bytes:
        graph = SavedModel.FromString((self.folder / "saved_model.pb").read_bytes()).meta_graphs[0]
        signatures = {
            key: json_format.MessageToDict(signature, preserving_proto_field_name=True)
            for key, signature in graph.signature_def.items()
        }
        spec = {"name": name, "signature_name": "", "version": str(self.version)}
        return orjson.dumps({"model_spec": spec, "metadata": {"signature_def": {"signature_def": signatures}}})

    def _warm_up(self) -> None:
        """Runs the requests that the model was exported with, and each signature that takes images on one black image."""
        for signature, columns in _recorded_requests(self.folder / WARMUP):
            if signature in self.inputs:
                self._must_answer(signature, columns)
        for signature, inputs in self.inputs.items():
            if IMAGES in inputs:
                columns = {name: [_black_image() if name == IMAGES else b""] for name in inputs}
                answers = self._must_answer(signature, columns)
                if signature == DEFAULT_SIGNATURE and "labels" in answers:
                    self.labels = answers["labels"][0].tolist()

    def _must_answer(self, signature: str, columns: Columns) -> Answers:
        answered = self.run(signature, columns)
        if answered.failures:
            raise ValueError(f"the warm-up failed: {next(iter(answered.failures.values()))}")
        return answered.answers


def _in_rows(values: tf.Tensor, rows: int) -> np.ndarray:
    """An output with one row per instance; an output that is the same for all instances is repeated for each.

    Older models have such an output, the names of the classes.
    """
    found = values.numpy()
    return found if values.shape[:1] == [rows] else np.broadcast_to(found, (rows, *found.shape))


def _shape(output: tf.TensorSpec) -> list[int]:
    """Shape [-1, ...] of an output after `_in_rows`."""
    sizes = [-1 if size is None else size for size in output.shape]
    return sizes if sizes[:1] == [-1] else [-1, *sizes]


def _recorded_requests(file: Path) -> list[tuple[str, Columns]]:
    """Signature and inputs of each PredictionLog in a file; empty if there is no file."""
    if not file.exists():
        return []
    requests: list[tuple[str, Columns]] = []
    for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
        predict_log = _message(record).get(6, [])
        for request in (request for log in predict_log for request in _message(log).get(1, [])):
            fields = _message(request)
            names = [name for spec in fields.get(1, []) for name in _message(spec).get(3, [])]
            entries = [_message(entry) for entry in fields.get(2, [])]
            columns = {entry[1][0].decode(): _strings(entry[2][0]) for entry in entries}
            requests.append((names[0].decode() if names else DEFAULT_SIGNATURE, columns))
    return requests


def _message(data: bytes) -> dict[int, list[bytes]]:
    """The fields of a protocol buffer by number; reads TensorFlow Serving's messages without its package."""
    fields: dict[int, list[bytes]] = {}
    for field in unknown_fields.UnknownFieldSet(empty_pb2.Empty.FromString(data)):
        fields.setdefault(field.field_number, []).append(field.data)
    return fields


def _strings(tensor: bytes) -> list[bytes]:
    return tf.make_ndarray(TensorProto.FromString(tensor)).reshape(-1).tolist()


def _black_image() -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (64, 64)).save(buffer, "PNG")
    return buffer.getvalue()


def _reason(message: str, values: Mapping[str, bytes]) -> str:
    """Why the model can't read a row; TensorFlow's message is of no use to a client, but for what the model itself says."""
    if told := _REFUSAL.search(message):
        return told[1]
    if IMAGES in values and lacks_end(values[IMAGES]):
        return "truncated: the end of the file is missing"
    return "damaged: the image can't be decoded"
