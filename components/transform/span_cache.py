"""The spans of examples as parts of TensorFlow Transform's analysis, and the cache of what an earlier run has found of them."""

import hashlib
import os
from collections.abc import Iterable

from tfx import types
from tfx.dsl.io import fileio

from components.examples import split_files
from images.layout import Shard, shard_path
from storage.made_files import is_whole


def files_by_span(examples: types.Artifact, shards: list[Shard], splits: Iterable[str]) -> dict[str, list[str]]:
    """The files of examples that are analysed, by a digest of the splits and of the content of each span.

    Args:
      examples: the examples, in files of `images.layout` if there are shards.
      shards: the shards; none if another ExampleGen has written the examples, which are one span then.
      splits: the splits that are analysed.
    """
    if not shards:
        return {"all": [path for path in split_files(examples, splits) if not os.path.basename(path).startswith(".")]}
    found, wanted = {}, list(splits)
    for number in sorted({shard.span for shard in shards}):
        chosen = [position for position, shard in enumerate(shards) if shard.span == number]
        paths = [shard_path(examples.uri, split, position, len(shards)) for split in wanted for position in chosen]
        if files := [path for path in paths if fileio.exists(path)]:
            content = [*wanted, *(shards[position].key for position in chosen)]  # folds of one folder are analysed in turns
            found[hashlib.sha256("\0".join(content).encode()).hexdigest()] = files
    return found


def last_cache(own: str) -> str | None:
    """The folder beside `own` with the cache of the last run whose cache is as it was made, and is not empty."""
    parent, name = os.path.split(own.rstrip("/"))
    earlier = [item.rstrip("/") for item in fileio.listdir(parent) if item.rstrip("/").isdigit() and item.rstrip("/") != name]
    folders = [os.path.join(parent, item) for item in earlier]
    filled = [folder for folder in folders if fileio.listdir(folder) and ("://" in folder or is_whole(folder))]
    return max(filled, key=lambda folder: int(os.path.basename(folder)), default=None)
