"""Measures what a model promises: sets that hold the true class, and answers of which few are wrong."""

from collections.abc import Iterable

import numpy as np

from evaluation.intervals import estimate
from evaluation.metrics import PROMISES, Floats, Integers
from evaluation.predictions import Predictions
from evaluation.results import Metric


def estimate_promises(names: Iterable[str], predictions: Predictions, images: Integers, method: str) -> dict[str, Metric]:
    """Computes metrics of `metrics.PROMISES` with their intervals.

    Args:
      names: the metrics.
      predictions: with `sets`, `answered` or both.
      images: int [N], the positions of the images to measure.
      method: a key of `intervals.METHODS`.

    Returns:
      The metrics by name, in the order of the names, without those that are not defined on these images.
    """
    names = [name for name in names if name in PROMISES]  # none of multi-label data
    if not names or not len(images):
        return {}
    labels, groups = predictions.labels[images], predictions.groups[images]
    found: dict[str, Metric] = {}
    if predictions.sets is not None:
        sets = predictions.sets[images]
        found["set_coverage"] = _share((labels >= 0) & sets[np.arange(len(images)), labels], groups, method)
        found["set_size"] = _mean_size(sets, groups, method)
    if predictions.answered is not None:
        answered = predictions.answered[images]
        wrong = predictions.answers()[images] != labels
        found["answered"] = _share(answered, groups, method)
        if answered.any():
            found["selective_risk"] = _share(wrong[answered], groups[answered], method)
    return {name: found[name] for name in names if name in found}


def estimate_promises_by_class(names: Iterable[str], predictions: Predictions, method: str) -> list[dict[str, Metric]]:
    """Computes the metrics that are defined for a single class, for the images of each class.

    Args: as in `estimate_promises`.

    Returns:
      One dict per class, each as returned by `estimate_promises`.
    """
    names = [name for name in names if name in PROMISES and PROMISES[name].of_class]
    return [
        estimate_promises(names, predictions, np.flatnonzero(predictions.labels == position), method) if names else {}
        for position in range(len(predictions.classes))
    ]


def _share(values: np.ndarray, groups: Integers, method: str) -> Metric:
    """The share of images with True, as the accuracy of answers that are right where it is True."""
    answers = np.stack([~values, values], axis=1).astype(np.float64)
    return estimate(["accuracy"], np.ones(len(values), np.int64), answers, groups, method)["accuracy"]


def _mean_size(sets: np.ndarray, groups: Integers, method: str) -> Metric:
    """The mean number of classes, as the Brier score of sets that should be empty, which is the share of classes in them."""
    share = estimate(["brier"], np.zeros(sets.shape, np.uint8), sets.astype(np.float64), groups, method)["brier"]
    bounds = (None if bound is None else bound * sets.shape[1] for bound in (share.lower, share.upper))
    return Metric(share.value * sets.shape[1], *bounds)


def selective_risks(labels: Integers, probabilities: Floats) -> Floats:
    """The share of wrong answers among the most confident 1, 2, ... N images, float [N].

    Its mean is the area under the curve of risk by coverage (Geifman et al. 2018, arXiv:1805.08206, AURC); less is better.
    Equally confident images count as equally wrong.

    Args:
      labels: int [N], -1 for an unknown class.
      probabilities: float [N, classes].
    """
    sure = probabilities.max(axis=-1)
    wrong = (probabilities.argmax(axis=-1) != labels).astype(np.float64)
    _, tie = np.unique(-sure, return_inverse=True)
    wrong = (np.bincount(tie, wrong) / np.bincount(tie))[tie]
    return np.cumsum(wrong[np.argsort(tie, kind="stable")]) / np.arange(1, len(wrong) + 1)
