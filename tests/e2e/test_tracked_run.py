"""Whole runs that are tracked: one run of MLflow though the training was killed, and a tracker that is named later."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from few_digits import write_config, write_few_digits
from mlflow_server import ask, curve, mlflow_server, needs_mlflow, runs_of
from wandb_files import history

EPOCHS = 60

pytestmark = [pytest.mark.extra, needs_mlflow]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as uri:
        yield uri


def test_a_killed_run_goes_on_as_one_and_a_tracker_named_later_has_all_without_training(
    tmp_path: Path, server: str, fpn: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    monkeypatch.setenv("WANDB_MODE", "offline")
    write_few_digits(tmp_path / "data", 60)
    write_config(tmp_path, stratify=True, train={"batch_size": 16, "epochs": EPOCHS, "trackers": ["mlflow"]})
    arguments = ["run", "--config", str(tmp_path / "config.yaml"), "--output", str(tmp_path / "out"), "--json"]
    with (tmp_path / "log").open("w") as log:
        killed = subprocess.Popen(
            [sys.executable, "-m", "pipeline.cli", *arguments], stdout=log, stderr=log, env={**os.environ}
        )
    try:
        while not (runs := runs_of(server, "few-digits")) or not curve(server, runs[0], "val_loss"):
            assert killed.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.2)
    finally:
        killed.kill()
        killed.wait()

    ended = fpn(*arguments)
    assert ended.status in (0, 3), ended.stderr
    [run] = runs_of(server, "few-digits")
    assert run["info"]["status"] == "FINISHED"
    assert [step for step, _ in curve(server, run, "val_loss")] == list(range(1, EPOCHS + 1))
    files = {item["path"] for item in ask(server, f"artifacts/list?run_id={run['info']['run_id']}")["files"]}
    assert files == {"config.yaml", "confusion_matrix.csv", "report.html", "reproduction.json", "summary.json"}
    assert any(note.startswith(f"Tracked by mlflow: {server}, experiment few-digits") for note in ended.json["notes"])

    later = fpn(*arguments, "--set", "train.trackers=[wandb]")
    assert later.json["components"]["Trainer"]["state"] == "cached"
    *epochs, _ = history(tmp_path / "out" / "runs" / later.json["run_id"])
    assert [(row["epoch"], row["val_loss"]) for row in epochs] == curve(server, run, "val_loss")
