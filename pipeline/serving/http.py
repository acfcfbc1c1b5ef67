"""Uvicorn's HTTP protocol with limits."""

import asyncio
import resource
from collections.abc import Callable
from typing import ClassVar, Final

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from pipeline.serving.metrics import REQUESTS

_MAX_HEAD: Final = 64 * 1024  # bytes of a request's headers, at most
_MAX_HEADERS: Final = 128
_MAX_AHEAD: Final = 8  # requests that a client may send before it has its answer
_MAX_PIECES: Final = 4096  # of a body, that may be smaller than the next line says
_LEAST_PIECE: Final = 64  # bytes
_PAUSE: Final = 0.02  # seconds between two readings of the rest of a request that is answered
_MAX_CONNECTIONS: Final = 2048
_OTHER_FILES: Final = 256  # files that the process has open beside its connections, at most


class Protocol(HttpToolsProtocol):
    """Uvicorn's HTTP protocol with limits.

    Headers must arrive in time and have a reasonable size; few requests may be sent ahead. A client that does not take its
    answer is cut off. If there are too many connections, the one ends that has been without a request for longest: so a new
    one always gets its turn.
    """

    max_seconds: ClassVar[float] = 20.0
    max_connections: ClassVar[int] = _MAX_CONNECTIONS
    _idle: ClassVar[dict["Protocol", None]] = {}  # those without a whole head of a request; the longest idle first

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's own signature
        super().connection_made(transport)
        self._head = 0
        self._is_whole = True  # whether the last request has arrived
        self._overdue = self.loop.call_later(self.max_seconds, self._give_up)
        if len(self.connections) > self.max_connections and (oldest := next(iter(self._idle), None)):
            del self._idle[oldest]
            oldest.transport.abort()
        self._idle[self] = None

    def connection_lost(self, exc: Exception | None) -> None:
        self._overdue.cancel()
        self._idle.pop(self, None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._head += len(data)
        super().data_received(data)
        if self.cycle and self.cycle.response_complete and not self._is_whole and not self.transport.is_closing():
            self.transport.pause_reading()  # what is answered already is not read faster than this
            self.loop.call_later(_PAUSE, self._read_on)
        if self._head > _MAX_HEAD and not self.transport.is_closing():
            self.send_400_response("the headers are too large")

    def on_message_begin(self) -> None:
        if len(self.pipeline) > _MAX_AHEAD:
            raise ValueError("too many requests ahead")  # ends the connection with status 400
        self._head = 0
        self._is_whole = False
        self._pieces = self._body = 0
        self._wait(self._give_up)
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(self.headers) == _MAX_HEADERS:
            raise ValueError("too many headers")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._overdue.cancel()
        self._idle.pop(self, None)
        self._head = -(1 << 62)  # what follows is the body, which has a limit of its own
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._pieces += 1
        self._body += len(body)
        if self._pieces > _MAX_PIECES and self._body < _LEAST_PIECE * self._pieces:
            raise ValueError("too many small pieces")
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._head = 0
        self._is_whole = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._idle[self] = None
        self._wait(self._cut_off)

    def send_400_response(self, msg: str) -> None:
        if self.transport.is_closing():
            return
        body = orjson.dumps({"error": msg})
        head = "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n"
        head += f"content-length: {len(body)}\r\n\r\n"
        REQUESTS.labels("other", "400").inc()
        self.transport.write(head.encode() + body)
        self.transport.close()
        self._wait(self._cut_off)

    def _read_on(self) -> None:
        if not self.transport.is_closing():
            self.transport.resume_reading()

    def _wait(self, act: Callable[[], None]) -> None:
        self._overdue.cancel()
        self._overdue = self.loop.call_later(self.max_seconds, act)

    def _give_up(self) -> None:
        if not self.transport.is_closing():
            self.send_400_response("the request has taken too long")

    def _cut_off(self) -> None:
        """Ends a connection whose client has not taken its answer, or still sends a request that is answered already."""
        if self.transport.get_write_buffer_size() or not self._is_whole:
            self.transport.abort()


def limit_connections() -> int:
    """Raises the limit of open files as far as it is needed and allowed; the number of connections that there is room for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MAX_CONNECTIONS + 2 * _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    room = _MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else soft - _OTHER_FILES
    return max(1, min(_MAX_CONNECTIONS, room))
