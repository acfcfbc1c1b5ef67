"""Shows the spans of the examples to TensorFlow Transform one by one, so that its cache serves those that it knows."""

import contextlib
import hashlib
import os
from collections.abc import Iterator

from tfx import types
from tfx.dsl.io import fileio
from tfx.types import artifact_utils, standard_artifacts, standard_component_specs

from images.layout import Shard, shard_path
from images.shards import link_or_copy


@contextlib.contextmanager
def span_by_span(
    examples: types.Artifact, shards: list[Shard], splits: list[str], outputs: dict[str, list[types.Artifact]]
) -> Iterator[dict[str, list[types.Artifact]]]:
    """What is to replace the inputs of Transform: one artifact a span.

    The cache is keyed by the path of the examples. So each of several spans is linked into a folder that is named by its
    content, for as long as the context lasts.

    Args:
      examples: as ImageExampleGen has written them.
      shards: of which they are made.
      splits: those that are analysed.
      outputs: of Transform. The caches of earlier runs are beside this run's `updated_analyzer_cache`; the last is taken.

    Yields:
      {"examples": an artifact a span, "analyzer_cache": none or one}.
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
    parent, name = os.path.split(own.rstrip("/"))
    earlier = [item.rstrip("/") for item in fileio.listdir(parent) if item.rstrip("/").isdigit() and item.rstrip("/") != name]
    filled = [item for item in earlier if fileio.listdir(os.path.join(parent, item))]
    if not filled:
        return []
    artifact = standard_artifacts.TransformCache()
    artifact.uri = os.path.join(parent, max(filled, key=int))
    return [artifact]
