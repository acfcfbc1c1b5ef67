"""Maps pixels of any type to those that a PNG file can hold, by the configured intensity range."""

import re
import struct
from typing import Any, TypeAlias

import numpy as np

from images.file_settings import FileSettings
from images.reason import Reason, kind_of

_LONGEST_REASON = 200
_ADDRESS = re.compile(r"<[^<>]* object at 0x[0-9a-f]+>|\b0x[0-9a-f]{6,}")


class RejectedImage(Exception):
    """A file can't be used. The text is the reason, one short line for the table of rejected files.

    Attributes:
      kind: kind of the reason; see `reason.kind_of`.
    """

    def __init__(self, reason: str) -> None:
        self.kind = kind_of(reason)
        self._reason = reason
        line = " ".join(_ADDRESS.sub("...", reason).split())
        line = "".join(character if character.isprintable() else "?" for character in line)
        super().__init__(line if len(line) <= _LONGEST_REASON else line[: _LONGEST_REASON - 3] + "...")

    def __reduce__(self) -> tuple[Any, ...]:
        return RejectedImage, (self._reason,)


# Pixels of a page, perhaps with a note on their levels, or the reason why there are none.
Page: TypeAlias = np.ndarray | tuple[np.ndarray, str] | RejectedImage


def damaged(error: Exception) -> RejectedImage:
    """The reason for what a decoder raises on a damaged file."""
    if isinstance(error, ArithmeticError | AssertionError | AttributeError | LookupError | TypeError | struct.error):
        return RejectedImage(Reason("damaged", "the header contradicts itself or the rest"))
    return RejectedImage(Reason("damaged", str(error) or type(error).__name__))


def check_size(width: int, height: int, max_pixels: int, images: int = 1) -> None:
    """Refuses a file that would take too much memory to decode, by the sizes in its header.

    Raises:
      RejectedImage: the file has no pixels, or all its images together have more than `max_pixels`.
    """
    if width < 1 or height < 1 or images < 1:
        raise RejectedImage(Reason("damaged", f"{width}x{height} pixels"))
    if width * height * images > max_pixels:
        size = f"{width}x{height}" + (f" on {images} pages" if images > 1 else "")
        raise RejectedImage(f"{size} is more than {max_pixels} pixels")


def apply_window(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Maps low..high to 0..255: round(255 (value - low) / (high - low)), clipped. NaN becomes 0, black.

    Args:
      values: real or integer, any shape.
      low: value that becomes 0.
      high: value that becomes 255, above `low`.

    Returns:
      uint8, the shape of `values`.
    """
    exact = values.dtype.itemsize <= 2 or values.dtype == np.float32  # float32 represents every value exactly
    levels = np.subtract(values, low, dtype=np.float32 if exact else np.float64) * (255 / (high - low))
    return np.rint(np.nan_to_num(np.clip(levels, 0, 255), nan=0.0)).astype(np.uint8)


def as_png_pixels(values: np.ndarray, bits: int, settings: FileSettings, inverted: bool = False) -> np.ndarray:
    """Maps pixels to 8 bits, or grey pixels to 16 bits, by `settings.intensity`.

    Unsigned pixels of up to 8 bits are scaled to 0..255, whatever the intensity. For all others:
    - type: the range of the type is scaled. It is 0..2^bits-1 for unsigned pixels, -2^(bits-1)..2^(bits-1)-1 for signed
      pixels of up to 16 bits, and 0..1 for floats. Grey becomes 16 bits, 0..65535; colour becomes 8 bits.
    - window: unsigned grey of up to 16 bits keeps its values, because the graph of `models.preprocessing` maps the window to
      0..255. Everything else is mapped here, to 8 bits, and the graph does not change it. Alpha is scaled by its type.
    - percentiles: as type, but floats are refused.

    Args:
      values: bool, integer or float, [height, width] grey or [height, width, 2 to 4] grey with alpha, RGB or RGBA.
      bits: stored bits per channel.
      settings: how the file is read.
      inverted: whether low values are bright. Such pixels are inverted after the mapping.

    Returns:
      uint8 of the shape of `values`, or uint16 [height, width]. Alpha is dropped unless the pixels are unsigned.

    Raises:
      RejectedImage: the values of black and white are not known.
    """
    window = settings.window if settings.intensity == "window" else None
    unsigned = values.dtype.kind in "bu" and bits <= 16
    grey = values.ndim == 2
    if not unsigned and values.ndim == 3 and values.shape[-1] in (2, 4):
        values = values[..., :-1] if values.shape[-1] == 4 else values[..., 0]
    if unsigned and bits <= 8:
        levels = _scale(values, bits, 8)
    elif window and unsigned and grey and not inverted:
        levels = values.astype(np.uint16)
    elif window:
        levels = apply_window(values, *window)
        if unsigned and not grey and values.shape[-1] in (2, 4):
            levels[..., -1] = _scale(values[..., -1], bits, 8)
    else:
        if values.dtype.kind == "i" and bits <= 16:
            values = (values.astype(np.int32) + 2 ** (bits - 1)).astype(np.uint16)
        elif values.dtype.kind == "f" and settings.intensity == "type":
            values, bits = _unit_to_uint16(values), 16
        elif not unsigned:
            raise _unknown_range(f"type {values.dtype}")
        levels = _scale(values, bits, 16 if values.ndim == 2 and bits > 8 else 8)
    return np.iinfo(levels.dtype).max - levels if inverted else levels


def _unit_to_uint16(values: np.ndarray) -> np.ndarray:
    """Maps floats 0..1 to uint16 0..65535; raises RejectedImage if any is outside 0..1."""
    if not (values.min() >= 0 and values.max() <= 1):  # comparisons with NaN are false
        raise _unknown_range(f"type {values.dtype} outside 0..1")
    return np.rint(values * np.float32(65535)).astype(np.uint16)


def _scale(values: np.ndarray, bits: int, wanted: int) -> np.ndarray:
    """Scales 0..2^bits-1 to the range of 8 or 16 bits, rounded."""
    dtype = np.uint8 if wanted == 8 else np.uint16
    if bits == wanted:
        return values.astype(dtype, copy=False)
    return np.rint(values.astype(np.float32) * ((2**wanted - 1) / (2**bits - 1))).astype(dtype)


def _unknown_range(what: str) -> RejectedImage:
    return RejectedImage(f"pixels of {what}, whose range is not known; set image.intensity to window and image.window")
