"""Decides by a request's headers whether it is let in, before anything of its body is read."""

from typing import Final

import orjson
from starlette.types import ASGIApp, Receive, Scope, Send

from pipeline.serving.metrics import REQUESTS
from pipeline.serving.open_inference import JSON_SIZE
from pipeline.serving.refusal import Refusal
from pipeline.serving.security import Security

_HEALTH: Final = ("/healthz", "/v2/health/live", "/v2/health/ready")
_PAGE: Final = "/"  # asks for the token itself
_MOST_REQUESTS: Final = 1024  # at once; half of the connections, so that others can still ask for health
_WANTED: Final = frozenset((b"host", b"origin", b"authorization", b"content-type", b"content-encoding", JSON_SIZE.encode()))
_JSON: Final = "application/json"
_BINARY: Final = "application/octet-stream"


class Gate:
    """An ASGI application before another one. Questions for health always pass."""

    def __init__(self, application: ASGIApp, security: Security) -> None:
        self._application = application
        self._security = security
        self._requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in _HEALTH:
            await self._application(scope, receive, send)
            return
        try:
            self._check(scope)
        except Refusal as refusal:
            REQUESTS.labels("other", str(refusal.status)).inc()
            await _refuse(refusal, send)
            return
        self._requests += 1
        try:
            await self._application(scope, receive, send)
        finally:
            self._requests -= 1

    def _check(self, scope: Scope) -> None:
        """Raises Refusal if the request is not let in."""
        if self._requests >= _MOST_REQUESTS:
            raise Refusal(503, "too many requests at once; send this one again in a second", {"retry-after": "1"})
        headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"] if name in _WANTED}
        host, origin = headers.get("host", ""), headers.get("origin")
        if (host or scope["http_version"] != "1.0") and not self._security.takes_host(host):
            raise Refusal(421, f"Host {host[:100]!r}: not a name of this server; name it with fpn serve --allow-host")
        if origin is not None and not self._security.takes_origin(origin, host):
            raise Refusal(403, f"Origin {origin[:100]!r}: pages from there may not ask; allow it with fpn serve --allow-host")
        if scope["path"] != _PAGE and not self._security.takes_token(headers.get("authorization", "")):
            raise Refusal(401, "send the header Authorization: Bearer TOKEN", {"www-authenticate": "Bearer"})
        if scope["method"] == "POST":
            _check_content(headers, may_be_binary=scope["path"].endswith("/infer"))


def _check_content(headers: dict[str, str], may_be_binary: bool) -> None:
    """Refuses forms and plain text, which a browser sends for a foreign page without asking whether it may."""
    kind = headers.get("content-type", _JSON).partition(";")[0].strip().lower()
    if kind != _JSON and not (may_be_binary and (kind == _BINARY or JSON_SIZE in headers)):
        raise Refusal(415, f"Content-Type {kind[:100]!r}: send the header Content-Type: {_JSON}")
    if (coding := headers.get("content-encoding", "identity").lower()) != "identity":
        raise Refusal(415, f"Content-Encoding {coding[:100]!r}: send the body without it")


async def _refuse(refusal: Refusal, send: Send) -> None:
    body = orjson.dumps({"error": refusal.reason})
    headers = {"content-type": "application/json", "content-length": str(len(body)), **refusal.headers}
    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": refusal.status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})
