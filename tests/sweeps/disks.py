"""One run on a disk that is full again and again: the same command, with a little more room each time, until it ends well.

    .venv/bin/python -m tests.sweeps.disks

Mounts a tmpfs in a mount namespace of its own, as root or where users may make namespaces (`unshare -rm`). The room begins with
a page, and doubles until the component that had failed is done. So each component fails at several points of its work.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.sweeps.runs import COMPONENTS, KEYS, Ended, Starter, check_model, table, write_config, write_images

_INSIDE: Final = "FPN_SWEEP_INSIDE"  # set in the namespace
_PAGE: Final = 4096  # bytes, the least that a tmpfs gives
_FIRST_ROOM: Final = 32 * 1024  # bytes for a component; what it writes first is its log and the store
_MOST_RUNS: Final = 200
_ORDER: Final = ("start", *COMPONENTS, "files of the run")  # what can fail


@dataclass(frozen=True)
class Outcome:
    """A run with so much room, in bytes: what failed ("" if it ended well), what was told, and a problem if there was one."""

    room: int
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
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_PAGE}", "none", self._disk], check=True)

    def run(self, room: int) -> Outcome:
        """The same command once more, with so much room on the disk."""
        about = os.statvfs(self._disk)
        size = (about.f_blocks - about.f_bfree) * about.f_frsize + room
        subprocess.run(["mount", "-o", f"remount,size={size}", self._disk], check=True)
        output = self._disk / "out"
        ended = self._starter.run(["run", "--config", str(self._folder / "config.yaml"), "--output", str(output), "--json"])
        if ended.status == 0:
            return Outcome(room, "", "", self._problem_at_the_end(ended))
        started = "ImageExampleGen" in ended.summary.get("components", {})
        failed = next(iter(ended.states("failed")), "files of the run" if started else "start")
        told = [line for line in ended.stderr.splitlines() if line.startswith("fpn: ")]
        problems = [] if ended.status == 1 else [f"status {ended.status}"]
        if len(told) != 1 or "the disk is full" not in told[0] or str(self._disk) not in told[0]:
            problems.append(f"told: {ended.stderr[-500:]}")
        if not set(KEYS) <= set(ended.summary):
            problems.append(f"JSON: {ended.stdout[-300:]}")
        if "Traceback" in ended.stderr:
            problems.append("a traceback")
        for path in output.glob("runs/*/*.json"):
            json.loads(path.read_text())  # raises if it is half-written
        return Outcome(room, failed, told[0] if told else "", "; ".join(problems))

    def _problem_at_the_end(self, ended: Ended) -> str:
        elsewhere = self._starter.run(
            ["run", "--config", str(self._folder / "config.yaml"), "--output", str(self._folder / "reference"), "--json"]
        )
        if ended.summary["metrics"] != elsewhere.summary["metrics"]:
            return f"other metrics: {ended.summary['metrics']}"
        image = next((self._folder / "data").glob("*/*.png"))
        checked = self._starter.call(check_model, ended.summary["pushed_model"], str(image))
        return "" if checked.status == 0 else f"the pushed model: {checked.stderr[-300:]}"


def sweep(folder: Path) -> list[Outcome]:
    """Gives room until the run ends well, and prints a table."""
    disks = DiskSweep(folder)
    outcomes: list[Outcome] = []
    room, furthest = _PAGE, 0
    while len(outcomes) < _MOST_RUNS:
        outcome = disks.run(room)
        outcomes.append(outcome)
        if outcome.problem:
            print(f"{room}: {outcome.problem}", flush=True)
        if not outcome.failed:
            break
        place = _ORDER.index(outcome.failed)
        room = _FIRST_ROOM if place > furthest else 2 * room
        furthest = max(furthest, place)
    rows = [
        (item.room // 1024, item.failed or "nothing", item.told.replace(str(folder), "")[:90], item.problem[:30])
        for item in outcomes
    ]
    print(table(("KB of room", "failed", "told", "problem"), rows))
    never = set(COMPONENTS) - {outcome.failed for outcome in outcomes}
    if never:
        print(f"never failed: {', '.join(sorted(never))}")
    print(f"{len(outcomes)} runs, {sum(bool(outcome.problem) for outcome in outcomes)} problems", flush=True)
    return outcomes


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    if not os.environ.get(_INSIDE):
        os.environ[_INSIDE] = "1"
        os.execvp("unshare", ["unshare", "-rm", sys.executable, "-m", "tests.sweeps.disks", *sys.argv[1:]])
    folder = Path(tempfile.mkdtemp(prefix="disks-"))
    try:
        outcomes = sweep(folder)
    finally:
        subprocess.run(["umount", folder / "disk"], check=False)
        shutil.rmtree(folder)
    sys.exit(any(outcome.problem for outcome in outcomes) or bool(outcomes[-1].failed))


if __name__ == "__main__":
    main()
