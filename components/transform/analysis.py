"""Runs TensorFlow Transform's analysis, and writes the transform graph.

TFX's own executor does the same for any Transform. It traces the preprocessing function about twice as often, which on a
handful of images takes most of its time.
"""

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import apache_beam as beam
import pyarrow as pa
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from tensorflow_metadata.proto.v0 import schema_pb2
from tensorflow_transform.beam import analysis_graph_builder, analyzer_cache
from tfx.dsl.io import fileio
from tfx.utils import io_utils
from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder
from tfx_bsl.tfxio.tf_example_record import TFExampleBeamRecord

from components.examples import read_batches
from models import features

_COLUMNS = (features.ENCODED, features.PIXELS, features.LABEL)  # that are read, of those that the examples have
# Parts that are analysed one by one. Each takes 6 s and 110 MB, in which a hundred thousand small images are read anew.
_MOST_PARTS = 20

Preprocessing = Callable[[dict[str, Any]], dict[str, Any]]


class _ReadFile(beam.DoFn):
    """Yields the batches of a file of examples: a source of Beam's for each file would be steps of the pipeline."""

    def __init__(self, schema: schema_pb2.Schema) -> None:
        self._schema = schema.SerializeToString()

    def setup(self) -> None:
        self._decoder = ExamplesToRecordBatchDecoder(self._schema)

    def process(self, file: str) -> Iterator[pa.RecordBatch]:
        yield from read_batches([file], self._decoder)


def analyze(
    pipeline: beam.Pipeline,
    preprocessing_fn: Preprocessing,
    schema: schema_pb2.Schema,
    parts: Mapping[str, list[str]],
    graph: str,
    old_cache: str | None,
    new_cache: str,
) -> None:
    """Analyses examples, and writes what `tft.TFTransformOutput` reads.

    Several parts are analysed one by one, unless they are many. What is found of each is written into the cache, and a part
    that is in the old cache is not read.

    Args:
      pipeline: an empty pipeline, which is run here.
      preprocessing_fn: as TensorFlow Transform takes it; its inputs are the features of `_COLUMNS`.
      schema: of the examples.
      parts: files of examples, by a digest of their content. The names of compressed files end in .gz.
      graph: folder for the transform graph.
      old_cache: folder of an earlier run's cache, if there is one.
      new_cache: folder for the cache of several parts.
    """
    temporary = os.path.join(graph, ".temp_path")
    read = schema_pb2.Schema(feature=[feature for feature in schema.feature if feature.name in _COLUMNS])
    source = TFExampleBeamRecord("tfrecord", schema=read)  # for the tensors' types
    with pipeline, tft_beam.Context(temp_dir=temporary, use_deep_copy_optimization=True):
        if 1 < len(parts) <= _MOST_PARTS:
            transform = _with_cache(pipeline, preprocessing_fn, read, source, parts, old_cache, new_cache)
        else:
            if len(parts) > _MOST_PARTS:
                logging.info("Transform: %d spans are analysed as one, without a cache", len(parts))
            examples = _read(pipeline, "all", [file for files in parts.values() for file in files], read)
            transform = (examples, source.TensorAdapterConfig()) | tft_beam.AnalyzeDataset(preprocessing_fn)
        _ = tft.DatasetMetadata(schema) | tft_beam.WriteMetadata(
            os.path.join(graph, tft.TFTransformOutput.RAW_METADATA_DIR), pipeline
        )
        _ = transform | tft_beam.WriteTransformFn(graph)
    fileio.rmtree(temporary)


def _read(pipeline: beam.Pipeline, name: str, files: list[str], schema: schema_pb2.Schema) -> beam.PCollection:
    paths = pipeline | f"Files {name}" >> beam.Create(files) | f"Spread {name}" >> beam.Reshuffle()
    return paths | f"Read {name}" >> beam.ParDo(_ReadFile(schema))


def _with_cache(
    pipeline: beam.Pipeline,
    preprocessing_fn: Preprocessing,
    schema: schema_pb2.Schema,
    source: TFExampleBeamRecord,
    parts: Mapping[str, list[str]],
    old_cache: str | None,
    new_cache: str,
) -> Any:
    files = {analyzer_cache.DatasetKey(name): parts[name] for name in sorted(parts)}
    keys = list(files)
    specs = source.TensorAdapter().OriginalTypeSpecs()
    known: Any = {}
    if old_cache:
        entries = analysis_graph_builder.get_analysis_cache_entry_keys(preprocessing_fn, specs, keys, False)
        known = pipeline | analyzer_cache.ReadAnalysisCacheFromFS(old_cache, keys, cache_entry_keys=entries)
        for key in keys:  # what is new is added to what is known
            if fileio.isdir(folder := os.path.join(old_cache, key.key)):
                io_utils.copy_dir(folder, os.path.join(new_cache, key.key))
    needed = analysis_graph_builder.get_analysis_dataset_keys(preprocessing_fn, specs, keys, known, False)
    examples = {key: _read(pipeline, key.key, files[key], schema) if key in needed else None for key in keys}
    transform, found = (examples, known, source.TensorAdapterConfig()) | tft_beam.AnalyzeDatasetWithCache(
        preprocessing_fn, pipeline=pipeline
    )
    if found:
        fileio.makedirs(new_cache)
        _ = found | analyzer_cache.WriteAnalysisCacheToFS(pipeline, new_cache, keys)
    return transform
