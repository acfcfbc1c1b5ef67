"""Calibration: probabilities that say how often an answer is right.

One scalar, the temperature, divides all logits (Guo et al. 2017, arXiv:1706.04599, section 4.2). It changes how sure the model
is, but never which class is the most probable.

Throughout, logits are float [N, classes] and labels float [N, classes]: one-hot, or multi-hot for multi-label models, where
each class is a yes-or-no decision of its own (sigmoid instead of softmax).
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

Floats = NDArray[np.floating]
Integers = NDArray[np.integer]

TEMPERATURES: Final = (0.05, 20.0)  # least and largest
CALIBRATION_BINS: Final = 15
CALIBRATION_FILE: Final = "calibration.json"  # file in the Trainer's model_run with the fields of `Calibration`


@dataclass(frozen=True)
class Calibration:
    """A fitted temperature and its effect, measured on the split that it was fitted on.

    Attributes:
      temperature: divisor of the logits; above 1 if the model was too sure.
      ece_before: expected calibration error without the temperature, 0..1.
      ece_after: expected calibration error with it.
      cross_entropy_before: mean cross-entropy over the examples, in nats, without the temperature.
      cross_entropy_after: mean cross-entropy with it.
      examples: number of examples with a known label.
    """

    temperature: float
    ece_before: float
    ece_after: float
    cross_entropy_before: float
    cross_entropy_after: float
    examples: int


def calibrate(logits: Floats, labels: Floats, multi_label: bool = False) -> Calibration:
    """Fits the temperature and measures its effect; examples of unknown class (one-hot labels all 0) are left out.

    Raises:
      ValueError: no example is left, or logits are not finite.
    """
    if not multi_label:
        known = labels.sum(axis=-1) > 0
        logits, labels = logits[known], labels[known]
    temperature = fit_temperature(logits, labels, multi_label)
    answers = labels if multi_label else labels.argmax(axis=-1)
    return Calibration(
        temperature=temperature,
        ece_before=expected_calibration_error(probabilities(logits, multi_label), answers),
        ece_after=expected_calibration_error(probabilities(logits / temperature, multi_label), answers),
        cross_entropy_before=cross_entropy(logits, labels, multi_label),
        cross_entropy_after=cross_entropy(logits / temperature, labels, multi_label),
        examples=len(logits),
    )


def fit_temperature(logits: Floats, labels: Floats, multi_label: bool = False) -> float:
    """The temperature of least cross-entropy within `TEMPERATURES`, limited where it would make the model surer.

    If nearly all examples are right, the cross-entropy falls without end as the temperature falls. Its minimum then promises a
    certainty that so few examples can't prove: the first error among new examples would cost without bound. So a temperature
    below 1 has a lower limit: the best temperature if there were one more example, of which nothing is known and for which all
    classes are equally right. That is, the labels are mixed with 1/(N + 1) of the uniform distribution, in the spirit of Platt
    1999, "Probabilistic outputs for support vector machines", section 2.2. The cross-entropy on the given examples never rises.

    Raises:
      ValueError: there are no examples, or logits are not finite.
    """
    if not len(logits):
        raise ValueError("no examples to fit a temperature on")
    if not np.isfinite(logits).all():
        raise ValueError("the logits are not finite")

    def least(targets: Floats) -> float:
        def loss(temperature: float) -> float:
            return cross_entropy(logits / temperature, targets, multi_label)

        # The loss is convex in 1/T, so it has one minimum in log T as well; where it is flat, 1 is as good as any value.
        bounds = tuple(np.log(TEMPERATURES))
        found = optimize.minimize_scalar(
            lambda log: loss(np.exp(log)), bounds=bounds, method="bounded", options={"xatol": 1e-6}
        )
        return min(1.0, float(np.exp(found.x)), key=loss)

    unknown = 1 / (len(logits) + 1)
    held_back = least((1 - unknown) * labels + unknown * (0.5 if multi_label else 1 / logits.shape[-1]))
    return max(least(labels), min(held_back, 1.0))


def probabilities(logits: Floats, multi_label: bool = False) -> Floats:
    """Softmax over the classes, or for multi-label models the sigmoid of each class: float64 [N, classes]."""
    logits = logits.astype(np.float64)
    return special.expit(logits) if multi_label else special.softmax(logits, axis=-1)


def cross_entropy(logits: Floats, labels: Floats, multi_label: bool = False) -> float:
    """Mean over the examples, in nats; for multi-label models, mean over all decisions. Both are Keras' definitions."""
    logits = logits.astype(np.float64)
    if multi_label:
        return float((np.logaddexp(0.0, logits) - labels * logits).mean())
    return float(-(labels * special.log_softmax(logits, axis=-1)).sum(axis=-1).mean())


def expected_calibration_error(probabilities: Floats, labels: Floats | Integers) -> float:
    """Mean distance between how sure the model is and how often it is right (Naeini et al. 2015; Guo et al. 2017, eq. 3).

    The distance between mean confidence and share of right answers is weighted with the number of answers in each bin.

    Args: as for `calibration_bins`.

    Returns:
      0 (perfect) to 1.
    """
    index, confidence, right = calibration_bins(probabilities, labels)
    # count * |mean confidence - mean right| is the distance between the two sums.
    return float(np.abs(np.bincount(index, confidence - right, CALIBRATION_BINS)).sum() / len(index))


def calibration_bins(probabilities: Floats, labels: Floats | Integers) -> tuple[Integers, Floats, Floats]:
    """Puts answers into bins of equal width by their confidence.

    For classes that exclude each other, an answer is an example's most probable class with its probability. For multi-label
    models, every class of every example is an answer: its confidence is the probability of "yes", and it counts as right if
    "yes" is true.

    Args:
      probabilities: float [N, classes], 0..1.
      labels: int [N], positions in the classes; for multi-label models [N, classes], 0 or 1.

    Returns:
      For each answer its bin, from 0, its confidence, and whether it is right, 0 or 1. The first bin includes both of its
      ends, each other bin its upper end.
    """
    if labels.ndim > 1:
        confidence, right = probabilities.ravel(), labels.ravel()
    else:
        confidence, right = probabilities.max(axis=-1), probabilities.argmax(axis=-1) == labels
    edges = np.linspace(0.0, 1.0, CALIBRATION_BINS + 1)
    return np.digitize(confidence, edges[1:-1], right=True), confidence, right.astype(np.float64)
