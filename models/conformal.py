"""Prediction sets: the classes that an image may be of, and a promise how often the true one is among them.

This is split conformal prediction. Each class of an image has a score, which is high where the class does not fit. A class is
in the set if its score is at most a threshold: the quantile of the true classes' scores on images that the weights were not
trained on. If a new image and these are exchangeable, its set holds its true class with at least the probability `coverage`,
whatever the model and the data.

Images of a group (a patient, a product) are not exchangeable by themselves, but groups are. So every group has the same
weight, divided among its images (Lee, Barber & Willett 2023, arXiv:2306.06342, hierarchical conformal prediction): the promise
is for an image that is drawn from a new group, all groups being equally likely. If each image is a group, this is the usual
quantile, the ceil((N + 1) coverage)-th smallest of N scores (Vovk et al. 2005; Romano et al. 2020, arXiv:2006.02544).
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from models.calibration import Floats, Integers
from models.choices import SetMethod
from models.settings import SetSettings

if TYPE_CHECKING:
    import tensorflow as tf

SETS_FILE: Final = "sets.json"  # file in the Trainer's model_run with the fields of `PredictionSets`
# Of RAPS: lambda and k_reg. The promise holds for any values that are fixed beforehand, and these suit any number of classes.
PENALTY: Final = 0.01
FREE_RANKS: Final = 1
_ROUNDING: Final = 1e-9


@dataclass(frozen=True)
class PredictionSets:
    """Which classes are in an image's set.

    Attributes:
      method: the score, see `scores`.
      coverage: the promised probability, 0..1.
      by_class: whether it is promised for each class by itself (Vovk 2012, arXiv:1209.2673, label-conditional prediction).
      thresholds: for each class the largest score with which it is in a set; None: it always is, because the promise needs more
        groups.
      groups: for each class the number of groups that its threshold is fitted on.
      needed: number of groups that the promise needs.
    """

    method: SetMethod
    coverage: float
    by_class: bool
    thresholds: tuple[float | None, ...]
    groups: tuple[int, ...]
    needed: int

    @property
    def problem(self) -> str:
        """Why coverage is not promised, or not for some classes; "" if it is."""
        short = [groups for groups, limit in zip(self.groups, self.thresholds, strict=True) if limit is None]
        if not short:
            return ""
        what = f"{len(short)} of {len(self.groups)} classes, which are in every set" if self.by_class else "any class"
        why = f"it needs {self.needed} or more groups of images in the eval split, and there are {min(short)}"
        if min(short) >= self.needed:
            why = "too many images of the eval split are of classes that the training split has not"
        return f"calibrate.sets: a coverage of {self.coverage:g} is not promised for {what}: {why}"

    def select(self, probabilities: Any) -> "tf.Tensor":
        """The sets: bool [N, classes]."""
        import tensorflow as tf

        limits = [math.inf if limit is None else limit for limit in self.thresholds]
        return scores(probabilities, self.method) <= tf.constant(limits, tf.float32)


def scores(probabilities: Any, method: SetMethod) -> "tf.Tensor":
    """How little each class fits.

    * lac: 1 - its probability (Sadinle et al. 2016, arXiv:1609.00451). Sets are the smallest on average, and may be empty.
    * aps: sum of the probabilities of all more probable classes (Romano et al. 2020, arXiv:2006.02544).
    * raps: aps + PENALTY max(rank - FREE_RANKS, 0), the most probable class having rank 1 (Angelopoulos et al. 2020,
      arXiv:2009.14193), which keeps unlikely classes out of large sets.

    In the last two, the papers add a random share of the class's own probability, so that coverage is exact. A model that is
    asked twice must give the same answer, so this share is 0: the most probable class is always in the set, and coverage may be
    higher than promised.

    Args:
      probabilities: float32 [N, classes], 0..1.
      method: the score's name.

    Returns:
      float32 [N, classes], at least 0.
    """
    import tensorflow as tf  # takes seconds, which readers of SETS_FILE do not need

    if method == "lac":
        return 1 - tf.convert_to_tensor(probabilities)
    values, order = tf.nn.top_k(probabilities, probabilities.shape[-1])
    ranked = tf.cumsum(values, axis=-1, exclusive=True)
    if method == "raps":
        ranked += PENALTY * tf.nn.relu(tf.range(1.0, probabilities.shape[-1] + 1.0) - FREE_RANKS)
    return tf.gather(ranked, tf.argsort(order, axis=-1), batch_dims=1)


def fit_sets(probabilities: Floats, labels: Integers, groups: Integers, settings: SetSettings) -> PredictionSets:
    """Fits the thresholds.

    Args:
      probabilities: float32 [N, classes], as the exported model gives them.
      labels: int [N], -1 where the class is unknown: no set can hold it.
      groups: int [N], equal for images of one group.
      settings: what is promised.
    """
    number = probabilities.shape[-1]
    of_truth = scores(probabilities, settings.method).numpy()[np.arange(len(labels)), labels]
    found = np.where(labels >= 0, of_truth, np.inf)
    parts = [labels == position for position in range(number)] if settings.by_class else [np.full(len(labels), True)]
    limits = [quantile(found[part], groups[part], settings.coverage) for part in parts]
    copies = number // len(parts)
    return PredictionSets(
        settings.method,
        settings.coverage,
        settings.by_class,
        tuple(limit if math.isfinite(limit) else None for limit in limits) * copies,
        tuple(len(np.unique(groups[part])) for part in parts) * copies,
        math.ceil(settings.coverage / (1 - settings.coverage) * (1 - _ROUNDING)),
    )


def quantile(values: Floats, groups: Integers, coverage: float) -> float:
    """The smallest value that, with all smaller ones, has at least the weight `coverage`.

    Each of G groups has the weight 1 / (G + 1), divided among its values; the rest is infinity's.

    Args:
      values: float [N].
      groups: int [N], equal for values of one group.
      coverage: 0..1.
    """
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.argsort(values)
    weights = np.cumsum(1 / sizes[group[order]])
    position = int(np.searchsorted(weights, (len(sizes) + 1) * (coverage - _ROUNDING)))
    return float(values[order[position]]) if position < len(values) else math.inf
