"""Reads the headers of images before anything decodes them, so that a small file can't ask for a huge amount of memory."""

import io
from typing import Final

from PIL import Image

from pipeline.serving.refusal import Refusal

_FORMATS: Final = ("PNG", "JPEG", "GIF", "BMP")  # what the model decodes

Image.MAX_IMAGE_PIXELS = None  # the limit is ours


def pixels_of(file: bytes, limit: int) -> int:
    """Width times height of an image file.

    Raises:
      Refusal: 400, the file is no image that the model decodes, has more than `limit` pixels, or is an animation, of which
        TensorFlow would decode all frames to keep the first.
    """
    try:
        with Image.open(io.BytesIO(file), formats=_FORMATS) as image:
            width, height = image.size
            is_animated = image.format == "GIF" and image.is_animated  # type: ignore[attr-defined]
    except Exception as error:  # Pillow raises about everything for broken files
        raise Refusal(400, "not an image file, or a broken one; send PNG, JPEG, GIF or BMP") from error
    if is_animated:
        raise Refusal(400, "an animation; send one frame")
    if width * height > limit:
        raise Refusal(400, f"{width} x {height} pixels are more than the {limit / 1e6:g} million allowed; send it smaller")
    return width * height
