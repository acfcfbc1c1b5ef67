"""How a file is read: a record without defaults. It needs nothing of `models`: a pushed model is asked without these."""

from dataclasses import dataclass
from typing import Literal

Pages = Literal["first", "all"]


@dataclass(frozen=True, kw_only=True)
class FileSettings:
    """How a file becomes images that TensorFlow reads.

    Attributes:
      max_pixels: larger files are rejected by their header alone, all pages together.
      pages: of a file that has several.
      intensity: type, window or percentiles: what becomes black and white in pixels of more than 8 bits, see
        `pixels.as_png_pixels`.
      window: pixel values that do, for intensity window.
    """

    max_pixels: int
    pages: Pages
    intensity: str
    window: tuple[float, float] | None
