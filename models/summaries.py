"""Summaries of an image in a few numbers, computed from some of its rows."""

from typing import Final

import tensorflow as tf

_ROWS: Final = 32  # at most: in a large image they say as much as all rows
_LUMA: Final = (0.2989, 0.587, 0.114)  # ITU-R BT.601, as in models.preprocessing


def summarize(pixels: tf.Tensor, unit: float) -> tf.Tensor:
    """Summaries of one decoded image, without its alpha.

    They are computed from the rows whose number is a multiple of ceil(height / 32): all rows, if there are at most 32.

    - mean: mean of the grey level (luma), 0..1.
    - std: standard deviation of the grey level, 0..0.5.
    - saturated: share of the values of all channels that are at an end of the pixel type's range, 0..1.
    - sharpness: standard deviation of the grey level's Laplacian (the sum of the four neighbours minus four times the pixel;
      beyond the border, the border pixels are repeated), 0..4; a blurred image has a small value.

    Args:
      pixels: uint8 or uint16 [height, width, 1 to 4].
      unit: pixel value that means 1 of 255.

    Returns:
      float32 [4], in the order of features.SUMMARIES.
    """
    # This runs for every image: it has few operations, and each works on all values at once.
    height, _, channels = tf.unstack(tf.shape(pixels))
    white = 255.0 * unit
    rows = tf.range(0, height, (height + _ROWS - 1) // _ROWS)
    bands = tf.gather(pixels, tf.concat([rows, tf.maximum(rows - 1, 0), tf.minimum(rows + 1, height - 1)], axis=0))
    colours = tf.cast(bands[..., : channels - 1 + channels % 2], tf.float32)

    red, green, blue = _LUMA
    level = tf.cond(
        channels < 3,
        lambda: colours[..., 0],
        lambda: red * colours[..., 0] + green * colours[..., 1] + blue * colours[..., 2],
    )
    middle, above, below = tf.split(level / white, 3)
    padded = tf.pad(middle, [[0, 0], [1, 1]], "SYMMETRIC")
    laplacian = tf.add_n([above, below, padded[:, :-2], padded[:, 2:]]) - 4.0 * middle
    both = tf.stack([middle, laplacian])
    mean = tf.reduce_mean(both, [1, 2])
    std = tf.sqrt(tf.maximum(tf.reduce_mean(tf.square(both), [1, 2]) - tf.square(mean), 0.0))
    inside = tf.abs(colours[: tf.size(rows)] - white / 2) < white / 2
    return tf.stack([mean[0], std[0], 1.0 - tf.reduce_mean(tf.cast(inside, tf.float32)), std[1]])
