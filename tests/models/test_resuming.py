"""The Trainer's `run_fn`, killed and started again."""

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
from worker_processes import PROJECT, environment, free_addresses

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


def arguments(transformed, run, checkpoints):
    data = [str(transformed / "examples")]
    return {
        "train_files": data,
        "eval_files": data,
        "transform_graph_path": str(transformed / "graph"),
        "model_run_dir": str(run / "log"),
        "serving_model_dir": str(run / "model"),
        "custom_config": as_dict(trainer_settings(CONFIG, str(checkpoints))),
    }


def read_history(run):
    path = run / "log" / "history.csv"
    if not path.exists():
        return []
    with path.open() as file:
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
    while process.poll() is None and len(read_history(killed)) < 2:
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


TRAINER = """
import json, sys
from tfx.components.trainer.fn_args_utils import FnArgs
from models.training import run_fn
if __name__ == "__main__":
    run_fn(FnArgs(**json.loads(sys.argv[1])))
"""


class Run:
    """A Trainer, and a second worker that waits for it."""

    def __init__(self, transformed, folder, checkpoints):
        self.folder = folder
        folder.mkdir()
        given = json.dumps(arguments(transformed, folder, checkpoints))
        (folder / "trainer.py").write_text(TRAINER)
        commands = [[str(folder / "trainer.py"), given], ["-m", "models.worker"]]
        addresses = free_addresses(2)
        self.processes = [
            subprocess.Popen(
                [sys.executable, *command],
                env=environment(addresses, index),
                cwd=PROJECT,
                stderr=(folder / f"errors-{index}").open("w"),
            )
            for index, command in enumerate(commands)
        ]

    def wait_for_epochs(self, count):
        while len(read_history(self.folder)) < count:
            assert all(process.poll() is None for process in self.processes), self.errors(0) + self.errors(1)
            time.sleep(0.001)

    def statuses(self):
        return [process.wait(120) for process in self.processes]

    def errors(self, index):
        return (self.folder / f"errors-{index}").read_text()


@pytest.mark.extra
@pytest.mark.parametrize("killed", [0, 1], ids=["the Trainer", "the other worker"])
def test_a_training_whose_worker_was_killed_goes_on_and_ends_as_if_it_had_not_been(killed, transformed, tmp_path):
    whole = Run(transformed, tmp_path / "whole", tmp_path / "other checkpoints")
    assert whole.statuses() == [0, 0], whole.errors(0) + whole.errors(1)

    checkpoints = tmp_path / "checkpoints"
    broken = Run(transformed, tmp_path / "broken", checkpoints)
    broken.wait_for_epochs(2)
    broken.processes[killed].kill()
    began = time.monotonic()
    statuses = broken.statuses()
    assert time.monotonic() - began < 60
    assert statuses[killed] == -signal.SIGKILL
    assert statuses[1 - killed] == 1
    assert "a worker has ended; start all of them again" in broken.errors(1 - killed)

    resumed = Run(transformed, tmp_path / "resumed", checkpoints)
    assert resumed.statuses() == [0, 0], resumed.errors(0) + resumed.errors(1)
    history = read_history(resumed.folder)
    assert [row["epoch"] for row in history] == [1, 2, 3, 4]
    for row, expected in zip(history, read_history(whole.folder), strict=True):
        assert row == pytest.approx(expected, abs=1e-6)
    assert (resumed.folder / "model" / "saved_model.pb").exists()
    assert not list(checkpoints.iterdir())
