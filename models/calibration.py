"""Calibration: probabilities that say how often an answer is right.

One scalar, the temperature, divides all logits (Guo et al. 2017, arXiv:1706.04599, section 4.2). It changes how sure the model
is and never which class it takes for the most probable.

Throughout, logits are float [N, classes] and labels float [N, classes]: one-hot, or multi-hot for multi-label models, whose
classes are as many yes-or-no decisions of their own (sigmoid instead of softmax).
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
CALIBRATION_FILE: Final = "calibration.json"  # in the Trainer's model_run; the fields of `Calibration`


@dataclass(frozen=True)
class Calibration:
    """A fitted temperature and what it does, both measured on the split that it was fitted on.

    Attributes:
      temperature: what the logits are divided by; above 1 the model was too sure.
      ece_before: expected calibration error without it, 0..1.
      ece_after: with it.
      cross_entropy_before: mean over the examples, in nats, without it.
      cross_entropy_after: with it.
      examples: with a known label.
    """

    temperature: float
    ece_before: float
    ece_after: float
    cross_entropy_before: float
    cross_entropy_after: float
    examples: int


def calibrate(logits: Floats, labels: Floats, multi_label: bool = False) -> Calibration:
    """Fits the temperature and measures what it does; examples of unknown class (one-hot labels all 0) are left out.

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
    """The temperature of least cross-entropy within `TEMPERATURES`, held back where it would make the model surer.

    Where next to all examples are right, the cross-entropy falls on and on as the temperature falls, and its minimum promises
    a certainty that so few examples can't show: the first error among new ones would cost without bound. So a temperature
    below 1 is at least the one that also gives one more example, of which nothing is known, its due (all classes equally
    right: the labels are mixed with 1/(N + 1) of the uniform distribution, in the spirit of Platt 1999, "Probabilistic outputs
    for support vector machines", section 2.2). The cross-entropy on these examples never rises.

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

        # Convex in 1/T, so it has one minimum in log T as well; where it is flat, 1 does as well as any.
        bounds = tuple(np.log(TEMPERATURES))
        found = optimize.minimize_scalar(
            lambda log: loss(np.exp(log)), bounds=bounds, method="bounded", options={"xatol": 1e-6}
        )
        return min(1.0, float(np.exp(found.x)), key=loss)

    unknown = 1 / (len(logits) + 1)
    held_back = least((1 - unknown) * labels + unknown * (0.5 if multi_label else 1 / logits.shape[-1]))
    return max(least(labels), min(held_back, 1.0))


def probabilities(logits: Floats, multi_label: bool = False) -> Floats:
    """Softmax over the classes, or a sigmoid of each: float64 [N, classes]."""
    logits = logits.astype(np.float64)
    return special.expit(logits) if multi_label else special.softmax(logits, axis=-1)


def cross_entropy(logits: Floats, labels: Floats, multi_label: bool = False) -> float:
    """Mean over the examples, in nats; of multi-label decisions the mean over all of them, as Keras has both."""
    logits = logits.astype(np.float64)
    if multi_label:
        return float((np.logaddexp(0.0, logits) - labels * logits).mean())
    return float(-(labels * special.log_softmax(logits, axis=-1)).sum(axis=-1).mean())


def expected_calibration_error(probabilities: Floats, labels: Floats | Integers) -> float:
    """Mean distance between how sure the model is and how often it is right (Naeini et al. 2015; Guo et al. 2017, eq. 3).

    Each bin's distance between mean confidence and share of right answers counts by its number of answers.

    Args: as of `calibration_bins`.

    Returns:
      0 (perfect) to 1.
    """
    index, confidence, right = calibration_bins(probabilities, labels)
    # count * |mean confidence - mean right| is the distance of the two sums.
    return float(np.abs(np.bincount(index, confidence - right, CALIBRATION_BINS)).sum() / len(index))


def calibration_bins(probabilities: Floats, labels: Floats | Integers) -> tuple[Integers, Floats, Floats]:
    """Puts answers into bins of equal width by their confidence.

    For classes that exclude each other, an answer is an example's most probable class with its probability. For multi-label
    models every class of every example is one, with the probability of "yes" as its confidence and the share of "yes" in the
    place of right answers.

    Args:
      probabilities: float [N, classes], 0..1.
      labels: int [N], positions in the classes; of multi-label models [N, classes], 0 or 1.

    Returns:
      Of each answer its bin, from 0, its confidence and whether it is right, 0 or 1. The first bin takes both its ends, the
      others each their upper end.
    """
    if labels.ndim > 1:
        confidence, right = probabilities.ravel(), labels.ravel()
    else:
        confidence, right = probabilities.max(axis=-1), probabilities.argmax(axis=-1) == labels
    edges = np.linspace(0.0, 1.0, CALIBRATION_BINS + 1)
    return np.digitize(confidence, edges[1:-1], right=True), confidence, right.astype(np.float64)
