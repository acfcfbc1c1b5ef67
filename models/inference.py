"""The model that is exported: the classifier on several views of an image, which gives logits and an embedding."""

from collections.abc import Callable
from typing import Any, Final

import keras
import tensorflow as tf

from models.choices import TestTimeAugmentation
from models.embedding import find_pooling, normalize
from models.gradcam import split
from models.tiles import find_tiles, in_chunks

_SHIFT: Final = 0.04  # of height and width


class InferenceModel:
    """A classifier, whose weights it shares, as it is served but for the temperature: a function from images to two tensors.

    Attributes:
      tiles: the layer by which the classifier sees tiles; None if it sees whole images.
      levels: names of the maps.
      head: from the maps, a list, to logits.
      see: from images, whole ones or tiles, to the maps: {level: [N, h, w, c]}; a function of its own, so that the signatures
        of a SavedModel share it.
    """

    def __init__(self, classifier: keras.Model, test_time_augmentation: TestTimeAugmentation = "none") -> None:
        """Makes the function.

        Args:
          classifier: as `models.fpn.build_classifier` or `models.tiles.tile_classifier` makes it.
          test_time_augmentation: as in `average_views`.
        """
        self.tiles = find_tiles(classifier)
        network = self.tiles.layer if self.tiles else classifier
        self.levels, self._trunk, self.head = split(network)
        self._pool = find_pooling(network, self.levels)
        self._views = test_time_augmentation
        pixels = tf.TensorSpec(network.input_shape, tf.uint8)
        self.see = tf.function(lambda images: self._trunk(images, training=False), input_signature=[pixels], autograph=False)

    def __call__(self, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """From uint8 [N, height, width, channels] to logits float32 [N, classes] and embeddings float32 [N, d].

        The embedding, see `models.embedding`, is of the image itself, and the mean of its tiles', brought to length 1.
        """
        pooled = []

        def classify(views: tf.Tensor) -> tf.Tensor:
            logits, features = self._classify_and_pool(views)
            pooled.append(features[: tf.shape(images)[0]])  # the first view is the image itself
            return logits

        return average_views(classify, images, self._views), normalize(pooled[0])

    def _classify_and_pool(self, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Images to logits, and to what the heads see."""

        def look(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            maps = self.see(images)
            return self.head([maps[level] for level in self.levels], training=False), self._pool(maps)

        if not self.tiles:
            return look(images)
        found = in_chunks(look, (tf.float32, tf.float32), self.tiles.size, self.tiles.cut(images))
        logits, pooled = (tf.reshape(values, [-1, self.tiles.number, values.shape[-1]]) for values in found)
        return self.tiles.combine(logits), tf.reduce_mean(pooled, axis=1)


def average_views(classify: Callable[[Any], Any], images: Any, test_time_augmentation: TestTimeAugmentation = "none") -> Any:
    """The logits of a batch: the mean over the views of each image.

    So the probabilities are the normalised geometric mean of the views' probabilities (for a sigmoid, of its odds). All views
    of a batch go through the classifier together, as one larger batch.

    Args:
      classify: from uint8 [N, height, width, channels] to logits float32 [N, classes].
      images: the images, a tensor or a symbolic tensor.
      test_time_augmentation: the views: "none", the image itself; "flip", the image and its mirror image, left and right
        exchanged; "shift", the image and its shifts by 4 % to each of the four sides, filled by mirroring at the edge;
        "flip_shift", these five and their mirror images. The classifier has 1, 2, 5 or 10 times the work.
    """
    views = [images]
    if "shift" in test_time_augmentation:
        views += _shifts(images)
    if "flip" in test_time_augmentation:
        views += [keras.ops.flip(view, axis=2) for view in views]
    if len(views) == 1:
        return classify(images)
    stacked = classify(keras.ops.concatenate(views, axis=0))
    return keras.ops.mean(keras.ops.reshape(stacked, (len(views), -1, stacked.shape[-1])), axis=0)


def _shifts(images: Any) -> list[Any]:
    height, width = images.shape[1:3]
    rows, columns = (max(1, round(_SHIFT * size)) for size in (height, width))
    padded = keras.ops.pad(images, ((0, 0), (rows, rows), (columns, columns), (0, 0)), mode="reflect")
    return [
        padded[:, top : top + height, left : left + width]
        for top, left in ((0, columns), (2 * rows, columns), (rows, 0), (rows, 2 * columns))
    ]
