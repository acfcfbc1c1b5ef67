"""What KServe's server calls: the body of a request to that of an answer, through the batches."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import kserve
import numpy as np
import orjson
from tensorflow.core.example.example_pb2 import Example

from pipeline.serving.batching import Batcher
from pipeline.serving.images import pixels_of
from pipeline.serving.model import IMAGES, Columns, Model
from pipeline.serving.options import Limits
from pipeline.serving.pictures import explained_rows
from pipeline.serving.protocol import Query, read_query, write_answer
from pipeline.serving.refusal import Refusal
from pipeline.serving.versions import Versions

EXPLAIN: Final = "explain"  # the verb, and the signature
_MAX_EXPLAINED: Final = 16  # images of a request
_EXAMPLES: Final = "examples"  # input of serialised tf.Example
_ENCODED: Final = "image/encoded"  # feature of those, as models.features names it


@dataclass(frozen=True)
class Call:
    """A request as it came, and the version that it is for."""

    body: bytes
    model: Model
    verb: str = "predict"


@dataclass(frozen=True)
class _Read:
    call: Call
    query: Query
    pixels: list[int]


@dataclass(frozen=True)
class _Answered:
    read: _Read
    columns: Mapping[str, np.ndarray]


class ServedModel(kserve.Model):
    """The model that KServe's server knows; which version answers is `versions`' matter."""

    def __init__(self, name: str, versions: Versions, batcher: Batcher, limits: Limits) -> None:
        super().__init__(name)
        self.versions = versions
        self._batcher = batcher
        self._limits = limits
        self.ready = True

    def preprocess(self, payload: Call, headers: Any = None) -> _Read:
        """Reads a request, and refuses what is too much for the model."""
        inputs = payload.model.inputs
        if payload.verb == EXPLAIN:
            if EXPLAIN not in inputs:
                raise Refusal(400, "this model was exported before models could explain themselves")
            most = min(_MAX_EXPLAINED, self._limits.instances)
            query = read_query(payload.body, {EXPLAIN: inputs[EXPLAIN]}, most, EXPLAIN, {"label": b""})
        else:
            query = read_query(payload.body, inputs, self._limits.instances)
        pixels = [self._pixels(query.columns, row) for row in range(query.rows)]
        if sum(pixels) > self._limits.request_pixels:
            million = self._limits.request_pixels / 1e6
            raise Refusal(400, f"the images have more than {million:g} million pixels together; send them in several requests")
        return _Read(payload, query, pixels)

    async def predict(self, payload: _Read, headers: Any = None, response_headers: Any = None) -> _Answered:
        query = payload.query
        return _Answered(payload, await self._batcher.run(payload.call.model, query.signature, query.columns, payload.pixels))

    explain = predict

    async def postprocess(self, result: _Answered, headers: Any = None, response_headers: Any = None) -> bytes:
        if result.read.call.verb == EXPLAIN:
            return await asyncio.to_thread(_draw, result)
        return write_answer(result.read.query, result.columns)

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


def _draw(result: _Answered) -> bytes:
    return orjson.dumps({"predictions": list(explained_rows(result.columns))})


def _example(serialised: bytes, row: int) -> Example:
    try:
        return Example.FromString(serialised)
    except Exception as error:
        raise Refusal(400, f"instances[{row}]: not a serialised tf.Example") from error
