"""Captures a share of what a model is asked and has answered, in a thread that must never slow or fail an answer."""

import contextlib
import logging
import queue
import random
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import groupby
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa

from pipeline.captured.answers import describe_answers, warm_up
from pipeline.captured.shards import ShardWriter
from pipeline.serving.metrics import CAPTURE_BYTES, CAPTURED, NOT_CAPTURED
from pipeline.serving.model import Model

_OUTPUTS: Final = ("probabilities", "label", "embedding", "unusual")
_MOST_WAITING: Final = 1000  # images
_MOST_HELD: Final = 64_000_000  # bytes of the files that wait
_AT_ONCE: Final = 32  # images that are described together, in some milliseconds: one alone costs four times as much
_REST: Final = 39  # times as long as they have taken of a core, while there are requests
_NAP: Final = 0.02  # seconds
_QUIET: Final = 0.1  # seconds without a request, after which there is no need to rest
_SECONDS: Final = 1.0  # that an image waits for so many, at most
_LAST_SECONDS: Final = 20.0  # for what is waiting when the server ends
_LONGEST_ID: Final = 200  # characters

logger = logging.getLogger("fpn")


class _Row(NamedTuple):
    """An image that is taken. It does not hold the model, which may be replaced before the row is written."""

    version: int
    describe: Callable[..., pa.RecordBatch]  # `describe_answers` for this version
    time: datetime
    request: str
    row: int
    file: bytes
    answer: Mapping[str, np.ndarray]


class Capture:
    """Takes a random share of the answered images, describes them and writes them into shards, see `pipeline.captured`.

    What can't be written in time, or not at all, is dropped and counted.
    """

    def __init__(self, name: str, writer: ShardWriter, share: float, *, images: bool) -> None:
        """Starts the thread.

        Args:
          name: of the model.
          writer: for the rows.
          share: of the images that are taken, 0..1.
          images: whether the image files are written, too.
        """
        warm_up()
        self._name = name
        self._share = share
        self._images = images
        self._writer = writer
        self._random = random.Random()
        self._waiting: queue.SimpleQueue[_Row | None] = queue.SimpleQueue()
        self._are_many = threading.Event()  # or the last
        self._taken_bytes = self._done_bytes = 0  # each is changed by one thread alone
        self._last_request = 0.0
        self._is_failing = False
        CAPTURE_BYTES.set(self._writer.disk_bytes)
        self._thread = threading.Thread(target=self._work, name="capture", daemon=True)
        self._thread.start()

    def take(self, model: Model, request: str, files: Sequence[bytes], answers: Mapping[str, np.ndarray]) -> None:
        """Takes some images of a request that is answered.

        Args:
          model: the version that has answered.
          request: its id; "" if the client has sent none.
          files: its N image files.
          answers: the outputs of `serving_default`, and perhaps `embedding`, [N, ...].
        """
        self._last_request = time.monotonic()
        chosen = [row for row in range(len(files)) if self._random.random() < self._share]
        if not chosen:
            return
        classes = [name.decode(errors="replace") for name in model.labels]
        describe = partial(
            describe_answers, settings=model.files, classes=classes, model=self._name, multi_label=model.multi_label
        )
        now, request = datetime.now(UTC), request[:_LONGEST_ID] or uuid.uuid4().hex
        for row in chosen:
            file = files[row]
            held = self._taken_bytes - self._done_bytes
            if self._waiting.qsize() >= _MOST_WAITING or held + len(file) > _MOST_HELD:
                NOT_CAPTURED.labels("busy").inc()
                continue
            self._taken_bytes += len(file)
            # Copies, which do not keep the whole batch in memory.
            answer = {name: np.array(answers[name][row]) for name in _OUTPUTS if name in answers}
            self._waiting.put(_Row(model.version, describe, now, request, row, file, answer))
        if self._waiting.qsize() >= _AT_ONCE:
            self._are_many.set()

    def close(self) -> None:
        """Writes what has been taken."""
        self._waiting.put(None)
        self._are_many.set()
        self._thread.join(_LAST_SECONDS)

    def _work(self) -> None:
        goes_on = True
        while goes_on:
            rows: list[_Row | None] = []
            if self._waiting.qsize() < _AT_ONCE:
                self._are_many.wait(_SECONDS)
                self._are_many.clear()
            with contextlib.suppress(queue.Empty):
                while len(rows) < _AT_ONCE:
                    rows.append(self._waiting.get_nowait())
            began = time.thread_time()
            goes_on = None not in rows
            for _, same in groupby(filter(None, rows), key=lambda row: row.version):
                self._add(list(same))
            if self._writer.is_due() or not goes_on:
                self._write()
            self._rest(_REST * (time.thread_time() - began))

    def _add(self, rows: Sequence[_Row]) -> None:
        files = [row.file for row in rows]
        self._done_bytes += sum(map(len, files))
        columns = {
            "time": [row.time for row in rows],
            "version": [row.version for row in rows],
            "request": [row.request for row in rows],
            "row": [row.row for row in rows],
            "image": files if self._images else None,
        }
        try:
            answers = {name: np.stack([row.answer[name] for row in rows]) for name in rows[0].answer}
            batch = rows[0].describe(files, answers, columns=columns)
        except Exception as error:
            self._lose(len(rows), error)
            return
        if not self._writer.takes(batch.schema):
            self._write()
        self._writer.add(batch)

    def _write(self) -> None:
        rows = self._writer.rows
        try:
            self._writer.write()
        except Exception as error:
            self._lose(rows, error)
        else:
            CAPTURED.inc(rows)
            self._is_failing = False
        CAPTURE_BYTES.set(self._writer.disk_bytes)

    def _lose(self, rows: int, error: Exception) -> None:
        NOT_CAPTURED.labels("failed").inc(rows)
        if not self._is_failing:
            logger.warning("capturing fails, serving goes on: %s", error)
        self._is_failing = True

    def _rest(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < min(until, self._last_request + _QUIET):
            time.sleep(_NAP)
