"""How a file is read: a record without defaults. It needs nothing of `models`: a pushed model is asked without these."""

from dataclasses import dataclass
from typing import Literal

Pages = Literal["first", "all"]


@dataclass(frozen=True, kw_only=True)
class FileSettings:
    """How a file becomes images that TensorFlow reads.

    Attributes:
      max_pixels: largest number of pixels in a file, all pages together; larger files are rejected without decoding.
      pages: which pages of a multi-page file are used.
      intensity: type, window or percentiles: how the values that become black and white are chosen in pixels of more than
        8 bits; see `pixels.as_png_pixels`.
      window: for intensity window, the pixel values that become black and white.
    """

    max_pixels: int
    pages: Pages
    intensity: str
    window: tuple[float, float] | None
