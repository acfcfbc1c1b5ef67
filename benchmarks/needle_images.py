"""Images of one small object among clutter of the object's own texture: where an image classifier needs fine levels.

After Pawlowski et al. 2019 (arXiv:1908.06037: accuracy against the share of the image that the object takes) and UltraMNIST
(arXiv:2206.12681). Each image has one whole picture of the source, whose class is the label, and halves of others, of the same
sizes; halves are of all classes alike, so that what is not there says nothing. The same seed gives the same images.
"""

import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from pipeline.samples.fashion_mnist import PACKAGE_FOLDER

Source = Literal["digits", "fashion"]
_BACKGROUND, _NOISE = 40, 10  # grey values: the canvas, and the standard deviation of the noise on all of it
_TRIES = 100


@dataclass(frozen=True)
class Pictures:
    """Pictures of ten classes: uint8 [N, h, w], black around them, and their labels [N]."""

    images: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Needles:
    """N images with one object each.

    Attributes:
      images: uint8 [N, side, side, 1].
      labels: int64 [N], 0..9.
      sizes: int64 [N], side of the object in pixels.
      boxes: int64 [N, 4], the object's first row and column, and those behind its last ones.
    """

    images: np.ndarray
    labels: np.ndarray
    sizes: np.ndarray
    boxes: np.ndarray


def read_pictures(source: Source, test: bool) -> Pictures:
    """The pictures for training or for test: no picture is in both, neither as an object nor as clutter."""
    if source == "digits":
        digits = load_digits()
        chosen = (np.arange(len(digits.target)) % 4 == 0) == test
        return Pictures((digits.images[chosen] * (255 / 16)).astype(np.uint8), digits.target[chosen])
    name = "t10k" if test else "train"
    with gzip.open(PACKAGE_FOLDER / f"{name}-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28)
    with gzip.open(PACKAGE_FOLDER / f"{name}-labels-idx1-ubyte.gz") as file:
        return Pictures(images, np.frombuffer(file.read(), np.uint8, offset=8).astype(np.int64))


def make_needles(pictures: Pictures, number: int, side: int, sizes: Sequence[int], seed: int, halves: int = 12) -> Needles:
    """Makes images of `side` pixels; sizes and classes come up equally often, halves keep off the object."""
    random = np.random.default_rng(seed)
    of_class = [np.flatnonzero(pictures.labels == label) for label in range(10)]
    labels = random.permutation(np.arange(number) % 10)
    chosen = random.permutation(np.arange(number) % len(sizes))
    images = np.empty((number, side, side, 1), np.uint8)
    boxes = np.empty((number, 4), np.int64)

    def picture(label: int, size: int) -> np.ndarray:
        image = Image.fromarray(pictures.images[random.choice(of_class[label])])
        return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC), np.float32)

    for index, label in enumerate(labels):
        canvas = np.full((side, side), float(_BACKGROUND), np.float32)
        size = sizes[chosen[index]]
        top, left = random.integers(0, side - size + 1, 2)
        boxes[index] = top, left, top + size, left + size
        taken = np.zeros((side, side), bool)
        _put(canvas, picture(label, size), top, left)
        taken[top : top + size, left : left + size] = True
        for _ in range(halves):
            whole = picture(random.integers(10), random.choice(sizes))
            half = np.array_split(whole, 2, axis=1)[random.integers(2)]  # the left one or the right one
            height, width = half.shape
            for _ in range(_TRIES):  # a small canvas may have no free place left
                top, left = random.integers(0, side - height + 1), random.integers(0, side - width + 1)
                if not taken[top : top + height, left : left + width].any():
                    _put(canvas, half, top, left)
                    taken[top : top + height, left : left + width] = True
                    break
        canvas += random.normal(0, _NOISE, canvas.shape)
        images[index, :, :, 0] = np.clip(canvas, 0, 255)
    return Needles(images, labels, np.asarray(sizes)[chosen], boxes)


def _put(canvas: np.ndarray, picture: np.ndarray, top: int, left: int) -> None:
    place = canvas[top : top + picture.shape[0], left : left + picture.shape[1]]
    np.maximum(place, picture, out=place)
