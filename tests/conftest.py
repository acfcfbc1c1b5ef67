"""Shared by all tests: how to start the command, and the long ones last."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int
    stdout: str
    stderr: str

    @property
    def json(self) -> dict:
        """The object on the last line of standard output."""
        return json.loads(self.stdout.splitlines()[-1])


@pytest.fixture(scope="session")
def fpn():
    """Runs `fpn ARGUMENTS...` in a process of its own, from any copy of the project's packages."""

    def run(*arguments: object, project: Path = PROJECT) -> Ended:
        command = [sys.executable, "-m", "pipeline.cli", *map(str, arguments)]
        environment = {**os.environ, "COLUMNS": "120"}
        done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
        return Ended(done.returncode, done.stdout, done.stderr)

    return run
