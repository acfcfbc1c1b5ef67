"""The routes: TensorFlow Serving's, those of the Open Inference Protocol (V2), health, metrics and the page."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib.metadata import version
from typing import Any, Final

import orjson
from prometheus_client import REGISTRY, exposition
from starlette.applications import Starlette
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Lifespan, Receive, Scope, Send

from pipeline.serving.metrics import REQUESTS, SECONDS
from pipeline.serving.model import DEFAULT_SIGNATURE, Model
from pipeline.serving.open_inference import EXTENSIONS, JSON_SIZE, write_metadata
from pipeline.serving.options import Limits
from pipeline.serving.refusal import Refusal
from pipeline.serving.served_model import ServedModel

Answer = Callable[[Request], Awaitable[Response]]

_LARGE: Final = 2**16  # bytes that arrive at once, after which other requests have their turn
_PAUSE: Final = 0.002  # seconds, for all large bodies together
_HELD: Final = 32  # bodies of the largest size that are in memory at once
_DRAINED: Final = 8  # a body up to so many times the limit is read to its end, so that the client reads the answer

logger = logging.getLogger("fpn")


class _Name(StringConvertor):
    """A part of a path that ends before a colon, as in /v1/models/NAME:predict."""

    regex = "[^/:]+"


register_url_convertor("name", _Name())


class Routes:
    """The handlers of all addresses."""

    def __init__(self, model: ServedModel, limits: Limits, page: str) -> None:
        """Makes the routes.

        Args:
          model: the model that is served.
          limits: the limits of a request.
          page: HTML at /.
        """
        self._model = model
        self._limits = limits
        self._page = page
        self._held = 0  # bytes of all bodies
        self._turn = asyncio.Lock()

    def application(self, lifespan: Lifespan[Starlette]) -> Starlette:
        """Makes the ASGI application; `lifespan` runs while it does."""
        v1, v2 = "/v1/models/{name:name}", "/v2/models/{name:name}"
        routes = [
            *_routes("POST", v1, ":predict", "predict", self._predict),
            *_routes("POST", v2, "/infer", "infer", self._infer),
            *_routes("POST", v1, ":explain", "explain", self._explain),
            *_routes("GET", v1, "", "status", self._tell_status),
            *_routes("GET", v1, "/metadata", "metadata", self._tell_metadata),
            *_routes("GET", v2, "", "metadata", self._describe),
            *_routes("GET", v2, "/ready", "ready", self._tell_model_ready),
            _route("GET", "/v1/models", "models", self._list_models),
            _route("GET", "/v2/models", "models", self._list_models),
            _route("GET", "/v2", "server", _tell_server),
            _route("GET", "/v2/health/live", "live", _tell_live),
            _route("GET", "/v2/health/ready", "ready", _tell_ready),
            _route("GET", "/healthz", "healthz", _tell_health),
            _route("GET", "/metrics", "metrics", _tell_metrics),
            _route("GET", "/", "page", self._show_page),
        ]
        application = Starlette(routes=routes, exception_handlers={HTTPException: _refuse_address}, lifespan=lifespan)
        application.router.redirect_slashes = False
        return application

    async def _predict(self, request: Request) -> Response:
        model = self._version(request)
        async with self._body(request) as body:
            return _json(await self._model.predict(model, body, _identifier(request)))

    async def _explain(self, request: Request) -> Response:
        model = self._version(request)
        async with self._body(request) as body:
            return _json(await self._model.explain(model, body))

    async def _infer(self, request: Request) -> Response:
        model = self._version(request)
        size = request.headers.get(JSON_SIZE)
        if size is not None and not (size.isascii() and size.isdigit() and len(size) < 19):
            raise Refusal(400, f"{JSON_SIZE}: must be a number of bytes")
        async with self._body(request) as body:
            answer, json_size = await self._model.infer(model, body, _identifier(request), None if size is None else int(size))
        if json_size is None:
            return _json(answer)
        return Response(answer, headers={JSON_SIZE: str(json_size)}, media_type="application/octet-stream")

    async def _tell_status(self, request: Request) -> Response:
        model = self._version(request)
        state = {"version": str(model.version), "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        return _json({"model_version_status": [state]})

    async def _tell_metadata(self, request: Request) -> Response:
        return _json(await asyncio.to_thread(self._version(request).metadata, self._model.name))

    async def _describe(self, request: Request) -> Response:
        model = self._version(request)
        return _json(write_metadata(self._model.name, model.version, model.inputs[DEFAULT_SIGNATURE], model.outputs))

    async def _tell_model_ready(self, request: Request) -> Response:
        self._version(request)
        return _json({"name": self._model.name, "ready": True})

    async def _list_models(self, request: Request) -> Response:
        return _json({"models": [self._model.name]})

    async def _show_page(self, request: Request) -> Response:
        return HTMLResponse(self._page)

    def _version(self, request: Request) -> Model:
        return self._model.version(request.path_params["name"], request.path_params.get("version"))

    @contextlib.asynccontextmanager
    async def _body(self, request: Request) -> AsyncIterator[bytes]:
        """A request's body, whose bytes count until the request is answered; raises Refusal as `_read` does."""
        chunks: list[bytes] = []
        try:
            await self._read(request, chunks)
            body = b"".join(chunks)
            chunks = [body]
            yield body
        finally:
            self._held -= sum(map(len, chunks))

    async def _read(self, request: Request, chunks: list[bytes]) -> None:
        """Reads a request's body.

        Raises:
          Refusal: 408, the body takes too long; 413, it is too large; 503, the bodies of all requests take too much memory.
        """
        if int(request.headers.get("content-length", "0")) > _DRAINED * self._limits.body:
            raise self._too_large()
        size = 0
        try:
            async with asyncio.timeout(self._limits.seconds):
                async for chunk in request.stream():
                    size += len(chunk)
                    if size > _DRAINED * self._limits.body:
                        raise self._too_large()
                    if size <= self._limits.body:
                        chunks.append(chunk)
                        self._held += len(chunk)
                    if len(chunk) > _LARGE:
                        async with self._turn:
                            await asyncio.sleep(_PAUSE)
                    if self._held > _HELD * self._limits.body:
                        raise Refusal(503, "too many large requests at once; send this one again", {"connection": "close"})
        except TimeoutError:
            raise Refusal(408, f"the request has taken more than {self._limits.seconds:g} s", {"connection": "close"}) from None
        if size > self._limits.body:
            raise self._too_large()

    def _too_large(self) -> Refusal:
        return Refusal(413, f"more than {self._limits.body / 1e6:g} MB; send fewer images at once", {"connection": "close"})


class _Endpoint:
    """Answers the requests of a route: counts and times them, and reports errors in JSON."""

    def __init__(self, name: str, answer: Answer) -> None:
        self._name = name
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        try:
            response = await self._answer(Request(scope, receive))
        except Refusal as refusal:
            response = _refuse(refusal)
        except ClientDisconnect:
            return
        except Exception:
            logger.exception("%s %s failed", scope["method"], scope["path"])
            response = _json({"error": "the server failed; its log says why"}, 500)
        REQUESTS.labels(self._name, str(response.status_code)).inc()
        SECONDS.labels(self._name).observe(time.perf_counter() - started)
        await response(scope, receive, send)


def _identifier(request: Request) -> str:
    return request.headers.get("x-request-id", "")


def _route(method: str, path: str, name: str, answer: Answer) -> Route:
    return Route(path, _Endpoint(name, answer), methods=[method])


def _routes(method: str, model: str, rest: str, name: str, answer: Answer) -> list[Route]:
    """The routes of a model's address, one without and one with a version."""
    return [_route(method, model + version + rest, name, answer) for version in ("", "/versions/{version:name}")]


async def _refuse_address(request: Request, error: Exception) -> Response:
    """Answers requests that no route answers: 404, or 405 with the allowed methods."""
    assert isinstance(error, HTTPException)
    allowed = sorted((error.headers or {}).get("Allow", "").split(", "))
    if error.status_code == 405:
        refusal = Refusal(405, f"{request.method}: not allowed here; use {allowed[0]}", {"allow": ", ".join(allowed)})
    else:
        refusal = Refusal(404, "no such address; ask /v1/models/NAME:predict, or look at /")
    REQUESTS.labels("other", str(refusal.status)).inc()
    return _refuse(refusal)


async def _tell_server(request: Request) -> Response:
    return _json({"name": "fpn", "version": version("fpn-pipeline"), "extensions": EXTENSIONS})


async def _tell_live(request: Request) -> Response:
    return _json({"live": True})


async def _tell_ready(request: Request) -> Response:
    return _json({"ready": True})


async def _tell_health(request: Request) -> Response:
    return PlainTextResponse("ok\n")


async def _tell_metrics(request: Request) -> Response:
    encode, content_type = exposition.choose_encoder(request.headers.get("accept", ""))
    return Response(encode(REGISTRY), headers={"content-type": content_type})


def _refuse(refusal: Refusal) -> Response:
    return _json({"error": refusal.reason, **refusal.content}, refusal.status, refusal.headers)


def _json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """An answer in JSON; bytes are JSON already."""
    body = content if isinstance(content, bytes) else orjson.dumps(content)
    return Response(body, status, headers, "application/json")
