"""Trackers are told of a run while it goes on; what happens there does not touch the run."""

import importlib.util
import io
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from evaluations import make_evaluation
from mlflow_server import ask, curve, mlflow_server, needs_mlflow, runs_of
from PIL import Image
from rich.console import Console
from wandb_files import history, records

from base.errors import UserError
from models.callbacks import Curves
from pipeline.config.whole import Config
from pipeline.dag.component_settings import trainer_settings
from pipeline.local import checks, tracking
from pipeline.local.checks import check_trackers
from pipeline.local.tracking import Tracking
from pipeline.local.workplace import Workplace
from pipeline.records.notes import NotTrackedNote, TrackedNote
from pipeline.records.results import RunResult
from pipeline.records.store import make_store

needs_wandb = pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="no W&B here; the extra wandb has it")
ROWS = [{"epoch": epoch, "loss": 1 / epoch, "val_loss": 2 / epoch, "learning_rate": 0.1} for epoch in (1, 2, 3)]


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., Config]:
    for label in "ab":
        (tmp_path / "data" / label).mkdir(parents=True)
        Image.new("L", (4, 4)).save(tmp_path / "data" / label / "image.png")

    def make(*trackers: str, **train: Any) -> Config:
        content = {"name": "tracked", "data": {"path": str(tmp_path / "data")}, "train": {"trackers": list(trackers), **train}}
        return Config.model_validate(content)

    return make


@pytest.fixture
def place(tmp_path: Path) -> Callable[[str], Workplace]:
    def make(run_id: str) -> Workplace:
        place = Workplace(tmp_path / "out", run_id, Console(file=io.StringIO()), make_store(None, tmp_path / "out"))
        place.folder.mkdir(parents=True, exist_ok=True)
        (place.folder / "report.html").write_text("<p>the page")
        return place

    return make


@pytest.fixture(autouse=True)
def loggers() -> Iterator[None]:
    """As a run sets them."""
    levels = {name: logging.getLogger(name).level for name in ("absl", "models")}
    logging.getLogger("absl").setLevel(logging.INFO)
    logging.getLogger("models").setLevel(logging.DEBUG)
    yield
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def train(folder: Path, rows: list[dict[str, Any]], component: str = "Trainer", done: int = 0) -> None:
    """What a component logs that trains epochs, of which the first `done` are from a checkpoint."""
    logging.getLogger("absl").info("Component %s is running.", component)
    folder.mkdir(exist_ok=True)
    rows = list(rows)
    told = rows[:done]
    curves = Curves(told, str(folder))
    for row in rows[done:]:
        told.append(row)
        curves.on_epoch_end(int(row["epoch"]) - 1)


def result(error: str = "", history: Path | None = None, evaluation: Path | None = None, **summary: Any) -> RunResult:
    metrics = {"accuracy": {"value": 0.75, "lower": 0.5, "upper": None, "groups": None}}
    training = {"history": history and str(history)}
    found = {"training": training, "evaluation": evaluation and str(evaluation), "metrics": metrics, **summary}
    return RunResult(found, int(bool(error)), Path("log"), error)


def test_naming_a_tracker_changes_nothing_that_the_trainer_s_cache_looks_at(config: Callable[..., Config]) -> None:
    assert trainer_settings(config("mlflow", "wandb"), "") == trainer_settings(config(), "")


def test_a_tracker_that_is_not_installed_is_told_before_anything_runs(
    config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "mlflow_python", lambda: None)
    with pytest.raises(UserError, match=r"train.trackers: MLflow is not here; make mlflow gives it"):
        check_trackers(config("mlflow"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"train.trackers: wandb needs the package wandb; install the project with its extra"):
        check_trackers(config("wandb"))
    check_trackers(config())


def test_a_tracker_that_takes_nothing_holds_up_no_epoch_and_its_run_goes_on(
    tmp_path: Path, config: Callable[..., Config], place: Callable[[str], Workplace], monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "stuck.py"
    script.write_text("import time; time.sleep(600)")
    monkeypatch.setattr(tracking, "_SCRIPT", script)
    monkeypatch.setattr(tracking, "_SECONDS", 1)
    monkeypatch.setattr(tracking, "mlflow_python", lambda: None)
    with Tracking(config("mlflow"), place("run")) as told:
        logging.getLogger("absl").info("Component %s is running.", "Trainer")
        started = time.monotonic()
        for _ in range(2000):  # more than a pipe holds
            logging.getLogger("models.callbacks").debug("%s", ROWS[0], extra={"history": ROWS[0]})
        assert time.monotonic() - started < 10
        [note] = told.finish(result())
    assert note == NotTrackedNote("mlflow", "no answer within 1 s")


def test_a_tracker_that_can_t_begin_is_told_with_its_last_words(
    tmp_path: Path, config: Callable[..., Config], place: Callable[[str], Workplace], monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "broken.py"
    script.write_text("raise ImportError('no part of it at https://me:secret@somewhere/')")
    monkeypatch.setattr(tracking, "_SCRIPT", script)
    with Tracking(config("wandb"), place("run")) as told:
        train(tmp_path / "curves", ROWS)
        [note] = told.finish(result())
    assert note == NotTrackedNote("wandb", "ImportError: no part of it at https://somewhere/")


def test_a_run_goes_on_at_the_tracker_where_one_that_failed_has_stopped(
    tmp_path: Path, config: Callable[..., Config], place: Callable[[str], Workplace], monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "says_key.py"
    script.write_text(
        "import json, sys\nfor line in sys.stdin:\n    message = json.loads(line)\n"
        "    if 'begin' in message: print(json.dumps({'place': message['begin']['key']}), flush=True)\n"
    )
    monkeypatch.setattr(tracking, "_SCRIPT", script)

    def key(error: str, **train: Any) -> str:
        with Tracking(config("wandb", **train), place("run")) as told:
            [note] = told.finish(result(error))
        assert isinstance(note, TrackedNote)
        return note.place

    failed = key("the disk is full")
    assert key("it is still full") == failed
    assert key("", epochs=3) != failed  # another training
    keys = [key(""), key("")]
    assert len({failed, *keys}) == 3  # each that ends well is a run of its own


@needs_wandb
def test_wandb_offline_has_parameters_curves_system_metrics_matrix_and_page(
    tmp_path: Path, config: Callable[..., Config], place: Callable[[str], Workplace], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    made = make_evaluation(tmp_path / "made", ["a", "b"], 30, with_images=False)
    with Tracking(config("wandb", epochs=3), place("run")) as told:
        train(tmp_path / "trial", [{**row, "loss": 9} for row in ROWS], component="Tuner")
        train(tmp_path / "curves", ROWS)
        tuned = {"values": {"train.learning_rate": 0.5}}
        [note] = told.finish(result(history=tmp_path / "curves" / "history.csv", evaluation=made.folder, tuning=tuned))
    assert isinstance(note, TrackedNote), note
    assert "to be sent by wandb sync" in note.place
    folder = tmp_path / "out" / "runs" / "run"
    *epochs, matrix = history(folder)
    assert epochs == ROWS
    assert "confusion_matrix_table/path" in matrix
    kept = list(records(folder))
    [run] = [record.run for record in kept if record.HasField("run")]
    parameters = {item.key: item.value_json for item in run.config.update}
    assert (run.project, run.display_name) == ("tracked", "run")
    assert (parameters["train.epochs"], parameters["model.fusion_type"]) == ("3", '"sum"')
    assert "train.trackers" not in parameters
    later = {item.key or "/".join(item.nested_key): item.value_json for record in kept for item in record.config.update}
    assert later["tuned.train.learning_rate"] == "0.5"
    summary = {item.key or "/".join(item.nested_key): item.value_json for record in kept for item in record.summary.update}
    assert summary["test_accuracy"] == "0.75"
    files = {
        entry.path
        for record in kept
        if record.artifact.name.startswith("evaluation-")
        for entry in record.artifact.manifest.contents
    }
    assert files == {"confusion_matrix.csv", "report.html"}
    assert any(record.HasField("stats") for record in kept)
    assert [record.exit.exit_code for record in kept if record.HasField("exit")] == [0]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as uri:
        yield uri


@pytest.mark.extra
@needs_mlflow
def test_a_killed_and_resumed_training_is_one_run_of_mlflow(
    tmp_path: Path,
    config: Callable[..., Config],
    place: Callable[[str], Workplace],
    server: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "1")

    def wait(until: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        for _ in range(240):
            found = runs_of(server, "tracked")
            if found and until(found[0]):
                break
            time.sleep(0.5)
        [run] = found
        return run

    with Tracking(config("mlflow"), place("first")):
        train(tmp_path / "curves", ROWS[:2])
        wait(lambda run: len(curve(server, run, "loss")) == 2)  # while training runs
    assert wait(lambda run: run["info"]["status"] == "KILLED")["info"]["run_name"] == "first"
    made = make_evaluation(tmp_path / "made", ["a", "b"], 30, with_images=False)
    with Tracking(config("mlflow"), place("second")) as told:
        train(tmp_path / "curves", ROWS, done=2)
        wait(lambda run: "system/cpu_utilization_percentage" in str(run["data"]["metrics"]))
        [note] = told.finish(result(history=tmp_path / "curves" / "history.csv", evaluation=made.folder))
    assert note == TrackedNote("mlflow", f"{server}, experiment tracked, run first")
    [run] = runs_of(server, "tracked")
    assert run["info"]["status"] == "FINISHED"
    for name in ("loss", "val_loss", "learning_rate"):
        assert curve(server, run, name) == [(row["epoch"], row[name]) for row in ROWS]
    metrics = {item["key"]: item["value"] for item in run["data"]["metrics"]}
    assert (metrics["test_accuracy"], metrics["test_accuracy.lower"]) == (0.75, 0.5)
    parameters = {item["key"]: item["value"] for item in run["data"]["params"]}
    assert (parameters["train.batch_size"], parameters["augment.flip"]) == ("32", "none")
    files = {item["path"] for item in ask(server, f"artifacts/list?run_id={run['info']['run_id']}")["files"]}
    assert files == {"confusion_matrix.csv", "report.html"}


@pytest.mark.extra
@needs_mlflow
def test_a_server_that_can_t_be_reached_is_told_at_the_end_without_its_password(
    tmp_path: Path, config: Callable[..., Config], place: Callable[[str], Workplace], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    with Tracking(config("mlflow"), place("run")) as told:
        started = time.monotonic()
        train(tmp_path / "curves", ROWS)
        assert time.monotonic() - started < 5
        [note] = told.finish(result())
    assert isinstance(note, NotTrackedNote)
    assert "Connection refused" in note.problem
    assert "secret" not in note.problem


@pytest.mark.extra
@needs_wandb
def test_wandb_that_can_t_be_reached_is_told_at_the_end_without_its_key(
    tmp_path: Path, config: Callable[..., Config], place: Callable[[str], Workplace], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "1234" * 10)
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "5")
    with Tracking(config("wandb"), place("run")) as told:
        started = time.monotonic()
        train(tmp_path / "curves", ROWS)
        assert time.monotonic() - started < 5
        [note] = told.finish(result())
    assert isinstance(note, NotTrackedNote)
    assert "connection refused" in note.problem.lower()
    assert "1234" * 10 not in note.problem
