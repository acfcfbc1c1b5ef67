"""How unusual an image is: how far its embedding is from the training images, as a percentile of the eval split's distances.

The distance is that of Mahalanobis to the nearest class. Each class has its mean, and all share one covariance (Lee et al. 2018,
arXiv:1807.03888, section 2.1). Embeddings have length 1, as `models.embedding` makes them: a distance between directions was the
better one here, as Sun et al. 2022 found for nearest neighbours (arXiv:2204.06507). Images of multi-label data can have several
classes or none, so that there all images have one mean.

The covariance is shrunk, by as much as Ledoit and Wolf 2004 ("A well-conditioned estimator for large-dimensional covariance
matrices") compute. So it has an inverse with fewer images than dimensions as well.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

Floats = NDArray[np.floating]

UNUSUAL_FILE: Final = "unusual.json"  # file in the Trainer's model_run with the fields of `Percentiles`
SAMPLE: Final = 4096  # images of the training split that the distance is fitted on, at most
_LEAST_VARIANCE: Final = 1e-8  # of a direction; what formats and machines compute differs by 1e-4 of the length
_LEAST_WIDTH: Final = 1e-6  # between two quantiles, so that equal ones make a step


@dataclass(frozen=True, eq=False)
class Distance:
    """The squared Mahalanobis distance to the nearest class, divided by d: about 1 for a training image.

    Attributes:
      centre: float64 [d], the mean of all images.
      whitening: float64 [d, d], by which differences become such that their squared length is the distance.
      means: float64 [classes, d], of the classes, less `centre` and whitened; classes without an image are left out.
    """

    centre: Floats
    whitening: Floats
    means: Floats

    def __call__(self, embeddings: tf.Tensor) -> tf.Tensor:
        """From embeddings [N, d] to distances [N], of the same type."""
        centre, whitening, means = (tf.constant(value, embeddings.dtype) for value in (self.centre, self.whitening, self.means))
        found = (embeddings - centre) @ whitening
        lengths = tf.reduce_sum(found**2, axis=-1)
        # |a - b|² = |a|² - 2ab + |b|²: no [N, classes, d] is needed.
        others = tf.reduce_sum(means**2, axis=-1) - 2 * tf.matmul(found, means, transpose_b=True)
        return tf.nn.relu(lengths + tf.reduce_min(others, axis=-1))


@dataclass(frozen=True)
class Percentiles:
    """The distances of the eval split, of which an image's percentile is told.

    Attributes:
      quantiles: distances at 0, 0.5, ... 100 %, ascending.
      examples: number of images that they are of.
      training_examples: number of images that the distance was fitted on.
    """

    quantiles: list[float]
    examples: int
    training_examples: int


def fit_distance(embeddings: Floats, labels: Floats, multi_label: bool = False) -> Distance:
    """Fits the distance on images of the training split; those of unknown class (labels all 0) are left out.

    Args:
      embeddings: float [N, d], each of length 1.
      labels: float [N, classes], one-hot, or multi-hot for multi-label models.
      multi_label: whether an image can have any number of classes.

    Raises:
      ValueError: no image is left, or embeddings are not finite.
    """
    from sklearn.covariance import ledoit_wolf

    if not multi_label:
        known = labels.sum(axis=-1) > 0
        embeddings, labels = embeddings[known], labels[known]
    if not len(embeddings):
        raise ValueError("no training image has a known class")
    if not np.isfinite(embeddings).all():
        raise ValueError("the embeddings are not finite")
    embeddings = embeddings.astype(np.float64)
    classes = np.zeros(len(embeddings), np.int64) if multi_label else labels.argmax(axis=-1)
    _, group, counts = np.unique(classes, return_inverse=True, return_counts=True)
    centre = embeddings.mean(axis=0)
    means = np.zeros((len(counts), embeddings.shape[1]))
    np.add.at(means, group, embeddings - centre)
    means /= counts[:, np.newaxis]
    covariance, _ = ledoit_wolf(embeddings - centre - means[group], assume_centered=True)
    size = len(centre)
    whitening = np.linalg.cholesky(np.linalg.inv(covariance + _LEAST_VARIANCE * np.eye(size))) / np.sqrt(size)
    return Distance(centre, whitening, means @ whitening)


def fit_percentiles(distances: Floats, training_examples: int) -> Percentiles:
    """Takes the quantiles of the eval split's distances, float [N].

    They are such that an image's percentile counts the images of less distance and half of those with the same.

    Raises:
      ValueError: there are no distances, or they are not finite.
    """
    if not len(distances):
        raise ValueError("the eval split has no images")
    if not np.isfinite(distances).all():
        raise ValueError("the distances are not finite")
    quantiles = np.quantile(distances.astype(np.float64), np.linspace(0, 1, 201), method="hazen")
    return Percentiles(quantiles.tolist(), len(distances), training_examples)


def percentiles(distances: tf.Tensor, quantiles: list[float]) -> tf.Tensor:
    """From distances [N] to percentiles [N], 0..100; 100 beyond the largest quantile.

    Between two quantiles it rises evenly. It is written as the sum of these rises, because LiteRT and ONNX have no search.
    """
    table = np.asarray(quantiles)
    middles, widths = (table[:-1] + table[1:]) / 2, np.maximum(np.diff(table), _LEAST_WIDTH)
    middle, width = (tf.constant(values, distances.dtype) for values in (middles, widths))
    rises = tf.clip_by_value((distances[:, tf.newaxis] - middle) / width + 0.5, 0, 1)
    return tf.reduce_sum(rises, axis=-1) * (100 / len(widths))
