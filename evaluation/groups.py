"""Combines the answers to the images of a group (a patient, a product, a video) into one answer for the group."""

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

# The other metrics need real probabilities. Under the rules vote and share, a group's values are shares of its images instead.
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
_TIE_BREAK: Final = 1e-6  # raises the answer above a class of equal probability; larger than the rounding of a float32


def evaluate_groups(predictions: Predictions, rule: GroupRule, names: Sequence[str], method: str) -> GroupResult | None:
    """Measures a model on whole groups.

    Args:
      predictions: the answers to the images.
      rule: how the answers to the images of a group are combined.
      names: metrics; those that are not in GROUP_METRICS are left out.
      method: how intervals are computed, as `evaluate.confidence_intervals`.

    Returns:
      None if every group has one image. For multi-label data the confusion matrix is empty. Groups of an unknown class count
      as wrong; the confusion matrix leaves them out.

    Raises:
      UserError: rule `share` names no class, or a class that does not exist.
    """
    if predictions.groups.max(initial=-1) + 1 == len(predictions.rows):
        return None
    labels, probabilities, groups = combine(predictions, rule.rule, rule.share, rule.positive)
    metrics = estimate([name for name in names if name in GROUP_METRICS], labels, probabilities, np.arange(len(groups)), method)
    confusion = [] if predictions.multi_label else _confusion_matrix(labels, probabilities).tolist()
    return GroupResult(describe(rule), len(groups), predictions.classes, metrics, confusion)


def describe(rule: GroupRule) -> str:
    """The rule in words, for `GroupResult.rule`."""
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
    """Computes the true label and the probabilities of each group.

    The group's answer is its most probable class; for multi-label data, every class with a probability of at least 0.5. If
    classes have equal probabilities, 1e-6 is added to the one with the larger sum of image probabilities. The probabilities
    depend on the rule:

    - mean: the mean of the images' probabilities.
    - max: the largest probability of each class; for single-label data, divided by their sum.
    - vote: the share of the images whose answer is the class.
    - share: let s be the share of the images whose answer is `positive`. If s is below `share`, the probability of `positive`
      is s / (share * classes); from `share` on it rises from 0.5 to 1 at s = 1. So `positive` is the answer if s is at least
      `share`, and groups are in the order of s, as a ROC curve over groups requires. The other classes divide the rest in
      proportion to their numbers of images. For multi-label data, `positive` has 0.5 at s = `share`, and the other classes
      follow the rule vote.

    A group's true label is the label of all its images. If the labels differ, it is the most frequent one (of equally frequent
    ones, the first class). Under rule share it is `positive` if at least `share` of the images have that label, else the most
    frequent other label. For multi-label data each class is decided by itself: the group has the class if at least half of its
    images have it; under rule max, if any image has it; under rule share, `positive` if at least `share` of the images have it.

    Args:
      predictions: the answers to the images.
      rule: mean, max, vote or share.
      share: for rule `share`, above 0, at most 1.
      positive: for rule `share`, a class.

    Returns:
      labels: int64 [groups], positions in the classes, -1 for unknown ones; for multi-label data uint8 [groups, classes],
        0 or 1.
      probabilities: float64 [groups, classes], 0..1.
      names: names of the groups, in the order of their first images.

    Raises:
      UserError: rule `share` names no class, or a class that does not exist.
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
        probabilities = _count_images(groups, predictions.answers(), sums.shape) / sizes

    if predictions.multi_label:
        truths = total(predictions.labels) / sizes
        labels = (truths > 0 if rule == "max" else truths >= 0.5).astype(np.uint8)
        if rule == "share":
            labels[:, position] = truths[:, position] >= share
            probabilities[:, position] = np.interp(probabilities[:, position], [0, share, 1], [0, 0.5, 1])
        return labels, probabilities, names

    unknown = len(predictions.classes)
    truths = (
        _count_images(groups, np.where(predictions.labels < 0, unknown, predictions.labels), (len(names), unknown + 1)) / sizes
    )
    labels = truths.argmax(axis=1)
    if rule == "share":
        is_positive = truths[:, position] >= share
        truths[:, position] = -1
        labels = np.where(is_positive, position, truths.argmax(axis=1))
        probabilities = _share_probabilities(probabilities, share, position)
    if rule == "max":
        probabilities /= probabilities.sum(axis=1, keepdims=True)
    return np.where(labels == unknown, -1, labels), _break_ties(probabilities, sums), names


def position_of(classes: list[str], positive: str | None) -> int:
    """The position of the class that rule `share` names.

    Raises:
      UserError: the class is None or does not exist.
    """
    if positive not in classes:
        what = "is missing; rule share needs a class" if positive is None else f"there is no class {positive}"
        raise UserError(f"evaluate.groups.positive: {what}; classes: {', '.join(classes[:10])}{', ...' * (len(classes) > 10)}")
    return classes.index(positive)


def _count_images(groups: np.ndarray, classes: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Number of images of each class in each group, int64 [groups, classes]."""
    return np.bincount(groups * shape[1] + classes, minlength=shape[0] * shape[1]).reshape(shape)


def _share_probabilities(votes: np.ndarray, share: float, position: int) -> np.ndarray:
    """The probabilities under rule share, see `combine`; `votes` are shares of images, [groups, classes]."""
    positive = votes[:, position]
    # Below `share`, at most 1 / classes, so that the most frequent other class has more.
    below = positive / (share * votes.shape[1])
    score = np.where(positive < share, below, np.maximum(np.interp(positive, [share, 1], [0.5, 1]), 0.5 + _TIE_BREAK))
    rest = np.maximum(1 - positive, np.finfo(float).tiny)
    result = votes * ((1 - score) / rest)[:, None]
    result[:, position] = score
    return result


def _break_ties(probabilities: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """If several classes have a group's largest probability, raises the one with the largest of `sums` above the others."""
    largest = probabilities == probabilities.max(axis=1, keepdims=True)
    (tied,) = np.nonzero(largest.sum(axis=1) > 1)
    winners = np.where(largest[tied], sums[tied], -1).argmax(axis=1)
    probabilities[tied, winners] += _TIE_BREAK
    return probabilities


def _confusion_matrix(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """int64 [classes, classes]: number of groups by true class (row) and answer (column)."""
    known = labels >= 0
    count = probabilities.shape[1]
    return _count_images(labels[known], probabilities.argmax(axis=1)[known], (count, count))
