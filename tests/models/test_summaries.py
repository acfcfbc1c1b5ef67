"""Summaries of images against their definitions in NumPy."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from models.decoding import with_pixels
from models.summaries import summarize

LUMA = [0.2989, 0.587, 0.114]
RANDOM = np.random.default_rng(5)


def noise(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    """Noise, a fifth of which is black or white."""
    largest = np.iinfo(dtype).max
    return RANDOM.choice([0, largest, *RANDOM.integers(1, largest, 8)], shape).astype(dtype)


def by_numpy(pixels: np.ndarray) -> list[float]:
    """The definitions, one pixel after the other."""
    colours = pixels[..., None] if pixels.ndim == 2 else pixels[..., : {2: 1, 3: 3, 4: 3}[pixels.shape[-1]]]
    largest = np.iinfo(pixels.dtype).max
    grey = colours.astype(float) @ ([1.0] if colours.shape[-1] == 1 else LUMA) / largest
    step = -(-len(grey) // 32)
    rows = range(0, len(grey), step)
    inside = np.pad(grey, 1, mode="edge")
    laplacian = [
        inside[y, x + 1] + inside[y + 2, x + 1] + inside[y + 1, x] + inside[y + 1, x + 2] - 4 * grey[y, x]
        for y in rows
        for x in range(grey.shape[1])
    ]
    seen, values = grey[::step], colours[::step]
    return [seen.mean(), seen.std(), ((values == 0) | (values == largest)).mean(), np.std(laplacian)]


def by_graph(pixels: np.ndarray) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return tf.function(lambda file: with_pixels(file, summarize))(tf.constant(buffer.getvalue())).numpy()


@pytest.mark.parametrize(
    "pixels",
    [
        pytest.param(noise(20, 13), id="grey"),
        pytest.param(noise(20, 13, 2), id="grey with alpha"),
        pytest.param(noise(20, 13, 3), id="RGB"),
        pytest.param(noise(20, 13, 4), id="RGBA"),
        pytest.param(noise(20, 13, dtype=np.uint16), id="16 bits"),
        pytest.param(noise(32, 7, 3), id="as many rows as are looked at"),
        pytest.param(noise(33, 7, 3), id="one row more"),
        pytest.param(noise(131, 7), id="every fifth row"),
        pytest.param(noise(1, 40), id="one row"),
        pytest.param(noise(40, 1), id="one column"),
    ],
)
def test_summaries_are_those_of_their_definitions(pixels: np.ndarray) -> None:
    np.testing.assert_allclose(by_graph(pixels), by_numpy(pixels), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize(("level", "saturated"), [(0, 1), (100, 0), (255, 1)])
def test_of_a_single_pixel_there_is_no_spread(level: int, saturated: int) -> None:
    found = by_graph(np.full((1, 1), level, np.uint8))
    np.testing.assert_allclose(found, [level / 255, 0, saturated, 0], atol=1e-6)
