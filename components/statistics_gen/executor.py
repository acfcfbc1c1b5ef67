"""Reads the examples in batches and gives them to TFDV's generators, without Beam.

On a handful of images, building and starting TFX's Beam pipeline of statistics takes nearly all its time.
"""

import os
from collections.abc import Iterator
from typing import Any, Final

import pyarrow as pa
import tensorflow_data_validation as tfdv
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from tensorflow_data_validation.statistics import stats_impl
from tensorflow_data_validation.statistics.generators.stats_generator import TransformStatsGenerator
from tensorflow_metadata.proto.v0 import statistics_pb2
from tfx.components.statistics_gen import executor
from tfx.dsl.io import fileio
from tfx.types import artifact_utils, standard_component_specs
from tfx_bsl.coders import example_coder

from base.errors import UserError
from components.examples import read_batches
from components.statistics_gen.value_counts import ValueCounts
from images.index import REJECTED_FILE
from images.layout import find_layout
from storage.files import replace_file

_RUNNERS_HERE: Final = (None, "FnApiRunner", "DirectRunner")


class Executor(executor.Executor):
    """Writes the files that TFX's executor writes, with the same content but for rounding.

    Where the examples are of another ExampleGen than ImageExampleGen, or Beam runs on other machines, TFX's executor does it.
    """

    def Do(self, input_dict: dict[str, Any], output_dict: dict[str, Any], exec_properties: dict[str, Any]) -> None:
        (examples,) = input_dict[standard_component_specs.EXAMPLES_KEY]
        runner = PipelineOptions(self._beam_pipeline_args).view_as(StandardOptions).runner
        if runner not in _RUNNERS_HERE or not find_layout(examples):
            super().Do(input_dict, output_dict, exec_properties)
            return
        self._log_startup(input_dict, output_dict, exec_properties)
        (artifact,) = output_dict[standard_component_specs.STATISTICS_KEY]
        artifact.split_names = examples.split_names
        artifact.span = examples.span
        options = tfdv.StatsOptions.from_json(exec_properties[standard_component_specs.STATS_OPTIONS_JSON_KEY])
        for split in artifact_utils.decode_split_names(examples.split_names):
            statistics = measure(artifact_utils.get_split_uri([examples], split), options)
            _write(statistics, artifact_utils.get_split_uri([artifact], split))


def measure(folder: str, options: tfdv.StatsOptions) -> statistics_pb2.DatasetFeatureStatisticsList:
    """The statistics of the examples in a folder's files, which are not compressed.

    TFDV's generators for Beam that combine are used as they are. The one that does not is replaced by `ValueCounts`; TFDV's own
    replacement in memory is exact for 1,024 different values only.
    """
    generators = [
        ValueCounts(options) if isinstance(generator, TransformStatsGenerator) else generator
        for generator in stats_impl.get_generators(options)
    ]
    for generator in generators:
        generator.setup()
    accumulators = [generator.create_accumulator() for generator in generators]
    for batch in _read_batches(folder):
        accumulators = [
            generator.add_input(accumulator, batch) for generator, accumulator in zip(generators, accumulators, strict=True)
        ]
    return stats_impl.extract_statistics_output(accumulators, generators)


def _write(statistics: statistics_pb2.DatasetFeatureStatisticsList, folder: str) -> None:
    fileio.makedirs(folder)
    path = os.path.join(folder, executor.DEFAULT_FILE_NAME)
    replace_file(path, lambda file: file.write(statistics.SerializeToString(deterministic=True)))


def _read_batches(folder: str) -> Iterator[pa.RecordBatch]:
    """The examples as tables with a column of lists for each feature.

    Raises:
      UserError: there are none.
    """
    files = [os.path.join(folder, name) for name in sorted(fileio.listdir(folder)) if not name.startswith(".")]
    if not files:
        raise UserError(f"{folder}: no image is left in this split; {REJECTED_FILE} beside it says why files were set aside")
    return read_batches(files, example_coder.ExamplesToRecordBatchDecoder())
