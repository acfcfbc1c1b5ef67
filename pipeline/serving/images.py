"""What the images of a request cost, by their headers: known before anything decodes them."""

from collections.abc import Mapping, Sequence
from typing import Final

from images.files.pixels import RejectedImage
from images.files.structure.reading import read_structure
from pipeline.serving.examples import encoded_images
from pipeline.serving.options import Limits
from pipeline.serving.refusal import Refusal

IMAGES: Final = "image_bytes"  # the input of image files, named by models.export
_EXAMPLES: Final = "examples"  # the input of serialised tf.Example
_FORMATS: Final = ("png", "jpeg", "gif", "bmp")  # the formats that the model decodes
_USUAL_SCANS: Final = 10  # of a progressive JPEG


def pixels_of_rows(columns: Mapping[str, Sequence[bytes]], limits: Limits) -> list[int]:
    """Number of pixels of the images in each row of a request, as `pixels_of`; 0 in a row without images.

    Raises:
      Refusal: 400, a row can't be answered, or all of them together have too many pixels.
    """
    rows = len(next(iter(columns.values())))
    pixels = [_pixels_of_row(columns, row, limits.pixels) for row in range(rows)]
    if sum(pixels) > limits.request_pixels:
        million = limits.request_pixels / 1e6
        counted = f"{million:g} million pixels together, counted again for every {_USUAL_SCANS} scans of a JPEG"
        raise Refusal(400, f"the images have more than {counted}; send them in several requests")
    return pixels


def _pixels_of_row(columns: Mapping[str, Sequence[bytes]], row: int, limit: int) -> int:
    try:
        if _EXAMPLES in columns:
            files = encoded_images(columns[_EXAMPLES][row])
        else:
            files = [columns[IMAGES][row]] if IMAGES in columns else []
        return sum(pixels_of(file, limit) for file in files)
    except ValueError as error:
        raise Refusal(400, f"instances[{row}]: not a serialised tf.Example: {error}") from error
    except Refusal as refusal:
        raise Refusal(refusal.status, f"instances[{row}]: {refusal.reason}") from refusal


def pixels_of(file: bytes, limit: int) -> int:
    """Width times height of an image file; more for a JPEG of more scans than usual, as each takes time.

    Raises:
      Refusal: 400, the file is not an image that the model decodes, has more than `limit` pixels, asks for more than
        `images.files.structure.budget` allows, or is an animation: TensorFlow would decode all of its frames to keep the first.
    """
    try:
        found = read_structure(file)
    except RejectedImage as reason:
        raise Refusal(400, str(reason)) from reason
    if found.format not in _FORMATS or not found.pixels:
        raise Refusal(400, "not an image file, or a broken one; send PNG, JPEG, GIF or BMP")
    if found.is_animated:
        raise Refusal(400, "an animation; send one frame")
    if found.pixels > limit:
        size = f"{found.width} x {found.height} pixels"
        raise Refusal(400, f"{size} are more than the {limit / 1e6:g} million allowed; send it smaller")
    return found.pixels * max(1, found.scans // _USUAL_SCANS)
