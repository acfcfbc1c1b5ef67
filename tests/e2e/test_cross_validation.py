"""Three folds on a few tiny images, killed after the first and started again."""

import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import yaml
from pages import Page
from PIL import Image

from evaluation.results import read_evaluation
from images.dataset import source
from models import features
from pipeline.config.loading import load_config
from pipeline.dag.component_settings import source_settings
from tests.sweeps.runs import Starter

SHARED = ["ImageExampleGen", "StatisticsGen", "SchemaGen", "ExampleValidator"]
PER_FOLD = ["Transform", "Trainer", "Evaluator"]
IMAGES, GROUP = 150, 3


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise of two brightnesses that overlap, in groups of three."""
    folder = tmp_path_factory.mktemp("crossval")
    lines = ["path,label,group,shade"]
    (folder / "data").mkdir()
    random = np.random.default_rng(0)
    for number in range(IMAGES):
        label = number // GROUP % 2
        pixels = random.normal(100 + 40 * label + random.normal(0, 20), 40, (16, 16)).clip(0, 255)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / "data" / f"{number}.png")
        lines.append(f"{number}.png,{('dark', 'bright')[label]},{number // GROUP},{'even' if number % 2 else 'odd'}")
    (folder / "data" / "manifest.csv").write_text("\n".join(lines) + "\n")
    config = {
        "name": "shades",
        "data": {"path": str(folder / "data")},
        "image": {"height": 16, "width": 16, "channels": 1},
        "model": {"backbone": "small_resnet10", "min_level": 2, "max_level": 3, "num_filters": 8},
        "train": {"epochs": 1, "batch_size": 16},
        "evaluate": {
            "slices": [["meta/shade"]],
            "confidence_intervals": "none",
            "thresholds": [{"metric": "accuracy", "lower": 1.1}, {"metric": "accuracy", "change": 0.5}],
        },
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


@pytest.fixture(scope="module")
def arguments(place: Path) -> list[str]:
    return ["crossval", "--folds", "3", "--config", str(place / "config.yaml"), "--output", str(place / "out"), "--json"]


@pytest.fixture(scope="module")
def killed(place: Path, arguments: list[str], starter: Starter) -> str:
    """The screen of a cross-validation that is killed when its second fold begins."""
    command = starter.start(arguments)
    while command.runs and "Fold 2 of 3" not in command.screen:
        time.sleep(0.01)
    command.kill()
    return command.end().stderr


@pytest.fixture(scope="module")
def ended(killed, arguments, fpn):
    return fpn(*arguments)


def test_it_ends_well_whatever_the_thresholds_say_and_pushes_nothing(ended, place):
    assert ended.status == 0, ended.stderr
    assert not list((place / "out").rglob("pushed*"))
    assert not (place / "out" / "crossval" / "artifacts" / "Pusher").exists()


def test_what_does_not_depend_on_the_fold_runs_once(killed, ended):
    for name in SHARED + PER_FOLD:
        assert f"✓ {name} " in killed
    assert "from the cache" not in killed
    for run in ended.json["runs"][1:]:
        assert {name: run["components"][name]["state"] for name in SHARED} == dict.fromkeys(SHARED, "cached")


def test_a_killed_cross_validation_goes_on_where_it_was(ended):
    first, *others = ended.json["runs"]
    assert {component["state"] for component in first["components"].values()} == {"cached"}
    for run in others:
        assert {name: run["components"][name]["state"] for name in PER_FOLD} == dict.fromkeys(PER_FOLD, "complete")


def read_names(folder: Path) -> list[tuple[str, str]]:
    """File and group of each written example."""
    names = []
    for record in tf.data.TFRecordDataset([str(path) for path in folder.iterdir()]).as_numpy_iterator():
        feature = tf.train.Example.FromString(record).features.feature
        names.append(tuple(feature[key].bytes_list.value[0].decode() for key in (features.FILENAME, features.GROUP)))
    return names


def test_every_image_is_tested_once_and_no_group_is_in_two_folds(ended, place):
    (examples,) = (place / "out" / "crossval" / "artifacts" / "ImageExampleGen" / "examples").iterdir()
    written = [read_names(examples / f"Split-{run['test'][0]}") for run in ended.json["runs"]]
    assert sorted(name for fold in written for name, _ in fold) == sorted(f"{number}.png" for number in range(IMAGES))
    groups = [{group for _, group in fold} for fold in written]
    assert sum(map(len, groups)) == len(set.union(*groups)) == IMAGES // GROUP
    tested = [read_evaluation(run["evaluation"]).slices[0].examples for run in ended.json["runs"]]
    assert tested == [len(fold) for fold in written]


def test_training_never_sees_the_fold_that_tests(ended, place):
    transformed = place / "out" / "crossval" / "artifacts" / "Transform" / "transformed_examples"
    folders = sorted(transformed.iterdir(), key=lambda folder: int(folder.name))
    for run, folder in zip(ended.json["runs"], folders, strict=True):
        assert {path.name for path in folder.iterdir()} == {f"Split-{name}" for name in run["train"] + run["eval"]}
        assert run["test"][0] not in run["train"] + run["eval"]


def test_mean_and_standard_deviation_are_those_of_the_folds_evaluations(ended):
    folds = [read_evaluation(run["evaluation"]) for run in ended.json["runs"]]
    assert all(not evaluation.verdicts for evaluation in folds)
    assert set(ended.json["metrics"]) == set(folds[0].overall)
    for name, found in ended.json["metrics"].items():
        values = [evaluation.overall[name].value for evaluation in folds]
        assert found["folds"] == values
        assert found["mean"] == pytest.approx(np.mean(values))
        assert found["sd"] == pytest.approx(np.std(values, ddof=1))
    assert [item["name"] for item in ended.json["slices"]] == ["all examples", "meta/shade=even", "meta/shade=odd"]
    for number, item in enumerate(ended.json["slices"]):
        assert item["examples"] == [evaluation.slices[number].examples for evaluation in folds]


def test_a_person_sees_folds_mean_and_spread(ended):
    for number in (1, 2, 3):
        assert f"Fold {number} of 3" in ended.stderr
    report = Path(ended.json["report"]).read_text()
    accuracy = ended.json["metrics"]["accuracy"]
    for text in (ended.stdout, report):
        assert f"{accuracy['mean']:.4f} ± {accuracy['sd']:.4f}" in text
        assert "meta/shade=odd" in text
    assert "accuracy, fold by fold" in report


@pytest.fixture(scope="module")
def looked_at(ended, arguments, fpn):
    return fpn("labels", *arguments[1:])


def test_labels_are_looked_at_without_another_training(looked_at):
    assert looked_at.status == 0, looked_at.stderr
    assert looked_at.json["images"] == IMAGES
    assert "✓ Trainer" in looked_at.stderr
    lines = [line for line in looked_at.stderr.splitlines() if line.startswith("✓")]
    assert all("from the cache" in line for line in lines)
    assert looked_at.stdout.splitlines()[0].startswith(f"{looked_at.json['issues']} of {IMAGES} labels are probably wrong: ")


def test_the_table_the_corrections_and_the_page_have_the_same_images(looked_at, place):
    table = pd.read_csv(looked_at.json["table"])
    assert 0 < len(table) == looked_at.json["issues"] < IMAGES
    assert list(table.columns) == ["path", "label", "suggested", "quality", "twins"]
    corrections = pd.read_csv(looked_at.json["corrections"])
    assert list(corrections["path"]) == list(table["path"])
    assert list(corrections["label"]) == list(table["suggested"])
    page = Page(Path(looked_at.json["page"]).read_text())
    assert all(path in page.text for path in table["path"])
    assert len(page.images) == 2 * len(table)
    assert page.tables["Labels that are probably wrong, by class"][1][2] == str(
        max(table.groupby(["label", "suggested"]).size())
    )


def test_the_corrections_are_the_labels_of_the_next_run(looked_at, place):
    table = Path(looked_at.json["corrections"])
    (place / "data" / "corrections.csv").write_bytes(table.read_bytes())
    config = load_config(place / "config.yaml", overrides=["data.corrections=corrections.csv"])
    found = source.find_rows(config.data.path, source_settings(config.data))
    labels = {row.name: row.label for row in found.rows}
    wanted = pd.read_csv(table).set_index("path")["label"]
    assert {path: labels[path] for path in wanted.index} == dict(wanted)
    assert found.notes == [f"Data: corrections.csv changes the labels of {len(wanted)} images and leaves 0 images out"]
