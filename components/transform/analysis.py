"""Runs TensorFlow Transform's analysis, and writes the transform graph.

TFX's own executor does the same for any Transform. It traces the preprocessing function about twice as often, which on a handful
of images takes most of its time.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import apache_beam as beam
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from tensorflow_metadata.proto.v0 import schema_pb2
from tensorflow_transform.beam import analysis_graph_builder, analyzer_cache
from tfx.dsl.io import fileio
from tfx.utils import io_utils
from tfx_bsl.tfxio.tf_example_record import TFExampleRecord

from models import features

_COLUMNS = (features.ENCODED, features.PIXELS, features.LABEL)  # that are read, of those that the examples have
_MOST_PARTS = 400  # with a cache: TFX, too, has no more than 20,000 steps in a pipeline, which are about 50 a part

Preprocessing = Callable[[dict[str, Any]], dict[str, Any]]


def analyze(
    pipeline: beam.Pipeline,
    preprocessing_fn: Preprocessing,
    schema: schema_pb2.Schema,
    parts: Mapping[str, Sequence[str]],
    graph: str,
    old_cache: str | None,
    new_cache: str,
) -> None:
    """Analyses examples, and writes what `tft.TFTransformOutput` reads.

    Several parts are analysed one by one. What is found of each is written into the cache, and a part that is in the old cache
    is not read.

    Args:
      pipeline: an empty pipeline, which is run here.
      preprocessing_fn: as TensorFlow Transform takes it.
      schema: of the examples.
      parts: files of examples, by a digest of their content. The names of compressed files end in .gz.
      graph: folder for the transform graph.
      old_cache: folder of an earlier run's cache, if there is one.
      new_cache: folder for the cache of several parts.
    """
    temporary = os.path.join(graph, ".temp_path")
    sources = {analyzer_cache.DatasetKey(key): _source(files, schema) for key, files in parts.items()}
    any_source = next(iter(sources.values()))
    with pipeline, tft_beam.Context(temp_dir=temporary, use_deep_copy_optimization=True):
        if 1 < len(sources) <= _MOST_PARTS:
            transform = _with_cache(pipeline, preprocessing_fn, sources, old_cache, new_cache)
        else:
            files = [file for several in parts.values() for file in several]
            examples = pipeline | "Read" >> _source(files, schema).BeamSource()
            transform = (examples, any_source.TensorAdapterConfig()) | tft_beam.AnalyzeDataset(preprocessing_fn)
        _ = tft.DatasetMetadata(schema) | tft_beam.WriteMetadata(
            os.path.join(graph, tft.TFTransformOutput.RAW_METADATA_DIR), pipeline
        )
        _ = transform | tft_beam.WriteTransformFn(graph)
    fileio.rmtree(temporary)


def _source(files: Sequence[str], schema: schema_pb2.Schema) -> Any:
    known = {feature.name for feature in schema.feature}
    return TFExampleRecord(list(files), schema=schema).Project([name for name in _COLUMNS if name in known])


def _with_cache(
    pipeline: beam.Pipeline,
    preprocessing_fn: Preprocessing,
    sources: dict[analyzer_cache.DatasetKey, Any],
    old_cache: str | None,
    new_cache: str,
) -> Any:
    keys = sorted(sources)
    any_source = sources[keys[0]]
    specs = any_source.TensorAdapter().OriginalTypeSpecs()
    known: Any = {}
    if old_cache:
        entries = analysis_graph_builder.get_analysis_cache_entry_keys(preprocessing_fn, specs, keys, False)
        known = pipeline | analyzer_cache.ReadAnalysisCacheFromFS(old_cache, keys, cache_entry_keys=entries)
        for key in keys:  # what is new is added to what is known
            if fileio.isdir(folder := os.path.join(old_cache, key.key)):
                io_utils.copy_dir(folder, os.path.join(new_cache, key.key))
    needed = analysis_graph_builder.get_analysis_dataset_keys(preprocessing_fn, specs, keys, known, False)
    examples = {key: pipeline | f"Read {key.key}" >> sources[key].BeamSource() if key in needed else None for key in keys}
    transform, found = (examples, known, any_source.TensorAdapterConfig()) | tft_beam.AnalyzeDatasetWithCache(
        preprocessing_fn, pipeline=pipeline
    )
    if found:
        fileio.makedirs(new_cache)
        _ = found | analyzer_cache.WriteAnalysisCacheToFS(pipeline, new_cache, keys)
    return transform
