"""A training of seconds: decoded examples, and the arguments of the Trainer's `run_fn`."""

from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow as tf
import tensorflow_transform.beam as tft_beam
from apache_beam.options.pipeline_options import PipelineOptions
from tensorflow_transform.tf_metadata import dataset_metadata, schema_utils

from models import features
from models.packing import as_dict
from models.preprocessing import preprocessing_fn
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
        "learning_rate": 0.01,
    },
)
RANDOM = np.random.default_rng(0)
LABELS = RANDOM.permutation([b"a dark one"] * 100 + [b"bright"] * (EXAMPLES - 100))
PICTURES = [RANDOM.integers(0, 128, (16, 16, 1)) + 40 * (label == b"bright") for label in LABELS]


def write_transformed(folder: Path) -> None:
    """Writes a transform graph, and the decoded examples of what it analysed."""
    files = [tf.io.encode_png(tf.constant(picture, tf.uint8)).numpy() for picture in PICTURES]
    groups = [b"pair %d" % (index // 2) for index in range(EXAMPLES)]
    raw = {features.ENCODED: files, features.PIXELS: [b""] * EXAMPLES, features.LABEL: LABELS, features.GROUP: groups}
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
    with tf.io.TFRecordWriter(str(folder / "examples")) as writer:
        for picture, row in zip(PICTURES, rows, strict=True):
            example = tf.train.Example()
            for name, values in (
                row | {features.ENCODED: [b""], features.PIXELS: [picture.astype(np.uint8).tobytes()]}
            ).items():
                example.features.feature[name].bytes_list.value.extend(values)
            writer.write(example.SerializeToString())


def arguments(transformed: Path, run: Path, checkpoints: Path, config: Config = CONFIG) -> dict[str, Any]:
    """Of `FnArgs`, to train on what `write_transformed` has written and to write below `run`."""
    data = [str(transformed / "examples")]
    return {
        "train_files": data,
        "eval_files": data,
        "transform_graph_path": str(transformed / "graph"),
        "model_run_dir": str(run / "log"),
        "serving_model_dir": str(run / "model"),
        "custom_config": as_dict(trainer_settings(config, str(checkpoints))),
    }
