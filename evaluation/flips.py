"""Compares a model with the served one, image by image."""

import numpy as np

from evaluation.predictions import Predictions
from evaluation.results import Flips


def flips(predictions: Predictions) -> Flips | None:
    """Counts the images on which one of the two models is right and the other is wrong; None without a baseline.

    A multi-label answer is right if it is right for every class. On an image of an unknown class both models are wrong.
    """
    if predictions.baseline is None:
        return None
    now, before = (_is_right(predictions, values) for values in (predictions.probabilities, predictions.baseline))
    return Flips(fixed=int(np.sum(now & ~before)), broken=int(np.sum(before & ~now)))


def _is_right(predictions: Predictions, probabilities: np.ndarray) -> np.ndarray:
    right = predictions.answers(probabilities) == predictions.labels
    return right.all(axis=1) if predictions.multi_label else right
