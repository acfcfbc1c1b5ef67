"""The compiled pipeline, executed task by task as Kubeflow Pipelines would, against a run on this machine."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml
from few_digits import write_few_digits
from kubeflow_backend import Backend
from PIL import Image

from components.evaluator.results import read_evaluation

DIGITS = 90  # three pictures each

pytestmark = pytest.mark.extra


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("kubeflow")
    write_few_digits(place / "data", DIGITS)
    config = {
        "name": "few-digits",
        "data": {"path": str(place / "data"), "splits": {"train": 6, "eval": 2, "test": 2, "stratify": True}},
        "image": {"height": 16, "width": 16, "channels": 1},
        "model": {"backbone": "small_resnet10", "max_level": 3, "num_filters": 8},
        "train": {"epochs": 9, "batch_size": 32},
        "evaluate": {"thresholds": [{"metric": "accuracy", "lower": 1.01}]},
        "kubeflow": {
            "root": "s3://bucket/root",
            "state": str(place / "state"),
            "volumes": [{"claim": "fpn-data", "path": str(place)}],
        },
    }
    (place / "config.yaml").write_text(yaml.safe_dump(config))
    return place


ARGUMENTS = {"train_epochs": 1, "thresholds": json.dumps([{"metric": "accuracy", "lower": 0.01}])}


@pytest.fixture(scope="module")
def backend(place):
    return Backend(place / "backend")


@pytest.fixture(scope="module")
def runs(place, backend, fpn):
    """The compiled file's run, and the same on this machine beside it."""
    overrides = [f"train.epochs={ARGUMENTS['train_epochs']}", f"evaluate.thresholds={ARGUMENTS['thresholds']}"]
    arguments = ["--config", place / "config.yaml", "--output", place / "out", "--json"]
    arguments += [item for override in overrides for item in ("--set", override)]
    with ThreadPoolExecutor() as pool:
        local = pool.submit(fpn, "run", *arguments)
        ended = fpn("compile", "--config", place / "config.yaml", "--output", place / "pipeline.yaml")
        assert ended.status == 0, ended.stderr
        done = backend.run(place / "pipeline.yaml", ARGUMENTS)
    assert local.result().status == 0, local.result().stderr
    return done, local.result()


def test_images_become_a_pushed_model(runs, place, backend):
    done = runs[0]
    assert set(done) >= {"Lookup", "ImageExampleGen", "Transform", "Trainer", "Evaluator", "ModelCheck", "Pusher"}
    (version,) = (place / "state" / "few-digits" / "pushed").glob("[0-9]*")
    assert (version / "saved_model.pb").exists()
    pushed = done["Pusher"].artifacts["pushed_model"]
    assert pushed["metadata"]["pushed_destination"] == str(version)
    assert (backend.path(pushed["uri"]) / "saved_model.pb").exists()


def test_the_metrics_are_those_of_a_run_on_this_machine(runs, backend):
    done, local = runs
    evaluation = read_evaluation(str(backend.path(done["Evaluator"].artifacts["evaluation"]["uri"])))
    expected = local.json["metrics"]
    assert {name: metric.value for name, metric in evaluation.overall.items()} == {
        name: pytest.approx(metric["value"], abs=1e-6) for name, metric in expected.items()
    }


def test_an_unchanged_run_evaluates_and_pushes_nothing_again(runs, place, backend):
    again = backend.run(place / "pipeline.yaml", ARGUMENTS)
    # The validator looks again, as these statistics are kept now.
    assert {name for name, task in again.items() if not task.cached} == {"Lookup", "ExampleValidator", "Baseline"}
    assert again["Baseline"].parameters == runs[0]["Baseline"].parameters == {"baseline": "none"}
    assert len(list((place / "state" / "few-digits" / "pushed").glob("[0-9]*"))) == 1


def test_a_changed_image_is_taken_in(runs, place, backend):
    until_ingestion = ("Lookup", "ImageExampleGen")
    changed = next((place / "data").rglob("*.png"))
    Image.open(changed).rotate(90).save(changed)
    after = backend.run(place / "pipeline.yaml", ARGUMENTS, only=until_ingestion)
    assert not after["ImageExampleGen"].cached
    before = runs[0]["ImageExampleGen"].artifacts["examples"]
    assert (
        after["ImageExampleGen"].artifacts["examples"]["metadata"]["input_fingerprint"]
        != (before["metadata"]["input_fingerprint"])
    )
