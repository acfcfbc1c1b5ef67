"""Runs on 300 tiny images, started as copies of a process that has TFX loaded, so that hundreds of them can be killed."""

import contextlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml
from PIL import Image

IMAGES: Final = 300
COMPONENTS: Final = (
    "ImageExampleGen",
    "StatisticsGen",
    "SchemaGen",
    "ExampleValidator",
    "Transform",
    "Trainer",
    "Evaluator",
    "ModelCheck",
    "Pusher",
)
KEYS: Final = ("pipeline", "run_id", "blessed", "pushed_model", "evaluation", "report", "metrics", "examples", "components")
PROJECT: Final = Path(__file__).parents[2]
_PATIENCE: Final = 300  # seconds that a run may take


def write_images(folder: Path, images: int = IMAGES) -> None:
    """Noise of two brightnesses, 16x16, in two folders of classes."""
    random = np.random.default_rng(0)
    for number in range(images):
        label = ("bright", "dark")[number % 2]
        (folder / label).mkdir(parents=True, exist_ok=True)
        pixels = random.normal(150 if label == "bright" else 100, 40, (16, 16)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / label / f"{number}.png")


def write_config(path: Path, data: Path) -> None:
    """A configuration whose run takes about ten seconds without the start of the interpreter."""
    config = {
        "name": "tiny",
        "data": {"path": str(data)},
        "image": {"height": 16, "width": 16, "channels": 1},
        "model": {"backbone": "small_resnet10", "min_level": 2, "max_level": 3, "num_filters": 8},
        "train": {"epochs": 2, "batch_size": 32},
        "evaluate": {"confidence_intervals": "none", "thresholds": [{"metric": "accuracy", "lower": 0.1}]},
    }
    path.write_text(yaml.safe_dump(config))


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit status (negative: the signal), what it printed, and the seconds that it took."""

    status: int | None
    stdout: str
    stderr: str
    seconds: float

    @property
    def summary(self) -> dict[str, Any]:
        """The JSON object on the last line; empty if there is none."""
        lines = self.stdout.splitlines() or [""]
        with contextlib.suppress(ValueError):
            return json.loads(lines[-1])
        return {}

    def states(self, state: str) -> list[str]:
        return [name for name, item in self.summary.get("components", {}).items() if item["state"] == state]


class Command:
    """A command that runs, in a process group of its own; `poll`, `wait`, `send_signal` and `pid` are those of `Popen`."""

    def __init__(self, process: ForkServerProcess, screen: Path) -> None:
        self._process = process
        self._screen = screen
        self._began = time.monotonic()
        self._waiting = threading.Lock()  # the status of a process comes once

    @property
    def pid(self) -> int:
        assert self._process.pid
        return self._process.pid

    @property
    def runs(self) -> bool:
        return self.poll() is None

    @property
    def log(self) -> Path:
        """The file with what it prints on standard error."""
        return self._screen.with_suffix(".err")

    @property
    def screen(self) -> str:
        """What it has printed on standard error so far."""
        return self.log.read_text(errors="replace")

    def poll(self) -> int | None:
        with self._waiting:
            return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        with self._waiting:
            self._process.join(timeout)
            if self._process.exitcode is None:
                raise subprocess.TimeoutExpired("fpn", timeout or 0)
            return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.runs:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kills the command and all that it has started, at once."""
        for end in (os.killpg, os.kill):
            with contextlib.suppress(ProcessLookupError):
                end(self.pid, signal.SIGKILL)

    def end(self, patience: float | None = _PATIENCE) -> Ended:
        """Waits, at most so many seconds until the command is killed."""
        try:
            status = self.wait(patience)
        except subprocess.TimeoutExpired:
            self.kill()
            status = self.wait()
        seconds = time.monotonic() - self._began
        stdout, stderr = (self._screen.with_suffix(end).read_text(errors="replace") for end in (".out", ".err"))
        return Ended(status, stdout, stderr, seconds)


class Starter:
    """Starts commands of `fpn`, and other functions, as copies of a process that has loaded what they import."""

    def __init__(self, screens: Path) -> None:
        """`screens`: folder for what the commands print."""
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["tests.sweeps.loaded"])
        self._screens = screens
        self._count = 0
        screens.mkdir(parents=True, exist_ok=True)
        self.call(_do_nothing)  # loads

    def start(self, arguments: Sequence[str], project: Path = PROJECT) -> Command:
        """Starts `fpn ARGUMENTS...` in the environment that is set now, by the packages in `project`, which it runs in."""
        return self._start(_run_command, list(arguments), project, dict(os.environ))

    def run(self, arguments: Sequence[str], project: Path = PROJECT, patience: float | None = _PATIENCE) -> Ended:
        """`patience`: seconds after which the command is killed."""
        return self.start(arguments, project).end(patience)

    def call(self, function: Callable[..., Any], *arguments: Any) -> Ended:
        """Calls a function in a process of its own; its status is 1 if the function raises."""
        return self._start(function, *arguments).end()

    def execute(self, program: str) -> Command:
        """Starts a program, as `python -c` does."""
        return self._start(_execute, program)

    def _start(self, function: Callable[..., Any], *arguments: Any) -> Command:
        self._count += 1
        screen = self._screens / f"{os.getpid()}-{self._count}.out"
        for end in (".out", ".err"):
            screen.with_suffix(end).touch()
        process = self._context.Process(target=_work, args=(screen, function, arguments))
        process.start()
        return Command(process, screen)


def _work(screen: Path, function: Callable[..., Any], arguments: Sequence[Any]) -> None:
    os.setsid()
    for number, end in ((1, ".out"), (2, ".err")):
        with screen.with_suffix(end).open("ab") as file:
            os.dup2(file.fileno(), number)
    function(*arguments)


def _run_command(arguments: list[str], project: Path, environment: dict[str, str]) -> None:
    from tests.sweeps.loaded import ENVIRONMENT

    for name in ENVIRONMENT.keys() - environment.keys():
        os.environ.pop(name, None)
    os.environ.update(environment.items() - ENVIRONMENT.items())  # what loading has set stays
    os.chdir(project)
    sys.path[:0] = [str(project), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv = ["fpn", *arguments]
    from pipeline.cli import run_and_exit

    run_and_exit()


def _execute(program: str) -> None:
    exec(program, {"__name__": "__main__"})


def _do_nothing() -> None:
    pass


def check_model(folder: str, image: str) -> None:
    """Loads a pushed model, compares its digest with that of its record, and asks it about an image."""
    import tensorflow as tf

    from components.pusher.integrity import model_digest
    from components.pusher.record import RECORD_FILE

    record = json.loads(Path(folder, RECORD_FILE).read_text())
    assert model_digest(folder) == record["digest"], f"{folder} is not what was pushed"
    answer = tf.saved_model.load(folder).signatures["serving_default"](tf.constant([Path(image).read_bytes()]))
    assert abs(float(tf.reduce_sum(answer["probabilities"])) - 1) < 1e-4


def table(heading: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Rows of text in columns."""
    cells = [[str(cell) for cell in row] for row in (heading, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(heading))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells)
