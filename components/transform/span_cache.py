"""Gives the spans of the examples to TensorFlow Transform as separate inputs, so that it reuses its cache for known spans."""

import contextlib
import hashlib
import os
from collections.abc import Iterator

from tfx import types
from tfx.dsl.io import fileio
from tfx.types import artifact_utils, standard_artifacts, standard_component_specs

from images.layout import Shard, shard_path
from images.shards import link_or_copy
from storage.made_files import is_whole


@contextlib.contextmanager
def span_by_span(
    examples: types.Artifact, shards: list[Shard], splits: list[str], outputs: dict[str, list[types.Artifact]]
) -> Iterator[dict[str, list[types.Artifact]]]:
    """Yields inputs that replace those of Transform: one artifact per span.

    The key of the cache is the path of the examples. So each span is linked into a temporary folder whose name is a digest of
    its content. The folders are deleted at the end of the context. With a single span the examples are yielded as they are.

    Args:
      examples: examples written by ImageExampleGen.
      shards: the shards of the examples.
      splits: the splits that are analysed.
      outputs: outputs of Transform. The caches of earlier runs are beside `updated_analyzer_cache`; the last one is used.

    Yields:
      {"examples": one artifact per span, "analyzer_cache": a list of no or one artifact}.
    """
    numbers = sorted({shard.span for shard in shards})
    caches = outputs.get(standard_component_specs.UPDATED_ANALYZER_CACHE_KEY)
    if len(numbers) < 2 or not caches:
        yield {standard_component_specs.EXAMPLES_KEY: [examples]}
        return
    folder = os.path.join(os.path.dirname(os.path.dirname(caches[0].uri.rstrip("/"))), ".spans")
    artifacts = []
    try:
        for number in numbers:
            chosen = [position for position, shard in enumerate(shards) if shard.span == number]
            digest = hashlib.sha256("".join(shards[position].key for position in chosen).encode()).hexdigest()
            artifact = standard_artifacts.Examples()
            artifact.uri = os.path.join(folder, digest)
            artifact.split_names = examples.split_names
            for split in splits:
                fileio.makedirs(artifact_utils.get_split_uri([artifact], split))
            files = [
                (old, shard_path(artifact.uri, split, position, len(shards)))
                for split in splits
                for position in chosen
                if fileio.exists(old := shard_path(examples.uri, split, position, len(shards)))
            ]
            for old, new in files:
                link_or_copy(old, new)
            if files:
                artifacts.append(artifact)
        yield {
            standard_component_specs.EXAMPLES_KEY: artifacts,
            standard_component_specs.ANALYZER_CACHE_KEY: _last_cache(caches[0].uri),
        }
    finally:
        fileio.rmtree(folder)


def _last_cache(own: str) -> list[types.Artifact]:
    """The cache of the last run whose cache is as it was made, and is not empty."""
    parent, name = os.path.split(own.rstrip("/"))
    earlier = [item.rstrip("/") for item in fileio.listdir(parent) if item.rstrip("/").isdigit() and item.rstrip("/") != name]
    folders = [os.path.join(parent, item) for item in earlier]
    filled = [folder for folder in folders if fileio.listdir(folder) and ("://" in folder or is_whole(folder))]
    if not filled:
        return []
    artifact = standard_artifacts.TransformCache()
    artifact.uri = max(filled, key=lambda folder: int(os.path.basename(folder)))
    return [artifact]
