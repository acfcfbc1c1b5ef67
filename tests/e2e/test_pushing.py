"""What a run says about its push is so: whole runs on a few digits, in the order in which it went wrong."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from few_digits import write_config, write_few_digits

from evaluation.results import read_evaluation

DIGITS = 90  # three pictures each
GOOD = ("train.seed=1", "train.epochs=12")
OTHER = ("train.seed=2", "train.epochs=12")
DIVERGED = ("train.learning_rate=1e30",)
NO_WORSE = "evaluate.thresholds=[{metric: accuracy, lower: 0.0}, {metric: accuracy, change: 0.0}]"

pytestmark = pytest.mark.extra


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("pushing")
    write_few_digits(place / "data", DIGITS)
    shutil.copytree(place / "data", place / "letters")
    for folder in sorted((place / "letters").glob("[0-9]")):
        folder.rename(folder.with_name("abcdefghij"[int(folder.name)]))
    header, *rows = (place / "data" / "manifest.csv").read_text().splitlines()
    column = header.split(",").index("label")
    for number, row in enumerate(rows):
        cells = row.split(",")
        cells[0] = "abcdefghij"[int(cells[0][0])] + cells[0][1:]
        cells[column] = "abcdefghij"[int(cells[column])]
        rows[number] = ",".join(cells)
    (place / "letters" / "manifest.csv").write_text("\n".join([header, *rows]) + "\n")
    write_config(place, stratify=True, train={"batch_size": 16, "learning_rate": 0.01})
    return place


@pytest.fixture(scope="module")
def run(place, fpn):
    def run(*overrides: str, output: str = "out", data: str = "data") -> Any:
        arguments = [item for override in overrides for item in ("--set", override)]
        where = ["--data", place / data, "--output", place / output]
        return fpn("run", "--config", place / "config.yaml", *where, "--json", *arguments)

    return run


def served(place: Path) -> Path:
    """What a server takes that knows nothing but numbers."""
    versions = [path for path in (place / "out" / "pushed").iterdir() if path.name.isdigit()]
    return max(versions, key=lambda path: int(path.name))


def weights(version: Path) -> bytes:
    return (version / "variables" / "variables.index").read_bytes()


@pytest.fixture(scope="module")
def in_turn(place, run):
    """A, B, A, B, and B again: for each run what it said, and what was served after it."""
    found = []
    for overrides in (GOOD, OTHER, GOOD, OTHER, OTHER):
        ended = run(*overrides)
        assert ended.status == 0, ended.stderr
        found.append((ended, served(place)))
    return found


def test_what_is_said_is_what_is_served_after_each_run(in_turn):
    for ended, version in in_turn:
        assert ended.json["pushed_model"] == str(version)
        assert ended.json["components"]["Pusher"]["state"] == "complete"
        assert weights(version) == weights(Path(ended.json["model"]))
    models = [weights(version) for _, version in in_turn]
    assert models[0] == models[2] != models[1] == models[3] == models[4]


def test_a_model_that_is_served_already_is_not_pushed_again_and_said_to_be_served(in_turn):
    (before, version), (again, same) = in_turn[3:]
    assert same == version
    assert (before.json["already_served"], again.json["already_served"]) == (False, True)
    assert f"Blessed, pushed to {version}" in before.stdout
    assert f"Blessed, is served already as {version}" in again.stdout


def test_a_model_is_evaluated_again_only_if_another_is_served(in_turn):
    states = [ended.json["components"]["Evaluator"]["state"] for ended, _ in in_turn]
    assert states[:3] == ["complete", "complete", "complete"]
    assert states[4] == "cached"
    assert [read_evaluation(ended.json["evaluation"]).compared for ended, _ in in_turn] == [False, True, True, True, True]


@pytest.mark.parametrize("how", ["gone", "damaged"])
def test_a_model_that_is_not_there_any_more_is_pushed_again(in_turn, place, run, how):
    if how == "gone":
        shutil.rmtree(place / "out" / "pushed")
    else:
        (served(place) / "variables" / "variables.data-00000-of-00001").write_bytes(b"")
    ended = run(*OTHER)
    assert ended.status == 0, ended.stderr
    assert ended.json["pushed_model"] == str(served(place))
    assert not ended.json["already_served"]
    assert (served(place) / "variables" / "variables.data-00000-of-00001").stat().st_size > 1000


def test_a_fresh_output_is_compared_with_what_is_served_and_does_not_replace_it_by_a_worse_model(in_turn, place, run):
    before = served(place)
    shared = f"push.path={place / 'out' / 'pushed'}"
    ended = run(shared, NO_WORSE, "train.epochs=1", "train.learning_rate=1e-9", output="fresh")
    assert ended.status == 3, ended.stderr
    assert ended.json["pushed_model"] is None
    assert served(place) == before
    evaluation = read_evaluation(ended.json["evaluation"])
    expected = json.loads((before / "manifest.json").read_text())["metrics"]["accuracy"]["value"]
    assert evaluation.slices[0].comparisons["accuracy"].baseline == pytest.approx(expected)  # the test splits are the same
    assert evaluation.overall["accuracy"].value < expected
    assert "No served model" not in ended.stdout


def test_other_classes_are_refused_before_training_unless_they_are_to_be_replaced(in_turn, place, run):
    before = served(place)
    shared = (f"push.path={place / 'out' / 'pushed'}", NO_WORSE, *GOOD)
    refused = run(*shared, output="letters-out", data="letters")
    assert refused.status == 2
    states = {name: component["state"] for name, component in refused.json["components"].items()}
    assert (states["Transform"], states["Trainer"], states["Pusher"]) == ("complete", "failed", "skipped")
    assert refused.stderr.splitlines()[-1] == (
        f"fpn: {before.parent}: {before.name}, which is served, has other classes than this model "
        "(a, b, c, d, e and 5 more new; 0, 1, 2, 3, 4 and 5 more gone); give another push.path, or push.replace: true"
    )
    assert served(place) == before
    replaced = run(*shared, "push.replace=true", output="letters-out", data="letters")
    assert replaced.status == 0, replaced.stderr
    assert replaced.json["pushed_model"] == str(served(place))
    assert "Not compared with the served model in" in replaced.stdout
    record = json.loads((served(place) / "manifest.json").read_text())
    assert sorted(record["classes"]) == list("abcdefghij")
    assert run(*OTHER).status == 2  # and now these are the others


@pytest.mark.case(10)
def test_a_diverged_model_is_not_blessed_whatever_is_configured(place, run):
    ended = run(*DIVERGED, output="diverged")
    assert ended.status == 3, ended.stderr
    assert (ended.json["blessed"], ended.json["pushed_model"]) == (False, None)
    assert "images have probabilities that are not finite numbers" in ended.stdout
    assert "not finite" in Path(ended.json["report"]).read_text()
    assert all(np.isfinite(metric["value"]) for metric in ended.json["metrics"].values())
    assert not (place / "diverged" / "pushed").exists()
