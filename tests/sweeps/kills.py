"""Kills runs at random moments; the same command must then end well, with the same metrics and a pushed model that loads.

    .venv/bin/python -m tests.sweeps.kills --random 200 --store 50 --journal 20

A kill is SIGKILL to the run and all that it has started: at any moment; while the metadata store is first made; or at a moment
when SQLite's journal is beside the store.
"""

import argparse
import collections
import random
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.sweeps.runs import Command, Ended, Starter, check_model, table, write_config, write_images

KINDS: Final = ("random", "store", "journal")
_STORE_SECONDS: Final = 0.03  # in which ML Metadata makes its tables, and some more


@dataclass(frozen=True)
class Outcome:
    """What became of a folder whose run was killed.

    Attributes:
      kind: of the kill.
      moment: the component that was running, or "start" or "end".
      journal: whether the kill left a journal beside the store.
      problem: what did not hold afterwards; "" if all did.
      seconds: of the kill and all that followed.
    """

    kind: str
    moment: str
    journal: bool
    problem: str
    seconds: float


class KillSweep:
    """Kills and repeats runs in new folders below `folder`."""

    def __init__(self, folder: Path, seed: int = 0) -> None:
        self._folder = folder
        self._random = random.Random(seed)
        write_images(folder / "data")
        write_config(folder / "config.yaml", folder / "data")
        self._starter = Starter(folder / "screens")
        reference = self._run(folder / "reference")
        assert reference.status == 0, reference.stderr
        self._metrics = reference.summary["metrics"]
        self.seconds = reference.seconds
        parts = [item["seconds"] for item in reference.summary["components"].values()]
        self._parts = [max(self.seconds - sum(parts), 0.1), *parts]  # the start, and each component

    def kill(self, kind: str, number: int) -> Outcome:
        """Starts a run, kills it, and sees what the same command makes of it."""
        output = self._folder / f"{kind}-{number}"
        began = time.monotonic()
        command = self._start(output)
        self._wait_for_moment(kind, output, command)
        command.kill()
        screen = command.end().stderr
        journal = output / "metadata.sqlite-journal"
        left = journal.exists() and journal.stat().st_size > 0
        problem = self._problem_of(output)
        if not problem:
            shutil.rmtree(output)
        return Outcome(kind, _moment(screen), left, problem, time.monotonic() - began)

    def _wait_for_moment(self, kind: str, output: Path, command: Command) -> None:
        if kind == "store":
            while command.runs and not any(output.glob("metadata.sqlite*")):
                time.sleep(0.0005)
            time.sleep(self._random.uniform(0, _STORE_SECONDS))
            return
        (part,) = self._random.choices(range(len(self._parts)), self._parts)  # by time, but in a slower run later
        while command.runs and command.screen.count("✓") < part:
            time.sleep(0.02)
        time.sleep(self._random.uniform(0, self._parts[part]))
        while kind == "journal" and command.runs and not (output / "metadata.sqlite-journal").exists():
            pass

    def _problem_of(self, output: Path) -> str:
        listed = self._starter.run(["runs", "--output", str(output)])
        if listed.status != 0 and "no runs here" not in listed.stderr:
            return f"fpn runs ended with {listed.status}: {listed.stderr[-300:]}"
        again = self._run(output)
        if again.status != 0:
            return f"ended with {again.status}: {again.stderr[-300:]}"
        if again.summary["metrics"] != self._metrics:
            return f"other metrics: {again.summary['metrics']['accuracy']}"
        image = next((self._folder / "data").glob("*/*.png"))
        checked = self._starter.call(check_model, again.summary["pushed_model"], str(image))
        if checked.status != 0:
            return f"the pushed model: {checked.stderr[-300:]}"
        listed = self._starter.run(["runs", "--output", str(output), "--json"])
        newest = listed.summary.get("runs", [{}])[-1]
        return "" if newest.get("pushed") == again.summary["pushed_model"] else f"fpn runs tells otherwise: {newest}"

    def _start(self, output: Path) -> Command:
        return self._starter.start(["run", "--config", str(self._folder / "config.yaml"), "--output", str(output), "--json"])

    def _run(self, output: Path) -> Ended:
        return self._start(output).end()


def _moment(screen: str) -> str:
    """What came next after the last component that was finished."""
    done = [line.split()[1] for line in screen.splitlines() if line.startswith("✓")]
    if not done:
        return "start"
    return "end" if done[-1] == "Pusher" else f"after {done[-1]}"


def sweep(folder: Path, counts: dict[str, int], jobs: int = 1, seed: int = 0) -> list[Outcome]:
    """Kills so many runs of each kind, and prints a table."""
    kills = KillSweep(folder, seed)
    print(f"one run without a kill: {kills.seconds:.1f} s", flush=True)
    wanted = [(kind, number) for kind, count in counts.items() for number in range(count)]
    with ThreadPoolExecutor(jobs) as pool:
        outcomes = []
        for outcome in pool.map(lambda item: kills.kill(*item), wanted):
            outcomes.append(outcome)
            if outcome.problem:
                print(f"{outcome.kind} at {outcome.moment}: {outcome.problem}", flush=True)
    by_moment = collections.Counter((outcome.kind, outcome.moment) for outcome in outcomes)
    journals = collections.Counter((outcome.kind, outcome.moment) for outcome in outcomes if outcome.journal)
    problems = collections.Counter((outcome.kind, outcome.moment) for outcome in outcomes if outcome.problem)
    rows = [(*key, count, journals[key], problems[key]) for key, count in sorted(by_moment.items())]
    print(table(("kill", "moment", "count", "journal left", "problems"), rows))
    mean = sum(outcome.seconds for outcome in outcomes) / len(outcomes)
    print(f"{len(outcomes)} kills, {sum(problems.values())} problems; {mean:.1f} s each", flush=True)
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for kind, count in zip(KINDS, (200, 50, 20), strict=True):
        parser.add_argument(f"--{kind}", type=int, default=count, metavar="N", help=f"kills of this kind ({count})")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time (2)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        counts = {kind: getattr(options, kind) for kind in KINDS}
        outcomes = sweep(Path(folder), counts, options.jobs, options.seed)
    sys.exit(any(outcome.problem for outcome in outcomes))


if __name__ == "__main__":
    main()
