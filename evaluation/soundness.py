"""Judges whether a model answers at all, whatever the thresholds: with finite numbers, and not the same for all images."""

from typing import Final

import numpy as np

from evaluation.predictions import Predictions
from evaluation.results import Metric, Verdict
from models import features

_SAME: Final = 1e-6  # probabilities that differ by less are the same, as batches of different sizes round differently
_APPEARANCE: Final = (features.HEIGHT, features.WIDTH, features.BYTES, *features.SUMMARIES)  # by which images are told apart
_WHERE: Final = "all examples"


def judge_answers(predictions: Predictions) -> list[Verdict]:
    """Looks for answers that no useful model gives.

    All answers may be the same if nothing else can be right: for a single class, for images that are all alike, or if all
    images have the same label and the model is certain.

    Args:
      predictions: the answers to the test split.

    Returns:
      A verdict that is not passed if some probabilities are not finite, or if all images have the same; else none.
    """
    images, missing = len(predictions.probabilities), predictions.not_finite
    if missing:
        found = f"{missing} of {images} images have probabilities that are not finite numbers"
        return [Verdict("finite answers", _WHERE, Metric((images - missing) / images), False, found, lower=1.0)]
    if _are_same(predictions) and not _may_be_same(predictions):
        found = f"all {images} images get the same probabilities"
        return [Verdict("different answers", _WHERE, Metric(1.0), False, found, lower=2.0)]
    return []


def _are_same(predictions: Predictions) -> bool:
    values = predictions.probabilities
    return len(values) > 1 and float(np.ptp(values, axis=0).max(initial=0.0)) <= _SAME


def _may_be_same(predictions: Predictions) -> bool:
    values, labels = predictions.probabilities, predictions.labels
    appearance = [name for name in _APPEARANCE if name in predictions.rows]
    if appearance and len(predictions.rows[appearance].drop_duplicates()) == 1:
        return True
    if not predictions.multi_label and values.shape[1] == 1:
        return True
    certain = bool((np.minimum(values, 1 - values) <= _SAME).all())
    return certain and len(np.unique(labels, axis=0)) == 1
