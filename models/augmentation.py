"""Random changes to training images; evaluation and serving never see them.

Written with TensorFlow's elementwise operations and compiled by XLA, which fuses them into a few loops over the pixels. In the
`map` of a data set this is several times as fast as a chain of Keras layers, with one interpolation and one rounding for all
changes together.
"""

import math
from collections.abc import Callable
from typing import Final

import numpy as np
import scipy.stats
import tensorflow as tf

from models.affine import affine_transform
from models.choices import Flip
from models.rand_augment import colours, rand_augment, with_alpha_of
from models.settings import AugmentSettings

# From images uint8 [N, height, width, channels] and labels float32 [N, classes] to the same shapes and types.
Augmentation = Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]

_ERASED_AREA: Final = (0.02, 0.33)  # share of the image, from the paper, as is the next
_ERASED_ASPECT_RATIO: Final = (0.3, 1 / 0.3)
_QUANTILES: Final = 4096


def build_augmentation(config: AugmentSettings, seed: int) -> Augmentation:
    """Makes a function over batches, to run inside tf.data.

    Each image of a batch has its own random numbers. They depend on `seed` and on all pixels of the batch in their order: a
    shuffled data set is changed differently in every epoch, and the same seed and order give the same stream in every process,
    no matter how many batches are computed in parallel.

    Args:
      config: the changes to make, and how strong they are.
      seed: seed of the random numbers.

    Returns:
      A function from (uint8 [N, height, width, channels], float32 [N, classes]) to the same; label rows keep their sums.
    """
    moves = bool(config.shift or config.zoom or config.rotation)
    mixes = bool(config.mixup or config.cutmix)
    if config.flip == "none" and not (moves or config.contrast or config.rand_augment or config.erasing or mixes):
        return lambda images, labels: (images, labels)
    mixup_shares, cutmix_shares = _beta_quantiles(config.mixup), _beta_quantiles(config.cutmix)

    # One seed for each change, so that switching one on or off leaves the others' numbers as they are.
    # Moves are a function of their own: XLA would fuse them into what follows, and compute a pixel anew for each of its uses.
    @tf.function(jit_compile=True, autograph=False)
    def move(images: tf.Tensor, batch_seed: tf.Tensor) -> tf.Tensor:
        seeds, count = tf.random.split(batch_seed, 8), tf.shape(images)[0]
        signs = tf.stack(_signs(count, config.flip, seeds[0]), axis=1)[:, :, tf.newaxis]
        matrices = _random_matrices(count, images.shape[1:3], config.shift, config.zoom, config.rotation, seeds[1])
        return affine_transform(tf.cast(images, tf.float32), signs * matrices)

    @tf.function(jit_compile=True, autograph=False)
    def change(images: tf.Tensor, labels: tf.Tensor, batch_seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        seeds, x = tf.random.split(batch_seed, 8), tf.cast(images, tf.float32)
        if not moves:
            x = _flip(x, _signs(tf.shape(x)[0], config.flip, seeds[0]))
        if config.rand_augment:
            x = rand_augment(x, config.rand_augment, seeds[2])
        if config.contrast:
            x = _contrast(x, config.contrast, seeds[3])
        if config.erasing:
            x = _erase(x, config.erasing, seeds[4])
        if config.mixup and config.cutmix:
            x, labels = tf.cond(
                tf.random.stateless_uniform([], seeds[7]) < 0.5,
                lambda: _mixup(x, labels, mixup_shares, seeds[5]),
                lambda: _cutmix(x, labels, cutmix_shares, seeds[6]),
            )
        elif config.mixup:
            x, labels = _mixup(x, labels, mixup_shares, seeds[5])
        elif config.cutmix:
            x, labels = _cutmix(x, labels, cutmix_shares, seeds[6])
        return tf.cast(tf.clip_by_value(tf.round(x), 0.0, 255.0), tf.uint8), labels

    @tf.autograph.experimental.do_not_convert
    def augment(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        batch_seed = _batch_seed(images, seed)
        return change(move(images, batch_seed) if moves else images, labels, batch_seed)

    return augment


def _batch_seed(images: tf.Tensor, seed: int) -> tf.Tensor:
    """int32 [2] from all pixels and the seed. A counter would depend on which of several parallel batches comes first."""
    digest = tf.fingerprint(tf.reshape(tf.fingerprint(images), [1, -1]))
    return tf.random.fold_in(tf.bitcast(tf.reshape(digest, [2, 4]), tf.int32), seed % 2**31)


def _uniform(count: tf.Tensor, columns: int, seed: tf.Tensor, low: float = 0.0, high: float = 1.0) -> list[tf.Tensor]:
    """Independent random numbers: a list of `columns` tensors float32 [N]."""
    return tf.unstack(tf.random.stateless_uniform([columns, count], seed, low, high))


def _for_pixels(values: tf.Tensor) -> tf.Tensor:
    """Reshapes [N] to [N, 1, 1, 1]."""
    return values[:, tf.newaxis, tf.newaxis, tf.newaxis]


def _signs(count: tf.Tensor, flip: Flip, seed: tf.Tensor) -> list[tf.Tensor]:
    """For x and for y, -1 where an image is mirrored, else 1: float32 [N] each."""
    drawn = _uniform(count, 2, seed)
    axes = (flip in ("horizontal", "both"), flip in ("vertical", "both"))
    return [tf.where(side < 0.5, -1.0, 1.0) if flips else tf.ones_like(side) for side, flips in zip(drawn, axes, strict=True)]


def _flip(x: tf.Tensor, signs: list[tf.Tensor]) -> tf.Tensor:
    for axis, sign in zip((2, 1), signs, strict=True):
        x = tf.where(_for_pixels(sign < 0), tf.reverse(x, [axis]), x)
    return x


def _random_matrices(
    count: tf.Tensor, size: tuple[int, int], shift: float, zoom: float, rotation: float, seed: tf.Tensor
) -> tf.Tensor:
    """Matrices [N, 2, 3] for `affine_transform`, which rotate and magnify about the centre, then shift."""
    height, width = size
    right, down, turn, power = _uniform(count, 4, seed, -1.0, 1.0)
    right, down = right * shift * width, down * shift * height
    magnification = tf.pow(1.0 + zoom, power)
    cos = tf.cos(2 * math.pi * rotation * turn) / magnification
    sin = tf.sin(2 * math.pi * rotation * turn) / magnification
    x_row = tf.stack([cos, sin, -cos * right - sin * down], axis=1)
    y_row = tf.stack([-sin, cos, sin * right - cos * down], axis=1)
    return tf.stack([x_row, y_row], axis=1)


def _contrast(x: tf.Tensor, contrast: float, seed: tf.Tensor) -> tf.Tensor:
    (factor,) = _uniform(tf.shape(x)[0], 1, seed, 1.0 - contrast, 1.0 + contrast)
    mean = tf.reduce_mean(colours(x), [1, 2], keepdims=True)
    changed = (colours(x) - mean) * _for_pixels(factor) + mean
    return with_alpha_of(x, tf.clip_by_value(changed, 0.0, 255.0))


def _rectangles(size: tuple[int, int], centre: list[tf.Tensor], sides: list[tf.Tensor]) -> tf.Tensor:
    """A mask of the pixels that lie in a rectangle.

    Args:
      size: (height, width).
      centre: (y, x), float32 [N] each, as shares of height and width.
      sides: (height, width), float32 [N] each, as shares likewise; what lies outside the image is cut off.

    Returns:
      bool [N, height, width, 1].
    """
    masks = []
    for length, middle, side in zip(size, centre, sides, strict=True):
        pixels = (tf.range(length, dtype=tf.float32) + 0.5) / length
        masks.append(tf.abs(pixels - middle[:, tf.newaxis]) < side[:, tf.newaxis] / 2)
    return (masks[0][:, :, tf.newaxis] & masks[1][:, tf.newaxis, :])[..., tf.newaxis]


def _erase(x: tf.Tensor, probability: float, seed: tf.Tensor) -> tf.Tensor:
    count, channels = tf.shape(x)[0], colours(x).shape[-1]
    y_place, x_place, area, ratio, draw, *colour = _uniform(count, 5 + channels, seed)
    area = _ERASED_AREA[0] + area * (_ERASED_AREA[1] - _ERASED_AREA[0])
    low, high = (math.log(value) for value in _ERASED_ASPECT_RATIO)
    ratio = tf.exp(low + ratio * (high - low))  # height over width, in pixels
    height, width = x.shape[1:3]
    sides = [
        tf.minimum(tf.sqrt(area * ratio * width / height), 1.0),
        tf.minimum(tf.sqrt(area / ratio * height / width), 1.0),
    ]
    centre = [side / 2 + place * (1 - side) for side, place in zip(sides, (y_place, x_place), strict=True)]
    erased = _rectangles((height, width), centre, sides) & _for_pixels(draw < probability)
    fill = 255 * tf.stack(colour, axis=1)[:, tf.newaxis, tf.newaxis, :]
    return with_alpha_of(x, tf.where(erased, fill, colours(x)))


def _beta_quantiles(alpha: float) -> np.ndarray:
    """Quantiles of Beta(alpha, alpha), float32 [_QUANTILES]: choosing one at random is as good as a draw."""
    if not alpha:
        return np.zeros(0, np.float32)
    return scipy.stats.beta.ppf((np.arange(_QUANTILES) + 0.5) / _QUANTILES, alpha, alpha).astype(np.float32)


def _draw(quantiles: np.ndarray, count: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    return tf.gather(tf.constant(quantiles), tf.random.stateless_uniform([count], seed, 0, len(quantiles), tf.int32))


def _neighbour(rows: tf.Tensor) -> tf.Tensor:
    return tf.roll(rows, 1, axis=0)


def _mixup(x: tf.Tensor, labels: tf.Tensor, shares: np.ndarray, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    drawn = _draw(shares, tf.shape(x)[0], seed)
    # The distribution is symmetric, so the larger part can be the image's own: each image then dominates one mixture per batch.
    own = tf.maximum(drawn, 1 - drawn)
    mixed = _for_pixels(own) * x + _for_pixels(1 - own) * _neighbour(x)
    return mixed, own[:, tf.newaxis] * labels + (1 - own[:, tf.newaxis]) * _neighbour(labels)


def _cutmix(x: tf.Tensor, labels: tf.Tensor, shares: np.ndarray, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    seeds = tf.random.split(seed)
    count = tf.shape(x)[0]
    side = tf.sqrt(1 - _draw(shares, count, seeds[0]))
    pasted = _rectangles(x.shape[1:3], _uniform(count, 2, seeds[1]), [side, side])
    # The share that was really pasted: the rectangle may reach beyond the image.
    other = tf.reduce_mean(tf.cast(pasted, tf.float32), [1, 2])
    return tf.where(pasted, _neighbour(x), x), (1 - other) * labels + other * _neighbour(labels)
