"""What all benchmarks share: runs in processes of their own, figures beside a peer's, and what machine it was."""

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Figure:
    """What was measured, and what it is held to.

    Attributes:
      name: what was measured, on what.
      unit: of the values.
      values: the project's, one a repeat.
      peer: the peer's, measured in turns with them; empty where a bar is on the value itself.
      bar: limit of the ratio to the peer, or of the value where there is none; None: there is none.
      at_least: the bar is a lower one.
      note: how it was measured.
      series: the line of a plot that it is a point of; empty if none.
      images: its place on that line.
    """

    name: str
    unit: str
    values: list[float]
    peer: list[float] = field(default_factory=list)
    bar: float | None = None
    at_least: bool = False
    note: str = ""
    series: str = ""
    images: int = 0

    @property
    def ratios(self) -> list[float]:
        """To the peer, both sides of one repeat, for a machine's speed drifts; a peer of one value is that of all repeats.

        Where there is no peer, the values themselves.
        """
        peer = self.peer * (len(self.values) // len(self.peer)) if self.peer else [1.0] * len(self.values)
        return [value / other for value, other in zip(self.values, peer, strict=True)]

    @property
    def held(self) -> float:
        """The median of `ratios`: what the bar is on."""
        return statistics.median(self.ratios)

    @property
    def is_met(self) -> bool:
        """Whether it keeps its bar, if it has one; what could not be measured (NaN) keeps none."""
        return self.bar is None or (self.held >= self.bar if self.at_least else self.held <= self.bar)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, ["---"] * len(header), *rows))


def figures_table(figures: Sequence[Figure]) -> str:
    """Median and spread of both sides, their ratio, and the bar with its verdict."""
    rows = []
    for figure in figures:
        ratio = f"{figure.held:.2f}" if figure.peer else ""
        bar = "" if figure.bar is None else f"{'at least' if figure.at_least else 'at most'} {figure.bar:g}"
        verdict = "" if figure.bar is None else "met" if figure.is_met else "**missed**"
        rows.append([figure.name, figure.unit, with_spread(figure.values), with_spread(figure.peer), ratio, bar, verdict])
    return table(["what", "unit", "here", "peer", "ratio", "bar", ""], rows)


def paragraph(text: str) -> str:
    """The text in lines of at most 120 columns, as in all pages."""
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def with_spread(values: Sequence[float]) -> str:
    """The median, and the least and the largest value: "12.1 (11.8 to 12.9)"."""
    if not values:
        return ""
    low, median, high = (_short(value) for value in (min(values), statistics.median(values), max(values)))
    return median if len(values) == 1 else f"{median} ({low} to {high})"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"


@dataclass(frozen=True)
class Ended:
    """A process that has ended well: its seconds, and the JSON on the last line of its output, if that is any."""

    seconds: float
    result: Any


def run_apart(*command: object, statuses: Sequence[int] = (0,)) -> Ended:
    """Runs `python ARGUMENTS...` in a process of its own, with nothing left to be written to the disk.

    Raises:
      SystemExit: it has failed, and why.
    """
    os.sync()
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "TF_CPP_MIN_LOG_LEVEL": "2"}
    start = time.perf_counter()
    arguments = [sys.executable, *map(str, command)]
    done = subprocess.run(arguments, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    if done.returncode not in statuses:
        raise SystemExit(f"{done.stderr[-4000:]}\n{' '.join(arguments[1:])}\ncould not be measured: status {done.returncode}")
    try:
        return Ended(seconds, json.loads(done.stdout.splitlines()[-1]))
    except (IndexError, ValueError):
        return Ended(seconds, None)


def warm(folder: Path) -> None:
    """Reads all files once, so that every run finds them in the page cache."""
    for path in folder.rglob("*.*"):
        if path.is_file():
            path.read_bytes()


def peak_memory() -> int:
    """Largest resident memory of this process in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def machine() -> str:
    """Processor, number of cores that this process may use, and memory."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    cores = len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{cores} core{'s' if cores > 1 else ''} of {names[0] if names else platform.machine()}, {memory:.0f} GB"
