"""A model beside the last blessed one, image by image."""

import numpy as np

from evaluation.predictions import Predictions
from evaluation.results import Flips


def flips(predictions: Predictions) -> Flips | None:
    """Counts the images that one of the two models has right and the other one wrong; None without a baseline.

    A multi-label image is right if all its classes are. An image of an unknown class is right for neither.
    """
    if predictions.baseline is None:
        return None
    now, before = (_right(predictions, values) for values in (predictions.probabilities, predictions.baseline))
    return Flips(fixed=int(np.sum(now & ~before)), broken=int(np.sum(before & ~now)))


def _right(predictions: Predictions, probabilities: np.ndarray) -> np.ndarray:
    right = predictions.answers(probabilities) == predictions.labels
    return right.all(axis=1) if predictions.multi_label else right
