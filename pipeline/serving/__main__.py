"""The server's process: `python -m pipeline.serving`, which `fpn serve` starts."""

import argparse
import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline.serving import options
from pipeline.serving.folders import is_version, numbered_versions

_SWITCH_INTERVAL = 0.0005  # seconds; the model's thread and the event loop take turns often, so that neither waits long


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves until it is told to stop; returns the exit status: 0 stopped, 2 bad usage or no model."""
    parser = argparse.ArgumentParser(prog="fpn serve", description="Serves a pushed model over HTTP.")
    options.add_arguments(parser)
    chosen = parser.parse_args(arguments)
    try:
        if not is_version(chosen.model) and not numbered_versions(chosen.model):
            raise ValueError(
                f"{chosen.model}: no SavedModel here; give the folder that a run has pushed to, such as output/digits/pushed"
            )
        listening = _listen(chosen.host, chosen.port)
        _serve(chosen, listening)
    except ValueError as error:
        print(f"fpn: {error}", file=sys.stderr)
        return 2
    return 0


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=1024)
    except (OSError, OverflowError) as error:
        raise ValueError(f"--host {host} --port {port}: {error}; choose another port, or 0 for any that is free") from error


def _serve(chosen: argparse.Namespace, listening: socket.socket) -> None:
    sys.argv = sys.argv[:1]  # KServe reads the command line when it is imported
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "0")
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING)
    logger = logging.getLogger("fpn")
    logger.setLevel(logging.INFO)

    import jinja2
    import kserve
    from kserve.model_server import app
    from kserve.protocol.rest.server import RESTServer

    from pipeline.serving.batching import Batcher
    from pipeline.serving.http import Protocol, Routes
    from pipeline.serving.kserve_model import ServedModel
    from pipeline.serving.metrics import RELOADS, VERSION
    from pipeline.serving.model import Model
    from pipeline.serving.versions import Versions

    for name in ("kserve", "uvicorn.error"):  # they tell of each bad request, with its traceback
        logging.getLogger(name).setLevel(logging.CRITICAL)
    sys.setswitchinterval(_SWITCH_INTERVAL)
    gc.collect()
    gc.freeze()  # the packages are here to stay: no later collection need look at them

    limits = options.limits(chosen)
    versions = Versions(chosen.model)
    batcher = Batcher(chosen.max_batch, chosen.max_delay / 1000, 2 * limits.pixels, limits.waiting)
    model = ServedModel(chosen.name, versions, batcher, limits)
    server = kserve.ModelServer(enable_grpc=False, enable_latency_logging=False)
    server.register_model(model)

    def show_version(current: Model) -> None:
        VERSION.labels(chosen.name).set(current.version)

    def replaced(current: Model) -> None:
        RELOADS.inc()
        show_version(current)

    templates = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parents[1] / "templates"), autoescape=True)
    page = templates.get_template("serving.html").render(name=chosen.name, limits=limits)
    routes = Routes(model, server.dataplane, app, limits, page.encode())
    address = f"http://{chosen.host}:{listening.getsockname()[1]}"

    async def application(scope, receive, send):  # type: ignore[no-untyped-def]
        if scope["type"] == "lifespan":
            watching = asyncio.create_task(versions.watch(chosen.poll, replaced))
            show_version(versions.current)
            logger.info("serving version %d of %s at %s", versions.current.version, chosen.name, address)
            await routes(scope, receive, send)
            watching.cancel()
            return
        await routes(scope, receive, send)

    rest = RESTServer(
        application, server.dataplane, server.model_repository_extension, chosen.port, timeout_keep_alive=75, grace_period=60
    )
    Protocol.max_seconds = limits.seconds
    rest.config.http, rest.config.ws, rest.config.access_log = Protocol, "none", False
    rest.config.limit_concurrency = 2048
    for sign in (signal.SIGTERM, signal.SIGINT):  # the server ends by itself and then raises the signal again
        signal.signal(sign, lambda *_: None)
    rest.run(sockets=[listening])
    logger.info("stopped")


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # without taking TensorFlow apart, which may crash
