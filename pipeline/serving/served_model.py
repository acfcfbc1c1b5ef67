"""The served model: turns the body of a request into the body of its answer, through the batcher."""

import asyncio
from collections.abc import Mapping
from typing import Final

import numpy as np
import orjson
from tensorflow.core.example.example_pb2 import Example

from pipeline.serving.batching import Batcher
from pipeline.serving.images import pixels_of
from pipeline.serving.model import IMAGES, Columns, Model
from pipeline.serving.open_inference import read_request, write_response
from pipeline.serving.options import Limits
from pipeline.serving.pictures import explained_rows
from pipeline.serving.protocol import DEFAULT_SIGNATURE, read_query, write_answer
from pipeline.serving.refusal import Refusal
from pipeline.serving.versions import Versions

_EXPLAIN: Final = "explain"  # name of a signature
_MAX_EXPLAINED: Final = 16  # images in a request
_EXAMPLES: Final = "examples"  # the input of serialised tf.Example
_ENCODED: Final = "image/encoded"  # the feature with the image file, named by models.features


class ServedModel:
    """A model under a name, whose requests are answered in batches.

    Attributes:
      name: the model's name in the addresses.
      versions: the model's versions.
    """

    def __init__(self, name: str, versions: Versions, batcher: Batcher, limits: Limits) -> None:
        self.name = name
        self.versions = versions
        self._batcher = batcher
        self._limits = limits

    def version(self, name: str, version: str | None) -> Model:
        """Returns the version that answers a request.

        Args:
          name: the model's name in the request.
          version: the version in the request; None for any.

        Raises:
          Refusal: 404, this model or version is not served.
        """
        current = self.versions.current
        if name != self.name:
            raise Refusal(404, f"Servable not found for request: Latest({name[:100]}); this server has {self.name}")
        if version is not None and version != str(current.version):
            raise Refusal(
                404, f"Servable not found for request: Specific({name}, {version[:20]}); version {current.version} is served"
            )
        return current

    async def predict(self, model: Model, body: bytes) -> bytes:
        """Answers in TensorFlow Serving's protocol.

        Args:
          model: the version that answers.
          body: body of the request.

        Returns:
          The answer in JSON.

        Raises:
          Refusal: 400, the request can't be read or asks for too much; 503, too many images are waiting.
        """
        query = read_query(body, model.inputs, self._limits.instances)
        return write_answer(query, await self._answer(model, query.signature, query.columns))

    async def explain(self, model: Model, body: bytes) -> bytes:
        """Answers as `predict` does, with pictures of the evidence."""
        if _EXPLAIN not in model.inputs:
            raise Refusal(400, "this model was exported before models could explain themselves")
        most = min(_MAX_EXPLAINED, self._limits.instances)
        query = read_query(body, {_EXPLAIN: model.inputs[_EXPLAIN]}, most, _EXPLAIN, {"label": b""})
        return await asyncio.to_thread(_draw, await self._answer(model, _EXPLAIN, query.columns))

    async def infer(self, model: Model, body: bytes, json_size: int | None) -> tuple[bytes, int | None]:
        """Answers in the Open Inference Protocol.

        Args:
          model: the version that answers.
          body: body of the request.
          json_size: number of bytes of the JSON at its beginning, if binary tensors follow it.

        Returns:
          The body of the answer, and the size of the JSON at its beginning if binary tensors follow it.

        Raises:
          Refusal: as for `predict`.
        """
        request = read_request(body, json_size, model.inputs[DEFAULT_SIGNATURE], model.outputs, self._limits.instances)
        columns = await self._answer(model, DEFAULT_SIGNATURE, request.columns)
        return write_response(request, self.name, model.version, columns)

    async def _answer(self, model: Model, signature: str, columns: Columns) -> Mapping[str, np.ndarray]:
        """Calls the model, unless the images are too large for it."""
        rows = len(next(iter(columns.values())))
        pixels = [self._pixels(columns, row) for row in range(rows)]
        if sum(pixels) > self._limits.request_pixels:
            million = self._limits.request_pixels / 1e6
            raise Refusal(400, f"the images have more than {million:g} million pixels together; send them in several requests")
        return await self._batcher.run(model, signature, columns, pixels)

    def _pixels(self, columns: Columns, row: int) -> int:
        if _EXAMPLES in columns:
            features = _example(columns[_EXAMPLES][row], row).features.feature
            files = list(features[_ENCODED].bytes_list.value) if _ENCODED in features else []
        else:
            files = [columns[IMAGES][row]] if IMAGES in columns else []
        try:
            return sum(pixels_of(file, self._limits.pixels) for file in files)
        except Refusal as refusal:
            raise Refusal(refusal.status, f"instances[{row}]: {refusal.reason}") from refusal


def _draw(columns: Mapping[str, np.ndarray]) -> bytes:
    return orjson.dumps({"predictions": list(explained_rows(columns))})


def _example(serialised: bytes, row: int) -> Example:
    try:
        return Example.FromString(serialised)
    except Exception as error:
        raise Refusal(400, f"instances[{row}]: not a serialised tf.Example") from error
