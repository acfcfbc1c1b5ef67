"""One version of a model: its SavedModel, called with batches."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import orjson
import tensorflow as tf
from google.protobuf import empty_pb2, json_format, unknown_fields
from PIL import Image
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from pipeline.serving.images import IMAGES
from pipeline.serving.protocol import DEFAULT_SIGNATURE
from pipeline.serving.refusal import Refusal

# If one image of a batch can't be decoded, the others are cancelled, and TensorFlow may report either error.
_UNREADABLE: Final = (
    tf.errors.InvalidArgumentError,
    tf.errors.OutOfRangeError,
    tf.errors.DataLossError,
    tf.errors.CancelledError,
    tf.errors.AbortedError,
    tf.errors.UnknownError,
)

Columns = Mapping[str, Sequence[bytes]]  # input name -> its values

WARMUP: Final = "assets.extra/tf_serving_warmup_requests"  # TFRecord of tensorflow.serving.PredictionLog


class Model:
    """A SavedModel in memory.

    Attributes:
      folder: the folder that it was loaded from.
      version: number of the version.
      inputs: names of the inputs of each signature that takes only strings [N].
      outputs: type and shape, [-1, ...], of each output of the default signature.
    """

    def __init__(self, folder: Path, version: int) -> None:
        """Loads a SavedModel and warms it up.

        Raises:
          Exception: whatever TensorFlow raises if the folder has no complete model, or if the warm-up fails.
        """
        self.folder = folder
        self.version = version
        self._metadata: bytes | None = None
        self._loaded = tf.saved_model.load(str(folder))
        self.inputs: dict[str, list[str]] = {}
        for name, signature in self._loaded.signatures.items():
            _, arguments = signature.structured_input_signature
            if arguments and all(spec.dtype == tf.string and spec.shape.rank == 1 for spec in arguments.values()):
                self.inputs[name] = sorted(arguments)
        if DEFAULT_SIGNATURE not in self.inputs:
            raise ValueError(f"no signature {DEFAULT_SIGNATURE} that takes image files")
        specs = self._loaded.signatures[DEFAULT_SIGNATURE].structured_outputs
        self.outputs = {name: (np.dtype(spec.dtype.as_numpy_dtype), _shape(spec)) for name, spec in sorted(specs.items())}
        self._warm_up()

    def run(self, signature: str, columns: Columns) -> dict[str, np.ndarray]:
        """Answers a batch.

        Args:
          signature: a key of `inputs`.
          columns: N values for each input of the signature.

        Returns:
          [N, ...] for each output of the signature.

        Raises:
          Refusal: 400, the model can't read one of the values.
        """
        try:
            answers = self._ask(signature, columns)
        except _UNREADABLE as error:
            raise Refusal(400, f"the model can't read this: {_first_line(error.message)}") from error
        rows = len(next(iter(columns.values())))
        return {name: _in_rows(values, rows) for name, values in answers.items()}

    def _ask(self, signature: str, columns: Columns) -> dict[str, tf.Tensor]:
        tensors = {name: tf.constant(values, tf.string) for name, values in columns.items()}
        return self._loaded.signatures[signature](**tensors)

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
                self.run(signature, columns)
        for signature, inputs in self.inputs.items():
            if IMAGES in inputs:
                self.run(signature, {name: [_black_image() if name == IMAGES else b""] for name in inputs})


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


def _first_line(message: str) -> str:
    return message.strip().splitlines()[0].split("{{", 1)[0].strip()[:200] if message.strip() else "an error without a message"
