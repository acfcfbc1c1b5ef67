"""Affine maps of images: any mixture of shift, zoom, rotation, shear and mirroring in one interpolation."""

import tensorflow as tf


def affine_transform(images: tf.Tensor, matrices: tf.Tensor) -> tf.Tensor:
    """Moves pixels by bilinear interpolation; beyond its edges an image continues as its mirror image (dcba|abcd|dcba).

    It consists only of elementwise operations and gathers, so that XLA compiles it into one loop.

    Args:
      images: float32 [N, height, width, channels].
      matrices: float32 [N, 2, 3]; (x, y) in the input = matrix * (x, y, 1) in the output, in pixels from the image's centre,
        x to the right and y down.

    Returns:
      float32 [N, height, width, channels].
    """
    count = tf.shape(images)[0]
    height, width, channels = images.shape[1:]
    y, x = tf.meshgrid(_from_centre(height), _from_centre(width), indexing="ij")
    m = matrices[:, :, :, tf.newaxis, tf.newaxis]
    left, right, to_right = _neighbours(m[:, 0, 0] * x + m[:, 0, 1] * y + m[:, 0, 2] + (width - 1) / 2, width)
    upper, lower, down = _neighbours(m[:, 1, 0] * x + m[:, 1, 1] * y + m[:, 1, 2] + (height - 1) / 2, height)

    pixels = tf.reshape(images, [-1, channels])
    first = tf.range(count)[:, tf.newaxis, tf.newaxis] * (height * width)

    def between_columns(row: tf.Tensor) -> tf.Tensor:
        start = tf.gather(pixels, first + row * width + left)
        return start + to_right * (tf.gather(pixels, first + row * width + right) - start)

    above = between_columns(upper)
    return above + down * (between_columns(lower) - above)


def _from_centre(length: int) -> tf.Tensor:
    return tf.range(length, dtype=tf.float32) - (length - 1) / 2


def _neighbours(place: tf.Tensor, length: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The two pixels around each place [N, h, w], mirrored into 0..length-1, and its distance to the first, [N, h, w, 1]."""
    place, period = place + 0.5, 2.0 * length
    place = tf.abs(place - period * tf.round(place / period))  # a modulo would be a call of a function for each pixel
    place = tf.clip_by_value(place - 0.5, 0.0, length - 1.0)
    first = tf.floor(place)
    index = tf.cast(first, tf.int32)
    return index, tf.minimum(index + 1, length - 1), (place - first)[..., tf.newaxis]
