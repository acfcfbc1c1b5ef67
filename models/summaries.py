"""What can be said of an image in a few numbers, from some of its rows."""

from typing import Final

import tensorflow as tf

_ROWS: Final = 32  # at most: of a large image they say as much as all
_LUMA: Final = (0.2989, 0.587, 0.114)  # ITU-R BT.601, as models.preprocessing has it


def summarize(pixels: tf.Tensor, unit: float) -> tf.Tensor:
    """Summaries of one decoded image, alpha left aside.

    They are of the rows whose number is a multiple of ceil(height / 32), which of images up to 32 rows are all.

    - mean: of the grey level (luma), 0..1.
    - std: standard deviation of the grey level, 0..0.5.
    - saturated: share of values, of all channels, at either end of the pixel type's range, 0..1.
    - sharpness: standard deviation of the grey level's Laplacian (the sum of the four neighbours less four times the pixel, the
      image being continued by its border), 0..4; the smaller, the more blurred.

    Args:
      pixels: uint8 or uint16 [height, width, 1 to 4].
      unit: pixel value that is 1 of 255.

    Returns:
      float32 [4], in the order of features.SUMMARIES.
    """
    height, _, channels = tf.unstack(tf.shape(pixels))
    colours = channels - tf.cast(channels % 2 == 0, tf.int32)  # without alpha
    luma = tf.cond(colours == 1, lambda: tf.constant([1.0]), lambda: tf.constant(_LUMA)) / (255.0 * unit)
    luma = tf.pad(luma, [[0, channels - colours]])
    rows = tf.range(0, height, (height + _ROWS - 1) // _ROWS)

    def level(rows: tf.Tensor) -> tf.Tensor:
        return tf.linalg.matvec(tf.cast(tf.gather(pixels, rows), tf.float32), luma)

    middle, above, below = level(rows), level(tf.maximum(rows - 1, 0)), level(tf.minimum(rows + 1, height - 1))
    left = tf.concat([middle[:, :1], middle[:, :-1]], axis=1)
    right = tf.concat([middle[:, 1:], middle[:, -1:]], axis=1)
    laplacian = above + below + left + right - 4.0 * middle
    values = tf.gather(pixels, rows)[..., :colours]
    ends = tf.equal(values, 0) | tf.equal(values, tf.cast(255 * int(unit), values.dtype))
    saturated = tf.reduce_mean(tf.cast(ends, tf.float32))
    return tf.stack([tf.reduce_mean(middle), tf.math.reduce_std(middle), saturated, tf.math.reduce_std(laplacian)])
