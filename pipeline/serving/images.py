"""Reads the headers of images before anything decodes them, so that a small file can't take a huge amount of memory."""

import io
from typing import Final

from PIL import Image

from pipeline.serving.refusal import Refusal

_FORMATS: Final = ("PNG", "JPEG", "GIF", "BMP")  # the formats that the model decodes

Image.MAX_IMAGE_PIXELS = None  # we have a limit of our own


def pixels_of(file: bytes, limit: int) -> int:
    """Width times height of an image file.

    Raises:
      Refusal: 400, the file is not an image that the model decodes, has more than `limit` pixels, or is an animation:
        TensorFlow would decode all of its frames to keep the first.
    """
    try:
        with Image.open(io.BytesIO(file), formats=_FORMATS) as image:
            width, height = image.size
            is_animated = image.format == "GIF" and image.is_animated  # type: ignore[attr-defined]
    except Exception as error:  # Pillow raises all kinds of exceptions for broken files
        raise Refusal(400, "not an image file, or a broken one; send PNG, JPEG, GIF or BMP") from error
    if is_animated:
        raise Refusal(400, "an animation; send one frame")
    if width * height > limit:
        raise Refusal(400, f"{width} x {height} pixels are more than the {limit / 1e6:g} million allowed; send it smaller")
    return width * height
