"""The whole pipeline on images of which each shows any of three things, or none."""

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import yaml
from PIL import Image

from evaluation.results import read_evaluation
from models import features

COLOURS = ("blue", "green", "red")
IMAGES = 240


def draw(shown, number):
    """A dim noisy 32x32 picture with a square of each colour shown, at random places that do not overlap."""
    random = np.random.default_rng(number)
    pixels = random.normal(60, 15, (32, 32, 3)).clip(0, 255)
    for colour, quarter in zip(shown, random.permutation(4), strict=False):
        top, left = 16 * np.array(divmod(quarter, 2)) + random.integers(0, 7, 2)
        pixels[top : top + 9, left : left + 9] = 255 * np.array([colour == "red", colour == "green", colour == "blue"])
    return Image.fromarray(pixels.astype(np.uint8))


def subset(number):
    """All eight subsets in turn."""
    return [colour for bit, colour in enumerate(COLOURS) if number >> bit & 1]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("colours")
    (folder / "data").mkdir()
    with (folder / "data" / "manifest.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("path", "label", "parity"))
        for number in range(IMAGES):
            draw(subset(number), number).save(folder / "data" / f"{number:03d}.png")
            wrong = 5 * (number % 13 == 0)  # so that there is something to measure
            table.writerow((f"{number:03d}.png", " | ".join(reversed(subset(number + wrong))), number // 8 % 2))
    draw(["red", "blue"], 1000).save(folder / "two.png")
    draw([], 1001).save(folder / "none.png")
    config = {
        "name": "colours",
        "data": {
            "path": str(folder / "data"),
            "multi_label": True,
            "splits": {"train": 6, "eval": 2, "test": 2},
            "stop_on_anomalies": True,
        },
        "image": {"height": 32, "width": 32},
        "model": {"backbone": "small_resnet10", "max_level": 3, "num_filters": 16, "dropout": 0.0},
        "train": {"epochs": 6, "batch_size": 16, "learning_rate": 0.01},
        "labels": {"enabled": True},
        "evaluate": {
            "min_slice_size": 1,
            "slices": [["image/label"], ["meta/parity"]],
            "thresholds": [
                {"metric": "accuracy", "lower": 0.8},
                {"metric": "f1_micro", "lower": 0.8, "slice": {"image/label": "red"}},
            ],
        },
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


@pytest.fixture(scope="module")
def run(place, fpn):
    ended = fpn("run", "--config", place / "config.yaml", "--output", place / "out", "--json")
    assert ended.status == 0, ended.stderr
    return ended


@pytest.fixture(scope="module")
def predictions(run, place, fpn):
    """What `fpn predict` says of every test image: (true labels, metadata, {label: probability}, label)."""
    rows = {}
    files = [str(path) for path in (place / "out" / "artifacts" / "ImageExampleGen").glob("examples/*/Split-test/*")]
    for record in tf.data.TFRecordDataset(files).as_numpy_iterator():
        feature = tf.train.Example.FromString(record).features.feature
        name, parity = (feature[key].bytes_list.value[0].decode() for key in (features.FILENAME, "meta/parity"))
        rows[place / "data" / name] = [value.decode() for value in feature[features.LABEL].bytes_list.value], parity
    ended = fpn("predict", "--model", place / "out" / "pushed", "--json", *rows)
    assert ended.status == 0, ended.stderr
    answers = ended.json["predictions"]
    return [(*row, item["probabilities"], item["label"]) for row, item in zip(rows.values(), answers, strict=True)]


def test_images_are_counted_once_whatever_their_labels(run):
    assert sum(run.json["examples"].values()) == IMAGES


def test_wrong_labels_are_found_in_all_splits_and_told(run):
    labels = run.json["labels"]
    table = pd.read_csv(labels["table"], keep_default_na=False)
    wrong = {f"{number:03d}.png" for number in range(0, IMAGES, 13)}
    assert (labels["images"], labels["issues"]) == (IMAGES, len(table))
    assert len(wrong & set(table["path"])) > len(wrong) / 3
    line = f"{labels['issues']} of {IMAGES} labels are probably wrong"
    assert any(note.startswith(line) for note in run.json["notes"])
    page = Path(run.json["report"]).read_text()
    assert line in " ".join(page.split())
    assert all(path in page for path in table["path"][:30])


def test_the_exported_model_names_several_labels_as_its_probabilities_say(run):
    check = run.json["check"]
    assert check["passed"], check["reasons"]
    assert check["images"] == min(run.json["examples"]["test"], 64)


def test_every_metric_agrees_with_the_answers_of_predict(run, predictions):
    slices = {item.name: item for item in read_evaluation(run.json["evaluation"]).slices}
    members = {"all examples": lambda labels, parity: True}
    members |= {f"image/label={colour}": lambda labels, parity, colour=colour: colour in labels for colour in COLOURS}
    members |= {"image/label=(none)": lambda labels, parity: not labels}
    members |= {f"meta/parity={value}": lambda labels, parity, value=value: parity == value for value in "01"}
    assert set(slices) == set(members)
    assert any(not labels for labels, *_ in predictions)
    for name, belongs in members.items():
        rows = [row for row in predictions if belongs(*row[:2])]
        true = np.array([[colour in labels for colour in COLOURS] for labels, *_ in rows])
        p = np.array([[probabilities[colour] for colour in COLOURS] for *_, probabilities, _ in rows])
        assert slices[name].examples == len(rows)
        hits, predicted = (true & (p >= 0.5)).sum(), (p >= 0.5).sum()
        p = p.clip(1e-7, 1 - 1e-7)
        expected = {
            "accuracy": (true == (p >= 0.5)).mean(),
            "cross_entropy": -np.where(true, np.log(p), np.log(1 - p)).mean(),
            "f1_micro": 2 * hits / (predicted + true.sum()),
        }
        found = slices[name].metrics
        assert {key: found[key].value for key in expected} == pytest.approx(expected, rel=1e-3, abs=1e-5)


def test_predicted_labels_are_those_of_probability_one_half_or_more(predictions):
    for *_, probabilities, label in predictions:
        assert label == "|".join(colour for colour in COLOURS if probabilities[colour] >= 0.5)


def test_a_session_gives_vectors_of_true_labels_without_pixels_and_the_same_names(run, place, predictions):
    labels = [[b"red", b"blue"], [], [b"mauve", b"green"]]
    records = [
        tf.train.Example(
            features=tf.train.Features(
                feature={features.LABEL: tf.train.Feature(bytes_list=tf.train.BytesList(value=values))} if values else {}
            )
        ).SerializeToString()
        for values in labels
    ]
    images = [path.read_bytes() for path in sorted((place / "data").glob("00*.png"))]
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        signatures = tf.compat.v1.saved_model.loader.load(session, ["serve"], run.json["pushed_model"]).signature_def
        (vectors,) = ask(session, signatures["transform_labels"], records, "label")
        names, label, probabilities = ask(session, signatures["serving_default"], images, "labels", "label", "probabilities")
    assert (names == names[0]).all()
    names = names[0]
    assert [set(names[row == 1]) for row in vectors] == [set(values) - {b"mauve"} for values in labels]
    assert set(names) == {colour.encode() for colour in COLOURS}
    assert [set(text.split(b"|")) - {b""} for text in label] == [set(names[row >= 0.5]) for row in probabilities]


def ask(session, signature, values, *outputs):
    (given,) = signature.inputs.values()
    return session.run([signature.outputs[output].name for output in outputs], {given.name: values})


def test_the_pushed_model_names_two_things_or_none(run, place, fpn):
    ended = fpn("predict", "--model", place / "out" / "pushed", "--json", place / "two.png", place / "none.png")
    two, none = ended.json["predictions"]
    assert two["label"] == "blue|red"
    assert none["label"] == ""
    assert "blue|red" in ended.stdout
    assert "(none)" in ended.stdout


def test_a_class_is_explained_where_the_answer_is_two_or_none(run, place, fpn):
    model, overlays = place / "out" / "pushed", place / "overlays"
    ended = fpn("explain", "--model", model, "--output", overlays, "--json", place / "two.png", place / "none.png")
    assert ended.status == 0, ended.stderr
    two, none = ended.json["explanations"]
    assert two["label"] == "blue|red"
    assert two["explained"] in ("blue", "red")
    assert none["label"] == ""
    assert none["explained"] in COLOURS


def test_another_network_learns_from_the_pushed_model(run, place, fpn):
    arguments = ["run", "--config", place / "config.yaml", "--output", place / "out", "--json"]
    for setting in (
        f"train.teacher={place / 'out' / 'pushed'}",
        f"push.path={place / 'students'}",
        "train.xla=true",
        "model.fusion_type=none",
        "evaluate.thresholds=[{metric: accuracy, lower: 0.5}]",
    ):
        arguments += ["--set", setting]
    ended = fpn(*arguments)
    assert ended.status == 0, ended.stderr
    config = yaml.safe_load((place / "out" / "runs" / ended.json["run_id"] / "config.yaml").read_text())
    assert config["train"]["teacher"] == run.json["pushed_model"]
    assert fpn(*arguments).json["components"]["Trainer"]["state"] == "cached"
