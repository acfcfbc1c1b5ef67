"""Puts the images of concurrent requests into batches."""

import asyncio
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from pipeline.serving.metrics import BATCH_SIZE, WAITING
from pipeline.serving.model import Answered, Columns, Model
from pipeline.serving.refusal import Refusal


@dataclass(frozen=True)
class _Part:
    """Rows of one request that go into the same batch; `start` is the position of the first one in the request."""

    model: Model
    signature: str
    columns: Columns
    start: int
    pixels: Sequence[int]
    answer: "asyncio.Future[Answered]"

    @property
    def rows(self) -> int:
        return len(self.pixels)


class Batcher:
    """Runs a model on batches of whatever is waiting.

    A free thread takes the images that are waiting. It waits for more, at most `max_delay`, only if the last batch was larger;
    so a client that is alone never waits.
    """

    def __init__(self, max_batch: int, max_delay: float, max_pixels: int, max_waiting: int, threads: int = 1) -> None:
        """Makes a batcher for one event loop.

        Args:
          max_batch: largest number of images in a batch.
          max_delay: seconds that the first image waits for others, at most.
          max_pixels: largest number of pixels of all images in a batch; a single image may have more.
          max_waiting: largest number of waiting images; beyond it, requests are refused.
          threads: number of batches at a time; TensorFlow spreads even one over all cores.
        """
        self._max_batch = max_batch
        self._max_delay = max_delay
        self._max_pixels = max_pixels
        self._max_waiting = max_waiting
        self._executor = ThreadPoolExecutor(threads, "model")
        self._threads = threads
        self._queue: deque[_Part] = deque()
        self._waiting = 0
        self._last_batch = 0
        self._arrived = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def run(self, model: Model, signature: str, columns: Columns, pixels: Sequence[int]) -> Answered:
        """Answers a request, perhaps together with others.

        Args:
          model: the model that answers.
          signature: the model's signature to call.
          columns: N values for each input of the signature.
          pixels: number of pixels of each of the N images.

        Raises:
          Refusal: 503, too many images are waiting.
        """
        if self._queue and self._waiting + len(pixels) > self._max_waiting:
            raise Refusal(503, "too many requests at once; send this one again in a second", {"retry-after": "1"})
        if not self._tasks:
            self._tasks = [asyncio.create_task(self._work()) for _ in range(self._threads)]
        futures = []
        for start, end in self._ranges(pixels):
            part = {name: values[start:end] for name, values in columns.items()}
            future: asyncio.Future[Answered] = asyncio.get_running_loop().create_future()
            self._queue.append(_Part(model, signature, part, start, pixels[start:end], future))
            futures.append(future)
        self._count(len(pixels))
        self._arrived.set()
        if len(futures) == 1:
            return await futures[0]
        return _joined(await asyncio.gather(*futures), [start for start, _ in self._ranges(pixels)])

    def _ranges(self, pixels: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Splits the rows into ranges (start, end) that each fit into one batch."""
        start, total = 0, 0
        for row, count in enumerate(pixels):
            if row > start and (row - start == self._max_batch or total + count > self._max_pixels):
                yield start, row
                start, total = row, 0
            total += count
        yield start, len(pixels)

    def _count(self, rows: int) -> None:
        self._waiting += rows
        WAITING.inc(rows)

    async def _work(self) -> None:
        while True:
            while not self._queue:
                self._arrived.clear()
                await self._arrived.wait()
            batch = [self._queue.popleft()]
            await self._fill(batch)
            rows = sum(part.rows for part in batch)
            self._last_batch = rows
            self._count(-rows)
            BATCH_SIZE.observe(rows)
            results = await asyncio.get_running_loop().run_in_executor(self._executor, _answer, batch)
            for part, result in zip(batch, results, strict=True):
                if part.answer.done():  # the client is gone
                    continue
                if isinstance(result, BaseException):
                    part.answer.set_exception(result)
                else:
                    part.answer.set_result(result)

    async def _fill(self, batch: list[_Part]) -> None:
        """Adds more parts to a batch that has one part, as long as they fit."""
        first = batch[0]
        rows, pixels = first.rows, sum(first.pixels)
        until = time.monotonic() + self._max_delay
        while True:
            while self._queue:
                part = self._queue[0]
                pixels += sum(part.pixels)
                if (part.model, part.signature) != (first.model, first.signature):
                    return
                if rows + part.rows > self._max_batch or pixels > self._max_pixels:
                    return
                rows += part.rows
                batch.append(self._queue.popleft())
            left = until - time.monotonic()
            if rows >= min(self._last_batch, self._max_batch) or left <= 0:
                return
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), left)
            except TimeoutError:
                return


def _joined(parts: list[Answered], starts: list[int]) -> Answered:
    """The parts of a request, whose first rows are `starts`, as one."""
    failures = {start + row: reason for part, start in zip(parts, starts, strict=True) for row, reason in part.failures.items()}
    answers = [part.answers for part in parts if part.answers]
    return Answered(
        {name: np.concatenate([each[name] for each in answers]) for name in answers[0]} if answers else {}, failures
    )


def _answer(batch: list[_Part]) -> list[Answered | Exception]:
    """One result for each part; a value that the model can't read fails only its own row."""
    first = batch[0]
    columns = {name: [value for part in batch for value in part.columns[name]] for name in first.columns}
    try:
        found = first.model.run(first.signature, columns)
    except Exception as error:
        return [error] * len(batch)
    results: list[Answered | Exception] = []
    row = answer = 0  # of all parts together
    for part in batch:
        failures = {number - row: reason for number, reason in found.failures.items() if row <= number < row + part.rows}
        answered = part.rows - len(failures)
        results.append(Answered({name: values[answer : answer + answered] for name, values in found.answers.items()}, failures))
        row, answer = row + part.rows, answer + answered
    return results
