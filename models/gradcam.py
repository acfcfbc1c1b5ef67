"""Grad-CAM (Selvaraju et al. 2016, arXiv:1610.02391): where the evidence for a class lies on each level of the pyramid."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from models.tiles import Tiles, in_chunks


@dataclass(frozen=True)
class GradCam:
    """An explanation of N answers.

    Attributes:
      levels: names of the explained maps, finest first: ("P3", "P4", "P5"), or ("C5",) without a pyramid.
      class_index: int64 [N], the explained class of each image.
      maps: {level: float32 [N, h_level, w_level]}, the paper's L (equations 1 and 2), 0 and above.
      combined: float32 [N, h, w], all levels together at the size of the finest, 0 and above, in units of the logit: if no
        cell were negative, the mean of this map would be the levels' joint contribution to the logit.
      contributions: float32 [N, levels], what each level adds to the difference between the logit and the mean logit; for
        multi-label models, to the logit.
    """

    levels: tuple[str, ...]
    class_index: tf.Tensor
    maps: dict[str, tf.Tensor]
    combined: tf.Tensor
    contributions: tf.Tensor

    @property
    def shares(self) -> tf.Tensor:
        """float32 [N, levels]: contribution_l / sum over levels of |contribution|; negative if a level argues against it."""
        return tf.math.divide_no_nan(self.contributions, tf.reduce_sum(tf.abs(self.contributions), axis=-1, keepdims=True))

    @property
    def scaled_maps(self) -> tf.Tensor:
        """float32 [N, levels, h, w], 0..1: the maps as densities (see `explain_maps`) at the finest level's size.

        The largest value over all levels of an image is 1, so that levels can be compared; all values are 0 if nothing argues
        for the class.
        """
        size = tf.shape(self.combined)[1:]
        return _to_unit(tf.stack([_upsample(_density(self.maps[level]), size) for level in self.levels], axis=1))

    @property
    def scaled_combined(self) -> tf.Tensor:
        """float32 [N, h, w], 0..1: `combined` divided by its largest value in each image."""
        return _to_unit(self.combined)


def explain_maps(
    found: dict[str, tf.Tensor],
    levels: tuple[str, ...],
    head: Callable[..., tf.Tensor],
    class_index: tf.Tensor | None = None,
    multi_label: bool = False,
) -> GradCam:
    r"""Explains a classifier's answers; runs eagerly or inside a tf.function.

    For the map A of each level (h x w cells, channels k) and the logit y_c of the class:

      alpha_k = 1/(h w) sum_ij d y_c / d A_ijk      equation 1 of the paper
      S_ij    = sum_k alpha_k A_ijk
      L       = ReLU(S)                             equation 2

    A is what the level's pooling sees. If the head begins with a ReLU, A is the ReLU's output, because what a ReLU holds back
    has no part in the answer.

    `combined` treats the channels of all levels as those of one map. A cell of a coarse level stands for many cells of a finer
    one, so levels are added as densities: combined = ReLU(sum_l upsample(h_l w_l S_l)), upsampled bilinearly to the size of the
    finest level. With average pooling, each alpha_k is W_kc / (h w), so that the mean of a level's density h_l w_l S_l is what
    the level adds to y_c. Thus each level has the same weight in the combined map as in the answer.

    The contribution of a level is gradient times activation, sum_ijk A_ijk dz/dA_ijk, for z = y_c - mean over classes of y,
    because softmax ignores what all logits have in common. A sigmoid does not, so for multi-label models z = y_c. If the head
    is piecewise linear (average or max pooling), the contributions and the part of the biases add up to z exactly; with
    attention pooling they do so to first order.

    Args:
      found: the levels' maps, as the first model that `split` returns gives them.
      levels: names of the levels, from `split`.
      head: the second model that `split` returns, from these maps to the logits [N, classes].
      class_index: integer [N], the class to explain for each image; the most probable if not given.
      multi_label: whether the logits pass sigmoids, instead of one softmax.
    """
    maps = [found[level] for level in levels]
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(maps)
        logits = tf.cast(head(maps, training=False), tf.float32)
        if class_index is None:
            class_index = tf.argmax(logits, axis=-1)
        logit = tf.gather(logits, class_index, axis=1, batch_dims=1)
        lead = logit if multi_label else logit - tf.reduce_mean(logits, axis=-1)
    # At inference, examples do not depend on each other, so the gradient of the batch's sum holds the gradient of each example.
    gradients = [tf.cast(gradient, tf.float32) for gradient in tape.gradient(logit, maps)]
    lead_gradients = [tf.cast(gradient, tf.float32) for gradient in tape.gradient(lead, maps)]
    maps = [tf.cast(level, tf.float32) for level in maps]

    signed, contributions = [], []
    for activation, gradient, lead_gradient in zip(maps, gradients, lead_gradients, strict=True):
        alpha = tf.reduce_mean(gradient, axis=[1, 2], keepdims=True)
        signed.append(tf.reduce_sum(alpha * activation, axis=-1))
        contributions.append(tf.reduce_sum(activation * lead_gradient, axis=[1, 2, 3]))
    size = tf.shape(signed[0])[1:]
    return GradCam(
        levels=levels,
        class_index=tf.cast(class_index, tf.int64),
        maps={level: tf.nn.relu(values) for level, values in zip(levels, signed, strict=True)},
        combined=tf.nn.relu(tf.add_n([_upsample(_density(values), size) for values in signed])),
        contributions=tf.stack(contributions, axis=-1),
    )


def explain_tiles(tiles: Tiles, images: tf.Tensor, class_index: tf.Tensor | None = None, multi_label: bool = False) -> GradCam:
    """Explains the answers to images that are seen in tiles, as `explain_maps` does; all results are of whole images.

    Each tile is explained alone, with equation 1 over its own positions. Its part counts as much as its logit does in the
    image's, d y_k / d y_tk. Where tiles overlap, the nearest gives the map.

    Args:
      tiles: the layer with the network.
      images: uint8 [N, height, width, channels].
      class_index: as in `explain_maps`, and so `multi_label`.
    """
    levels, trunk, head = split(tiles.layer)
    with tf.GradientTape() as tape:
        logits = tiles.tile_logits(images)
        tape.watch(logits)
        answers = tiles.combine(logits)
    if class_index is None:
        class_index = tf.argmax(answers, axis=-1)
    # No class has a part in the answer for another, so this is each tile's share in each class.
    share = tape.gradient(answers, logits)
    number, classes = logits.shape[1:]

    def explain(pixels: tf.Tensor, share: tf.Tensor, index: tf.Tensor) -> tuple[list[tf.Tensor], tf.Tensor, tf.Tensor]:
        def weighted(maps: list[tf.Tensor], training: bool) -> tf.Tensor:
            return head(maps, training=training) * share

        found = explain_maps(trunk(pixels, training=False), levels, weighted, index, multi_label)
        return [found.maps[level] for level in levels], found.combined * number, found.contributions

    maps, combined, contributions = in_chunks(
        explain,
        ([tf.float32] * len(levels), tf.float32, tf.float32),
        tiles.size,
        tiles.cut(images),
        tf.reshape(share, [-1, classes]),
        tf.repeat(class_index, number),
    )
    return GradCam(
        levels=levels,
        class_index=tf.cast(class_index, tf.int64),
        maps={level: tiles.join(values) for level, values in zip(levels, maps, strict=True)},
        combined=tiles.join(combined),
        contributions=tf.reduce_sum(tf.reshape(contributions, [-1, number, len(levels)]), axis=1),
    )


def split(model: keras.Model) -> tuple[tuple[str, ...], keras.Model, keras.Model]:
    """Splits a model in two: returns the levels' names, the part from images to maps, and the part from maps to logits.

    The second part takes a list of maps. The model is functional, from images to logits, and has a layer "pyramid" whose output
    is a dict of maps, or else a layer "backbone" whose output is a dict with one map.

    Both parts share the model's layers. Gradients are taken only of the second part: it does not matter whether the layers
    before it are frozen, and no backward pass through them is built.
    """
    source = "pyramid" if any(layer.name == "pyramid" for layer in model.layers) else "backbone"
    maps: dict[str, keras.KerasTensor] = {}

    def call(layer: keras.layers.Layer, *arguments: Any, **keywords: Any) -> Any:
        outputs = layer(*arguments, **keywords)
        if layer.name == source:
            maps.update(outputs)
        elif layer.name.removeprefix("relu_") in maps:
            maps[layer.name.removeprefix("relu_")] = outputs
        return outputs

    # Copies the bare network: a copy of a compiled model would be compiled too, which is not possible while a graph is traced.
    network = keras.Model(model.input, model.output)
    copy = keras.models.clone_model(network, clone_function=lambda layer: layer, call_function=call)
    levels = tuple(sorted(maps))
    tensors = [maps[level] for level in levels]
    return levels, keras.Model(copy.input, dict(zip(levels, tensors, strict=True))), keras.Model(tensors, copy.output)


def _density(values: tf.Tensor) -> tf.Tensor:
    """Turns an amount in each cell, [N, h, w], into the amount per image area."""
    return values * tf.cast(tf.reduce_prod(tf.shape(values)[1:]), values.dtype)


def _upsample(values: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Upsamples [N, h, w] to [N, *size] bilinearly; whole multiples keep the mean."""
    return tf.image.resize(values[..., tf.newaxis], size)[..., 0]


def _to_unit(values: tf.Tensor) -> tf.Tensor:
    """Divides each image's values, 0 and above, by the largest of them."""
    return tf.math.divide_no_nan(values, tf.reduce_max(values, axis=range(1, values.shape.rank), keepdims=True))
