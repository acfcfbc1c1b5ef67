"""Training on images of half the size, which takes about a quarter of the work."""

import keras
import tensorflow as tf


def share_at_half_size(model: keras.Model) -> keras.Model:
    """The same classifier for images of half the height and width, rounded up: all its layers, and so all weights, are shared.

    Args:
      model: of convolutions, as `fpn.build_classifier` makes it; without tiles.

    Returns:
      A model from uint8 [N, height/2, width/2, channels] to logits float32 [N, classes], with the variables of `model` in
      their order. It is to be compiled by itself.
    """

    def shared(layer: keras.layers.Layer) -> keras.layers.Layer:
        if isinstance(layer, keras.Sequential):  # which may have been built for one size
            return keras.Sequential(layer.layers, name=layer.name)
        if isinstance(layer, keras.Model):
            return at_half_size(layer)
        return layer

    def at_half_size(network: keras.Model) -> keras.Model:
        given = network.input
        shape = [-(-side // 2) for side in given.shape[1:3]]
        image = keras.Input((*shape, given.shape[-1]), dtype=given.dtype, name=given.name)
        plain = keras.Model(network.input, network.output, name=network.name)  # not compiled, for a clone of it would be, too
        return keras.models.clone_model(plain, input_tensors=image, clone_function=shared)

    return at_half_size(model)


def halve_images(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The mean of every two by two pixels, at an odd edge of those that are there: uint8 [N, h, w, c] to [N, h/2, w/2, c]."""
    means = tf.nn.avg_pool2d(tf.cast(images, tf.float32), 2, 2, "SAME")
    return tf.cast(tf.round(means), tf.uint8), labels
