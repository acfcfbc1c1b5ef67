"""Analyses the data with TensorFlow Transform, and puts out the decoded examples that the Trainer reads."""

import functools
import json
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import apache_beam as beam
import tensorflow as tf
import tensorflow_transform as tft
from tfx.components.util import examples_utils, udf_utils
from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor
from tfx.dsl.io import fileio
from tfx.proto import transform_pb2
from tfx.types import Artifact, artifact_utils, standard_artifacts, standard_component_specs
from tfx.utils import io_utils, proto_utils

from base.errors import UserError
from components.spread import spread
from components.transform import span_cache
from components.transform.analysis import analyze
from images.index import SUMMARY_FILE
from images.layout import find_layout
from images.shards import link_or_copy
from models import features
from models.files import replaced
from models.preprocessing import transform_files
from models.records import decoded_example, read_records

_BATCH, _BATCH_BYTES = 256, 2**24  # examples per batch, fewer if they would take more than about these bytes
_COPIES = 16  # files that are copied at a time


class _DecodeShard(beam.DoFn):
    """Decodes the images of a file for each element (file of raw examples, file to write); yields the written file."""

    def __init__(self, transform_graph: str) -> None:
        self._transform_graph = transform_graph

    def setup(self) -> None:
        transform_output = tft.TFTransformOutput(self._transform_graph)
        layer, raw_spec = transform_output.transform_features_layer(), transform_output.raw_feature_spec()
        encoded = {features.ENCODED: tf.io.FixedLenFeature([], tf.string)}

        def decode(examples: tf.Tensor) -> tf.Tensor:
            files = tf.io.parse_example(examples, encoded)[features.ENCODED]
            return transform_files(layer, raw_spec, files)[features.IMAGE]

        self._decode = tf.function(decode, input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)

    def process(self, element: tuple[str, str]) -> Iterator[str]:
        source, destination = element
        examples = read_records(source)
        lengths = [len(example.numpy()) for example in examples.take(1)]  # another ExampleGen may leave an empty file
        size = max(1, min(_BATCH, _BATCH_BYTES // max([1, *lengths])))
        with replaced(destination) as unfinished, tf.io.TFRecordWriter(unfinished) as writer:
            # `map` would trace the function again for every shard, which takes longer than decoding the images.
            for batch in examples.batch(size).prefetch(2):
                for record, pixels in zip(batch.numpy(), self._decode(batch).numpy(), strict=True):
                    writer.write(decoded_example(tf.train.Example.FromString(record), b"", pixels))
        yield destination


class Executor(BaseBeamExecutor):
    """Writes what TFX's executor writes without statistics, but other `transformed_examples`.

    These are the decoded examples of `models.features`, in files that are not compressed. Examples with the layout of
    ImageExampleGen have decoded copies. They are read for the analysis, and put out as second names of the same files, so that
    all pixels are on the disk once. Where ImageExampleGen could not know the pixels, or another ExampleGen has written the
    examples, the graph decodes `image/encoded`, shard by shard. Data with several spans is analysed span by span, and the
    analysis of a span is reused from an earlier run.
    """

    def Do(self, input_dict: dict[str, Any], output_dict: dict[str, Any], exec_properties: dict[str, Any]) -> None:
        self._log_startup(input_dict, output_dict, exec_properties)
        (examples,) = input_dict[standard_component_specs.EXAMPLES_KEY]
        _check_payload(examples)
        (transformed,) = output_dict[standard_component_specs.TRANSFORMED_EXAMPLES_KEY]
        graph, schema_folder, cache = (
            artifact_utils.get_single_uri(artifacts)
            for artifacts in (
                output_dict[standard_component_specs.TRANSFORM_GRAPH_KEY],
                input_dict[standard_component_specs.SCHEMA_KEY],
                output_dict[standard_component_specs.UPDATED_ANALYZER_CACHE_KEY],
            )
        )
        layout = find_layout(examples)
        ingested = examples.uri
        decoded = layout.decoded if layout else None
        if decoded:
            names, examples = examples.split_names, standard_artifacts.Examples()
            examples.uri, examples.split_names = decoded, names
        config = transform_pb2.SplitsConfig()
        proto_utils.json_to_proto(exec_properties[standard_component_specs.SPLITS_CONFIG_KEY], config)
        parts = span_cache.files_by_span(examples, layout.shards if layout else [], config.analyze)
        if not any(parts.values()):
            raise UserError(
                f"{examples.uri}: no example to analyse in {', '.join(config.analyze)}; let the ExampleGen write some"
            )
        schema = io_utils.SchemaReader().read(io_utils.get_only_uri_in_dir(schema_folder))
        preprocessing_fn = functools.partial(
            udf_utils.get_fn(exec_properties, standard_component_specs.PREPROCESSING_FN_KEY),
            custom_config=json.loads(exec_properties[standard_component_specs.CUSTOM_CONFIG_KEY]),
        )
        old_cache = span_cache.last_cache(cache) if len(parts) > 1 else None
        analyze(self._make_beam_pipeline(), preprocessing_fn, schema, parts, graph, old_cache, cache)

        splits = list(config.transform)
        transformed.split_names = artifact_utils.encode_split_names(splits)
        files = []
        for split in splits:
            source, written = (artifact_utils.get_split_uri([item], split) for item in (examples, transformed))
            fileio.makedirs(written)
            files += [
                (os.path.join(source, name), os.path.join(written, name.removesuffix(".gz")))
                for name in sorted(fileio.listdir(source))
                if not name.startswith(".")
            ]
        if layout:
            _check_vocabulary(graph, ingested, config.analyze)
        if decoded:
            with ThreadPoolExecutor(_COPIES) as threads:  # linking takes no time, copying in a remote store does
                list(threads.map(lambda paths: link_or_copy(*paths), files))
        else:
            spread(self._make_beam_pipeline(), "DecodeShard", _DecodeShard(graph), files)


def _check_vocabulary(graph: str, examples: str, splits: Iterable[str]) -> None:
    """Checks that the vocabulary has the classes that ingestion has counted.

    Args:
      graph: folder of the transform graph.
      examples: folder of the examples of ImageExampleGen.
      splits: the splits that the vocabulary is made of.

    Raises:
      RuntimeError: it has not. That is a bug, whatever the data.
    """
    with fileio.open(os.path.join(examples, SUMMARY_FILE)) as file:
        summary = json.loads(file.read())
    counted = {name for split in splits for name in summary["splits"][split]}
    names = {name.decode() for name in tft.TFTransformOutput(graph).vocabulary_by_name(features.LABEL_VOCABULARY)}
    if counted != names:
        raise RuntimeError(f"the vocabulary and the examples differ in the classes {sorted(counted ^ names)[:10]}")


def _check_payload(examples: Artifact) -> None:
    """Raises UserError if the files do not hold tf.Example."""
    kind = examples_utils.get_payload_format_string(examples)
    if kind != "FORMAT_TF_EXAMPLE":
        raise UserError(
            f"{examples.uri}: Transform reads files of tf.Example, these are of {kind}; let the ExampleGen write those"
        )
