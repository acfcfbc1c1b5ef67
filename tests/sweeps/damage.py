"""Damages each file of a run, once in each way; the same command must make it again or name it, and never push it.

.venv/bin/python -m tests.sweeps.damage            all files
.venv/bin/python -m tests.sweeps.damage --sample 20
"""

import argparse
import collections
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from tests.sweeps.runs import Ended, Starter, table, write_config, write_images


def _delete(path: Path) -> None:
    path.unlink()


def _truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()  # it may be linked to a file of another run
    path.write_bytes(content)


def _flip_unseen(path: Path) -> None:
    times = path.stat()
    _flip(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


DAMAGES: Final[dict[str, Callable[[Path], None]]] = {
    "deleted": _delete,
    "truncated": _truncate,
    "flipped": _flip,
    "flipped, time as before": _flip_unseen,  # of models alone
}


@dataclass(frozen=True)
class Outcome:
    """What became of a damaged file: "made again", "not used" or "named", or a problem."""

    path: str
    damage: str
    result: str
    problem: str = ""


class DamageSweep:
    """A run, and what the same command makes of it after damage."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._output, self._pristine = folder / "out", folder / "pristine"
        write_images(folder / "data")
        write_config(folder / "config.yaml", folder / "data")
        self._starter = Starter(folder / "screens")
        self.reference = self._run()
        assert self.reference.status == 0, self.reference.stderr
        self._output.rename(self._pristine)
        self._restore()
        self._answer = self._ask(self.reference.summary["pushed_model"])

    def cases(self) -> list[tuple[str, str]]:
        """Each file of the artifacts, with each damage that can be done to it."""
        paths = sorted(path for path in (self._pristine / "artifacts").rglob("*") if path.is_file())
        found = []
        for path in paths:
            name = str(path.relative_to(self._pristine))
            possible = ["deleted", *(["truncated", "flipped"] if path.stat().st_size else [])]
            if name.startswith("artifacts/Trainer/model/") and path.stat().st_size:
                possible.append("flipped, time as before")
            found += [(name, damage) for damage in possible]
        return found

    def damage(self, name: str, damage: str) -> Outcome:
        """Damages one file of the run and starts it again."""
        self._restore()
        DAMAGES[damage](self._output / name)
        ended = self._run()
        if ended.status == 2 and name in ended.stderr:
            return Outcome(name, damage, "named", self._problem_of_pushed())
        if ended.status != 0:
            return Outcome(name, damage, "failed", f"ended with {ended.status}: {ended.stderr[-300:]}")
        if ended.summary["metrics"] != self.reference.summary["metrics"]:
            return Outcome(name, damage, "other metrics", str(ended.summary["metrics"]["accuracy"]))
        made = ended.states("complete")
        return Outcome(name, damage, "made again" if made else "not used", self._problem_of_pushed())

    def delete_folder(self, name: str) -> Outcome:
        """Deletes a folder of the run, such as `artifacts`."""
        self._restore()
        shutil.rmtree(self._output / name)
        ended = self._run()
        same = ended.status == 0 and ended.summary["metrics"] == self.reference.summary["metrics"]
        problem = "" if same else f"ended with {ended.status}: {ended.stderr[-300:]}"
        return Outcome(name, "deleted", "made again" if same else "failed", problem or self._problem_of_pushed())

    def _problem_of_pushed(self) -> str:
        for version in (self._output / "pushed").glob("[0-9]*"):
            answer = self._ask(str(version))
            if answer is None or np.abs(answer - self._answer).max() > 1e-3:
                return f"pushed: {version} answers {answer} instead of {self._answer}"
        return ""

    def _ask(self, model: str) -> np.ndarray | None:
        answers = self._folder / "answers.npy"
        answers.unlink(missing_ok=True)
        self._starter.call(_answer, model, str(min((self._folder / "data").glob("*/*.png"))), str(answers))
        return np.load(answers) if answers.exists() else None

    def _restore(self) -> None:
        shutil.rmtree(self._output, ignore_errors=True)
        shutil.copytree(self._pristine, self._output)

    def _run(self) -> Ended:
        return self._starter.run(
            ["run", "--config", str(self._folder / "config.yaml"), "--output", str(self._output), "--json"]
        )


def _answer(model: str, image: str, answers: str) -> None:
    import tensorflow as tf

    loaded = tf.saved_model.load(model)
    np.save(answers, loaded.signatures["serving_default"](tf.constant([Path(image).read_bytes()]))["probabilities"].numpy())


def sweep(folder: Path, sample: int | None = None, folders: Sequence[str] | None = None, seed: int = 0) -> list[Outcome]:
    """Damages all files, or a sample of them, deletes folders, all if none are given, and prints a table."""
    damages = DamageSweep(folder)
    cases = damages.cases()
    print(f"one run without damage: {damages.reference.seconds:.1f} s; {len(cases)} cases", flush=True)
    if sample is not None:
        cases = random.Random(seed).sample(cases, min(sample, len(cases)))
    outcomes = []
    for case in cases:
        outcomes.append(damages.damage(*case))
        print(f"{' '.join(case)}: {outcomes[-1].result}", flush=True)
    if folders is None:
        names = sorted(path.name for path in (folder / "pristine" / "artifacts").iterdir())
        folders = ["artifacts", *(f"artifacts/{name}" for name in names)]
    outcomes += [damages.delete_folder(name) for name in folders]
    for outcome in outcomes:
        if outcome.problem:
            print(f"{outcome.path} {outcome.damage}: {outcome.result}: {outcome.problem}", flush=True)
    keys = [(outcome.path.split("/")[1:2] or ["all"]) + [outcome.damage, outcome.result] for outcome in outcomes]
    counts = collections.Counter(map(tuple, keys))
    problems = sum(bool(outcome.problem) for outcome in outcomes)
    print(table(("of", "damage", "result", "count"), [(*key, count) for key, count in sorted(counts.items())]))
    print(f"{len(outcomes)} cases, {problems} problems", flush=True)
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sample", type=int, metavar="N", help="so many cases instead of all")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="damage-") as folder:
        outcomes = sweep(Path(folder), options.sample)
    sys.exit(any(outcome.problem for outcome in outcomes))


if __name__ == "__main__":
    main()
