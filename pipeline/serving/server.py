"""The server's process: uvicorn with the routes, and a task that watches for new versions."""

import argparse
import asyncio
import contextlib
import gc
import logging
import math
import os
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import jinja2
import uvicorn
from prometheus_client import REGISTRY
from starlette.applications import Starlette

from pipeline.captured.shards import ShardWriter
from pipeline.serving import options
from pipeline.serving.batching import Batcher
from pipeline.serving.capture import Capture
from pipeline.serving.gate import Gate
from pipeline.serving.http import Protocol, limit_connections
from pipeline.serving.metrics import RELOADS, VERSION, Verdict
from pipeline.serving.model import Model
from pipeline.serving.routes import Routes
from pipeline.serving.security import Security
from pipeline.serving.served_model import ServedModel
from pipeline.serving.versions import Versions

_SWITCH_INTERVAL: Final = 0.0005  # seconds: the model's thread and the event loop take turns often, so that neither waits long
_BATCH_PIXELS: Final = 8_000_000  # of a batch, so that none takes long
_PATIENT_WAITING: Final = 64  # images that take long to decode
_TEMPLATES: Final = [Path(__file__).parent / "templates", Path(__file__).parents[1] / "pages" / "templates"]

logger = logging.getLogger("fpn")


def run(chosen: argparse.Namespace, security: Security, listening: socket.socket, shards: ShardWriter | None) -> None:
    """Serves until SIGTERM or SIGINT; requests that have arrived are still answered.

    Args:
      chosen: the options of `fpn serve`.
      security: who may ask.
      listening: the socket that accepts connections.
      shards: for what is captured; None if nothing is.

    Raises:
      UserError: the model can't be loaded.
    """
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING)
    logger.setLevel(logging.INFO)
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # it logs each bad request
    sys.setswitchinterval(_SWITCH_INTERVAL)
    gc.collect()
    gc.freeze()  # the loaded packages stay: later collections need not look at them

    scheme = "https" if security.tls else "http"
    application = _application(chosen, shards, f"{scheme}://{chosen.host}:{listening.getsockname()[1]}")
    Protocol.max_seconds = chosen.timeout
    Protocol.max_connections = limit_connections()
    config = uvicorn.Config(
        Gate(application, security),
        http=Protocol,
        ws="none",
        access_log=False,
        log_config=None,
        timeout_keep_alive=math.ceil(chosen.timeout),
        timeout_graceful_shutdown=60,
        ssl_context_factory=_context_of(security) if security.tls else None,
    )
    for sign in (signal.SIGTERM, signal.SIGINT):  # uvicorn ends by itself and then raises the signal again
        signal.signal(sign, lambda *_: None)
    uvicorn.Server(config).run(sockets=[listening])
    logger.info("stopped")


def _context_of(security: Security) -> Callable[..., ssl.SSLContext]:
    def context(*_: Any) -> ssl.SSLContext:
        assert security.tls
        return security.tls

    return context


def _application(chosen: argparse.Namespace, shards: ShardWriter | None, address: str) -> Starlette:
    """Loads the model, and makes the application, which looks for new versions while it runs."""
    limits = options.limits(chosen)
    Model.max_pixels = limits.pixels
    versions = Versions(chosen.model)
    delay, cores = chosen.max_delay / 1000, os.cpu_count() or 1
    quick = Batcher(chosen.max_batch, delay, _BATCH_PIXELS, limits.waiting)
    patient = Batcher(chosen.max_batch, delay, _BATCH_PIXELS // 4, _PATIENT_WAITING, threads=max(1, cores // 2))
    capture = Capture(chosen.name, shards, chosen.share, images=chosen.capture_images) if shards else None
    if capture:
        REGISTRY.register(Verdict(chosen.capture))
    templates = jinja2.Environment(loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True)
    page = templates.get_template("serving.html").render(name=chosen.name, limits=limits)

    def report_version(current: Model) -> None:
        RELOADS.inc()
        VERSION.labels(chosen.name).set(current.version)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        watching = asyncio.create_task(versions.watch(chosen.poll, report_version))
        VERSION.labels(chosen.name).set(versions.current.version)
        logger.info("serving version %d of %s at %s", versions.current.version, chosen.name, address)
        yield
        watching.cancel()
        if capture:
            await asyncio.to_thread(capture.close)

    model = ServedModel(chosen.name, versions, quick, patient, limits, capture)
    return Routes(model, limits, page).application(lifespan)
