"""Abstention: the confidence below which a model rather does not answer, so that few of its answers are wrong.

The confidence is the probability of the most probable class. The risk is the share of wrong answers among those that are given.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import special

from models import features
from models.calibration import Floats, Integers
from models.settings import AbstainSettings, CalibrationSettings

ABSTENTION_FILE: Final = "abstention.json"  # file in the Trainer's model_run with the fields of `Abstention`
_SHARES: Final = 20  # equally spaced shares of answered images, each of which gives a threshold that is tested


class ClassNameError(ValueError):
    """A class has the name that stands for no answer."""


@dataclass(frozen=True)
class Abstention:
    """A fitted threshold, and what the eval split shows of it.

    Attributes:
      risk: the largest risk that was asked for, 0..1.
      confidence: the probability with which it was to be shown, 0..1.
      threshold: images are answered if their confidence is above this; 0: all are; None: no threshold can be promised to keep
        the risk, and all are answered.
      images: number of images that the thresholds were tested on, one of each group.
      answered: how many of them are answered; 0 without a threshold.
      wrong: how many of these answers are wrong.
      bound: upper bound of the risk; 1 without a threshold.
    """

    risk: float
    confidence: float
    threshold: float | None
    images: int
    answered: int
    wrong: int
    bound: float

    @property
    def problem(self) -> str:
        """Why the risk is not promised; "" if it is."""
        if self.threshold is not None:
            return ""
        return (
            f"calibrate.abstain: a risk of {self.risk:g} can't be promised: {self.images} images of the eval split, one a "
            "group, show it at no threshold; all images are answered. More eval images, a better model or a higher risk help"
        )


def check_names(settings: CalibrationSettings, classes: Collection[str]) -> None:
    """Checks that an answer can be told from none.

    Raises:
      ClassNameError: it can't.
    """
    if settings.abstains and features.UNKNOWN in classes:
        key = "calibrate.abstain" if settings.abstain else "calibrate.unusual.cutoff"
        raise ClassNameError(
            f"{key}: the data has a class named {features.UNKNOWN}, which is what a model answers that abstains; "
            "rename the class"
        )


def fit_abstention(probabilities: Floats, labels: Integers, groups: Integers, settings: AbstainSettings) -> Abstention:
    """Fits the least threshold whose risk is at most `settings.risk`, by an upper bound.

    Given an image's confidence, all images with more are an independent sample of what a threshold there lets through. So the
    number of wrong answers among them is binomial, and Clopper & Pearson's bound (1934) holds. The thresholds are those of 20
    shares of the images, and each bound holds with the probability 1 - (1 - confidence) / 20. So all hold together with the
    probability `confidence`, and the best may be chosen: the union bound of Geifman & El-Yaniv 2017, arXiv:1705.08500. Images
    of a group are not independent: one of each, at random, is looked at (Dunn, Wasserman & Ramdas 2018, arXiv:1809.07441,
    single subsampling), and the promise is for an image of a new group, all groups being equally likely.

    Args:
      probabilities: float [N, classes], as the exported model gives them.
      labels: int [N], -1 where the class is unknown: every answer is wrong.
      groups: int [N], equal for images of one group.
      settings: what is promised.
    """
    shuffled = np.random.default_rng(0).permutation(len(groups))
    one = shuffled[np.unique(groups[shuffled], return_index=True)[1]]
    sure = probabilities[one].max(axis=-1)
    wrong = probabilities[one].argmax(axis=-1) != labels[one]
    order = np.argsort(-sure)
    sure, wrong = sure[order], wrong[order]
    chance = (1 - settings.confidence) / _SHARES
    for part in range(_SHARES, 0, -1):
        last = len(sure) * part // _SHARES  # the first image that is not answered
        threshold = float(sure[last]) if last < len(sure) else 0.0
        answered = int((sure > threshold).sum())
        errors = int(wrong[:answered].sum())
        bound = upper_bound(errors, answered, chance)
        if bound <= settings.risk:
            return Abstention(settings.risk, settings.confidence, threshold, len(one), answered, errors, bound)
    return Abstention(settings.risk, settings.confidence, None, len(one), 0, 0, 1.0)


def upper_bound(errors: int, number: int, chance: float) -> float:
    """Clopper & Pearson's one-sided upper bound of a share, which is too low with at most the probability `chance`."""
    return float(special.betaincinv(errors + 1, number - errors, 1 - chance)) if errors < number else 1.0
