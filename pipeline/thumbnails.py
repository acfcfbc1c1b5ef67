"""Small pictures of a few images, to stand in a page."""

import base64
import io
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from components.image_example_gen.decoding import RejectedImage, normalise
from components.image_example_gen.reading import read_files
from components.image_example_gen.row import Row
from models import features

SIDE: Final = 96  # pixels of the longer side; smaller images are enlarged by a whole factor
_BEHIND_ALPHA: Final = (160, 160, 160, 255)
_MOST_BYTES: Final = 512 << 20  # of records to read, which bounds time and not memory


def thumbnail(encoded: bytes) -> str:
    """A data URI of a small JPEG.

    16-bit grey is stretched between its own extremes, for a scan often fills a small part of its range.

    Args:
      encoded: an image file that Pillow reads.
    """
    file = Image.open(io.BytesIO(encoded))
    file.draft("RGB", (SIDE, SIDE))  # a JPEG is decoded at an eighth of its size where that is enough
    image: Image.Image = file
    if image.mode.startswith("I"):
        pixels = np.asarray(image).astype(np.float32)
        low, high = float(pixels.min()), float(pixels.max())
        image = Image.fromarray(((pixels - low) * (255 / max(high - low, 1))).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, _BEHIND_ALPHA), image)
    image = image.convert("RGB")
    image.thumbnail((SIDE, SIDE))
    if (factor := SIDE // max(image.size)) > 1:
        image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def sample_classes(split: Path, classes: Iterable[str], images: int) -> tuple[dict[str, list[tuple[str, str]]], bool]:
    """The first images of each class in a split's records, which are in random order.

    Reads until all classes are full, or a bounded number of bytes.

    Args:
      split: folder of TFRecord files.
      classes: names; an image with several counts for each, one without any for "".
      images: wanted of each class.

    Returns:
      Of each class (name of the image, thumbnail), and whether it had to stop before the end.
    """
    sheets: dict[str, list[tuple[str, str]]] = {label: [] for label in classes}
    wanted = len(sheets) * images
    read = 0
    for name, labels, encoded in _records(split):
        short = [sheets[label] for label in labels or [""] if label in sheets and len(sheets[label]) < images]
        if short:
            picture = name, thumbnail(encoded)
            for sheet in short:
                sheet.append(picture)
            wanted -= len(short)
        read += len(encoded)
        if not wanted or read > _MOST_BYTES:
            return sheets, bool(wanted)
    return sheets, False


def original(folder: str, name: str, settings: dict[str, Any]) -> str:
    """The thumbnail of an image in the data folder; "" if it can't be read, or not any more.

    Args:
      folder: the data folder.
      name: as the index has it: a path, with a page ("scan.tif#2") or a number in a TFRecord file ("train.tfrecord:17").
      settings: as for `decoding.normalise`.
    """
    stem, _, page = name.rpartition("#") if re.search(r"#\d+$", name) else (name, "", "0")
    path, _, record = stem.rpartition(":") if re.search(r":\d+$", stem) else (stem, "", "")
    rows = [Row(stem, (), "", ""), *([Row(path, (), "", "", record=int(record))] if record else [])]
    for content in read_files(folder, rows):
        if isinstance(content, bytes):
            try:
                return thumbnail(normalise(content, stem, {**settings, "pages": "all"})[int(page)].encoded)
            except (RejectedImage, IndexError, OSError):
                return ""
    return ""


def _records(split: Path) -> Iterator[tuple[str, list[str], bytes]]:
    import tensorflow as tf

    files = sorted(str(file) for file in split.glob("data_tfrecord-*"))
    for record in tf.data.TFRecordDataset(files).as_numpy_iterator():
        feature = tf.train.Example.FromString(record).features.feature
        labels = [label.decode() for label in feature[features.LABEL].bytes_list.value]
        yield feature[features.FILENAME].bytes_list.value[0].decode(), labels, feature[features.ENCODED].bytes_list.value[0]
