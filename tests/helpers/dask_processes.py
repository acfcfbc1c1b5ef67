"""A Dask cluster on loopback, whose scheduler and workers are processes of their own."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from worker_processes import free_addresses

PROJECT = Path(__file__).parents[2]
_PATIENCE = 120  # seconds that a process has to start


@dataclass
class Cluster:
    """The scheduler's address, and the processes; all write to files in the folder, which is not the project's."""

    folder: Path
    address: str
    scheduler: subprocess.Popen[bytes]
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def add_worker(self, variables: Mapping[str, str] | None = None, *flags: str) -> subprocess.Popen[bytes]:
        """Starts a worker of one thread without a nanny, so that it is gone when it is killed; waits until it has joined.

        Args:
          variables: added to the environment.
          flags: of Python.
        """
        number = len(self.workers)
        options = ["--nthreads=1", "--no-nanny", "--no-dashboard", "--memory-limit=0", "--local-directory=."]
        worker = _start(self.folder, f"worker-{number}", ["worker", self.address, *options], variables or {}, *flags)
        self.workers.append(worker)
        _wait_for(self.folder / f"worker-{number}.log", "Registered to:", worker)
        return worker

    def log(self, worker: int) -> str:
        return (self.folder / f"worker-{worker}.log").read_text()


@contextlib.contextmanager
def cluster(folder: Path, workers: int) -> Iterator[Cluster]:
    """Ends all processes at the end."""
    (place,) = free_addresses(1)
    host, port = place.split(":")
    options = [f"--host={host}", f"--port={port}", f"--dashboard-address={host}:0"]
    scheduler = _start(folder, "scheduler", ["scheduler", *options], {})
    found = Cluster(folder, f"tcp://{place}", scheduler)
    try:
        _wait_for(folder / "scheduler.log", "Scheduler at:", scheduler)
        for _ in range(workers):
            found.add_worker()
        yield found
    finally:
        for process in (scheduler, *found.workers):
            process.send_signal(signal.SIGKILL)
            process.wait(30)


def _start(folder: Path, name: str, arguments: list[str], variables: Mapping[str, str], *flags: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "TF_CPP_MIN_LOG_LEVEL": "2", **variables}
    with (folder / f"{name}.log").open("wb") as log:
        command = [sys.executable, *flags, "-m", "dask", *arguments]
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)


def _wait_for(log: Path, text: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + _PATIENCE
    while text not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.1)
