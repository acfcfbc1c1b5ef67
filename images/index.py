"""The index, `images.parquet` beside the splits: a table of all images and files found, used or set aside."""

from typing import Final, NamedTuple

import pyarrow as pa

INDEX_FILE: Final = "images.parquet"
# {"found": files, "images": {split: images}, "splits": {split: {label: images}}, "rejected": files,
#  "lost": the fields of `losses.Losses`, or None,
#  "duplicates": the counts of `duplicates.Duplicates`, and with `data.duplicates: group` those of `grouping.Grouping`}
SUMMARY_FILE = "ingestion.json"
REJECTED_FILE = "rejected.csv"  # columns path, label, reason


class IndexRow(NamedTuple):
    """One image or unusable file; values that are not known are None.

    Attributes:
      path: as `source.Row.name`.
      label: name of the class; for multi-label data the names of all classes, as "cat|dog".
      group: rows of one group are in one split.
      split: empty if set aside.
      reason: why it was set aside; empty if used.
      kind: kind of the reason, such as "damaged" for "damaged: wrong checksum"; files are counted by it.
      note: something unusual about a file that is used all the same.
      format: format of the original file: jpeg, png, tiff...; empty if unknown.
      height: pixels.
      width: pixels.
      channels: 1 to 4.
      bytes: size of the original file.
      mean: see `models.summaries`.
      std: see `models.summaries`.
      saturated: see `models.summaries`.
      sharpness: see `models.summaries`.
      content_hash: SHA-256 of the original file, hexadecimal.
      perceptual_hash: see `images.files.perceptual_hash`; 0 if the image has too little content to compare.
    """

    path: str
    label: str
    group: str
    split: str
    reason: str = ""
    kind: str = ""
    note: str = ""
    format: str = ""
    height: int | None = None
    width: int | None = None
    channels: int | None = None
    bytes: int = 0
    mean: float | None = None
    std: float | None = None
    saturated: float | None = None
    sharpness: float | None = None
    content_hash: str | None = None
    perceptual_hash: int | None = None


_TYPES: Final = {
    **dict.fromkeys(("height", "width"), pa.int32()),
    "channels": pa.int8(),
    "bytes": pa.int64(),
    **dict.fromkeys(("mean", "std", "saturated", "sharpness"), pa.float32()),
    "perceptual_hash": pa.uint64(),
}
SCHEMA: Final = pa.schema([(name, _TYPES.get(name, pa.string())) for name in IndexRow._fields])
