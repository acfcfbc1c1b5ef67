"""How unusual an image is: how far its embedding is from the training images, as a percentile of the eval split's distances.

The distance is that of Mahalanobis (Lee et al. 2018, arXiv:1807.03888, section 2.1), with one mean for all images instead of
one for each class. That is as good in most cases (Kamoi and Kobayashi 2020, arXiv:2003.00402), and needs no classes: it is the
same for multi-label data. Embeddings have length 1, as `models.embedding` makes them; Sun et al. 2022 (arXiv:2204.06507) found
that to matter for distances to neighbours.

The covariance is shrunk by as much as Ledoit and Wolf 2004, "A well-conditioned estimator for large-dimensional covariance
matrices", compute. So it has an inverse with fewer images than dimensions as well.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

Floats = NDArray[np.floating]

UNUSUAL_FILE: Final = "unusual.json"  # file in the Trainer's model_run with the fields of `Percentiles`
SAMPLE: Final = 4096  # images of the training split that the distance is fitted on, at most
_LEAST_VARIANCE: Final = 1e-8  # of a direction; what machines and formats compute differs by 1e-4 of an embedding's length
_LEAST_WIDTH: Final = 1e-6  # between two quantiles, so that equal ones make a step


@dataclass(frozen=True, eq=False)
class Distance:
    """The squared Mahalanobis distance, divided by d: 1 is the mean over many training images.

    Attributes:
      centre: float64 [d], the mean of the training images.
      whitening: float64 [d, d]; what it makes of a difference from the centre has the distance as its squared length.
      examples: number of the training images.
    """

    centre: Floats
    whitening: Floats
    examples: int

    def __call__(self, embeddings: tf.Tensor) -> tf.Tensor:
        """From embeddings [N, d] to distances [N], of the same type."""
        centre, whitening = (tf.constant(value, embeddings.dtype) for value in (self.centre, self.whitening))
        return tf.reduce_sum(((embeddings - centre) @ whitening) ** 2, axis=-1)


@dataclass(frozen=True, eq=False)
class Unusual:
    """How unusual images are.

    Attributes:
      distance: of an embedding from the training images.
      quantiles: as in `Percentiles`.
      cutoff: the percentile above which the answer is "unknown"; None: there is none.
    """

    distance: Distance
    quantiles: list[float]
    cutoff: float | None = None

    def __call__(self, embeddings: tf.Tensor) -> tf.Tensor:
        """From embeddings [N, d] to percentiles [N], 0..100, of the same type."""
        return percentiles(self.distance(embeddings), self.quantiles)


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


def fit_distance(embeddings: Floats) -> Distance:
    """Fits the distance on images of the training split.

    Args:
      embeddings: float [N, d], each of length 1.

    Raises:
      ValueError: there are none, or they are not finite.
    """
    from sklearn.covariance import LedoitWolf

    if not len(embeddings):
        raise ValueError("there are no training images")
    if not np.isfinite(embeddings).all():
        raise ValueError("the embeddings are not finite")
    fitted = LedoitWolf(store_precision=False).fit(embeddings.astype(np.float64))
    variances, directions = np.linalg.eigh(fitted.covariance_)
    scale = np.sqrt(np.maximum(variances, _LEAST_VARIANCE) * len(variances))
    return Distance(fitted.location_, directions / scale, len(embeddings))


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
