"""Uvicorn's HTTP protocol with limits."""

import asyncio
from typing import Final

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from pipeline.serving.metrics import REQUESTS

_MAX_HEAD: Final = 64 * 1024  # bytes of a request's headers, at most


class Protocol(HttpToolsProtocol):
    """Uvicorn's HTTP protocol with limits: headers must arrive in time and have a reasonable size."""

    max_seconds: float = 20.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's own signature
        super().connection_made(transport)
        self._head = 0
        self._overdue = self.loop.call_later(self.max_seconds, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        self._overdue.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._head += len(data)
        super().data_received(data)
        if self._head > _MAX_HEAD and not self.transport.is_closing():
            self.send_400_response("the headers are too large")

    def on_message_begin(self) -> None:
        self._head = 0
        self._overdue.cancel()
        self._overdue = self.loop.call_later(self.max_seconds, self._give_up)
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._overdue.cancel()
        self._head = -(1 << 62)  # what follows is the body, which has a limit of its own
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._head = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        body = orjson.dumps({"error": msg})
        head = "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n"
        head += f"content-length: {len(body)}\r\n\r\n"
        REQUESTS.labels("other", "400").inc()
        self.transport.write(head.encode() + body)
        self.transport.close()

    def _give_up(self) -> None:
        if not self.transport.is_closing():
            self.send_400_response("the request has taken too long")
