"""RandAugment (Cubuk et al. 2019, arXiv:1909.13719): for each image a few of fourteen operations, with the same strength.

Operations and largest magnitudes are those of torchvision. `keras.layers.RandAugment` is not used, because it draws the
operations once for a whole batch, computes all of them, and shifts in one direction only.
"""

import math
from collections.abc import Callable
from typing import Final

import tensorflow as tf

from models.affine import affine_transform

# From an image float32 [height, width, channels], 0..255, and a magnitude, -1..1, to such an image, not yet clipped.
Operation = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]

_LARGEST_SHEAR: Final = 0.3
_LARGEST_SHIFT: Final = 0.45  # of height or width
_LARGEST_ANGLE: Final = math.radians(30)
_LARGEST_BLEND: Final = 0.9  # of brightness, contrast, colour and sharpness
_MOST_BITS: Final = 4  # that posterize takes away


def rand_augment(images: tf.Tensor, strength: float, seed: tf.Tensor, num_operations: int = 2) -> tf.Tensor:
    """Changes each image by its own random operations, one after the other.

    Args:
      images: float32 [N, height, width, channels], 0..255; grey, RGB or RGBA; only geometric operations change the alpha.
      strength: 0..1, the share of each operation's largest magnitude; 0.3 is the usual 9 of 30.
      seed: int32 [2].
      num_operations: number of operations for each image, drawn with repetition.

    Returns:
      float32 [N, height, width, channels], 0..255.
    """
    count = tf.shape(images)[0]
    seeds = tf.random.split(seed)
    choices = tf.random.stateless_uniform([count, num_operations], seeds[0], 0, len(OPERATIONS), tf.int32)
    signs = tf.random.stateless_uniform([count, num_operations], seeds[1], 0, 2, tf.int32) * 2 - 1
    magnitudes = strength * tf.cast(signs, tf.float32)

    def change(drawn: tuple[tf.Tensor, tf.Tensor, tf.Tensor]) -> tf.Tensor:
        image, choices, magnitudes = drawn
        return tf.foldl(_operate, (choices, magnitudes), image)

    return tf.map_fn(change, (images, choices, magnitudes), fn_output_signature=tf.TensorSpec(images.shape[1:], tf.float32))


def _operate(image: tf.Tensor, drawn: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
    choice, magnitude = drawn
    branches = [lambda operation=operation: operation(image, magnitude) for operation in OPERATIONS.values()]
    return tf.clip_by_value(tf.switch_case(choice, branches), 0.0, 255.0)


def colours(image: tf.Tensor) -> tf.Tensor:
    """All channels except the alpha of an RGBA image."""
    return image[..., :3]


def with_alpha_of(image: tf.Tensor, changed: tf.Tensor) -> tf.Tensor:
    """Changed colours together with the alpha of the image, if it has one."""
    return tf.concat([changed, image[..., 3:]], axis=-1)


def _transform(image: tf.Tensor, matrix: list[list[tf.Tensor | float]]) -> tf.Tensor:
    matrices = tf.stack([tf.stack([tf.convert_to_tensor(value, tf.float32) for value in row]) for row in matrix])
    return affine_transform(image[tf.newaxis], matrices[tf.newaxis])[0]


def _shear_x(image: tf.Tensor, magnitude: tf.Tensor) -> tf.Tensor:
    return _transform(image, [[1.0, _LARGEST_SHEAR * magnitude, 0.0], [0.0, 1.0, 0.0]])


def _shear_y(image: tf.Tensor, magnitude: tf.Tensor) -> tf.Tensor:
    return _transform(image, [[1.0, 0.0, 0.0], [_LARGEST_SHEAR * magnitude, 1.0, 0.0]])


def _translate_x(image: tf.Tensor, magnitude: tf.Tensor) -> tf.Tensor:
    return _transform(image, [[1.0, 0.0, _LARGEST_SHIFT * magnitude * image.shape[1]], [0.0, 1.0, 0.0]])


def _translate_y(image: tf.Tensor, magnitude: tf.Tensor) -> tf.Tensor:
    return _transform(image, [[1.0, 0.0, 0.0], [0.0, 1.0, _LARGEST_SHIFT * magnitude * image.shape[0]]])


def _rotate(image: tf.Tensor, magnitude: tf.Tensor) -> tf.Tensor:
    cos, sin = tf.cos(_LARGEST_ANGLE * magnitude), tf.sin(_LARGEST_ANGLE * magnitude)
    return _transform(image, [[cos, sin, 0.0], [-sin, cos, 0.0]])


def _away_from(reference: tf.Tensor, image: tf.Tensor, magnitude: tf.Tensor) -> tf.Tensor:
    """Changes the difference from the reference: magnitudes above 0 increase it, magnitudes below 0 reduce it."""
    return reference + (image - reference) * (1 + _LARGEST_BLEND * magnitude)


def _brightness(image: tf.Tensor, magnitude: tf.Tensor) -> tf.Tensor:
    return _away_from(tf.zeros_like(image), image, magnitude)


def _contrast(image: tf.Tensor, magnitude: tf.Tensor) -> tf.Tensor:
    return _away_from(tf.reduce_mean(_grey(image)), image, magnitude)


def _colour(image: tf.Tensor, magnitude: tf.Tensor) -> tf.Tensor:
    return _away_from(_grey(image), image, magnitude)


def _sharpness(image: tf.Tensor, magnitude: tf.Tensor) -> tf.Tensor:
    padded = tf.pad(image, [[1, 1], [1, 1], [0, 0]], "SYMMETRIC")
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    around = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
    return _away_from((around + 4 * image) / 13, image, magnitude)  # the smoothing kernel has a 5 among ones


def _posterize(image: tf.Tensor, magnitude: tf.Tensor) -> tf.Tensor:
    step = tf.pow(2.0, tf.round(_MOST_BITS * tf.abs(magnitude)))
    return tf.floor(image / step) * step


def _solarize(image: tf.Tensor, magnitude: tf.Tensor) -> tf.Tensor:
    return tf.where(image > 255 * (1 - tf.abs(magnitude)), 255 - image, image)


def _auto_contrast(image: tf.Tensor, magnitude: tf.Tensor) -> tf.Tensor:
    del magnitude
    darkest, brightest = tf.reduce_min(image, [0, 1]), tf.reduce_max(image, [0, 1])
    return tf.where(brightest > darkest, (image - darkest) * 255 / tf.maximum(brightest - darkest, 1e-3), image)


def _equalize(image: tf.Tensor, magnitude: tf.Tensor) -> tf.Tensor:
    """Each level becomes the share of the channel's pixels at or below it, stretched so that the darkest becomes 0."""
    del magnitude
    channels = image.shape[-1]
    level = tf.cast(tf.round(image), tf.int32) + 256 * tf.range(channels)
    histogram = tf.math.unsorted_segment_sum(tf.ones(tf.size(image)), tf.reshape(level, [-1]), 256 * channels)
    below = tf.cumsum(tf.reshape(histogram, [channels, 256]), axis=1)
    darkest = tf.reduce_min(tf.where(below > 0, below, below[:, -1:]), axis=1, keepdims=True)
    table = (below - darkest) * 255 / tf.maximum(below[:, -1:] - darkest, 1.0)
    one_level = below[:, -1:] == darkest
    return tf.where(one_level[:, 0], image, tf.gather(tf.reshape(table, [-1]), level))


def _grey(image: tf.Tensor) -> tf.Tensor:
    """Luma (ITU-R BT.601) of RGB, or grey unchanged; [height, width, 1]."""
    return tf.reduce_sum(image * [0.299, 0.587, 0.114], axis=-1, keepdims=True) if image.shape[-1] == 3 else image


def _of_colours(operation: Operation) -> Operation:
    return lambda image, magnitude: with_alpha_of(image, operation(colours(image), magnitude))


OPERATIONS: Final[dict[str, Operation]] = {
    "identity": lambda image, magnitude: image,
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_x": _translate_x,
    "translate_y": _translate_y,
    "rotate": _rotate,
    "brightness": _of_colours(_brightness),
    "contrast": _of_colours(_contrast),
    "colour": _of_colours(_colour),
    "sharpness": _of_colours(_sharpness),
    "posterize": _of_colours(_posterize),
    "solarize": _of_colours(_solarize),
    "auto_contrast": _of_colours(_auto_contrast),
    "equalize": _of_colours(_equalize),
}
