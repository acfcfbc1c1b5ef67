"""Judges a model for which no thresholds are set.

1. It must be better than an answer that is always the same, such as the most frequent class. The balanced accuracy of such an
   answer is known: 1 / the number of classes that the test images have, or 0.5 for multi-label data, whatever the sizes of the
   classes. The lower end of the model's 95 % interval must be above that.
2. It must not be significantly worse than the served model on the same images: the 95 % interval of the difference, which is
   paired, must not be all below 0.

So a model without skill passes the first rule in about 2.5 % of all runs, and one that is as good as the served model fails
the second one as seldom. A temperature changes no answer, so a calibrated model is judged as it would be without.
"""

from typing import Final

import numpy as np

from evaluation.metrics import Integers
from evaluation.results import Metric, Slice, Verdict

METRIC: Final = "balanced_accuracy"
_TINY: Final = 1e-9


def judge_by_default(overall: Slice, labels: Integers, with_intervals: bool) -> list[Verdict]:
    """Judges a model by both rules.

    Args:
      overall: results for all images, with `METRIC`.
      labels: int [N], positions in the classes, -1 for unknown ones; for multi-label data [N, K], 0 or 1.
      with_intervals: whether intervals were asked for; else the values decide.

    Returns:
      One verdict, and a second one if there is a served model to compare with.
    """
    verdicts = [_beats_a_constant(overall, labels, with_intervals)]
    if compared := overall.comparisons.get(METRIC):
        verdicts.append(_keeps_up(overall, compared.difference, with_intervals))
    return verdicts


def _beats_a_constant(overall: Slice, labels: Integers, with_intervals: bool) -> Verdict:
    several = labels.ndim == 2
    classes = len(np.unique(labels[labels >= 0])) if not several else 0
    bound = 0.5 if several else 1 / max(classes, 1)
    answer = "always the same classes" if several else "always the most frequent class"
    how = "with its whole interval" if with_intervals else "by its value, as no intervals are computed"
    rule = f"above {bound:.4g} {how} ({answer} gives {bound:.4g})"
    measured = overall.metrics.get(METRIC)
    if measured is None:
        return Verdict(METRIC, overall.name, None, False, "no class of the model that some test images have", bound, rule=rule)
    end = measured.lower if with_intervals else measured.value
    passed = end is not None and end > bound + _TINY
    if passed:
        found = ""
    elif classes == 1:
        found = "all test images are of one class, so that answer is always right; give test images of other classes"
    else:
        found = _why_not(overall, measured, bound, with_intervals)
    return Verdict(METRIC, overall.name, measured, passed, found, bound, rule=rule)


def _why_not(overall: Slice, measured: Metric, bound: float, with_intervals: bool) -> str:
    if measured.value <= bound + _TINY or not with_intervals:
        return "the model is no better than that"
    size = f"{overall.examples} test images"
    if overall.groups < overall.examples:
        size += f" of {overall.groups} group{'s' if overall.groups > 1 else ''}"
    if measured.lower is None:
        return f"{size} give no interval; give more of them, or set evaluate.thresholds"
    return f"{size} are too few to tell; give more of them, or set evaluate.thresholds"


def _keeps_up(overall: Slice, difference: Metric, with_intervals: bool) -> Verdict:
    if with_intervals and difference.upper is not None:
        end, rule = difference.upper, "not significantly worse than the served model (interval not wholly below 0)"
    else:
        end, rule = difference.value, "not worse than the served model by its value, as there is no interval"
    return Verdict(METRIC, overall.name, difference, end >= -_TINY, lower=0.0, against="the served model", rule=rule)
