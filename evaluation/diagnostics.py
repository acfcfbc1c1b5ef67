"""Confusion counts, calibration bins and curves of a model's answers, for the evaluation page."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from evaluation.promises import selective_risks
from models.calibration import CALIBRATION_BINS, calibration_bins

_POINTS: Final = 200  # approximate limit of points per curve


@dataclass(frozen=True)
class Reliability:
    """Confidence and accuracy of a model in bins of equal width (Guo et al. 2017, arXiv:1706.04599, section 2).

    Attributes:
      counts: int64 [CALIBRATION_BINS], number of answers by confidence. The first bin includes both its ends, every other bin
        its upper end.
      confidence: float [CALIBRATION_BINS], mean confidence in each bin; NaN in an empty bin.
      right: float [CALIBRATION_BINS], share of right answers in each bin; NaN in an empty bin.
    """

    counts: np.ndarray
    confidence: np.ndarray
    right: np.ndarray


@dataclass(frozen=True)
class Curve:
    """A curve of one class.

    Attributes:
      name: name of the class.
      x: float [points], in ascending order.
      y: float [points].
      score: area under a ROC curve or one of risk, or average precision of a precision-recall curve; 0..1.
    """

    name: str
    x: np.ndarray
    y: np.ndarray
    score: float


def count_confusions(labels: np.ndarray, answers: np.ndarray, classes: int) -> np.ndarray:
    """Counts images by true class and answer.

    Args:
      labels: int [N], -1 for a label that the model does not know.
      answers: int [N].
      classes: number of classes.

    Returns:
      int64 [classes + 1, classes]; the last row counts the images with unknown labels.
    """
    rows = np.where(labels < 0, classes, labels)
    return np.bincount(rows * classes + answers, minlength=(classes + 1) * classes).reshape(classes + 1, classes)


def count_binary(labels: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Counts right and wrong answers for each class of multi-label data.

    Args:
      labels: uint8 [N, classes], 0 or 1.
      answers: uint8 [N, classes], 0 or 1.

    Returns:
      int64 [classes, 4]: true positives, false positives, false negatives, true negatives.
    """
    is_true, is_answered = labels.astype(bool), answers.astype(bool)
    parts = (is_true & is_answered, ~is_true & is_answered, is_true & ~is_answered, ~is_true & ~is_answered)
    return np.stack([part.sum(axis=0) for part in parts], axis=1)


def measure_reliability(labels: np.ndarray, probabilities: np.ndarray) -> Reliability:
    """Computes the bins of the expected calibration error.

    Args:
      labels: int [N], or uint8 [N, classes] for multi-label data.
      probabilities: float [N, classes].
    """
    index, confidence, right = calibration_bins(probabilities, labels)
    counts = np.bincount(index, minlength=CALIBRATION_BINS)
    with np.errstate(invalid="ignore"):
        means = [np.bincount(index, values, CALIBRATION_BINS) / counts for values in (confidence, right)]
    return Reliability(counts, *means)


def trace_curves(labels: np.ndarray, probabilities: np.ndarray, classes: list[str]) -> tuple[list[Curve], list[Curve]]:
    """ROC and precision-recall curves of each class against the rest, as computed by scikit-learn.

    Classes that all test images have, or that none has, are left out.

    Args:
      labels: int [N], or uint8 [N, classes] for multi-label data.
      probabilities: float [N, classes].
      classes: names of the classes.

    Returns:
      The ROC curves and the precision-recall curves.
    """
    from sklearn import metrics

    roc, precision_recall = [], []
    for number, name in enumerate(classes):
        truth = labels[:, number] if labels.ndim > 1 else labels == number
        if not 0 < truth.sum() < len(truth):
            continue
        scores = probabilities[:, number]
        wrongly, rightly, _ = metrics.roc_curve(truth, scores)
        roc.append(Curve(name, *_thin_curve(wrongly, rightly), float(metrics.auc(wrongly, rightly))))
        precision, recall, _ = metrics.precision_recall_curve(truth, scores)
        average = float(metrics.average_precision_score(truth, scores))
        precision_recall.append(Curve(name, *_thin_curve(recall[::-1], precision[::-1]), average))
    return roc, precision_recall


def trace_risk(labels: np.ndarray, probabilities: np.ndarray) -> Curve:
    """The share of wrong answers by the share of images that are answered, the most confident first.

    Its score is the area under it, `promises.selective_risks`' mean.

    Args:
      labels: int [N].
      probabilities: float [N, classes].
    """
    risks = selective_risks(labels, probabilities)
    return Curve("risk", *_thin_curve(np.arange(1, len(risks) + 1) / len(risks), risks), float(risks.mean()))


def average_curve(curves: list[Curve]) -> Curve:
    """The mean of several curves at equally spaced x; its score is the mean of their scores."""
    x = np.linspace(0, 1, _POINTS + 1)
    y = np.mean([np.interp(x, curve.x, curve.y) for curve in curves], axis=0)
    return Curve(f"mean of {len(curves)} classes", x, y, float(np.mean([curve.score for curve in curves])))


def _thin_curve(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Reduces a curve to points at about equal distances along it, with both ends; a short curve stays as it is."""
    if len(x) <= _POINTS:
        return x, y
    way = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
    chosen = np.unique(np.searchsorted(way, np.linspace(0, way[-1], _POINTS)).clip(0, len(x) - 1))
    chosen = np.union1d(chosen, [0, len(x) - 1])
    return x[chosen], y[chosen]
