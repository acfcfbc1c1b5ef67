"""Reads the images of a file of raw examples, to be answered by a model."""

import math
from collections.abc import Iterator
from typing import Final

import numpy as np
from tfx_bsl.coders import example_coder

from components.bulk_inferrer.model import Image
from models import features
from models.preprocessing import store_image
from models.records import read_records

_PIXEL_BYTES: Final = 2**26


def read_images(file: str, batch_size: int, shape: tuple[int, ...] | None = None) -> Iterator[Image]:
    """Yields the images of a TFRecord file; `batch_size` of them are in memory at a time, or as many as have 64 MB of pixels.

    Examples of an ExampleGen other than ours may lack groups and labels. Then each image is a group of its own.

    Args:
      file: path of the TFRecord file.
      batch_size: of the reading.
      shape: (height, width, channels) of the pixels that may stand in for an image file, which is then made of them; not
        needed for examples that all have files.
    """
    decoder = example_coder.ExamplesToRecordBatchDecoder()
    together = max(1, min(batch_size, _PIXEL_BYTES // math.prod(shape))) if shape else batch_size
    for batch in read_records(file).batch(together).prefetch(1):
        examples = decoder.DecodeBatch(batch.numpy())
        none = [None] * examples.num_rows
        names = (features.FILENAME, features.GROUP, features.LABEL, features.ENCODED, features.PIXELS)
        # Of each feature, a list of values per example, or None.
        columns = (examples.column(name).to_pylist() if name in examples.schema.names else none for name in names)
        for (path, *_), group, labels, (encoded, *_), pixels in zip(*columns, strict=True):
            image = encoded or store_image(np.frombuffer(pixels[0], np.uint8).reshape(shape), "png")[0]
            yield Image(
                path.decode(), group[0].decode() if group else path.decode(), tuple(map(bytes.decode, labels or ())), image
            )
