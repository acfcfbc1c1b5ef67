"""One answer for each group of images (a patient, a product, a video), from the answers to its images."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import pandas as pd

from base.errors import UserError
from evaluation.intervals import estimate
from evaluation.predictions import Predictions
from evaluation.results import GroupResult
from evaluation.settings import GroupRule
from models import features

# The other metrics judge probabilities as such, and under two of the rules those of a group are shares of its images.
GROUP_METRICS: Final = (
    "accuracy",
    "exact_match",
    "balanced_accuracy",
    "f1_micro",
    "f1",
    "precision",
    "recall",
    "auc",
    "auc_pr",
    "matthews",
)
_ABOVE: Final = 1e-6  # what puts the answer above another class of the same probability; is more than a float32's rounding


def evaluate_groups(predictions: Predictions, rule: GroupRule, names: Sequence[str], method: str) -> GroupResult | None:
    """Measures a model on whole groups.

    Args:
      rule: how a group is answered.
      names: metrics; those that are not of GROUP_METRICS are left out.
      method: how intervals are computed, as `evaluate.confidence_intervals`.

    Returns:
      None where every group has one image. Multi-label data has no confusion matrix: it is empty. Groups of an unknown class
      count as wrong, and are in no row of it.

    Raises:
      UserError: rule `share` names no class, or one that there is not.
    """
    if predictions.groups.max(initial=-1) + 1 == len(predictions.rows):
        return None
    labels, probabilities, groups = combine(predictions, rule.rule, rule.share, rule.positive)
    metrics = estimate([name for name in names if name in GROUP_METRICS], labels, probabilities, np.arange(len(groups)), method)
    confusion = [] if predictions.multi_label else _confusion(labels, probabilities).tolist()
    return GroupResult(describe(rule), len(groups), predictions.classes, metrics, confusion)


def describe(rule: GroupRule) -> str:
    """A rule in words, for `GroupResult.rule`."""
    if rule.rule == "share":
        return f"{rule.positive} where at least {100 * rule.share:g} % of the images are"
    return {
        "mean": "mean of the images' probabilities",
        "max": "largest of the images' probabilities",
        "vote": "the answer of most images",
    }[rule.rule]


def combine(
    predictions: Predictions, rule: str, share: float, positive: str | None
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """True label and probabilities of each group.

    The group's answer is its most probable class, of multi-label data every class from 0.5. Where classes are equal, the one
    with the larger sum of probabilities is put above the others by 1e-6. The probabilities are by rule:

    - mean: of the images' probabilities.
    - max: each class's largest; of single-label data divided by their sum.
    - vote: share of the images that are answered with the class.
    - share: with s the share of the images that are answered with `positive`, `positive` has s / (share * classes) below
      `share`, and 0.5 and more from there, up to 1 for s = 1. So it is the answer from `share` on, and groups are in the order
      of s, as a ROC curve over groups needs. The other classes divide the rest as they divide the other images. Of
      multi-label data, `positive` has 0.5 at s = `share`, and the other classes follow the rule vote.

    A group's true label is the label of all its images. Where these differ, it is the most frequent one (the first class of
    equals); under share, `positive` if at least that share of the images truly is, else the most frequent other one. Of
    multi-label data, each class by itself: true of at least half the images; under max, of any; under share, `positive` from
    that share.

    Args:
      rule: mean, max, vote or share.
      share: of rule `share`, above 0, at most 1.
      positive: of rule `share`, a class.

    Returns:
      labels: int64 [groups], positions in the classes, -1 for others; of multi-label data uint8 [groups, classes], 0 or 1.
      probabilities: float64 [groups, classes], 0..1.
      names: of the groups, in the order of their first images.

    Raises:
      UserError: rule `share` names no class, or one that there is not.
    """
    position = position_of(predictions.classes, positive) if rule == "share" else -1
    names = [str(name) for name in pd.unique(predictions.rows[features.GROUP])]
    groups = predictions.groups
    order = np.argsort(groups, kind="stable")
    starts = np.searchsorted(groups[order], np.arange(len(names)))
    sizes = np.bincount(groups, minlength=len(names))[:, None]

    def total(values: np.ndarray) -> np.ndarray:
        return np.add.reduceat(values[order], starts, axis=0, dtype=np.float64)

    sums = total(predictions.probabilities)
    if rule == "mean":
        probabilities = sums / sizes
    elif rule == "max":
        probabilities = np.maximum.reduceat(predictions.probabilities[order], starts, axis=0).astype(np.float64)
    elif predictions.multi_label:
        probabilities = total(predictions.answers()) / sizes
    else:
        probabilities = _counts(groups, predictions.answers(), sums.shape) / sizes

    if predictions.multi_label:
        truths = total(predictions.labels) / sizes
        labels = (truths > 0 if rule == "max" else truths >= 0.5).astype(np.uint8)
        if rule == "share":
            labels[:, position] = truths[:, position] >= share
            probabilities[:, position] = np.interp(probabilities[:, position], [0, share, 1], [0, 0.5, 1])
        return labels, probabilities, names

    unknown = len(predictions.classes)
    truths = _counts(groups, np.where(predictions.labels < 0, unknown, predictions.labels), (len(names), unknown + 1)) / sizes
    labels = truths.argmax(axis=1)
    if rule == "share":
        is_positive = truths[:, position] >= share
        truths[:, position] = -1
        labels = np.where(is_positive, position, truths.argmax(axis=1))
        probabilities = _by_share(probabilities, share, position)
    if rule == "max":
        probabilities /= probabilities.sum(axis=1, keepdims=True)
    return np.where(labels == unknown, -1, labels), _untied(probabilities, sums), names


def position_of(classes: list[str], positive: str | None) -> int:
    """The position of the class that rule `share` asks about.

    Raises:
      UserError: it is missing, or there is no such class.
    """
    if positive not in classes:
        what = "is missing; rule share needs a class" if positive is None else f"there is no class {positive}"
        raise UserError(f"evaluate.groups.positive: {what}; classes: {', '.join(classes[:10])}{', ...' * (len(classes) > 10)}")
    return classes.index(positive)


def _counts(groups: np.ndarray, classes: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Images of each class in each group, int64 [groups, classes]."""
    return np.bincount(groups * shape[1] + classes, minlength=shape[0] * shape[1]).reshape(shape)


def _by_share(votes: np.ndarray, share: float, position: int) -> np.ndarray:
    """The rule share's probabilities, see `combine`; `votes` are shares of images, [groups, classes]."""
    positive = votes[:, position]
    # Below, no more than 1 / classes: then the most frequent of the other classes has more.
    below = positive / (share * votes.shape[1])
    score = np.where(positive < share, below, np.maximum(np.interp(positive, [share, 1], [0.5, 1]), 0.5 + _ABOVE))
    rest = np.maximum(1 - positive, np.finfo(float).tiny)
    result = votes * ((1 - score) / rest)[:, None]
    result[:, position] = score
    return result


def _untied(probabilities: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """Of classes that share a group's largest probability, puts the one with the largest of `sums` above the others."""
    largest = probabilities == probabilities.max(axis=1, keepdims=True)
    (tied,) = np.nonzero(largest.sum(axis=1) > 1)
    winners = np.where(largest[tied], sums[tied], -1).argmax(axis=1)
    probabilities[tied, winners] += _ABOVE
    return probabilities


def _confusion(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """int64 [classes, classes]: groups of a class (row) that are taken for a class (column)."""
    known = labels >= 0
    count = probabilities.shape[1]
    return _counts(labels[known], probabilities.argmax(axis=1)[known], (count, count))
