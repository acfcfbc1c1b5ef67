"""What the images of a request cost, by their headers: known before anything decodes them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from images.file_settings import FileSettings
from images.files.decoding import RejectedImage, normalise
from images.files.structure.found import Structure
from images.files.structure.reading import read_structure
from pipeline.serving.examples import encoded_images
from pipeline.serving.options import Limits
from pipeline.serving.refusal import Refusal

IMAGES: Final = "image_bytes"  # the input of image files, named by models.export
EXAMPLES: Final = "examples"  # the input of serialised tf.Example
_MODELS_OWN: Final = ("png", "jpeg")  # the formats that the model decodes; ingestion's decoder makes PNG of all others
_SIZED: Final = (*_MODELS_OWN, "gif", "bmp")  # formats whose size is known at once
_UNKNOWN_PIXELS: Final = 1_000_000  # what another image counts as
_USUAL_SCANS: Final = 10  # of a progressive JPEG
_QUICK_PIXELS: Final = 4_000_000  # of a request, at most, that is answered among the others


@dataclass(frozen=True)
class Cost:
    """What the rows of a request cost.

    Attributes:
      pixels: by the number of the row; only rows that can be answered, as far as their headers say.
      refused: why the others can't be, by the number of the row.
      is_quick: whether they can be answered among others, which do not wait long for them.
    """

    pixels: dict[int, int]
    refused: dict[int, str]
    is_quick: bool


def cost_of(columns: Mapping[str, Sequence[bytes]], limits: Limits) -> Cost:
    """What the images in the rows of a request cost; see `pixels_of`.

    Raises:
      Refusal: 400, all of them together have too many pixels.
    """
    found: dict[int, int] = {}
    refused: dict[int, str] = {}
    is_quick = True
    for row in range(len(next(iter(columns.values())))):
        try:
            costs = [pixels_of(file, limits.pixels, EXAMPLES in columns) for file in _files(columns, row)]
            found[row] = sum(pixels for pixels, _ in costs)
            is_quick &= all(quick for _, quick in costs)
        except Refusal as refusal:
            refused[row] = refusal.reason
    if sum(found.values()) > limits.request_pixels:
        million = limits.request_pixels / 1e6
        counted = f"{million:g} million pixels together, counted again for every {_USUAL_SCANS} scans of a JPEG"
        raise Refusal(400, f"the images have more than {counted}; send them in several requests")
    return Cost(found, refused, is_quick and sum(found.values()) <= _QUICK_PIXELS)


def _files(columns: Mapping[str, Sequence[bytes]], row: int) -> list[bytes]:
    if EXAMPLES not in columns:
        return [columns[IMAGES][row]] if IMAGES in columns else []
    try:
        files = encoded_images(columns[EXAMPLES][row])
    except ValueError as error:
        raise Refusal(400, f"not a serialised tf.Example: {error}") from error
    if not files:
        raise Refusal(400, "a tf.Example without an image")
    return files


def pixels_of(file: bytes, limit: int, in_example: bool = False) -> tuple[int, bool]:
    """What an image file costs.

    Args:
      file: of any format that ingestion takes.
      limit: pixels that it may have. Those of some formats are counted later, before they are decoded.
      in_example: whether it is in a tf.Example; then the model must decode it.

    Returns:
      Width times height, more for a JPEG of more scans than usual, as each takes time; and whether it is decoded quickly.

    Raises:
      Refusal: 400, the file is not an image, has too many pixels, or asks for more than `images.files.structure.budget` allows.
    """
    try:
        found = read_structure(file)
        if not found.format:
            normalise(file, "", FileSettings(max_pixels=limit, pages="first", intensity="type", window=None))  # tells why
    except RejectedImage as reason:
        raise Refusal(400, str(reason)) from reason
    if in_example and found.format not in _MODELS_OWN:
        raise Refusal(400, f"{found.format.upper() or 'no image'} in a tf.Example; make PNG of it, or send the file itself")
    if found.format not in _SIZED:
        return min(_UNKNOWN_PIXELS, limit), False
    _check_size(found, limit)
    return found.pixels * max(1, found.scans // _USUAL_SCANS), found.format in _MODELS_OWN


def _check_size(found: Structure, limit: int) -> None:
    if not found.pixels:
        raise Refusal(400, f"damaged: a {found.format.upper()} file without a size")
    if found.pixels > limit:
        size = f"{found.width} x {found.height} pixels"
        raise Refusal(400, f"{size} are more than the {limit / 1e6:g} million allowed; send it smaller")
