"""The embedding of an image: what the heads see of it on all levels, as one vector of length 1."""

from collections.abc import Callable

import keras
import tensorflow as tf


def find_pooling(network: keras.Model, levels: tuple[str, ...]) -> Callable[[dict[str, tf.Tensor]], tf.Tensor]:
    """The function from a network's maps, {level: [N, h, w, c]}, to what its heads see of them, float32 [N, d].

    d is the sum over the levels of the channels that the head's pooling gives: `num_filters` for each level, twice as many
    for `average_max`, and without a pyramid the channels of the backbone. A head that has no pooling before its logits
    (`log_sum_exp`) gives the average.

    Args:
      network: as `models.fpn.build_classifier` makes it.
      levels: names of the maps, as `models.gradcam.split` returns them.
    """
    poolings = {level: _pooling(network, level) for level in levels}

    def pool(maps: dict[str, tf.Tensor]) -> tf.Tensor:
        return tf.concat([tf.cast(poolings[level](maps[level]), tf.float32) for level in levels], axis=-1)

    return pool


def _pooling(network: keras.Model, level: str) -> keras.layers.Layer:
    heads = {layer.name: layer for layer in network.layers if layer.name in ("head", f"head_{level}")}
    first = next(iter(heads.values())).layers[0]
    return keras.layers.GlobalAveragePooling2D() if isinstance(first, keras.layers.Dropout) else first


def normalize(pooled: tf.Tensor) -> tf.Tensor:
    """Brings vectors [N, d] to length 1; zero stays zero."""
    return tf.math.l2_normalize(pooled, axis=-1)
