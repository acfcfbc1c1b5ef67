"""The list of runs: from a real metadata store, the files of the runs, and what has changed between them."""

import datetime
import json

import pytest
import yaml
from metadata_records import Store
from ml_metadata.proto import metadata_store_pb2

from base.errors import UserError
from pipeline.config.loading import dump_config, load_config
from pipeline.config.whole import Config
from pipeline.records.reproduction import read_reproduction, write_reproduction
from pipeline.records.runs import differences, find_evaluation, flatten, read_runs

Execution = metadata_store_pb2.Execution
BEGIN = datetime.datetime(2026, 3, 1, 12, 0, 0)


def configuration(**train):
    return Config.model_validate({"name": "digits", "data": {"path": "data/digits"}, "train": train})


def leave(output, began, config, summary=None, what="run"):
    folder = output / "runs" / began.strftime("%Y-%m-%dT%H-%M-%S")
    folder.mkdir(parents=True)
    (folder / "log.txt").touch()
    write_reproduction(config, folder, what, [what, "--output", str(output)])
    if summary:
        (folder / "summary.json").write_text(json.dumps(summary))
    return folder


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """Runs an hour apart: pushed; other settings and data, not blessed; a look at the data; failed; killed."""
    output = tmp_path_factory.mktemp("output")
    hours = [BEGIN + datetime.timedelta(hours=number) for number in range(5)]
    begun = [hour + datetime.timedelta(seconds=12, microseconds=5) for hour in hours]
    examples = {"train": 60, "eval": 20, "test": 20, "rejected": 3}

    def summary(accuracy=None, **states):
        metrics = {"accuracy": {"value": accuracy}} if accuracy else {}
        return {
            "pipeline": "digits",
            "examples": examples,
            "metrics": metrics,
            "components": {name: {"state": state} for name, state in states.items()},
        }

    leave(output, hours[0], configuration(epochs=10), summary(0.9))
    leave(output, hours[1], configuration(epochs=20), summary(0.8))
    leave(output, hours[2], configuration(epochs=20), what="data")
    leave(output, hours[3], configuration(epochs=20), summary(Trainer="failed"))
    leave(output, hours[4], configuration(epochs=20, batch_size=8))
    store = Store(output / "metadata.sqlite")
    complete = Execution.COMPLETE
    base = {"input_base": "data/digits"}
    for began, fingerprint in zip(begun, ["a", "b", "b", "b", "b"], strict=True):
        store.run("ImageExampleGen", began, complete, {"examples": "Examples"}, properties=base, input_fingerprint=fingerprint)
    store.run("Evaluator", begun[0], complete, {"blessing": "ModelBlessing"}, blessed=1)
    store.run("Pusher", begun[0], complete, {"pushed_model": "PushedModel"}, pushed=1, pushed_destination="/pushed/17")
    store.run("Evaluator", begun[1], complete, {"blessing": "ModelBlessing"}, blessed=0)
    store.run("Pusher", begun[1], complete, {"pushed_model": "PushedModel"}, pushed=0)
    store.run("Trainer", begun[3], Execution.FAILED)
    store.run("Trainer", begun[4], Execution.RUNNING)
    return output


def test_every_run_is_told_with_what_it_came_to(output):
    pushed, worse, failed, killed = read_runs(output)  # the look at the data is none
    assert [pushed.pipeline, pushed.data, pushed.images] == ["digits", "data/digits", 100]
    assert (pushed.metrics, pushed.blessed, pushed.pushed) == ({"accuracy": 0.9}, True, "/pushed/17")
    assert (worse.metrics, worse.blessed, worse.pushed) == ({"accuracy": 0.8}, False, None)
    assert (failed.failed, failed.unfinished, failed.blessed) == ("Trainer", None, None)
    assert (killed.failed, killed.unfinished, killed.images) == (None, "Trainer", None)


def test_changes_are_those_since_the_run_before(output):
    assert [run.changes for run in read_runs(output)] == [
        [],
        ["train.epochs 10 -> 20", "data files"],
        [],
        ["train.batch_size 32 -> 8"],
    ]


def test_changed_code_is_told(output):
    folder = sorted((output / "runs").iterdir())[-1]
    path = folder / "reproduction.json"
    before = path.read_text()
    content = json.loads(before)
    content["digest"]["code"] = "other"
    path.write_text(json.dumps(content))
    assert read_runs(output)[-1].changes == ["train.batch_size 32 -> 8", "code"]
    path.write_text(before)


def test_the_table_is_readable_at_100_columns_and_json_has_all(output, fpn):
    ended = fpn("runs", "--output", output, "--json", columns=100)
    assert ended.status == 0, ended.stderr
    lines = ended.stdout.splitlines()[:-1]
    assert max(map(len, lines)) <= 100
    for text in ("from data/digits", "2026-03-01T13-00-00", "0.8000", "train.epochs 10 -> 20", "Trainer failed", "17"):
        assert any(text in line for line in lines), text
    assert [run["changes"] for run in ended.json["runs"]] == [run.changes for run in read_runs(output)]


def test_a_run_without_a_store_is_listed_from_its_summary(tmp_path):
    summary = {"pipeline": "old", "examples": {"train": 5}, "metrics": {}, "components": {}}
    leave(tmp_path, BEGIN, configuration(), summary)
    (run,) = read_runs(tmp_path)
    assert (run.pipeline, run.images, run.blessed) == ("old", 5, None)


def test_a_run_can_be_repeated_from_what_it_leaves(tmp_path):
    config = Config.model_validate(
        {
            "name": "digits",
            "data": {"path": "data/zahlen ä", "schema": "schema.pbtxt"},
            "train": {"learning_rate": 1e-5},
            "tune": {"enabled": True, "space": {"train.learning_rate": {"min": 1e-4, "max": 1e-2, "log": True}}},
            "evaluate": {"thresholds": [{"metric": "accuracy", "lower": 0.9, "slice": {"meta/size": "1"}}]},
        }
    )
    write_reproduction(config, tmp_path, "run", ["run", "--output", "o ut"])
    assert load_config(tmp_path / "config.yaml") == config
    found = read_reproduction(tmp_path)
    assert found.command == f"fpn run --config {tmp_path / 'config.yaml'} --output 'o ut'"
    assert found.versions["tfx"] == "1.21.0"
    assert {len(digest) for digest in found.digest.values()} == {64}
    assert read_reproduction(tmp_path / "elsewhere") is None


@pytest.fixture
def evaluated(tmp_path):
    """An output folder with two runs, the later one without an evaluation."""
    folder = tmp_path / "artifacts" / "Evaluator" / "evaluation" / "9"
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text("{}")
    leave(tmp_path, BEGIN, configuration(), {"evaluation": str(folder), "training": {"epochs": 3}})
    leave(tmp_path, BEGIN + datetime.timedelta(hours=1), configuration(), {"evaluation": None})
    return tmp_path


@pytest.mark.parametrize("path", [".", "runs/2026-03-01T12-00-00", "artifacts/Evaluator/evaluation/9"])
def test_an_evaluation_is_found_by_each_of_its_folders(evaluated, path):
    found = find_evaluation(evaluated / path)
    assert found.folder == evaluated / "artifacts/Evaluator/evaluation/9"
    assert found.run == evaluated / "runs/2026-03-01T12-00-00"
    assert found.training == {"epochs": 3}


def test_an_evaluation_that_is_not_there_is_told(evaluated):
    with pytest.raises(UserError, match="no evaluation here; give the output folder of a run"):
        find_evaluation(evaluated / "runs" / "2026-03-01T13-00-00")
    (evaluated / "artifacts/Evaluator/evaluation/9/metrics.json").unlink()
    with pytest.raises(UserError, match=r"no metrics\.json here; .* run again"):
        find_evaluation(evaluated)


def test_differences_are_short():
    before = flatten({"a": {"b": [1, 2], "c": None}, "d": "x", "f": [{"metric": "accuracy", "lower": 0.9, "slice": {}}, 2]})
    after = flatten({"a": {"b": [1, 3], "c": True}, "d": "x", "e": "y" * 99, "f": [2, {"metric": "ece", "upper": 0.1}]})
    assert differences(before, after) == [
        "a.b +3 -2",
        "a.c - -> true",
        f"e - -> {'y' * 57}...",
        "f +{metric: ece, upper: 0.1} -{metric: accuracy, lower: 0.9}",
    ]


def test_the_list_needs_no_tensorflow():
    import subprocess
    import sys

    code = "import sys, pipeline.records.runs, pipeline.pages.lineage, pipeline.terminal.tables as t; "
    code += "sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_dump_leaves_out_no_default():
    assert set(yaml.safe_load(dump_config(configuration()))) == set(Config.model_fields)
