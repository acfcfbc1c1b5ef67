"""Counts, bins and curves of a model's answers, as the page shows them."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from models.calibration import CALIBRATION_BINS, calibration_bins

_POINTS: Final = 200  # of a curve, at most about


@dataclass(frozen=True)
class Reliability:
    """How sure a model is, and how often it is right, in bins of equal width (Guo et al. 2017, arXiv:1706.04599, section 2).

    Attributes:
      counts: int64 [CALIBRATION_BINS], answers by confidence; the first bin has both its ends, the others each their upper end.
      confidence: float [CALIBRATION_BINS], their mean; NaN where there are none.
      right: float [CALIBRATION_BINS], share of right ones; NaN where there are none.
    """

    counts: np.ndarray
    confidence: np.ndarray
    right: np.ndarray


@dataclass(frozen=True)
class Curve:
    """A curve with its name, from left to right, and what is written beside it.

    Attributes:
      name: of the class.
      x: float [points].
      y: float [points].
      score: area below a ROC curve, average precision of a precision-recall curve; 0..1.
    """

    name: str
    x: np.ndarray
    y: np.ndarray
    score: float


def count_confusions(labels: np.ndarray, answers: np.ndarray, classes: int) -> np.ndarray:
    """int64 [classes + 1, classes]: images by class and answer; the last row is of labels that the model does not know.

    Args:
      labels: int [N], -1 for unknown ones.
      answers: int [N].
      classes: how many.
    """
    rows = np.where(labels < 0, classes, labels)
    return np.bincount(rows * classes + answers, minlength=(classes + 1) * classes).reshape(classes + 1, classes)


def count_binary(labels: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """int64 [classes, 4]: true positives, false positives, false negatives, true negatives of each class.

    Args:
      labels: uint8 [N, classes], 0 or 1.
      answers: likewise.
    """
    is_true, is_answered = labels.astype(bool), answers.astype(bool)
    parts = (is_true & is_answered, ~is_true & is_answered, is_true & ~is_answered, ~is_true & ~is_answered)
    return np.stack([part.sum(axis=0) for part in parts], axis=1)


def measure_reliability(labels: np.ndarray, probabilities: np.ndarray) -> Reliability:
    """The bins of the expected calibration error.

    Args:
      labels: int [N], or uint8 [N, classes] of multi-label data.
      probabilities: float [N, classes].
    """
    index, confidence, right = calibration_bins(probabilities, labels)
    counts = np.bincount(index, minlength=CALIBRATION_BINS)
    with np.errstate(invalid="ignore"):
        means = [np.bincount(index, values, CALIBRATION_BINS) / counts for values in (confidence, right)]
    return Reliability(counts, *means)


def trace_curves(labels: np.ndarray, probabilities: np.ndarray, classes: list[str]) -> tuple[list[Curve], list[Curve]]:
    """ROC curves and precision-recall curves of each class against the rest, as scikit-learn computes them.

    Classes that all test images have, or none, are left out.

    Args:
      labels: int [N], or uint8 [N, classes] of multi-label data.
      probabilities: float [N, classes].
      classes: names.
    """
    from sklearn import metrics

    roc, precision_recall = [], []
    for number, name in enumerate(classes):
        truth = labels[:, number] if labels.ndim > 1 else labels == number
        if not 0 < truth.sum() < len(truth):
            continue
        scores = probabilities[:, number]
        wrongly, rightly, _ = metrics.roc_curve(truth, scores)
        roc.append(Curve(name, *_thinned(wrongly, rightly), float(metrics.auc(wrongly, rightly))))
        precision, recall, _ = metrics.precision_recall_curve(truth, scores)
        average = float(metrics.average_precision_score(truth, scores))
        precision_recall.append(Curve(name, *_thinned(recall[::-1], precision[::-1]), average))
    return roc, precision_recall


def average_curve(curves: list[Curve]) -> Curve:
    """The mean of several curves, at equally spaced x."""
    x = np.linspace(0, 1, _POINTS + 1)
    y = np.mean([np.interp(x, curve.x, curve.y) for curve in curves], axis=0)
    return Curve(f"mean of {len(curves)} classes", x, y, float(np.mean([curve.score for curve in curves])))


def _thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points at about equal distances along a curve; all of a short one, and always both ends."""
    if len(x) <= _POINTS:
        return x, y
    way = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
    chosen = np.unique(np.searchsorted(way, np.linspace(0, way[-1], _POINTS)).clip(0, len(x) - 1))
    chosen = np.union1d(chosen, [0, len(x) - 1])
    return x[chosen], y[chosen]
