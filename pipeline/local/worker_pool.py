"""A pool of Beam workers on this machine, for `beam.environment: external`.

    .venv/bin/python -m pipeline.local.worker_pool --port 50000

For each worker that a job asks for, Beam's own pool starts an interpreter, which then loads TensorFlow. This pool loads only
once what the workers need, and makes each worker a copy of that process.
"""

import argparse
import atexit
import logging
import multiprocessing
import signal
import sys
import threading
from multiprocessing.context import ForkServerProcess
from typing import Any, Final

import grpc
from apache_beam.portability.api import beam_fn_api_pb2, beam_fn_api_pb2_grpc
from apache_beam.runners.worker import sdk_worker
from apache_beam.utils import thread_pool_executor

_LOADED: Final = [
    "components.image_example_gen.executor",
    "components.transform.executor",
    "components.evaluator.executor",
    "tensorflow_data_validation",
]
_PATIENCE = 10  # seconds in which a worker must end


def _work(control: str, worker_id: str) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sdk_worker.SdkHarness(control, worker_id=worker_id).run()


class WorkerPool(beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolServicer):
    """Starts and stops workers as an engine asks for them; each is a process."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(_LOADED)
        self._workers: dict[str, ForkServerProcess] = {}

    def StartWorker(  # noqa: N802
        self, request: beam_fn_api_pb2.StartWorkerRequest, context: Any
    ) -> beam_fn_api_pb2.StartWorkerResponse:
        control, worker_id = request.control_endpoint.url, request.worker_id
        worker = self._context.Process(target=_work, args=(control, worker_id), name=worker_id, daemon=True)
        try:
            worker.start()
        except OSError as error:
            return beam_fn_api_pb2.StartWorkerResponse(error=str(error))
        self._workers[worker_id] = worker
        logging.info("Started worker %s, process %d.", worker_id, worker.pid)
        return beam_fn_api_pb2.StartWorkerResponse()

    def StopWorker(  # noqa: N802
        self, request: beam_fn_api_pb2.StopWorkerRequest, context: Any
    ) -> beam_fn_api_pb2.StopWorkerResponse:
        worker = self._workers.pop(request.worker_id, None)
        if worker:
            worker.terminate()
            worker.join(_PATIENCE)
            if worker.exitcode is None:
                worker.kill()
            logging.info("Stopped worker %s.", request.worker_id)
        return beam_fn_api_pb2.StopWorkerResponse()

    def load(self) -> None:
        """Loads what workers need; takes some seconds, in which no worker can be started."""
        first = self._context.Process(target=_do_nothing)
        first.start()
        first.join()


def _do_nothing() -> None:
    pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=50000, help="to listen on for engines (50000)")
    parser.add_argument("--host", default="localhost", help="to listen on: localhost, or 0.0.0.0 for engines elsewhere")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # exiting ends the workers as well
    pool = WorkerPool()
    pool.load()
    server = grpc.server(thread_pool_executor.shared_unbounded_instance())
    beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(pool, server)
    if not server.add_insecure_port(f"{options.host}:{options.port}"):
        raise SystemExit(f"--port {options.port} is in use; give another")
    server.start()
    atexit.register(server.stop, 0)
    logging.info("Workers can be had at %s:%d.", options.host, options.port)
    threading.Event().wait()


if __name__ == "__main__":
    main()
