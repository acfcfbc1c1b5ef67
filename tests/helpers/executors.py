"""Runs the executors of components, laid out as the orchestrator does, and reads what they have written."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow_transform.tf_metadata import schema_utils
from tfx import components as tfx_components
from tfx.components.transform import executor as stock_executor
from tfx.dsl.components.base import base_beam_executor
from tfx.proto import transform_pb2
from tfx.types import channel_utils, standard_artifacts, standard_component_specs
from tfx.utils import io_utils

from components.image_example_gen import executor as ingestion
from components.image_example_gen.component import ImageExampleGen
from components.transform import executor as transform
from images.index import SUMMARY_FILE
from models import features
from models.image_settings import TransformSettings
from models.packing import as_dict
from pipeline.config.data import DataConfig, ImageConfig, SplitsConfig
from pipeline.config.whole import Config
from pipeline.dag.component_settings import ingestion_settings

CONFIG = Config(
    name="executors",
    data=DataConfig(path="", splits=SplitsConfig(train=2, eval=1, test=1, stratify=False)),
    image=ImageConfig(height=8, width=8, channels=3),
)
SETTINGS = ingestion_settings(CONFIG)
IMAGE = SETTINGS.image


def context(output: Path, number: int) -> Any:
    return base_beam_executor.BaseBeamExecutor.Context(
        beam_pipeline_args=["--runner=FnApiRunner", "--sdk_container_image=none"],
        tmp_dir=str(output / "tmp"),
        unique_id=str(number),
    )


def make_artifact(kind: Any, output: Path, node: str, key: str, number: int) -> Any:
    artifact = kind()
    folder = output / node / key / str(number)
    folder.mkdir(parents=True)
    artifact.uri = str(folder)
    return artifact


def ingest(data: Path | str, output: Path, number: int = 1, **changes: Any) -> standard_artifacts.Examples:
    """Runs ImageExampleGen; `changes` are to its settings."""
    component = ImageExampleGen(str(data), replace(SETTINGS, **changes))
    examples = make_artifact(standard_artifacts.Examples, output, "ImageExampleGen", "examples", number)
    executor = ingestion.Executor(context(output, number))
    executor.Do({}, {standard_component_specs.EXAMPLES_KEY: [examples]}, dict(component.exec_properties))
    return examples


def transform_examples(
    examples: standard_artifacts.Examples,
    output: Path,
    number: int = 1,
    multi_label: bool = False,
    stock: bool = False,
    analyze: str = "train",
) -> dict[str, Path]:
    """Runs Transform, or TFX's own; the folders of its outputs."""
    kind = tf.io.VarLenFeature(tf.string) if multi_label else tf.io.FixedLenFeature([1], tf.string)
    spec = {name: tf.io.FixedLenFeature([1], tf.string) for name in (features.ENCODED, features.PIXELS)}
    schema = make_artifact(standard_artifacts.Schema, output, "SchemaGen", "schema", number)
    schema_proto = schema_utils.schema_from_feature_spec(spec | {features.LABEL: kind})
    io_utils.write_pbtxt_file(f"{schema.uri}/schema.pbtxt", schema_proto)
    component = tfx_components.Transform(
        examples=channel_utils.as_channel([examples]),
        schema=channel_utils.as_channel([schema]),
        preprocessing_fn="models.preprocessing.preprocessing_fn",
        custom_config=as_dict(TransformSettings(image=IMAGE, multi_label=multi_label, code="")),
        splits_config=transform_pb2.SplitsConfig(analyze=[analyze], transform=["train", "eval"]),
        disable_statistics=True,
    )
    outputs = {
        key: [make_artifact(kind, output, "Transform", key, number)]
        for key, kind in (
            (standard_component_specs.TRANSFORM_GRAPH_KEY, standard_artifacts.TransformGraph),
            (standard_component_specs.TRANSFORMED_EXAMPLES_KEY, standard_artifacts.Examples),
            (standard_component_specs.UPDATED_ANALYZER_CACHE_KEY, standard_artifacts.TransformCache),
        )
    }
    inputs = {standard_component_specs.EXAMPLES_KEY: [examples], standard_component_specs.SCHEMA_KEY: [schema]}
    properties = dict(component.exec_properties)
    (stock_executor if stock else transform).Executor(context(output, number)).Do(inputs, outputs, properties)
    return {key: Path(artifact.uri) for key, (artifact,) in outputs.items()}


def read_records(folder: Path) -> list[bytes]:
    """The examples in all files of a split, compressed or not."""
    files = [str(path) for path in sorted(folder.iterdir())]
    return [
        record
        for path in files
        for record in tf.data.TFRecordDataset(path, "GZIP" if path.endswith(".gz") else "").as_numpy_iterator()
    ]


def read_values(record: bytes) -> dict[str, list[Any]]:
    """Feature -> values of a serialised example."""
    found = tf.train.Example.FromString(record).features.feature
    return {name: list(getattr(feature, feature.WhichOneof("kind")).value) for name, feature in found.items()}


def read_summary(examples: standard_artifacts.Examples) -> dict[str, Any]:
    return json.loads((Path(examples.uri) / SUMMARY_FILE).read_text())
