"""Draws heat over an image: what `fpn explain` and the server's page have in common."""

from typing import Final

import numpy as np
from PIL import Image

# Evenly spaced anchors of the perceptually uniform colour map "inferno" (Smith and van der Walt, matplotlib, CC0).
_INFERNO: Final = np.array(
    [
        (0, 0, 4),
        (33, 12, 74),
        (87, 16, 110),
        (138, 34, 106),
        (188, 55, 84),
        (228, 90, 49),
        (249, 142, 9),
        (249, 203, 53),
        (252, 255, 164),
    ],
    np.float32,
)
_OPACITY: Final = 0.8  # at the greatest heat
_PANEL: Final = (256, 512)  # pixels: least and greatest length of a picture's longer side


def panel_size(height: int, width: int) -> tuple[int, int]:
    """Size of a panel for an image: a whole multiple for small images, so that pixels stay squares; smaller for large ones."""
    longest = max(height, width)
    scale = min(-(-_PANEL[0] // longest) if longest < _PANEL[0] else 1, _PANEL[1] / longest)
    return max(1, round(height * scale)), max(1, round(width * scale))


def shown(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Turns uint8 [h, w, 1, 3 or 4] into RGB uint8 [height, width, 3]; RGBA is drawn on white."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    smaller = width < image.width
    return np.asarray(
        image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS if smaller else Image.Resampling.NEAREST)
    )


def overlay(pixels: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Draws heat, 0..1 and of any size, over the grey values of uint8 [height, width, 3].

    Without heat the image shows through. At first the opacity grows faster than the heat, so that weak evidence is visible.
    """
    image = Image.fromarray(pixels)
    smooth = Image.fromarray(heat).resize(image.size, Image.Resampling.BILINEAR)
    values = np.clip(np.asarray(smooth), 0, 1)
    opacity = _OPACITY * values[..., np.newaxis] ** 0.7
    grey = np.asarray(image.convert("L"), np.float32)[..., np.newaxis]
    return np.round(grey + (colours(values) - grey) * opacity).astype(np.uint8)


def colours(values: np.ndarray) -> np.ndarray:
    """Turns float [...], 0..1, into RGB float32 [..., 3], 0..255."""
    position = np.clip(values, 0, 1) * (len(_INFERNO) - 1)
    lower = np.minimum(position.astype(int), len(_INFERNO) - 2)
    fraction = (position - lower)[..., np.newaxis].astype(np.float32)
    return _INFERNO[lower] * (1 - fraction) + _INFERNO[lower + 1] * fraction
