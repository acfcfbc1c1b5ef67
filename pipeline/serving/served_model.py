"""The served model: turns the body of a request into the body of its answer, through the batcher."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, TypeVar

import numpy as np
import orjson

from pipeline.serving.batching import Batcher
from pipeline.serving.capture import Capture
from pipeline.serving.images import IMAGES, Cost, cost_of
from pipeline.serving.model import EMBED, Answered, Columns, Model
from pipeline.serving.open_inference import InferRequest, read_request, write_response
from pipeline.serving.options import Limits
from pipeline.serving.pictures import explained_rows
from pipeline.serving.protocol import DEFAULT_SIGNATURE, Query, read_query, write_answer, written_rows
from pipeline.serving.refusal import Refusal
from pipeline.serving.versions import Versions

_EXPLAIN: Final = "explain"  # name of a signature
_MAX_EXPLAINED: Final = 16  # images in a request
_MOST_NAMES: Final = 20  # classes that are told
_SMALL: Final = 2**18  # bytes of a body, or values of an answer, that take about a millisecond
_FEW: Final = 4096  # values of an answer that the event loop writes itself
_Out = TypeVar("_Out")


class ServedModel:
    """A model under a name, whose requests are answered in batches.

    Attributes:
      name: the model's name in the addresses.
      versions: the model's versions.
    """

    def __init__(
        self, name: str, versions: Versions, quick: Batcher, patient: Batcher, limits: Limits, capture: Capture | None
    ) -> None:
        """Makes the model.

        Args:
          name: the model's name in the addresses.
          versions: the model's versions.
          quick: answers most requests.
          patient: answers the requests whose images take long to decode, so that others need not wait.
          limits: the limits of a request.
          capture: takes a share of the answered images; None if nothing is captured.
        """
        self.name = name
        self.versions = versions
        self._quick = quick
        self._patient = patient
        self._limits = limits
        self._capture = capture
        # Bodies are read outside of the event loop. A thread each for small and large ones, as C code holds the interpreter.
        self._small = ThreadPoolExecutor(1, "small")
        self._large = ThreadPoolExecutor(1, "large")

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

    async def predict(self, model: Model, body: bytes, identifier: str) -> bytes:
        """Answers in TensorFlow Serving's protocol.

        Args:
          model: the version that answers.
          body: body of the request.
          identifier: of the request, for what is captured; "" if the client has sent none.

        Returns:
          The answer in JSON.

        Raises:
          Refusal: 400, the request or one of its images can't be read, or it asks for too much; 503, too many images are
            waiting.
        """

        def read() -> tuple[Query, Cost]:
            query = read_query(body, model.inputs, self._limits.instances)
            return query, cost_of(query.columns, self._limits)

        query, cost = await self._outside(read, len(body))
        found = await self._answer_and_capture(model, query.signature, query.columns, cost, identifier)
        if found.failures:
            raise _refusal(found.failures, (lambda: written_rows(found.answers)) if query.in_rows else None)
        return await self._write(partial(write_answer, query, found.answers), found.answers)

    async def explain(self, model: Model, body: bytes) -> bytes:
        """Answers as `predict` does, with pictures of the evidence."""
        if _EXPLAIN not in model.inputs:
            raise Refusal(400, "this model was exported before models could explain themselves")
        most = min(_MAX_EXPLAINED, self._limits.instances)

        def read() -> tuple[Query, Cost]:
            query = read_query(body, {_EXPLAIN: model.inputs[_EXPLAIN]}, most, _EXPLAIN, {"label": b""})
            _check_labels(query.columns["label"], model.labels)
            return query, cost_of(query.columns, self._limits)

        query, cost = await self._outside(read, len(body))
        found = await self._answer(model, _EXPLAIN, query.columns, cost)
        if found.failures:
            raise await asyncio.to_thread(
                _refusal, found.failures, lambda: list(explained_rows(found.answers)) if found.answers else []
            )
        return await asyncio.to_thread(_draw, found.answers)

    async def infer(self, model: Model, body: bytes, identifier: str, json_size: int | None) -> tuple[bytes, int | None]:
        """Answers in the Open Inference Protocol.

        Args:
          model: the version that answers.
          body: body of the request.
          identifier: as for `predict`.
          json_size: number of bytes of the JSON at its beginning, if binary tensors follow it.

        Returns:
          The body of the answer, and the size of the JSON at its beginning if binary tensors follow it.

        Raises:
          Refusal: as for `predict`.
        """

        def read() -> tuple[InferRequest, Cost]:
            inputs = model.inputs[DEFAULT_SIGNATURE]
            request = read_request(body, json_size, inputs, model.outputs, self._limits.instances)
            return request, cost_of(request.columns, self._limits)

        request, cost = await self._outside(read, len(body))
        found = await self._answer_and_capture(model, DEFAULT_SIGNATURE, request.columns, cost, identifier)
        if found.failures:
            raise _refusal(found.failures, None)
        return await self._write(partial(write_response, request, self.name, model.version, found.answers), found.answers)

    async def _answer_and_capture(
        self, model: Model, signature: str, columns: Columns, cost: Cost, identifier: str
    ) -> Answered:
        """Answers the default signature by `embed`, if it is captured: the network runs once, and tells the embedding, too."""
        if not self._capture or signature != DEFAULT_SIGNATURE or IMAGES not in columns:
            return await self._answer(model, signature, columns, cost)
        found = await self._answer(model, EMBED if model.embeds else signature, columns, cost)
        if not found.failures:
            self._capture.take(model, identifier, columns[IMAGES], found.answers)
        return Answered({name: values for name, values in found.answers.items() if name in model.outputs}, found.failures)

    async def _answer(self, model: Model, signature: str, columns: Columns, cost: Cost) -> Answered:
        if not cost.pixels:
            return Answered({}, cost.refused)
        rows = list(cost.pixels)
        good = {name: [values[row] for row in rows] for name, values in columns.items()}
        batcher = self._quick if cost.is_quick else self._patient
        found = await batcher.run(model, signature, good, list(cost.pixels.values()))
        return Answered(found.answers, cost.refused | {rows[row]: reason for row, reason in found.failures.items()})

    async def _outside(self, function: Callable[[], _Out], size: int) -> _Out:
        """Calls a function in a thread, whose work is in proportion to `size`."""
        return await asyncio.get_running_loop().run_in_executor(self._small if size <= _SMALL else self._large, function)

    async def _write(self, function: Callable[[], _Out], columns: Mapping[str, np.ndarray]) -> _Out:
        size = sum(values.size for values in columns.values())
        return function() if size <= _FEW else await self._outside(function, size)


def _refusal(failures: dict[int, str], answered_rows: Callable[[], list[Any]] | None) -> Refusal:
    """The error for a request with images that can't be read, with the answers to its others if there are any.

    Args:
      failures: the reason by the number of the row.
      answered_rows: makes the answers of the other rows, in order; None if the request does not want rows.
    """
    ordered = sorted(failures.items())
    more = f"; and {len(ordered) - 1} more" if len(ordered) > 1 else ""
    content: dict[str, Any] = {"failures": [{"instance": row, "error": reason} for row, reason in ordered]}
    if answered_rows:
        rows = answered_rows()
        for row, _ in ordered:
            rows.insert(row, None)
        content["predictions"] = rows
    return Refusal(400, f"instances[{ordered[0][0]}]: {ordered[0][1]}{more}", content=content)


def _check_labels(asked: Sequence[bytes], known: Sequence[bytes]) -> None:
    for row, label in enumerate(asked):
        if label and known and label not in known:
            names = ", ".join(name.decode(errors="replace") for name in known[:_MOST_NAMES])
            told = f"{names}, ..." if len(known) > _MOST_NAMES else names
            raise Refusal(400, f"instances[{row}]: label {label.decode(errors='replace')[:100]!r}: the model knows {told}")


def _draw(columns: Mapping[str, np.ndarray]) -> bytes:
    return orjson.dumps({"predictions": list(explained_rows(columns))})
