"""Tells trackers of a run while it goes on, each by a process of its own: what happens there can't fail or slow the run."""

import contextlib
import csv
import hashlib
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np

from base.local_files import write_text
from base.tables import write_table
from images.dataset import source
from models.packing import pack
from pipeline.config.choices import TrackerName
from pipeline.config.whole import Config
from pipeline.dag.component_settings import ingestion_settings, source_settings, trainer_settings, tuner_settings
from pipeline.local.workplace import Workplace
from pipeline.pushed.registry import PATIENCE, RUN_FILES, figures, mlflow_python, shortened
from pipeline.records.notes import Note, NotTrackedNote, TrackedNote
from pipeline.records.results import RunResult

_SCRIPT: Final = Path(__file__).with_name("tracker_process.py")
_SECONDS: Final = 60  # at the end, for what is not told yet
_ENVIRONMENT: Final = {**PATIENCE, "WANDB_INIT_TIMEOUT": "20"}
_SECTIONS: Final = {"image", "augment", "model", "train"}  # whose keys are parameters
_OUTCOMES: Final = ("true_positives", "false_positives", "false_negatives", "true_negatives")  # of `count_binary`


class Tracking(logging.Handler):
    """Passes to the trackers what the Trainer logs after each epoch; trials of the Tuner are left out."""

    def __init__(self, config: Config, place: Workplace) -> None:
        """Starts a process for each of `train.trackers`. Of several workers, the chief alone logs here."""
        super().__init__(logging.DEBUG)
        self._component = ""
        self._folder = place.folder
        self._record = place.output / "artifacts" / "checkpoints" / "tracked.json"
        self._trackers = [_Tracker(name) for name in config.train.trackers]
        if self._trackers:
            begin = {
                "project": config.name,
                "name": place.run_id,
                "key": _key(config, self._record),
                "folder": str(place.folder),
            }
            settings = config.model_dump(include=_SECTIONS, exclude={"train": {"trackers"}})
            self._tell("begin", {**begin, "parameters": _flat(settings)})
        self._listened = [logging.getLogger("absl"), logging.getLogger("models")]

    def __enter__(self) -> "Tracking":
        for logger in self._listened:
            logger.addHandler(self)
        return self

    def __exit__(self, *_: Any) -> None:
        for logger in self._listened:
            logger.removeHandler(self)
        for tracker in self._trackers:
            tracker.leave()

    def emit(self, record: logging.LogRecord) -> None:
        if record.msg == "Component %s is running." and isinstance(record.args, tuple):
            self._component = str(record.args[0])
        elif self._component == "Trainer" and (row := getattr(record, "history", None)):
            self._tell("epoch", row)

    def finish(self, result: RunResult) -> list[Note]:
        """Tells what the run has found, and all epochs, for a model from the cache. Waits for the trackers, up to a minute."""
        if not self._trackers:
            return []
        summary = result.summary
        if history := summary["training"].get("history"):
            for row in csv.DictReader(Path(history).read_text().splitlines()):
                self._tell("epoch", {name: float(value) for name, value in row.items()})
        with tempfile.TemporaryDirectory(prefix="fpn-tracking-") as folder, ThreadPoolExecutor() as threads:
            files = [path for name in RUN_FILES if (path := self._folder / name).is_file()]
            confusions: list[list[Any]] = []
            if summary["evaluation"]:
                files.append(Path(folder, "confusion_matrix.csv"))
                confusions = _write_confusions(summary["evaluation"], files[-1])
            end = {
                "status": "FAILED" if result.error else "FINISHED",
                "parameters": _flat(summary.get("tuning", {}).get("values", {}), "tuned."),
                "metrics": {f"test_{name}": value for name, value in figures(summary["metrics"]).items()},
                "files": list(map(str, files)),
                "confusions": confusions,
            }
            notes = list(threads.map(lambda tracker: tracker.finish({"end": end}), self._trackers))
        if not result.error:
            self._record.unlink(missing_ok=True)
        return notes

    def _tell(self, what: str, content: dict[str, Any]) -> None:
        for tracker in self._trackers:
            tracker.tell({what: content})


class _Tracker:
    """A process that tells a tracker."""

    def __init__(self, name: TrackerName) -> None:
        self._name = name
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  # no pipe: W&B's own process may keep it open
        python = mlflow_python() if name == "mlflow" else sys.executable
        self._process = subprocess.Popen(
            [python or sys.executable, "-I", str(_SCRIPT), name],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=self._said,
            stderr=subprocess.STDOUT,
            env=_ENVIRONMENT | os.environ,
            start_new_session=True,  # an interrupted run has still to be told of
        )
        assert self._process.stdin
        self._pipe = self._process.stdin
        os.set_blocking(self._pipe.fileno(), False)

    def tell(self, message: dict[str, Any]) -> None:
        """Passes a message on, if the process takes it at once: epochs are told again at the end."""
        with contextlib.suppress(OSError):
            self._pipe.write(_line(message))

    def finish(self, message: dict[str, Any]) -> Note:
        """Passes the last message on, and waits for the process, but not forever."""
        try:
            self._process.communicate(_line(message), _SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._said.seek(0)
        said = re.sub(r"//[^/@\s]*@", "//", self._said.read().decode(errors="replace"))  # no passwords of a URI
        lines = said.strip().splitlines()
        answers = [json.loads(line) for line in lines if line.startswith(('{"place": ', '{"problem": '))]
        late = f"no answer within {_SECONDS} s"
        last = answers[-1] if answers else {"problem": lines[-1] if lines else late}
        if "place" in last and not self._process.returncode:
            return TrackedNote(self._name, last["place"])
        logging.warning("%s: %s", self._name, said)
        return NotTrackedNote(self._name, shortened(last.get("problem", late)))

    def leave(self) -> None:
        """Tells no more. A process that is still there then says that the run was killed."""
        self._pipe.close()
        self._said.close()


def _line(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\n"


def _key(config: Config, record: Path) -> str:
    """The run's key at the trackers: that of an earlier run which did not succeed, if this one trains the same."""
    settings = [pack(trainer_settings(config, "")), pack(ingestion_settings(config))]
    if config.tune.enabled:
        settings.append(pack(tuner_settings(config)))
    data = source.fingerprint(config.data.path, source_settings(config.data))
    training = hashlib.sha256("".join([*settings, data]).encode()).hexdigest()
    with contextlib.suppress(OSError, ValueError):
        known = json.loads(record.read_text())
        if known["training"] == training:
            return known["key"]
    key = uuid.uuid4().hex[:16]
    write_text(record, json.dumps({"training": training, "key": key}))
    return key


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"section.key": value} of nested values."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found


def _write_confusions(evaluation: str, path: Path) -> list[list[Any]]:
    """Writes the confusion matrix of the test split, or what is found of each class in multi-label data.

    Returns:
      [label, answer, images] of each cell that has images; none for multi-label data.
    """
    from evaluation.diagnostics import count_binary, count_confusions
    from evaluation.predictions import Predictions

    predictions = Predictions.read(evaluation)
    classes, labels, answers = predictions.classes, predictions.labels, predictions.answers()
    cells: list[list[Any]] = []
    if predictions.multi_label:
        header, names, counts = ["class", *_OUTCOMES], classes, count_binary(labels, answers)
    else:
        header, names = ["label", *classes], [*classes, "(unknown class)"]
        counts = count_confusions(labels, answers, len(classes))
        cells = [[names[row], classes[column], int(counts[row, column])] for row, column in np.argwhere(counts)]
    with path.open("wb") as file:
        write_table(file, header, ([name, *row] for name, row in zip(names, counts.tolist(), strict=True)))
    return cells
