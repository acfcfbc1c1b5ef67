"""A whole run on a damaged TFRecord file, whose classes have names that tables and separators could break."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import yaml
from PIL import Image

from base.tables import read_table
from evaluation.results import read_evaluation

pytestmark = pytest.mark.extra
CLASSES = ("a|b", "=1+1", "-c")
COUNT, LOST = 240, 6


def encoded(number: int) -> bytes:
    """A picture whose brightness shows its class."""
    pixels = np.random.default_rng(number).normal(40 + 85 * (number % 3), 10, (16, 16)).clip(0, 255)
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("damaged")
    path = folder / "data/a.tfrecord"
    path.parent.mkdir()
    ends = []
    with tf.io.TFRecordWriter(str(path)) as writer:
        for number in range(COUNT):
            values = {"image/encoded": encoded(number), "image/class/text": CLASSES[number % 3].encode()}
            feature = {name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value])) for name, value in values.items()}
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
            writer.flush()
            ends.append(path.stat().st_size)
    content = bytearray(path.read_bytes())
    content[ends[99] : ends[99 + LOST]] = bytes(ends[99 + LOST] - ends[99])
    path.write_bytes(content)
    config = {
        "name": "damaged",
        "data": {"path": str(path.parent), "splits": {"train": 3, "eval": 1, "test": 1, "stratify": True}},
        "image": {"height": 16, "width": 16, "channels": 1},
        "model": {"backbone": "small_resnet10", "max_level": 3, "num_filters": 8},
        "train": {"epochs": 4, "batch_size": 16, "learning_rate": 0.01},
        "evaluate": {"min_slice_size": 1, "slices": [["image/label"]], "thresholds": [{"metric": "accuracy", "lower": 0.5}]},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


@pytest.fixture(scope="module")
def run(place: Path, fpn: Any) -> Any:
    ended = fpn("run", "--config", place / "config.yaml", "--output", place / "out", "--json")
    assert ended.status == 0, ended.stderr
    return ended


def test_a_run_tells_what_is_lost(run: Any, place: Path) -> None:
    lost = run.json["lost"]
    assert (lost["stretches"], lost["records"]) == (1, LOST)
    assert lost["of_bytes"] == (place / "data/a.tfrecord").stat().st_size
    (note,) = [note for note in run.json["notes"] if note.startswith("Lost: ")]
    assert f"about {LOST} records: a.tfrecord, " in note
    assert note in run.stdout
    assert note.partition(";")[0] in Path(run.json["report"]).read_text()
    assert sum(run.json["examples"].values()) == COUNT - LOST + 1


def test_classes_stay_whole(run: Any) -> None:
    assert {name for counts in run.json["classes"].values() for name in counts} == set(CLASSES)
    evaluation = read_evaluation(run.json["evaluation"])
    assert evaluation.classes == sorted(CLASSES) or set(evaluation.classes) == set(CLASSES)
    assert {dict(item.key)["image/label"] for item in evaluation.slices if item.key} == set(CLASSES)
    page = Path(run.json["report"]).read_text()
    assert "a|b" in page


def test_scoring_says_the_same(run: Any, place: Path, fpn: Any) -> None:
    ended = fpn("score", "--model", place / "out/pushed", "--data", place / "data", "--output", place / "answers", "--json")
    assert ended.status == 2, "a stretch has no answer"
    assert f"fpn: 1 of {COUNT - LOST + 1} files have no answer; {place}/answers/rejected.csv has the reasons" in ended.stderr
    assert ended.json["lost"] == run.json["lost"]
    assert "Lost: " in ended.stdout
    assert sum(ended.json["labels"].values()) == COUNT - LOST
    assert set(ended.json["labels"]) <= set(CLASSES)
    answers = pd.read_parquet(place / "answers/scores")
    assert set(answers["true_label"]) == set(CLASSES)
    with (place / "answers/rejected.csv").open(newline="") as file:
        (row,) = read_table(file)
    assert row["path"] == "a.tfrecord:100"
    assert row["reason"].startswith("lost: ")
    image = place / "one.png"
    image.write_bytes(encoded(0))
    (answer,) = fpn("predict", "--model", place / "out/pushed", image, "--json").json["predictions"]
    assert answer["label"] in CLASSES


def test_the_page_about_the_data_says_the_same(run: Any, place: Path, fpn: Any) -> None:
    ended = fpn("data", "--config", place / "config.yaml", "--output", place / "out")
    assert ended.status == 0, ended.stderr
    page = (place / "out/data.html").read_text()
    assert f"about {LOST} records: a.tfrecord, " in page


def test_an_unchanged_run_is_taken_from_the_cache(run: Any, place: Path, fpn: Any) -> None:
    """The reading of the data is part of the key, and the same again."""
    ended = fpn("run", "--config", place / "config.yaml", "--output", place / "out", "--json")
    assert ended.json["components"]["ImageExampleGen"]["state"] == "cached"
    assert json.dumps(ended.json["lost"]) == json.dumps(run.json["lost"])
