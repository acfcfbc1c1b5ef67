"""What the Trainer leaves beside the model, and the lines that tell it."""

import datetime
import json
from dataclasses import asdict

import pytest
from metadata_records import Store

from images.duplicates import describe_duplicates
from models.abstention import ABSTENTION_FILE, Abstention
from models.calibration import CALIBRATION_FILE
from models.conformal import SETS_FILE
from models.history import HISTORY_FILE
from models.unusual import UNUSUAL_FILE
from models.warm_start import WARM_START_FILE
from pipeline.records.outputs import find_examples, read_training
from pipeline.terminal.tables import render_training

CALIBRATION = {
    "temperature": 1.3078,
    "ece_before": 0.0421,
    "ece_after": 0.0109,
    "cross_entropy_before": 0.151,
    "cross_entropy_after": 0.129,
    "examples": 230,
}

SETS = {"method": "lac", "coverage": 0.95, "by_class": True, "thresholds": [0.5], "groups": [90], "needed": 19, "problem": ""}
UNSHOWN = Abstention(0.02, 0.95, None, 40, 0, 0, 1.0)
ABSTENTION = asdict(UNSHOWN) | {"problem": UNSHOWN.problem}


def write_history(folder, losses):
    lines = ["epoch,loss,val_loss", *(f"{epoch},0.5,{loss}" for epoch, loss in enumerate(losses, start=1))]
    (folder / HISTORY_FILE).write_text("\n".join(lines) + "\n")


def test_the_start_epochs_and_calibration_are_read_and_told(tmp_path):
    start = {"model": "/pushed/17", "kept": 2, "added": ["cow", "owl"], "removed": ["dog"]}
    write_history(tmp_path, [0.9, 0.1234, 0.4])
    (tmp_path / WARM_START_FILE).write_text(json.dumps(start))
    (tmp_path / CALIBRATION_FILE).write_text(json.dumps(CALIBRATION))
    (tmp_path / SETS_FILE).write_text(json.dumps(SETS))
    (tmp_path / ABSTENTION_FILE).write_text(json.dumps(ABSTENTION))
    unusual = {"examples": 90, "training_examples": 900, "cutoff": 99.0}
    (tmp_path / UNUSUAL_FILE).write_text(json.dumps({"quantiles": [0.0] * 201, **unusual}))
    training = read_training(str(tmp_path))
    assert training == {
        "epochs": 3,
        "best_epoch": 2,
        "best_loss": 0.1234,
        "history": str(tmp_path / HISTORY_FILE),
        "calibration": CALIBRATION,
        "sets": SETS,
        "abstention": ABSTENTION,
        "unusual": unusual,
        "warm_start": start,
    }
    assert render_training(training).plain.splitlines() == [
        "Started from /pushed/17, 2 classes kept; added: cow, owl; removed: dog",
        "Trained 3 epochs; best eval loss 0.123 in epoch 2",
        "Calibration on the eval split: temperature 1.31, expected calibration error 0.042 -> 0.011",
        "Sets of classes: hold the true one with a probability of 0.95 for each class",
        "calibrate.abstain: a risk of 0.02 can't be promised: 40 images of the eval split, one a group, show it at no "
        "threshold; all images are answered. More eval images, a better model or a higher risk help",
    ]
    shown = {"abstention": asdict(Abstention(0.02, 0.95, 0.7123, 900, 800, 3, 0.017)) | {"problem": ""}}
    assert render_training(shown).plain == (
        "Answers above a confidence of 0.712 alone: at most 2.0% are wrong, with a confidence of 0.95"
    )
    shown["abstention"]["threshold"] = 0.0
    assert render_training(shown).plain == "All answers: at most 2.0% are wrong, with a confidence of 0.95"


def test_without_calibration_nothing_is_said_of_it(tmp_path):
    write_history(tmp_path, [0.9])
    training = read_training(str(tmp_path))
    assert training["calibration"] is None
    assert training["warm_start"] is None
    assert render_training(training).plain == "Trained 1 epoch; best eval loss 0.900 in epoch 1"


@pytest.mark.parametrize(("losses", "best"), [(["nan", 0.7, "inf"], 2), (["nan", "nan"], None)])
def test_epochs_that_have_diverged_are_not_the_best(tmp_path, losses, best):
    write_history(tmp_path, losses)
    assert read_training(str(tmp_path))["best_epoch"] == best


def test_nothing_is_told_of_a_run_that_did_not_train():
    assert render_training({}).plain == ""


DUPLICATES = {"exact": 2, "near": 9, "across_classes": 0, "across_splits": 0, "in_train": {"eval": 0, "test": 0}}


def test_duplicates_that_do_no_harm_are_not_told():
    assert describe_duplicates(DUPLICATES, "d.csv") == []


@pytest.mark.parametrize(
    ("counts", "lines"),
    [
        (
            {"across_splits": 24, "in_train": {"eval": 0, "test": 12}},
            [
                "Leak: images with a duplicate or near duplicate in train: "
                "12 in test; data.duplicates: group keeps them together; table d.csv"
            ],
        ),
        (
            {"across_splits": 4, "in_train": {}, "across_classes": 3},
            [
                "Leak: 4 images have a duplicate or near duplicate in another split",
                "Contradiction: 3 images have a duplicate or near duplicate in another class; table d.csv",
            ],
        ),
        (
            {"grouped": 999, "largest": 500, "moved": 7},
            [
                "7 images were moved to the split of a duplicate",
                "500 images count as one group of duplicates; lower data.near_duplicates if they are not",
            ],
        ),
    ],
)
def test_leaks_and_contradictions_are_told_with_the_table_of_all(counts, lines):
    assert describe_duplicates(DUPLICATES | counts, "d.csv") == lines


def test_the_examples_are_those_of_the_run(tmp_path):
    begun = [datetime.datetime(2026, 3, 1, hour, 0, 1) for hour in (12, 13, 14)]
    runs = [tmp_path / "runs" / began.strftime("%Y-%m-%dT%H-%M-00") for began in begun]
    for folder in (*runs, tmp_path / "First" / "examples", tmp_path / "Second" / "examples"):
        folder.mkdir(parents=True)
    assert find_examples(runs[0]) is None
    store = Store(tmp_path / "metadata.sqlite", artifacts=tmp_path)
    made = store.run("First", begun[0], outputs={"examples": "Examples"})
    store.run("First", begun[1], outputs=made)  # from the cache
    store.run("Second", begun[2], outputs={"examples": "Examples"})
    found = [find_examples(run) for run in runs]
    assert found == [tmp_path / "First" / "examples"] * 2 + [tmp_path / "Second" / "examples"]
    assert find_examples(tmp_path / "runs" / "none") is None
    (tmp_path / "Second" / "examples").rmdir()
    assert find_examples(runs[2]) is None
