"""MLflow's own server on this machine, by the environment that `make mlflow` makes."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

MLFLOW = Path(f"{sys.prefix}-mlflow") / "bin" / "python"

QUICK = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # which is seven processes

needs_mlflow = pytest.mark.skipif(not MLFLOW.exists(), reason="no MLflow here; make mlflow gives it an environment of its own")


@contextlib.contextmanager
def mlflow_server(folder: Path) -> Iterator[str]:
    """Starts it; yields its URI."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(MLFLOW), "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "files")]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env={**os.environ, **QUICK})
    uri = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{uri}/health", timeout=1):
                break
            assert process.poll() is None, (folder / "log").read_text()
            time.sleep(0.5)
        yield uri
    finally:
        process.terminate()
        process.wait()


def ask(uri: str, route: str, content: dict[str, Any] | None = None) -> Any:
    """What the server answers; it is asked by POST if there is content."""
    request = urllib.request.Request(f"{uri}/api/2.0/mlflow/{route}", content and json.dumps(content).encode())
    request.add_header("content-type", "application/json")
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def runs_of(uri: str, experiment: str) -> list[dict[str, Any]]:
    """The runs of an experiment, the newest first; none if there is no such experiment."""
    known = ask(uri, "experiments/search", {"max_results": 100})["experiments"]
    numbers = [item["experiment_id"] for item in known if item["name"] == experiment]
    return ask(uri, "runs/search", {"experiment_ids": numbers}).get("runs", []) if numbers else []


def curve(uri: str, run: dict[str, Any], metric: str) -> list[tuple[int, float]]:
    """(step, value) of a metric, as logged."""
    found = ask(uri, f"metrics/get-history?run_id={run['info']['run_id']}&metric_key={metric}").get("metrics", [])
    return [(int(item.get("step", 0)), item["value"]) for item in found]
