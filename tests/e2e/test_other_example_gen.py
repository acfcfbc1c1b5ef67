"""The DAG with TFX's own ImportExampleGen in the place of ImageExampleGen, on records that another tool might have written."""

import io
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from rich.console import Console
from tfx.components import ImportExampleGen
from tfx.proto import example_gen_pb2
from tfx.types import standard_artifacts

from base.errors import UserError
from components.transform.executor import Executor
from evaluation.predictions import Predictions
from models import features
from pipeline.config.whole import Config
from pipeline.dag.pipeline import create_pipeline
from pipeline.local.workplace import Workplace, execute
from pipeline.records.notes import LabelsNote
from pipeline.records.results import Execution
from pipeline.records.store import make_store

pytestmark = pytest.mark.extra

IMAGES = {"train": 96, "eval": 24, "test": 36}


def picture(label: str, seed: int) -> bytes:
    """A PNG file of 20x18 noise, dark or light, of which the file says nothing."""
    level = {"dark": 60, "light": 180}[label]
    pixels = np.random.default_rng(seed).integers(level - 50, level + 50, (20, 18), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write_records(folder: Path) -> None:
    """Files of tf.Example with the features that such files mostly have, `image/width` as a number of its own beside them."""
    folder.mkdir()
    for split, count in IMAGES.items():
        with tf.io.TFRecordWriter(str(folder / f"{split}-00000-of-00001.tfrecord")) as writer:
            for number in range(count):
                label = ("dark", "light")[number % 2]
                texts = {
                    features.ENCODED: picture(label, number + 1000 * len(split)),
                    features.FORMAT: b"png",
                    features.FILENAME: f"{split}/{number}.png".encode(),
                    features.LABEL: label.encode(),
                    "meta/site": (b"north", b"south")[number // 2 % 2],
                }
                feature = {
                    name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value])) for name, value in texts.items()
                }
                feature[features.WIDTH] = tf.train.Feature(int64_list=tf.train.Int64List(value=[18]))
                writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Execution:
    """One run, whose components all end."""
    folder = tmp_path_factory.mktemp("imported")
    write_records(folder / "records")
    config = Config.model_validate(
        {
            "name": "imported",
            "data": {"path": str(folder / "records"), "stop_on_anomalies": True},
            "image": {"height": 16, "width": 16, "channels": 1},
            "model": {"backbone": "small_resnet10", "max_level": 3, "num_filters": 8},
            "train": {"epochs": 1, "batch_size": 16},
            "labels": {"enabled": True},
            "evaluate": {
                "slices": [["meta/site"]],
                "confidence_intervals": "none",
                "min_slice_size": 1,
                "thresholds": [{"metric": "accuracy", "lower": 0.0}],  # one epoch teaches it nothing
            },
        }
    )
    splits = [example_gen_pb2.Input.Split(name=name, pattern=f"{name}-*") for name in IMAGES]
    example_gen = ImportExampleGen(input_base=config.data.path, input_config=example_gen_pb2.Input(splits=splits))
    store = make_store(None, folder)
    pipeline = create_pipeline(
        config,
        pipeline_root=str(folder / "artifacts"),
        push_folder=str(folder / "pushed"),
        name=store.pipeline_name(config.name),
        connection=store.connection,
        example_gen=example_gen,
    )
    place = Workplace(folder, "run", Console(file=io.StringIO()), store)
    place.folder.mkdir(parents=True)
    return execute(pipeline, place)


def test_the_run_ends_with_a_pushed_model_and_metrics(ended: Execution) -> None:
    assert (ended.error, ended.status) == ("", 0)
    assert ended.outputs.blessed
    assert ended.outputs.pushed_model
    assert ended.evaluation
    assert ended.evaluation.slices[0].examples == IMAGES["test"]
    assert [item.name for item in ended.evaluation.slices[1:]] == ["meta/site=north", "meta/site=south"]
    assert 0 <= ended.evaluation.overall["accuracy"].value <= 1


def test_the_model_answers_image_files(ended: Execution) -> None:
    assert ended.outputs.evaluation
    assert ended.outputs.pushed_model
    predictions = Predictions.read(ended.outputs.evaluation)
    model = tf.saved_model.load(ended.outputs.pushed_model).signatures["serving_default"]
    row = predictions.rows.index[predictions.rows[features.FILENAME] == "test/3.png"][0]
    answer = model(image_bytes=tf.constant([picture("light", 3 + 1000 * len("test"))]))
    np.testing.assert_allclose(answer["probabilities"][0], predictions.probabilities[row], atol=1e-5)


def test_the_labels_of_all_splits_are_looked_at(ended: Execution) -> None:
    assert ended.outputs.labels
    assert (ended.outputs.labels["images"], ended.outputs.labels["left_out"]) == (sum(IMAGES.values()), 0)
    assert Path(ended.outputs.labels["corrections"]).is_file()


def test_what_only_ingestion_knows_is_left_out(ended: Execution) -> None:
    assert (ended.outputs.examples, ended.outputs.classes) == ({}, {})
    (line,) = (line for note in ended.outputs.notes if not isinstance(note, LabelsNote) for line in note.lines())
    assert line.startswith("No counts of images, classes, rejected files and duplicates: ")


def test_examples_of_another_kind_are_refused(tmp_path: Path) -> None:
    examples = standard_artifacts.Examples()
    examples.uri = str(tmp_path)
    examples.set_string_custom_property("payload_format", "FORMAT_PROTO")
    with pytest.raises(UserError, match=r"reads files of tf\.Example, these are of FORMAT_PROTO"):
        Executor().Do({"examples": [examples]}, {"transformed_examples": [standard_artifacts.Examples()]}, {})
