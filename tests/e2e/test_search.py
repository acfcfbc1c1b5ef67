"""A pipeline with a search before the training, on images that a few steps tell apart."""

import csv

import numpy as np
import pytest
import tensorflow as tf
import yaml
from PIL import Image

from pipeline.config.loading import load_config
from pipeline.dag.pipeline import create_pipeline

pytestmark = pytest.mark.extra

ALL = [
    "ImageExampleGen",
    "StatisticsGen",
    "SchemaGen",
    "ExampleValidator",
    "Transform",
    "Tuner",
    "Trainer",
    "Evaluator",
    "Pusher",
]
FILTERS = [3, 5]
IMAGES = 60  # of each class


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tuning")
    random = np.random.default_rng(1)
    for label, level in (("dark", 60), ("light", 180)):
        (folder / "images" / label).mkdir(parents=True)
        for number in range(IMAGES):
            pixels = random.integers(level - 50, level + 50, (16, 16), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "images" / label / f"{number}.png")
    content = {
        "name": "tuned",
        "data": {"path": str(folder / "images"), "splits": {"train": 4, "eval": 3, "test": 3}},
        "image": {"height": 16, "width": 16, "channels": 1},
        "model": {"backbone": "small_resnet10", "max_level": 3, "num_filters": 7},
        "train": {"epochs": 6, "batch_size": 8},
        "check": {"enabled": False},
        "tune": {"enabled": True, "trials": 2, "epochs": 1, "space": {"model.num_filters": FILTERS}},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(content))
    return folder / "config.yaml"


@pytest.fixture(scope="module")
def runs(config, fpn):
    """A run, and the same again."""
    return [fpn("run", "--config", config, "--output", config.parent / "out", "--json") for _ in range(2)]


@pytest.fixture(scope="module")
def trials(runs, config):
    path = config.parent / "out" / "runs" / runs[0].json["run_id"] / "trials.csv"
    with path.open() as file:
        return list(csv.DictReader(file))


def test_the_tuner_runs_before_the_trainer(runs):
    assert runs[0].status == 0, runs[0].stderr
    assert list(runs[0].json["components"]) == ALL
    assert {component["state"] for component in runs[0].json["components"].values()} == {"complete"}


def test_without_thresholds_a_person_is_told_what_the_model_was_asked(runs):
    told = " ".join(runs[0].stdout.replace("│", " ").split())
    assert "No thresholds are set (evaluate.thresholds). So the model must be better than an answer that is always" in told
    assert "No model is served that it could be compared with." in told
    for ended in runs:  # the second one's own model is served
        assert ended.json["metrics"]["balanced_accuracy"]["lower"] > 0.5
        assert (ended.json["blessed"], "not significantly worse" in ended.stdout) == (True, False)


def test_the_best_hyperparameters_are_those_of_the_best_score(runs, trials):
    tuning = runs[0].json["tuning"]
    assert tuning["objective"] == "eval loss"
    assert tuning["trials"] == 2
    assert {int(trial["model.num_filters"]) for trial in trials} == set(FILTERS)
    assert {trial["trial"] for trial in trials} == {"1", "2"}
    best = min(trials, key=lambda trial: float(trial["eval loss"]))
    assert best["rank"] == "1"
    assert tuning["values"] == {"model.num_filters": int(best["model.num_filters"])}
    assert tuning["score"] == float(best["eval loss"])


def test_the_exported_model_has_the_best_hyperparameters(runs):
    reader = tf.train.load_checkpoint(f"{runs[0].json['pushed_model']}/variables/variables")
    widths = {shape[-1] for shape in reader.get_variable_to_shape_map().values() if len(shape) == 4}
    assert widths & {7, *FILTERS} == {runs[0].json["tuning"]["values"]["model.num_filters"]}


def test_a_person_sees_the_trials(runs, trials):
    assert "trial 1/2  eval loss " in runs[0].stderr
    assert f"trial 2/2  eval loss {float(trials[0 if trials[0]['trial'] == '2' else 1]['eval loss']):.3f}" in runs[0].stderr
    assert "epoch 6/6  loss " in runs[0].stderr
    for ended in runs:
        assert "Trials, best first" in ended.stdout
        for trial in trials:
            assert f"{float(trial['eval loss']):.4g}" in ended.stdout


def test_an_unchanged_run_searches_no_more(runs):
    assert runs[1].status == 0, runs[1].stderr
    uncached = [name for name, component in runs[1].json["components"].items() if component["state"] != "cached"]
    assert uncached == ["Pusher"]  # it looks each time
    assert runs[1].json["tuning"] == runs[0].json["tuning"]


@pytest.mark.parametrize(
    ("override", "searches"),
    [
        ("train.epochs=50", False),
        ("export.test_time_augmentation=flip", False),
        ("tune.epochs=2", True),
        ("train.batch_size=4", True),
        ("tune.space.model.num_filters=[2, 3]", True),
    ],
)
def test_what_trials_do_not_depend_on_searches_no_more(override, searches, config):
    def key(*overrides):
        pipeline = create_pipeline(load_config(config, overrides=overrides), pipeline_root="root", push_folder="pushed")
        return next(node for node in pipeline.components if node.id == "Tuner").exec_properties

    assert (key(override) != key()) is searches


def test_without_a_search_there_is_no_tuner(config):
    pipeline = create_pipeline(
        load_config(config, overrides=["tune.enabled=false"]), pipeline_root="root", push_folder="pushed"
    )
    assert "Tuner" not in [node.id for node in pipeline.components]
