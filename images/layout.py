"""The examples that ImageExampleGen writes, beyond what TFX asks of an ExampleGen: what Transform reads, in one place.

TFX's own layout is a folder `Split-NAME` a split, with TFRecord files of tf.Example. Every component here reads that. An
Examples artifact whose property `layout` is `LAYOUT` keeps these promises besides:

- `shards.json` is a list with an entry for each shard: `Shard`, in the order of shards.
- `Split-NAME/data_tfrecord-00003-of-00008` is the part of shard 3 that is in the split. A shard without images in a split
  has no file there. The files are not compressed.
- `decoded/Split-NAME/` has the same examples in files of the same names. There `image/pixels` is what the network sees, and
  `image/encoded` is empty. The folder is missing where the pixels depend on all images (`image.intensity: percentiles`).
- `ingestion.json`, `images.parquet`, `rejected.csv` and `duplicates.csv` tell what was found; see `executor` and `index`.

ImageExampleGen calls `declare_layout` after it has written all of it. Who wants the promises asks `find_layout` first: of the
examples of any other ExampleGen it gives None, and TFX's layout is all there is.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from ml_metadata.proto import metadata_store_pb2
from tfx.dsl.io import fileio
from tfx.types import Artifact

from storage.files import replace_file

PROPERTY: Final = "layout"  # a custom property of the artifact
LAYOUT: Final = "image-shards-1"  # its value; another number, if a promise changes
SHARDS_FILE: Final = "shards.json"
_DECODED: Final = "decoded"


class Shard(NamedTuple):
    """A part of the examples.

    Attributes:
      key: digest of all that they depend on; see `reuse.shard_key`.
      span: number of the span that they are of.
    """

    key: str
    span: int


@dataclass(frozen=True)
class Layout:
    """What there is of an artifact of ImageExampleGen.

    Attributes:
      shards: in their order.
      decoded: folder with the splits' decoded examples; None if there is none.
    """

    shards: list[Shard]
    decoded: str | None


def declare_layout(examples: Artifact, shards: Sequence[Shard]) -> None:
    """Writes `SHARDS_FILE`, and says on the artifact that it keeps the promises above.

    Args:
      examples: all else of it is written.
      shards: in their order.
    """
    content = json.dumps([shard._asdict() for shard in shards], indent=2)
    replace_file(os.path.join(examples.uri, SHARDS_FILE), lambda file: file.write(content.encode()))
    examples.set_string_custom_property(PROPERTY, LAYOUT)


def find_layout(examples: Artifact) -> Layout | None:
    """What the artifact promises; None if it is of another ExampleGen."""
    if examples.get_string_custom_property(PROPERTY) != LAYOUT:  # Kubeflow hands it over in a form of its own
        return None
    decoded = decoded_folder(examples.uri)
    return Layout(read_shards(examples.uri), decoded if fileio.exists(decoded) else None)


def has_layout(examples: metadata_store_pb2.Artifact) -> bool:
    """The same of an artifact that was read from the ML Metadata of this machine: whether it is of ImageExampleGen."""
    return PROPERTY in examples.custom_properties and examples.custom_properties[PROPERTY].string_value == LAYOUT


def read_shards(examples: str) -> list[Shard]:
    """What the shards of finished examples are made of, in their order.

    Args:
      examples: folder of an artifact that has the layout.
    """
    with fileio.open(os.path.join(examples, SHARDS_FILE)) as file:
        return [Shard(**shard) for shard in json.load(file)]


def decoded_folder(examples: str) -> str:
    """Where the decoded examples are, in the folder of the others."""
    return os.path.join(examples, _DECODED)


def shard_path(folder: str, split: str, shard: int, shards: int) -> str:
    """The file of a shard's examples of one split."""
    return os.path.join(folder, f"Split-{split}", f"data_tfrecord-{shard:05d}-of-{shards:05d}")
