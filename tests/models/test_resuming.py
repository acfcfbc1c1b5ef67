"""The Trainer's `run_fn`: killed and started again, and with a teacher."""

import csv
import json
import logging
import signal
import subprocess
import sys
import time

import apache_beam as beam
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from apache_beam.options.pipeline_options import PipelineOptions
from tensorflow_transform.tf_metadata import dataset_metadata, schema_utils
from tfx.components.trainer.fn_args_utils import FnArgs

from models import features
from models.checkpoints import load_checkpoint
from models.packing import as_dict
from models.preprocessing import preprocessing_fn
from models.training import run_fn, train_model
from pipeline.config.whole import Config
from pipeline.dag.component_settings import trainer_settings, transform_settings

EPOCHS = 4
EXAMPLES = 256
CONFIG = Config(
    name="tiny",
    data={"path": "."},
    image={"height": 16, "width": 16, "channels": 1},
    model={"backbone": "small_resnet10", "fusion_type": "none", "min_level": 2, "max_level": 2, "dropout": 0.2},
    train={
        "epochs": EPOCHS - 1,
        "frozen_epochs": 1,
        "batch_size": 8,
        "ema": 0.9,
        "keep": "best",
        "class_weights": "balanced",
        "calibrate": False,
        "learning_rate": 0.01,
    },
)
RANDOM = np.random.default_rng(0)
LABELS = RANDOM.permutation([b"a dark one"] * 100 + [b"bright"] * (EXAMPLES - 100))
PICTURES = [RANDOM.integers(0, 128, (16, 16, 1)) + 40 * (label == b"bright") for label in LABELS]


@pytest.fixture(scope="module")
def transformed(tmp_path_factory):
    """A transform graph, and the examples that it makes."""
    folder = tmp_path_factory.mktemp("transformed")
    files = [tf.io.encode_png(tf.constant(picture, tf.uint8)).numpy() for picture in PICTURES]
    raw = {features.ENCODED: files, features.PIXELS: [b""] * EXAMPLES, features.LABEL: LABELS}
    rows = [{name: [values[index]] for name, values in raw.items()} for index in range(EXAMPLES)]
    spec = {name: tf.io.FixedLenFeature([1], tf.string) for name in raw}
    metadata = dataset_metadata.DatasetMetadata(schema_utils.schema_from_feature_spec(spec))
    with (
        beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner"])) as pipeline,
        tft_beam.Context(temp_dir=str(folder / "temp")),
    ):
        graph = (pipeline | beam.Create(rows), metadata) | tft_beam.AnalyzeDataset(
            lambda inputs: preprocessing_fn(inputs, as_dict(transform_settings(CONFIG)))
        )
        _ = graph | tft_beam.WriteTransformFn(str(folder / "graph"))
        _ = metadata | tft_beam.WriteMetadata(str(folder / "graph" / "metadata"), pipeline)
    layer = tft.TFTransformOutput(str(folder / "graph")).transform_features_layer()
    outputs = layer({name: tf.constant(values)[:, None] for name, values in raw.items()})
    with tf.io.TFRecordWriter(str(folder / "examples")) as writer:
        for index in range(EXAMPLES):
            example = tf.train.Example()
            for name, values in outputs.items():
                row = np.ravel(values[index].numpy()).tolist()
                kind = {bytes: "bytes_list", int: "int64_list", float: "float_list"}[type(row[0])]
                getattr(example.features.feature[name], kind).value.extend(row)
            writer.write(example.SerializeToString())
    return folder


def arguments(transformed, run, checkpoints, config=CONFIG):
    data = [str(transformed / "examples")]
    return {
        "train_files": data,
        "eval_files": data,
        "transform_graph_path": str(transformed / "graph"),
        "model_run_dir": str(run / "log"),
        "serving_model_dir": str(run / "model"),
        "custom_config": as_dict(trainer_settings(config, str(checkpoints))),
    }


def read_history(run):
    with (run / "log" / "history.csv").open() as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def test_a_run_killed_in_its_third_epoch_goes_on_and_ends_as_if_it_had_not_been(transformed, tmp_path, caplog):
    whole, killed, resumed = (tmp_path / name for name in ("whole", "killed", "resumed"))
    checkpoints = tmp_path / "checkpoints"
    program = f"""
import json
from tfx.components.trainer.fn_args_utils import FnArgs
from models.training import run_fn
run_fn(FnArgs(**json.loads({json.dumps(arguments(transformed, killed, checkpoints))!r})))
"""
    with (tmp_path / "errors").open("w") as errors:
        process = subprocess.Popen([sys.executable, "-c", program], stderr=errors)
    while process.poll() is None and not ((killed / "log" / "history.csv").exists() and len(read_history(killed)) == 2):
        time.sleep(0.001)
    process.kill()
    assert process.wait() == -signal.SIGKILL, (tmp_path / "errors").read_text()[-2000:]
    (folder,) = checkpoints.iterdir()
    assert len(load_checkpoint(str(folder)).history) == 2

    with caplog.at_level(logging.INFO, logger="models.callbacks"):
        run_fn(FnArgs(**arguments(transformed, resumed, checkpoints)))
    progress = [record.progress for record in caplog.records if hasattr(record, "progress")]
    steps = EXAMPLES // CONFIG.train.batch_size
    assert [item["done"] for item in progress] == [3 * steps, 4 * steps]
    assert {item["total"] for item in progress} == {4 * steps}
    assert (resumed / "model" / "saved_model.pb").exists()
    assert not list(checkpoints.iterdir())

    settings = trainer_settings(CONFIG, str(checkpoints))
    train_model(FnArgs(**arguments(transformed, whole, checkpoints)), settings, str(whole / "log"))
    history = read_history(resumed)
    assert [row["epoch"] for row in history] == [1, 2, 3, 4]
    for row, expected in zip(history, read_history(whole), strict=True):
        assert row == pytest.approx(expected, abs=1e-3)


def test_a_student_answers_as_its_teacher_and_is_exported_without_it(transformed, tmp_path):
    def trained(name, **train):
        sections = CONFIG.model_dump(exclude_unset=True)
        config = Config.model_validate({**sections, "train": sections["train"] | {"class_weights": "none", "ema": 0.0} | train})
        run_fn(FnArgs(**arguments(transformed, tmp_path / name, tmp_path / "checkpoints", config)))
        return str(tmp_path / name / "model")

    # Two of three labels count for nothing in the teacher's loss, so its answers are far from those of a plain training.
    teacher = trained("teacher", epochs=2, label_smoothing=0.66)
    models = [teacher, trained("student", teacher=teacher, seed=1), trained("alone", seed=1)]
    images = tf.constant(np.stack(PICTURES), tf.uint8)
    found = [tf.saved_model.load(path).signatures["predict_images"](images=images)["probabilities"] for path in models]
    far, near = (np.abs(found[0] - found[which]).mean() for which in (2, 1))
    assert near < 0.5 * far
    weights = [sum(np.prod(shape) for _, shape in tf.train.list_variables(f"{path}/variables/variables")) for path in models]
    assert weights[1] == weights[2]
