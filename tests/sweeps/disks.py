"""Runs on a disk that becomes full: at the start, as each component begins, and when the run's files are written.

    .venv/bin/python -m tests.sweeps.disks

Mounts a tmpfs in a mount namespace of its own, as root or where users may make namespaces (`unshare -rm`). What is staged is
only the moment: a file then takes what is left of the disk, except for some pages. After each run the file is deleted, and the
next run goes on. The last one must end well.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.sweeps.runs import COMPONENTS, KEYS, Ended, Starter, check_model, table, write_config, write_images

_INSIDE: Final = "FPN_SWEEP_INSIDE"  # set in the namespace
_SIZES: Final = (4096, 65_536, 262_144, 524_288)  # bytes of a disk on which a run can't begin, or not make its store
_LEFT: Final = (0, 65_536, 262_144)  # bytes that are left when a component begins
_ROOM: Final = 256 << 20
_FILES: Final = "files of the run"


@dataclass(frozen=True)
class Outcome:
    """A run that met a full disk: where, with how many bytes left, what failed and was told, and a problem if there was one."""

    where: str
    left: int
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
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_SIZES[0]}", "none", self._disk], check=True)

    def begin(self, size: int) -> Outcome:
        """A run on a disk of so many bytes."""
        self._resize(size)
        return self._judge("start", size, self._starter.run(self._arguments("disk/out")))

    def fill(self, where: str, left: int) -> Outcome:
        """A run that finds only so many bytes left when the component begins, or the run's files are to be written."""
        self._resize(_ROOM)
        ended = self._starter.call(_run_and_fill, self._arguments("disk/out"), where, str(self._disk), left)
        (self._disk / "filled").unlink(missing_ok=True)
        return self._judge(where, left, ended)

    def end(self) -> Outcome:
        """A run with room, which must end well."""
        ended = self._starter.run(self._arguments("disk/out"))
        elsewhere = self._starter.run(self._arguments("reference"))
        image = next((self._folder / "data").glob("*/*.png"))
        problem = ""
        if ended.status != 0 or ended.summary["metrics"] != elsewhere.summary["metrics"]:
            problem = f"status {ended.status}: {ended.stderr[-300:]}"
        elif (checked := self._starter.call(check_model, ended.summary["pushed_model"], str(image))).status != 0:
            problem = f"the pushed model: {checked.stderr[-300:]}"
        return Outcome("end", _ROOM, "", "", problem)

    def _judge(self, where: str, left: int, ended: Ended) -> Outcome:
        started = "ImageExampleGen" in ended.summary.get("components", {})
        failed = next(iter(ended.states("failed")), _FILES if started else "start") if ended.status else ""
        told = [line for line in ended.stderr.splitlines() if line.startswith("fpn: ")]
        problems = []
        if failed:
            if ended.status != 1:
                problems.append(f"status {ended.status}")
            if len(told) != 1 or "the disk is full" not in told[0] or str(self._disk) not in told[0]:
                problems.append(f"told: {ended.stderr[-500:]}")
            if not set(KEYS) <= set(ended.summary):
                problems.append(f"JSON: {ended.stdout[-300:]}")
        if "Traceback" in ended.stderr:
            problems.append("a traceback")
        for path in self._disk.glob("out/runs/*/*.json"):
            json.loads(path.read_text())  # raises if it is half-written
        return Outcome(where, left, failed, told[0] if told else "", "; ".join(problems))

    def _arguments(self, output: str) -> list[str]:
        config = str(self._folder / "config.yaml")
        return ["run", "--config", config, "--output", str(self._folder / output), "--json"]

    def _resize(self, size: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}", self._disk], check=True)


def _run_and_fill(arguments: list[str], where: str, disk: str, left: int) -> None:
    from pipeline.cli import main
    from pipeline.local import runner
    from pipeline.local.launcher import CheckingLauncher

    def fill() -> None:
        about = os.statvfs(disk)
        with open(f"{disk}/filled", "wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(about.f_bavail * about.f_frsize - left, 1))

    launch, write = CheckingLauncher.launch, runner._write

    def launch_on_full_disk(launcher: CheckingLauncher) -> object:
        if launcher._pipeline_node.node_info.id == where:
            fill()
        return launch(launcher)

    def write_on_full_disk(*results: object) -> None:
        if where == _FILES:
            fill()
        write(*results)

    CheckingLauncher.launch = launch_on_full_disk
    runner._write = write_on_full_disk
    status = main(arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def sweep(folder: Path, lefts: Sequence[int]) -> list[Outcome]:
    """Fills the disk everywhere but for so many bytes, and prints a table."""
    disks = DiskSweep(folder)
    outcomes: list[Outcome] = []

    def add(outcome: Outcome) -> None:
        outcomes.append(outcome)
        if outcome.problem:
            print(f"{outcome.where}, {outcome.left}: {outcome.problem}", flush=True)

    for size in _SIZES:
        add(disks.begin(size))
    for where in (*COMPONENTS, _FILES):
        for left in lefts:
            add(disks.fill(where, left))
    add(disks.end())
    rows = [
        (item.where, item.left // 1024, item.failed or "nothing", item.told.replace(str(folder), "")[:100], item.problem[:30])
        for item in outcomes
    ]
    print(table(("full at", "KB left", "failed", "told", "problem"), rows))
    never = set(COMPONENTS) - {outcome.failed for outcome in outcomes}
    if never:
        print(f"never failed: {', '.join(sorted(never))}")
    print(f"{len(outcomes)} runs, {sum(bool(outcome.problem) for outcome in outcomes)} problems", flush=True)
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--left", type=int, nargs="+", default=_LEFT, metavar="BYTES", help="left when a component begins")
    options = parser.parse_args()
    if not os.environ.get(_INSIDE):
        os.environ[_INSIDE] = "1"
        os.execvp("unshare", ["unshare", "-rm", sys.executable, "-m", "tests.sweeps.disks", *sys.argv[1:]])
    folder = Path(tempfile.mkdtemp(prefix="disks-"))
    try:
        outcomes = sweep(folder, options.left)
    finally:
        subprocess.run(["umount", folder / "disk"], check=False)
        shutil.rmtree(folder)
    sys.exit(any(outcome.problem for outcome in outcomes))


if __name__ == "__main__":
    main()
