"""The routes: TensorFlow Serving's and the page; health, metrics and the list of models are KServe's."""

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

import orjson
from kserve.protocol.dataplane import DataPlane
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from pipeline.serving.kserve_model import EXPLAIN, Call, ServedModel
from pipeline.serving.metrics import REQUESTS, SECONDS
from pipeline.serving.model import Model
from pipeline.serving.options import Limits
from pipeline.serving.refusal import Refusal

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
Answer = tuple[str, bytes]  # content type, body

_JSON: Final = "application/json"
_MODEL: Final = re.compile(r"/v1/models/(?P<name>[^/:]+)(/versions/(?P<version>[0-9]{1,18}))?(?P<rest>/metadata|:[a-z]+|)")
_OF_KSERVE: Final = re.compile(r"/metrics|/v1/models|/v2(/health/(live|ready)|/models(/[^/]+(/ready)?)?)?")
_MAX_HEAD: Final = 64 * 1024  # bytes of a request before its body
_DRAINED: Final = 8  # times the greatest body that is read on to its end, so that the client gets to read the answer

logger = logging.getLogger("fpn")


class Routes:
    """An ASGI application in front of KServe's."""

    def __init__(self, model: ServedModel, dataplane: DataPlane, kserve_app: ASGIApp, limits: Limits, page: bytes) -> None:
        """The routes.

        Args:
          model: what is served.
          dataplane: KServe's, through which it is asked.
          kserve_app: what answers the routes that are KServe's.
          limits: what a request may ask for.
          page: HTML at /.
        """
        self._model = model
        self._dataplane = dataplane
        self._kserve_app = kserve_app
        self._limits = limits
        self._page = page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._kserve_app(scope, receive, send)
        if _OF_KSERVE.fullmatch(scope["path"]) and scope["method"] in ("GET", "HEAD"):
            return await self._kserve_app(scope, receive, send)
        started = time.perf_counter()
        route, status, headers = "other", 200, {}
        try:
            route, answering = self._route(scope["method"], scope["path"])
            content_type, body = await answering(scope, receive)
        except Refusal as refusal:
            status, headers = refusal.status, refusal.headers
            content_type, body = _JSON, orjson.dumps({"error": refusal.reason})
        except _Gone:
            return None
        except Exception:
            logger.exception("%s %s failed", scope["method"], scope["path"])
            status, content_type, body = 500, _JSON, b'{"error": "the server failed; its log says why"}'
        REQUESTS.labels(route, str(status)).inc()
        SECONDS.labels(route).observe(time.perf_counter() - started)
        listed = [(b"content-type", content_type.encode()), (b"content-length", str(len(body)).encode())]
        listed += [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": listed})
        await send({"type": "http.response.body", "body": body})
        return None

    def _route(self, method: str, path: str) -> tuple[str, Callable[[Scope, Receive], Awaitable[Answer]]]:
        """The route's name for the metrics, and what answers it."""
        if path in ("/", "/healthz"):
            _expect(method, "GET", "HEAD")
            return ("page", self._show_page) if path == "/" else ("healthz", self._tell_health)
        found = _MODEL.fullmatch(path)
        if not found:
            if _OF_KSERVE.fullmatch(path):
                _expect(method, "GET", "HEAD")
            raise Refusal(404, "no such address; ask /v1/models/NAME:predict, or look at /")
        model = self._version(found["name"], found["version"])
        if found["rest"] in ("", "/metadata"):
            _expect(method, "GET")
            return ("status", self._tell_status) if not found["rest"] else ("metadata", self._tell_metadata)
        verb = found["rest"][1:]
        if verb not in ("predict", EXPLAIN):
            raise Refusal(404, f":{verb[:50]}: not served; ask :predict or :explain")
        _expect(method, "POST")

        async def answering(scope: Scope, receive: Receive) -> Answer:
            call = Call(await self._body(scope, receive), model, verb)
            asked = self._dataplane.explain if verb == EXPLAIN else self._dataplane.infer
            body, _ = await asked(self._model.name, call)
            return _JSON, body

        return verb, answering

    def _version(self, name: str, version: str | None) -> Model:
        model = self._model.versions.current
        if name != self._model.name:
            raise Refusal(404, f"Servable not found for request: Latest({name[:100]}); this server has {self._model.name}")
        if version is not None and int(version) != model.version:
            raise Refusal(
                404, f"Servable not found for request: Specific({name}, {version}); version {model.version} is served"
            )
        return model

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """Reads a request's body."""
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if int(declared) > _DRAINED * self._limits.body:
            raise self._too_large()
        chunks, size = [], 0
        try:
            async with asyncio.timeout(self._limits.seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _Gone
                    size += len(message.get("body", b""))
                    if size <= self._limits.body:
                        chunks.append(message.get("body", b""))
                    elif size > _DRAINED * self._limits.body:
                        raise self._too_large()
                    if not message.get("more_body"):
                        break
        except TimeoutError:
            raise Refusal(408, f"the request has taken more than {self._limits.seconds:g} s", {"connection": "close"}) from None
        if size > self._limits.body:
            raise self._too_large()
        return b"".join(chunks) if len(chunks) > 1 else chunks[0]

    def _too_large(self) -> Refusal:
        return Refusal(413, f"more than {self._limits.body / 1e6:g} MB; send fewer images at once", {"connection": "close"})

    async def _show_page(self, scope: Scope, receive: Receive) -> Answer:
        return "text/html; charset=utf-8", self._page

    async def _tell_health(self, scope: Scope, receive: Receive) -> Answer:
        return "text/plain; charset=utf-8", b"ok\n"

    async def _tell_status(self, scope: Scope, receive: Receive) -> Answer:
        version = {
            "version": str(self._model.versions.current.version),
            "state": "AVAILABLE",
            "status": {"error_code": "OK", "error_message": ""},
        }
        return _JSON, orjson.dumps({"model_version_status": [version]})

    async def _tell_metadata(self, scope: Scope, receive: Receive) -> Answer:
        return _JSON, await asyncio.to_thread(self._model.versions.current.metadata, self._model.name)


class Protocol(HttpToolsProtocol):
    """Uvicorn's HTTP protocol with an end to patience: headers must come in time and be of a reasonable size."""

    max_seconds: float = 20.0

    def connection_made(self, transport: asyncio.Transport) -> None:
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
        self._head = -(1 << 62)  # what comes now is the body, which has a limit of its own
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._head = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        body = orjson.dumps({"error": msg})
        head = f"HTTP/1.1 400 Bad Request\r\ncontent-type: {_JSON}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        REQUESTS.labels("other", "400").inc()
        self.transport.write(head.encode() + body)
        self.transport.close()

    def _give_up(self) -> None:
        if not self.transport.is_closing():
            self.send_400_response("the request has taken too long")


class _Gone(Exception):
    """The client has closed the connection."""


def _expect(method: str, *allowed: str) -> None:
    if method not in allowed:
        raise Refusal(405, f"{method}: not allowed here; use {allowed[0]}", {"allow": ", ".join(allowed)})
