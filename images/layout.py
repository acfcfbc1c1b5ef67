"""The layout of the examples that ImageExampleGen writes, beyond what TFX requires of an ExampleGen.

TFX's own layout is one folder `Split-NAME` per split, with TFRecord files of tf.Example. Every component of this project
reads that. If the property `layout` of an Examples artifact is `LAYOUT`, the artifact also has:

- `shards.json`: a list with one entry per shard, the fields of `Shard`, in the order of the shards.
- `Split-NAME/data_tfrecord-00003-of-00008`: the part of shard 3 that is in the split. A shard without images in a split has
  no file there. The files are not compressed.
- `decoded/Split-NAME/`: decoded examples (see `models.features`) in files with the same names, for the splits that a Trainer
  reads. The folder is missing if the pixels depend on all images (`image.intensity: percentiles`), for data that is not for
  training, and if the examples of these splits have pixels in place of the image files (`data.originals: reference`).
- `ingestion.json`, `images.parquet`, `rejected.csv` and `duplicates.csv`: what was found; see `executor` and `index`.

ImageExampleGen calls `declare_layout` after it has written everything. Code that needs the layout calls `find_layout` first,
which returns None for the examples of any other ExampleGen; these have TFX's layout only.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from ml_metadata.proto import metadata_store_pb2
from tfx.dsl.io import fileio
from tfx.types import Artifact

from images.settings import Originals
from storage.files import replace_file

PROPERTY: Final = "layout"  # a custom property of the artifact
LAYOUT: Final = (
    "image-shards-1"  # value of the property; needs another number when this code can't read what earlier code has written
)
SHARDS_FILE: Final = "shards.json"
_DECODED: Final = "decoded"
_ORIGINALS: Final = "originals"  # another custom property: see `IngestionSettings`


class Shard(NamedTuple):
    """A part of the examples.

    Attributes:
      key: digest of everything that the examples depend on; see `reuse.shard_key`.
      span: number of the span that the examples come from.
    """

    key: str
    span: int


@dataclass(frozen=True)
class Layout:
    """The contents of an artifact of ImageExampleGen.

    Attributes:
      shards: all shards, in order.
      decoded: folder with the decoded examples, or others with pixels; None if there is none.
    """

    shards: list[Shard]
    decoded: str | None


def declare_layout(examples: Artifact, shards: Sequence[Shard], originals: Originals) -> None:
    """Writes `SHARDS_FILE` and sets the properties of the artifact.

    Args:
      examples: the artifact, with all other files already written.
      shards: all shards, in order.
      originals: "reference" if there is no folder of decoded examples, because the others have pixels.
    """
    content = json.dumps([shard._asdict() for shard in shards], indent=2)
    replace_file(os.path.join(examples.uri, SHARDS_FILE), lambda file: file.write(content.encode()))
    examples.set_string_custom_property(PROPERTY, LAYOUT)
    examples.set_string_custom_property(_ORIGINALS, originals)


def find_layout(examples: Artifact) -> Layout | None:
    """The layout of the artifact; None if another ExampleGen has written it."""
    if examples.get_string_custom_property(PROPERTY) != LAYOUT:  # this method also reads the form that Kubeflow passes
        return None
    shards = read_shards(examples.uri)
    if examples.get_string_custom_property(_ORIGINALS) == "reference":
        return Layout(shards, examples.uri)
    decoded = decoded_folder(examples.uri)
    return Layout(shards, decoded if fileio.exists(decoded) else None)


def has_layout(examples: metadata_store_pb2.Artifact) -> bool:
    """Whether ImageExampleGen has written an artifact that was read from the local ML Metadata store."""
    return PROPERTY in examples.custom_properties and examples.custom_properties[PROPERTY].string_value == LAYOUT


def read_shards(examples: str) -> list[Shard]:
    """Reads the shards of finished examples, in order.

    Args:
      examples: folder of an artifact that has the layout.
    """
    with fileio.open(os.path.join(examples, SHARDS_FILE)) as file:
        return [Shard(**shard) for shard in json.load(file)]


def decoded_folder(examples: str) -> str:
    """Folder of the decoded examples, inside the folder of the artifact."""
    return os.path.join(examples, _DECODED)


def shard_path(folder: str, split: str, shard: int, shards: int) -> str:
    """Path of the file with a shard's examples in one split."""
    return os.path.join(folder, f"Split-{split}", f"data_tfrecord-{shard:05d}-of-{shards:05d}")
