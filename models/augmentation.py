"""Random changes to training images; evaluation and serving never see them."""

from collections.abc import Callable

import keras
import tensorflow as tf


def build_augmentation(
    *, flip: str, shift: float, zoom: float, rotation: float, contrast: float, seed: int
) -> Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """Makes a function over batches of images and their labels, to run inside tf.data.

    Args:
      flip: none, horizontal, vertical or both.
      shift: largest shift, as a share of height and width; what comes in is mirrored.
      zoom: largest zoom in or out, as a share.
      rotation: largest rotation, as a share of a full turn.
      contrast: largest change of contrast, as a share.
      seed: of the random numbers.

    Returns:
      A function from (uint8 [N, height, width, channels], float32 [N, classes]) to the same.
    """
    layers: list[keras.layers.Layer] = []
    if flip != "none":
        layers.append(keras.layers.RandomFlip("horizontal_and_vertical" if flip == "both" else flip, seed=seed))
    if shift:
        layers.append(keras.layers.RandomTranslation(shift, shift, fill_mode="reflect", seed=seed + 1))
    if zoom:
        layers.append(keras.layers.RandomZoom((-zoom, zoom), fill_mode="reflect", seed=seed + 2))
    if rotation:
        layers.append(keras.layers.RandomRotation(rotation, fill_mode="reflect", seed=seed + 3))
    if contrast:
        layers.append(keras.layers.RandomContrast(contrast, value_range=(0, 255), seed=seed + 4))

    def augment(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        x = tf.cast(images, tf.float32)
        for layer in layers:
            x = layer(x, training=True)
        return tf.cast(tf.clip_by_value(tf.round(x), 0.0, 255.0), tf.uint8), labels

    return augment if layers else lambda images, labels: (images, labels)
