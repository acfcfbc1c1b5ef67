"""Runs on file systems that are full at some component; then, with more room, the same command must end well.

    .venv/bin/python -m tests.sweeps.disks

Mounts small tmpfs in a mount namespace of its own, as root or where users may make namespaces (`unshare -rm`).
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.sweeps.runs import COMPONENTS, KEYS, Ended, Starter, table, write_config, write_images

_INSIDE: Final = "FPN_SWEEP_INSIDE"  # set in the namespace
_PAGE: Final = 4096
_STEPS: Final = (0.3, 0.8)  # how far into a component's use of the disk it fails
_ROOM: Final = 256 << 20  # bytes with which every run ends well


@dataclass(frozen=True)
class Outcome:
    """What became of a run on a disk of so many bytes: what failed, what was told, and a problem if there was one."""

    size: int
    failed: str
    told: str
    problem: str


class DiskSweep:
    """Runs whose output is on a small disk; everything else is elsewhere."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._disk = folder, folder / "disk"
        self._disk.mkdir()
        write_images(folder / "data")
        write_config(folder / "config.yaml", folder / "data")
        self._starter = Starter(folder / "screens")
        self._mount(_ROOM)
        self._reference = self._run().summary
        self.sizes = list(self._sizes())
        self._unmount()

    def _sizes(self) -> Iterator[int]:
        """Sizes of disks on which each component fails once, the store and the start first."""
        yield from (_PAGE, 10 * _PAGE, 40 * _PAGE, 60 * _PAGE)
        output = self._disk / "out"
        used = sum(_use(path) for path in output.iterdir() if path.name not in ("artifacts", "runs", "pushed")) + 60 * _PAGE
        for name in (*COMPONENTS[:-1], "pushed", "runs"):
            of_this = _use(output / ("artifacts/" + name if name in COMPONENTS else name))
            yield from (used + int(step * of_this) for step in _STEPS)
            used += of_this
        yield used

    def run(self, size: int) -> Outcome:
        """A run on a disk of so many bytes, then the same with room."""
        self._mount(size)
        try:
            first = self._run()
            subprocess.run(["mount", "-o", f"remount,size={_ROOM}", self._disk], check=True)
            left = [str(path) for path in (self._disk / "out").rglob(".*.json")] if (self._disk / "out").exists() else []
            again = self._run()
            listed = self._starter.run(["runs", "--output", str(self._disk / "out")])
        finally:
            self._unmount()
        failed = next(iter(first.states("failed")), "nothing" if first.status == 0 else "beside the components")
        told = [line for line in first.stderr.splitlines() if line.startswith("fpn: ")]
        problems = []
        if first.status != 0:
            if first.status != 1:
                problems.append(f"status {first.status}")
            if len(told) != 1 or "the disk is full" not in told[0] or str(self._folder) not in told[0]:
                problems.append(f"told {first.stderr[-500:]}")
            if not set(KEYS) <= set(first.summary):
                problems.append(f"JSON {first.stdout[-300:]}")
        if "Traceback" in first.stderr:
            problems.append("a traceback")
        if left:
            problems.append(f"half-written: {left}")
        if again.status != 0 or again.summary.get("metrics") != self._reference["metrics"]:
            problems.append(f"again: status {again.status}: {again.stderr[-300:]}")
        if listed.status != 0:
            problems.append(f"fpn runs: {listed.stderr[-300:]}")
        return Outcome(size, failed, told[0] if told else "", "; ".join(problems))

    def _run(self) -> Ended:
        output = str(self._disk / "out")
        return self._starter.run(["run", "--config", str(self._folder / "config.yaml"), "--output", output, "--json"])

    def _mount(self, size: int) -> None:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", self._disk], check=True)

    def _unmount(self) -> None:
        subprocess.run(["umount", self._disk], check=True)


def _use(path: Path) -> int:
    """Bytes of memory that a file or folder takes on a tmpfs."""
    files = [path] if path.is_file() else [item for item in path.rglob("*") if item.is_file()]
    return sum(-(-item.stat().st_size // _PAGE) * _PAGE for item in files)


def sweep(folder: Path, every: int = 1) -> list[Outcome]:
    """Runs on disks of many sizes, or every so many of them, and prints a table."""
    disks = DiskSweep(folder)
    outcomes = []
    for size in disks.sizes[::every]:
        outcome = disks.run(size)
        outcomes.append(outcome)
        if outcome.problem:
            print(f"{size}: {outcome.problem}", flush=True)
    rows = [(item.size // 1024, item.failed, item.told.replace(str(folder), "")[:90], item.problem[:30]) for item in outcomes]
    print(table(("KB", "failed", "told", "problem"), rows))
    print(f"{len(outcomes)} disks, {sum(bool(outcome.problem) for outcome in outcomes)} problems", flush=True)
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--every", type=int, default=1, metavar="N", help="every so many of the sizes (1)")
    options = parser.parse_args()
    if not os.environ.get(_INSIDE):
        os.environ[_INSIDE] = "1"
        os.execvp("unshare", ["unshare", "-rm", sys.executable, "-m", "tests.sweeps.disks", *sys.argv[1:]])
    folder = Path(tempfile.mkdtemp(prefix="disks-"))
    try:
        outcomes = sweep(folder, options.every)
    finally:
        shutil.rmtree(folder)
    sys.exit(any(outcome.problem for outcome in outcomes))


if __name__ == "__main__":
    main()
