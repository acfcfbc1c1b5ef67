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
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.sweeps.runs import Command, Starter

PROJECT = Path(__file__).parents[2]


@dataclass
class Server:
    """A server that is running."""

    process: "Command | subprocess.Popen[bytes]"
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
def serving(model: Path, *arguments: str, program: str = "") -> Iterator[Server]:
    """`fpn serve` on a free port, until the end of the block; the program is what Python runs in place of `fpn`."""
    command = ["serve", "--model", str(model), "--port", "0", "--poll", "0.2", *arguments]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        process: Command | subprocess.Popen[bytes]
        if program:
            environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
            with log.open("w") as file:
                process = subprocess.Popen([sys.executable, "-c", program, *command], cwd=PROJECT, env=environment, stderr=file)
        else:
            process = Starter(Path(folder)).start(command)
            log = process.log
        try:
            while not (found := re.search(r"serving version \d+ of \S+ at https?://[^:]+:(\d+)", log.read_text())):
                assert process.poll() is None, log.read_text()
                time.sleep(0.05)
            yield Server(process, int(found[1]), log)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            print(log.read_text()[-5000:])
