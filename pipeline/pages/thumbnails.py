"""Small pictures of a few images for a page."""

import base64
import io
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from images.dataset import listing
from images.dataset.row import Row, split_page
from images.file_settings import FileSettings
from images.files.decoding import RejectedImage, normalise
from images.files.reading import read_files
from models import features

SIDE: Final = 96  # pixels of the longer side; smaller images are enlarged by a whole factor
_BEHIND_ALPHA: Final = (160, 160, 160, 255)
_MOST_BYTES: Final = 512 << 20  # of records to read; bounds time, not memory


def thumbnail(encoded: bytes) -> str:
    """A small JPEG as a data URI; see `shrink`."""
    image = shrink(encoded, SIDE)
    if (factor := SIDE // max(image.size)) > 1:
        image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    return data_uri(image)


def shrink(encoded: bytes, side: int) -> Image.Image:
    """A picture in RGB whose sides are at most `side` pixels.

    16-bit grey is stretched between its own extremes, because a scan often uses a small part of its range.

    Args:
      encoded: an image file that Pillow reads.
    """
    file = Image.open(io.BytesIO(encoded))
    file.draft("RGB", (side, side))  # decodes a JPEG at down to an eighth of its size if that is enough
    image: Image.Image = file
    if image.mode.startswith("I"):
        pixels = np.asarray(image).astype(np.float32)
        low, high = float(pixels.min()), float(pixels.max())
        image = Image.fromarray(((pixels - low) * (255 / max(high - low, 1))).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, _BEHIND_ALPHA), image)
    image = image.convert("RGB")
    image.thumbnail((side, side))
    return image


def data_uri(image: Image.Image, form: str = "JPEG", quality: int = 80) -> str:
    """The image as a data URI of a JPEG, or of another format of Pillow's."""
    buffer = io.BytesIO()
    image.save(buffer, form, quality=quality)
    return f"data:image/{form.lower()};base64," + base64.b64encode(buffer.getvalue()).decode()


def sample_classes(
    split: Path,
    classes: Iterable[str],
    images: int,
    originals: Callable[[list[str]], Iterable[tuple[str, bytes]]] | None = None,
) -> tuple[dict[str, list[tuple[str, str]]], bool]:
    """Thumbnails of the first images of each class in a split's records, which are in random order.

    Stops when all classes have enough images, or after a limited number of bytes.

    Args:
      split: folder of TFRecord files.
      classes: names of the classes; an image of several counts for each, an image without any for "".
      images: number of images to find for each class.
      originals: reads image files by their names, as `read_originals`, where the records do not have them.

    Returns:
      A list of (name of the image, thumbnail) for each class, and whether the reading stopped at the limit of bytes.
    """
    sheets: dict[str, list[tuple[str, str]]] = {label: [] for label in classes}
    wanted = len(sheets) * images
    seen = 0
    for name, labels, encoded, size in _records(split):
        short = [sheets[label] for label in labels or [""] if label in sheets and len(sheets[label]) < images]
        if short:
            picture = name, "" if originals else thumbnail(encoded)
            for sheet in short:
                sheet.append(picture)
            wanted -= len(short)
        seen += size
        if not wanted or seen > _MOST_BYTES:
            break
    stopped = bool(wanted) and seen > _MOST_BYTES
    if originals:
        names = sorted({name for sheet in sheets.values() for name, _ in sheet})
        pictures = {name: thumbnail(encoded) for name, encoded in originals(names)}
        sheets = {label: [(name, pictures.get(name, "")) for name, _ in sheet] for label, sheet in sheets.items()}
    return sheets, stopped


def original(folder: str, name: str, settings: FileSettings) -> str:
    """The thumbnail of an image in the data folder; "" if it can't be read (any more).

    Args:
      folder, name, settings: as for `read_originals`.
    """
    return next((thumbnail(encoded) for _, encoded in read_originals(folder, [name], settings)), "")


def read_originals(folder: str, names: Iterable[str], settings: FileSettings) -> Iterator[tuple[str, bytes]]:
    """Reads images in the data folder again, as ingestion did; leaves out those that can't be read (any more).

    Args:
      folder: the data folder.
      names: names from the index: paths, with a page ("scan.tif#2") or a number in a TFRecord file ("train.tfrecord:17").
      settings: as for `decoding.normalise`.

    Yields:
      Names, and images in a format that a SavedModel decodes; not in the order of `names`.
    """
    wanted = []
    for name in names:
        is_file = os.path.isfile(listing.join(folder, name))  # also one whose own name ends as that of a page
        wanted.append((name, name, 0) if is_file else (name, *split_page(name)))
    records = []
    for (name, stem, number), content in zip(wanted, read_files(folder, (_row(stem) for _, stem, _ in wanted)), strict=True):
        if isinstance(content, bytes):
            if encoded := _decode(content, stem, number, settings):
                yield name, encoded
        elif re.search(r":\d+$", stem):
            path, _, record = stem.rpartition(":")
            records.append((path, int(record), name, number))
    records.sort()  # so that each file is read once
    rows = (_row(path, record) for path, record, _, _ in records)
    for (path, _, name, number), content in zip(records, read_files(folder, rows), strict=True):
        if isinstance(content, bytes) and (encoded := _decode(content, path, number, settings)):
            yield name, encoded


def _row(path: str, record: int | None = None) -> Row:
    return Row(path, (), "", "", record=record)


def _decode(content: bytes, name: str, page: int, settings: FileSettings) -> bytes | None:
    try:
        images = normalise(content, name, replace(settings, pages="all"))
        return next((image.encoded for image in images if image.page == page), None)
    except (RejectedImage, OSError):
        return None


def _records(split: Path) -> Iterator[tuple[str, list[str], bytes, int]]:
    """Name, labels and image file of each example, and the bytes of file and pixels."""
    import tensorflow as tf

    from models.records import read_records

    files = sorted(str(file) for file in split.glob("data_tfrecord-*"))
    for record in read_records(files).as_numpy_iterator():
        feature = tf.train.Example.FromString(record).features.feature
        labels = [label.decode() for label in feature[features.LABEL].bytes_list.value]
        keys = (features.FILENAME, features.ENCODED, features.PIXELS)
        name, encoded, pixels = (b"".join(feature[key].bytes_list.value) for key in keys)
        yield name.decode(), labels, encoded, len(encoded) + len(pixels)
