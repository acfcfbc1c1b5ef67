"""The server's process: uvicorn with the routes, and a task that watches for new versions."""

import argparse
import asyncio
import contextlib
import gc
import logging
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import jinja2
import uvicorn
from starlette.applications import Starlette

from pipeline.serving import options
from pipeline.serving.batching import Batcher
from pipeline.serving.http import Protocol
from pipeline.serving.metrics import RELOADS, VERSION
from pipeline.serving.model import Model
from pipeline.serving.routes import Routes
from pipeline.serving.served_model import ServedModel
from pipeline.serving.versions import Versions

_SWITCH_INTERVAL: Final = 0.0005  # seconds: the model's thread and the event loop take turns often, so that neither waits long
_TEMPLATES: Final = [Path(__file__).parent / "templates", Path(__file__).parents[1] / "pages" / "templates"]

logger = logging.getLogger("fpn")


def run(chosen: argparse.Namespace, listening: socket.socket) -> None:
    """Serves until SIGTERM or SIGINT; requests that have arrived are still answered.

    Args:
      chosen: the options of `fpn serve`.
      listening: the socket that accepts connections.

    Raises:
      UserError: the model can't be loaded.
    """
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING)
    logger.setLevel(logging.INFO)
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # it logs each bad request
    sys.setswitchinterval(_SWITCH_INTERVAL)
    gc.collect()
    gc.freeze()  # the loaded packages stay: later collections need not look at them

    application = _application(chosen, f"http://{chosen.host}:{listening.getsockname()[1]}")
    Protocol.max_seconds = chosen.timeout
    config = uvicorn.Config(
        application,
        http=Protocol,
        ws="none",
        access_log=False,
        log_config=None,
        limit_concurrency=2048,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=60,
    )
    for sign in (signal.SIGTERM, signal.SIGINT):  # uvicorn ends by itself and then raises the signal again
        signal.signal(sign, lambda *_: None)
    uvicorn.Server(config).run(sockets=[listening])
    logger.info("stopped")


def _application(chosen: argparse.Namespace, address: str) -> Starlette:
    """Loads the model, and makes the application, which looks for new versions while it runs."""
    limits = options.limits(chosen)
    versions = Versions(chosen.model)
    batcher = Batcher(chosen.max_batch, chosen.max_delay / 1000, 2 * limits.pixels, limits.waiting)
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

    return Routes(ServedModel(chosen.name, versions, batcher, limits), limits, page).application(lifespan)
