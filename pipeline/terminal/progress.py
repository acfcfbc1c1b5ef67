"""Shows on the screen which component runs and how far training is."""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.spinner import Spinner
from rich.table import Column
from rich.text import Text


class ProgressDisplay(logging.Handler):
    """Shows which component runs and how far it is; keeps each component's state and time.

    Listens to what LocalDagRunner logs about each node, and to log records of `models` and `components` that carry `progress`.
    """

    def __init__(
        self, console: Console, components: list[str], when_done: Mapping[str, Callable[[], None]] | None = None
    ) -> None:
        """`when_done` has functions to call after the components that it names, unless these came from the cache."""
        super().__init__(logging.DEBUG)
        self.components: dict[str, dict[str, Any]] = {name: {"state": "skipped", "seconds": 0.0} for name in components}
        self.running = ""
        self._when_done = when_done or {}
        self._started = 0.0
        self._console = console
        self._width = max(map(len, components))
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", table_column=Column(min_width=self._width)),
            BarColumn(bar_width=16, table_column=Column(min_width=16)),
            TimeRemainingColumn(table_column=Column(min_width=7)),
            TextColumn("left  {task.fields[text]}", table_column=Column(no_wrap=True, overflow="ellipsis"), markup=False),
            console=console,
            transient=True,
            redirect_stdout=False,  # else everything that TFX logs would be shown above the bar
            redirect_stderr=False,
        )
        self._task = self._bar.add_task("", visible=False, text="")
        self._listened = [logging.getLogger(name) for name in ("absl", "models", "components")]

    def __enter__(self) -> "ProgressDisplay":
        for logger in self._listened:
            logger.addHandler(self)
        for logger in self._listened[1:]:
            logger.setLevel(logging.DEBUG)
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        if self._console.is_terminal:
            self._bar.stop()  # if it never started, stopping would leave an empty line
        for logger in self._listened:
            logger.removeHandler(self)
        if kind and self.running in self.components:
            self._finish("failed")

    def emit(self, record: logging.LogRecord) -> None:
        if progress := getattr(record, "progress", None):
            self._bar.update(self._task, completed=progress["done"], total=progress["total"], text=progress["text"])
            if not self._console.is_terminal and record.levelno >= logging.INFO:
                self._console.print(f"  {progress['text']}")
        elif record.levelno >= logging.WARNING and record.name.startswith("models."):
            self._console.print(f"  {record.getMessage()}", style="bold yellow", soft_wrap=True)
        elif record.msg == "Component %s is running.":
            self.running = str(record.args[0]) if isinstance(record.args, tuple) else ""
            self._started = time.monotonic()
            if self.running in self.components:
                self.components[self.running]["state"] = "complete"
                self._bar.reset(self._task, description=self.running, total=None, visible=True, text="")
        elif record.msg == "A cached execution %d is used.":
            self.components[self.running]["state"] = "cached"
        elif record.msg == "Component %s is finished." and self.running in self.components:
            self._finish(self.components[self.running]["state"])

    def _finish(self, state: str) -> None:
        seconds = round(time.monotonic() - self._started, 2)
        self.components[self.running] = {"state": state, "seconds": seconds}
        mark = Text("✗", "bold red") if state == "failed" else Text("✓", "green")
        note = {"complete": "", "cached": "  from the cache", "failed": "  failed"}[state]
        self._console.print(Text.assemble(mark, f" {self.running:<{self._width}} {seconds:7.1f} s{note}"))
        if state == "complete" and self.running in self._when_done:
            self._when_done[self.running]()


@contextlib.contextmanager
def waiting(console: Console, what: str) -> Iterator[Callable[[str], None]]:
    """Shows that something is going on for a while; yields a function that changes the text."""
    spinner = Spinner("dots", Text(what))
    live = Live(spinner, console=console, transient=True, redirect_stdout=False, redirect_stderr=False)
    with live if console.is_terminal else contextlib.nullcontext():
        yield lambda text: spinner.update(text=Text(text))
