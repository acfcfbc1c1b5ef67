"""Analyses with TensorFlow Transform, then writes the transformed examples, one shard after the other."""

from collections.abc import Iterator
from typing import Any

import apache_beam as beam
import tensorflow as tf
import tensorflow_transform as tft
from tensorflow_transform import impl_helper
from tfx.components.transform import executor
from tfx.dsl.io import fileio
from tfx.proto import transform_pb2
from tfx.types import artifact_utils, standard_artifacts, standard_component_specs
from tfx.utils import proto_utils
from tfx_bsl.coders import example_coder

from components.image_example_gen.reuse import read_shards
from components.image_example_gen.writing import decoded_folder, shard_path
from components.transform import spans
from models.files import replaced
from models.records import read_records

_BATCH, _BATCH_BYTES = 256, 2**24  # examples at a time, as far as they take no more than about these bytes


class _WriteShard(beam.DoFn):
    """(raw examples, transformed examples), two files: reads one, writes the other."""

    def __init__(self, transform_graph: str) -> None:
        self._transform_graph = transform_graph

    def setup(self) -> None:
        transform_output = tft.TFTransformOutput(self._transform_graph)
        layer, raw_spec = transform_output.transform_features_layer(), transform_output.raw_feature_spec()
        self._transform = tf.function(
            lambda examples: layer(tf.io.parse_example(examples, raw_spec)),
            input_signature=[tf.TensorSpec([None], tf.string)],
            autograph=False,
        )
        schema = transform_output.transformed_metadata.schema
        self._converter = impl_helper.make_tensor_to_arrow_converter(schema)
        self._encoder = example_coder.RecordBatchToExamplesEncoder(schema)

    def process(self, element: tuple[str, str]) -> Iterator[str]:
        source, destination = element
        examples = read_records(source)
        first = next(iter(examples.take(1)))
        size = max(1, min(_BATCH, _BATCH_BYTES // len(first.numpy())))
        with replaced(destination) as unfinished, tf.io.TFRecordWriter(unfinished) as writer:
            # Not `map`, which would prepare the function anew for every shard, and take longer for that than for the examples.
            for batch in examples.batch(size).prefetch(2):
                for example in self._encoder.encode(self._converter.convert(self._transform(batch))):
                    writer.write(example)
        yield destination


class Executor(executor.Executor):
    """Beam spreads shards instead of examples, which then need no Python each; the files are not compressed.

    Data of several spans is analysed span by span, and what an earlier run has found out about one is taken from it.
    """

    def Do(self, input_dict: dict[str, Any], output_dict: dict[str, Any], exec_properties: dict[str, Any]) -> None:
        outputs = dict(output_dict)
        (transformed,) = outputs.pop(standard_component_specs.TRANSFORMED_EXAMPLES_KEY)
        (examples,) = input_dict[standard_component_specs.EXAMPLES_KEY]
        shards = read_shards(examples.uri)
        if fileio.exists(decoded_folder(examples.uri)):  # what the network sees, without the files
            decoded = standard_artifacts.Examples()
            decoded.uri, decoded.split_names = decoded_folder(examples.uri), examples.split_names
            examples = decoded
        config = transform_pb2.SplitsConfig()
        proto_utils.json_to_proto(exec_properties[standard_component_specs.SPLITS_CONFIG_KEY], config)
        with spans.span_by_span(examples, shards, list(config.analyze), outputs) as inputs:
            super().Do({**input_dict, **inputs}, outputs, exec_properties)

        splits = list(config.transform)
        transformed.split_names = artifact_utils.encode_split_names(splits)
        files = []
        for split in splits:
            fileio.makedirs(artifact_utils.get_split_uri([transformed], split))
            paths = [
                tuple(shard_path(item.uri, split, number, len(shards)) for item in (examples, transformed))
                for number in range(len(shards))
            ]
            files += [(source, written) for source, written in paths if fileio.exists(source)]
        graph = artifact_utils.get_single_uri(output_dict[standard_component_specs.TRANSFORM_GRAPH_KEY])
        with self._make_beam_pipeline() as pipeline:
            _ = (
                pipeline
                | "Shards" >> beam.Create(files)
                | "Spread" >> beam.Reshuffle()
                | "WriteShard" >> beam.ParDo(_WriteShard(graph))
            )
