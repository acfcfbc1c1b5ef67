"""Starts `fpn serve`, and asks it."""

import base64
import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[2]


@dataclass
class Server:
    """A server that is running."""

    process: "subprocess.Popen[bytes]"
    port: int
    log: Path

    def ask(self, method: str, path: str, body: bytes | str | None = None, **headers: str) -> tuple[int, Any]:
        """Status, and what the JSON says; other content as text."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            response = connection.getresponse()
            content = response.read()
        if (response.getheader("content-type") or "").startswith("application/json"):
            return response.status, json.loads(content)
        return response.status, content.decode()

    def predict(self, files: list[bytes], path: str = "/v1/models/fpn:predict") -> tuple[int, Any]:
        return self.ask("POST", path, json.dumps({"instances": [{"b64": encode(file)} for file in files]}))

    def version(self) -> int:
        return int(self.ask("GET", "/v1/models/fpn")[1]["model_version_status"][0]["version"])

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


def encode(file: bytes) -> str:
    return base64.b64encode(file).decode()


@contextlib.contextmanager
def serving(model: Path, *arguments: str, program: Sequence[str] = ("-m", "pipeline.cli")) -> Iterator[Server]:
    """`fpn serve` on a free port, until the end of the block; the program is what Python runs in place of `fpn`."""
    command = [sys.executable, *program, "serve", "--model", str(model), "--port", "0", "--poll", "0.2", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    with tempfile.NamedTemporaryFile("w+") as log:
        process = subprocess.Popen(command, cwd=PROJECT, env=environment, stderr=log)
        try:
            while not (found := re.search(r"serving version \d+ of \S+ at https?://[^:]+:(\d+)", Path(log.name).read_text())):
                assert process.poll() is None, Path(log.name).read_text()
                time.sleep(0.05)
            yield Server(process, int(found[1]), Path(log.name))
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=30)
            process.kill()
            process.wait()
            print(Path(log.name).read_text()[-5000:])
