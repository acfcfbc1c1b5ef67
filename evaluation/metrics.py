"""The classification metrics, defined over labels, probabilities and weights of the images.

In this module N is the number of images and K the number of classes.

* Labels are int [N], positions in the classes, or -1 for a class that the model does not know; the answer to such an image is
  always wrong. For multi-label data they are [N, K], 0 or 1.
* Probabilities are float [N, K], 0..1.
* A weight is how many times an image counts. Weights 0, 1 and 2 give exactly the same result as leaving the image out, having
  it once and having it twice. Resampling uses whole numbers (see `intervals`), but any number of at least 0 is allowed.

The answer to an image is its most probable class (of equally probable ones, the first); for multi-label data, every class with
a probability of at least 0.5. Macro averages are over those of the model's classes that occur in the labels. A metric is NaN
if it is not defined.
"""

import difflib
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from base.errors import UserError
from models.calibration import CALIBRATION_BINS, calibration_bins

Floats = NDArray[np.floating]
Integers = NDArray[np.integer]

_EPSILON: Final = 1e-7  # smallest probability in the cross-entropy, as in Keras
_NO_WEIGHT: Final = 1e-9  # what rounding leaves of a difference of sums of weights
_TOP_K: Final = re.compile(r"top_([1-9]\d*)_accuracy")


@dataclass(frozen=True)
class Definition:
    """Properties of a metric.

    Attributes:
      larger_is_better: whether a larger value means a better model.
      least: smallest possible value.
      most: largest possible value.
      of_multi_label: whether it is defined for multi-label data.
      of_single_label: whether it is defined for data with one label per image.
      is_proportion: whether it is a share of the images; the accuracy of multi-label data is a share of image-class pairs.
      of_class: whether it is also defined for each class.
      summary: what it measures, in one line, with the source of the formula.
    """

    larger_is_better: bool
    least: float
    most: float
    of_multi_label: bool
    of_single_label: bool
    is_proportion: bool
    of_class: bool
    summary: str


def _define(
    summary: str,
    better: str = "larger",
    least: float = 0.0,
    most: float = 1.0,
    only: str = "",
    is_proportion: bool = False,
    of_class: bool = False,
) -> Definition:
    return Definition(better == "larger", least, most, only != "single", only != "multi", is_proportion, of_class, summary)


class _Metrics(dict[str, Definition]):
    """The metrics by name; also has `top_<k>_accuracy` for every k from 1."""

    def __missing__(self, name: str) -> Definition:
        if not (match := _TOP_K.fullmatch(name)):
            raise KeyError(name)
        return _define(
            f"share of images whose class is among the {match[1]} most probable (Russakovsky et al. 2015, section 4.1)",
            only="single",
            is_proportion=True,
        )


# In the order in which they are displayed.
METRICS: Final[dict[str, Definition]] = _Metrics(
    accuracy=_define(
        "share of right answers; of multi-label data of image-class pairs (Sokolova & Lapalme 2009, table 3)",
        is_proportion=True,
    ),
    exact_match=_define(
        "share of images with all classes right (Sokolova & Lapalme 2009, table 4)", only="multi", is_proportion=True
    ),
    balanced_accuracy=_define(
        "mean recall of the classes (Brodersen et al. 2010); multi-label: mean over classes of (recall + specificity) / 2"
    ),
    f1_micro=_define("F1 over all image-class pairs (Sokolova & Lapalme 2009, table 3)", only="multi"),
    f1=_define("mean over classes of 2 TP / (2 TP + FP + FN) (van Rijsbergen 1979, chapter 7)", of_class=True),
    precision=_define("mean over classes of TP / (TP + FP) (Sokolova & Lapalme 2009, table 3)", of_class=True),
    recall=_define("mean over classes of TP / (TP + FN) (Sokolova & Lapalme 2009, table 3)", of_class=True),
    auc=_define(
        "mean over classes of the chance that an image of the class gets more probability than another (Hanley & McNeil 1982)",
        of_class=True,
    ),
    auc_pr=_define(
        "mean over classes of the average precision, the area under precision by recall in steps (Zhu 2004)", of_class=True
    ),
    matthews=_define("correlation of answers and labels (Gorodkin 2004, eq. 8)", least=-1.0, only="single"),
    top_3_accuracy=_Metrics()["top_3_accuracy"],
    cross_entropy=_define(
        "mean -log of the probability of what is right, in nats; multi-label: over pairs (Bishop 2006, eq. 4.108 and 4.90)",
        "smaller",
        most=-math.log(_EPSILON),
    ),
    ece=_define(
        "expected calibration error: distance of confidence and share of right answers, in 15 bins (Guo et al. 2017, eq. 3)",
        "smaller",
    ),
    brier=_define(
        "mean squared distance of probabilities and label, summed over classes; multi-label: over pairs (Brier 1950, eq. 2)",
        "smaller",
        most=2.0,
    ),
)
# Of what a model promises beside its probabilities, see `promises`: only models that give sets, or may abstain, have them.
PROMISES: Final[dict[str, Definition]] = {
    "set_coverage": _define(
        "share of images whose `label_set` holds their class (Vovk et al. 2005)",
        only="single",
        is_proportion=True,
        of_class=True,
    ),
    "set_size": _define("mean number of classes in `label_set`", "smaller", most=math.inf, only="single", of_class=True),
    "answered": _define(
        "share of images whose `label` is not `unknown` (coverage in El-Yaniv & Wiener 2010)",
        only="single",
        is_proportion=True,
        of_class=True,
    ),
    "selective_risk": _define(
        "share of wrong answers among those that are not `unknown` (El-Yaniv & Wiener 2010)",
        "smaller",
        only="single",
        is_proportion=True,
    ),
}
DEFINITIONS: Final[dict[str, Definition]] = _Metrics({**METRICS, **PROMISES})
_MEAN_RECALL: Final = "recall"  # with one label per image, the mean recall is the balanced accuracy


def default_metrics(multi_label: bool) -> list[str]:
    """Names of all metrics that fit the data, in the order in which they are displayed, accuracy first."""
    if multi_label:
        return [name for name, metric in METRICS.items() if metric.of_multi_label]
    return [name for name, metric in METRICS.items() if metric.of_single_label and name != _MEAN_RECALL]


def check_metrics(names: Iterable[str], multi_label: bool, section: str = "evaluate", more: Sequence[str] = ()) -> None:
    """Checks names of metrics.

    Args:
      names: the names.
      multi_label: whether an image can have any number of classes.
      section: the section of the configuration that the error names.
      more: other names that are allowed.

    Raises:
      UserError: a metric is unknown or does not fit the data.
    """
    fitting = [*(name for name, metric in METRICS.items() if _fits(metric, multi_label)), *more]
    for name in names:
        if name in more:
            continue
        if name in PROMISES and not multi_label:
            if section != "evaluate":
                raise UserError(f"{section}: {name} is measured of the SavedModel alone; leave it out")
            key = "calibrate.sets" if name.startswith("set_") else "calibrate.abstain or calibrate.unusual.cutoff"
            raise UserError(f"{section}: {name} is measured where a model promises it; set {key}, or leave {name} out")
        try:
            metric = DEFINITIONS[name]
        except KeyError:
            near = difflib.get_close_matches(name, fitting, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known ones: {', '.join(fitting)}"
            raise UserError(f"{section}: unknown metric {name}; {hint}") from None
        if not _fits(metric, multi_label):
            data = "several labels" if multi_label else "one label"
            raise UserError(f"{section}: {name} is no metric of data with {data} an image; known ones: {', '.join(fitting)}")


def _fits(metric: Definition, multi_label: bool) -> bool:
    return metric.of_multi_label if multi_label else metric.of_single_label


def compute(names: Iterable[str], labels: Integers, probabilities: Floats, weights: Floats | None = None) -> dict[str, float]:
    """Computes metrics for one weighting.

    Args:
      names: metrics of `METRICS`.
      labels: int [N] or [N, K], see the module.
      probabilities: float [N, K].
      weights: float [N], at least 0; all 1 if not given.

    Returns:
      The metrics by name; NaN if a metric is not defined.
    """
    column = np.ones((len(labels), 1)) if weights is None else np.asarray(weights, np.float64)[:, None]
    found = Measurement(labels, probabilities).compute(names, column)
    return {name: float(values[0]) for name, values in found.items()}


class Measurement:
    """Images that are prepared once and measured under many weightings.

    Weights belong to units, which are sets of images that are left out or drawn together. Sums over the images of each unit
    are computed once, and for the areas under curves the images are sorted once per class.

    In this class R is the number of weightings. Weights are float [units, R], at least 0.
    """

    def __init__(self, labels: Integers, probabilities: Floats, units: Integers | None = None) -> None:
        """Stores the images; each metric is prepared when it is first computed.

        Args:
          labels: int [N] or [N, K], see the module.
          probabilities: float [N, K].
          units: int [N], the unit of each image, from 0; if not given, each image is a unit of its own.
        """
        self.multi_label = labels.ndim == 2
        self._labels = labels
        self._probabilities = np.asarray(probabilities, np.float64)
        self._images, self._classes = probabilities.shape
        self._units: Integers = np.arange(self._images) if units is None else units
        self._num_units = int(self._units.max(initial=-1)) + 1
        self._sums: dict[str, Floats] = {}

    def compute(self, names: Iterable[str], weights: Floats) -> dict[str, Floats]:
        """Computes metrics; returns them by name, each float [R]."""
        names = list(names)
        found = {name: _mean_where_defined(values) for name, values in self.compute_by_class(names, weights).items()}
        special = {
            "balanced_accuracy": self._balanced_accuracy,
            "matthews": self._matthews,
            "ece": self._ece,
            "f1_micro": self._f1_micro,
        }
        with np.errstate(divide="ignore", invalid="ignore"):
            for name in names:
                if name in special:
                    found[name] = special[name](weights)
                elif name not in found:
                    found[name] = self._mean(name, weights)
        return {name: found[name] for name in names}

    def compute_by_class(self, names: Iterable[str], weights: Floats) -> dict[str, Floats]:
        """Computes the metrics that are defined per class; returns them by name, each float [K, R].

        A value is NaN if no label names the class.
        """
        wanted = [name for name in names if METRICS[name].of_class]
        found: dict[str, Floats] = {}
        with np.errstate(divide="ignore", invalid="ignore"):
            if {"f1", "precision", "recall"} & set(wanted):
                right, answered, actual = (part[: self._classes] for part in self._counts(weights))
                absent = np.where(actual > 0, 0.0, np.nan)
                found["f1"] = 2 * right / (answered + actual) + absent
                found["precision"] = _divide(right, answered) + absent
                found["recall"] = right / actual
            if {"auc", "auc_pr"} & set(wanted):
                areas = [curve.areas(weights) for curve in self._curves]
                found["auc"], found["auc_pr"] = (np.stack(part) for part in zip(*areas, strict=True))
        return {name: found[name] for name in wanted}

    def ece_excess(self) -> float:
        """Estimates by how much the expected calibration error is too large because its bins hold few images.

        The distance in a bin is partly due to chance. The squared distance minus its variance is the part that is not (Kumar et
        al. 2019, "Verified uncertainty calibration", section 4). The variance is estimated from the sums of the units.
        """
        distances = self._bins.sum(axis=1)
        units = self._num_units
        squares = (self._bins**2).sum(axis=1) - distances**2 / units
        variances = squares * units / max(units - 1, 1)
        left = np.sqrt(np.maximum(distances**2 - variances, 0.0))
        pairs = self._classes if self.multi_label else 1
        return float((np.abs(distances) - left).sum() / (pairs * self._images))

    def _count(self, weights: Floats) -> Floats:
        """Number of images, [R]."""
        return np.bincount(self._units, minlength=self._num_units).astype(np.float64) @ weights

    def _mean(self, name: str, weights: Floats) -> Floats:
        """Mean of a metric that has a value per image, [R]."""
        if name not in self._sums:
            values = _image_values(name, self._labels, self._probabilities)
            self._sums[name] = np.bincount(self._units, values, self._num_units).astype(np.float64)
        return self._sums[name] @ weights / self._count(weights)

    def _balanced_accuracy(self, weights: Floats) -> Floats:
        """Mean over the classes, [R]: of the recall, or for multi-label data of the mean of recall and specificity."""
        right, answered, actual = (part[: self._classes] for part in self._counts(weights))
        recall = right / actual
        if not self.multi_label:
            return _mean_where_defined(recall)
        others = self._count(weights) - actual
        specificity = np.where(others > _NO_WEIGHT, 1 - (answered - right) / others, np.nan)
        return _mean_where_defined((recall + specificity) / 2)

    def _matthews(self, weights: Floats) -> Floats:
        """Matthews correlation, [R]; 0 if all answers are the same, NaN if all labels are."""
        right, answered, actual = self._counts(weights)
        count = self._count(weights)
        covariance = count * right.sum(axis=0) - (answered * actual).sum(axis=0)
        of_answers, of_labels = (count**2 - (part**2).sum(axis=0) for part in (answered, actual))
        correlation = covariance / np.sqrt(of_answers * of_labels)
        return np.where(_has_several(actual), np.where(_has_several(answered), correlation, 0.0), np.nan)

    def _ece(self, weights: Floats) -> Floats:
        pairs = self._classes if self.multi_label else 1
        return np.abs(self._bins @ weights).sum(axis=0) / (pairs * self._count(weights))

    def _f1_micro(self, weights: Floats) -> Floats:
        right, answered, actual = (part.sum(axis=0) for part in self._counts(weights))
        return _divide(2 * right, answered + actual)

    def _counts(self, weights: Floats) -> tuple[Floats, Floats, Floats]:
        """Numbers of right answers, of answers and of labels for each class, [K, R] each.

        Single-label data has one more row, for the label -1.
        """
        right, answered, actual = self._confusion
        return right @ weights, answered @ weights, actual @ weights

    @cached_property
    def _confusion(self) -> tuple[sparse.csr_array, sparse.csr_array, sparse.csr_array]:
        """The three numbers of `_counts` for each class and unit, [K, units] each."""
        if self.multi_label:
            answers, actual = self._probabilities >= 0.5, self._labels > 0
            parts = []
            for part in (answers & actual, answers, actual):
                images, classes = np.nonzero(part)
                parts.append(self._sum_by_unit(classes, self._units[images], None, self._classes))
            return parts[0], parts[1], parts[2]
        answers = self._probabilities.argmax(axis=-1)
        right = np.flatnonzero(answers == self._labels)
        rows = self._classes + 1
        return (
            self._sum_by_unit(answers[right], self._units[right], None, rows),
            self._sum_by_unit(answers, self._units, None, rows),
            self._sum_by_unit(np.where(self._labels < 0, self._classes, self._labels), self._units, None, rows),
        )

    @cached_property
    def _bins(self) -> sparse.csr_array:
        """For each bin of confidence and each unit, the sum of the confidences minus the number of right answers."""
        bins, confidences, right = calibration_bins(self._probabilities, self._labels)
        units = np.repeat(self._units, self._classes) if self.multi_label else self._units
        return self._sum_by_unit(bins, units, confidences - right, CALIBRATION_BINS)

    @cached_property
    def _curves(self) -> list["_Curve"]:
        labels = self._labels if self.multi_label else self._labels[:, None] == np.arange(self._classes)
        return [
            _Curve(self._probabilities[:, number], labels[:, number] > 0, self._units, self._num_units)
            for number in range(self._classes)
        ]

    def _sum_by_unit(self, rows: Integers, units: Integers, values: Floats | None, num_rows: int) -> sparse.csr_array:
        return _sum_up(rows, units, values, (num_rows, self._num_units))


class _Curve:
    """The images sorted by the probability of one class, prepared for the areas under its curves.

    The order of negatives between two positives does not matter. So the images are put into segments, from the most probable
    on. A segment has either all images with one probability, at least one of them a positive, or all negatives between two
    such segments.
    """

    def __init__(self, scores: Floats, positive: NDArray[np.bool_], units: Integers, num_units: int) -> None:
        """Sorts the images.

        Args:
          scores: float [N], probability of the class.
          positive: bool [N], whether each image is of the class.
          units: int [N], as in `Measurement`.
          num_units: number of units.
        """
        order = np.argsort(-scores)
        scores, positive, units = scores[order], positive[order], units[order]
        ties = np.cumsum(np.r_[0, scores[1:] != scores[:-1]]) if len(scores) else np.zeros(0, np.int64)
        with_positives = np.bincount(ties, positive) > 0
        # A run of equal scores starts a segment if it has positives, or if the run before it has positives.
        starts = with_positives | np.r_[True, with_positives[:-1]]
        segments = (np.cumsum(starts) - 1)[ties]
        shape = (int(starts.sum()), num_units)
        self._all = _sum_up(segments, units, None, shape)
        self._positive = _sum_up(segments[positive], units[positive], None, shape)

    def areas(self, weights: Floats) -> tuple[Floats, Floats]:
        """The area under the ROC curve and the average precision, both [R]; NaN if there are no positives or no negatives."""
        inside, positive = self._all @ weights, self._positive @ weights
        above = np.cumsum(inside, axis=0)
        count, positives = inside.sum(axis=0), positive.sum(axis=0)
        negatives = count - positives
        # For each positive the weight of negatives above it, with half of those that have an equal score. It is computed as the
        # weight of all images above minus that of the positives.
        lost = (positive * (above - inside / 2)).sum(axis=0) - positives**2 / 2
        precision = _divide(np.cumsum(positive, axis=0), above)
        undefined = np.where((positives > 0) & (negatives > 0), 0.0, np.nan)
        return (
            1 - lost / (positives * negatives) + undefined,
            (positive * precision).sum(axis=0) / positives + undefined,
        )


def _image_values(name: str, labels: Integers, probabilities: Floats) -> Floats:
    """The value of each image, float [N], for a metric that is the mean of such values."""
    if labels.ndim == 2:
        return _multi_label_image_values(name, labels, probabilities)
    known = labels >= 0
    given = np.where(known, probabilities[np.arange(len(labels)), labels], 0.0)  # probability of the true class
    if name == "accuracy":
        return (probabilities.argmax(axis=-1) == labels).astype(np.float64)
    if name == "cross_entropy":
        return -np.log(np.clip(given, _EPSILON, 1 - _EPSILON))
    if name == "brier":
        return (probabilities**2).sum(axis=-1) - 2 * given + known
    if match := _TOP_K.fullmatch(name):
        if int(match[1]) >= probabilities.shape[1]:
            return np.full(len(labels), np.nan)  # not defined: the true class is always among all classes
        before = (probabilities > given[:, None]).sum(axis=-1)
        before += ((probabilities == given[:, None]) & (np.arange(probabilities.shape[1]) < labels[:, None])).sum(axis=-1)
        return (known & (before < int(match[1]))).astype(np.float64)
    raise KeyError(name)


def _multi_label_image_values(name: str, labels: Integers, probabilities: Floats) -> Floats:
    if name in ("accuracy", "exact_match"):
        right = (probabilities >= 0.5) == (labels > 0)
        return right.mean(axis=-1) if name == "accuracy" else right.all(axis=-1).astype(np.float64)
    if name == "cross_entropy":
        given = np.where(labels > 0, probabilities, 1 - probabilities)
        return -np.log(np.clip(given, _EPSILON, 1 - _EPSILON)).mean(axis=-1)
    if name == "brier":
        return ((probabilities - labels) ** 2).mean(axis=-1)
    raise KeyError(name)


def _sum_up(rows: Integers, columns: Integers, values: Floats | None, shape: tuple[int, int]) -> sparse.csr_array:
    """A sparse matrix of the sums of values (1 if not given) with the same row and column."""
    data = np.ones(len(rows)) if values is None else values
    return sparse.coo_array((data, (rows, columns)), shape).tocsr()


def _divide(part: Floats, whole: Floats) -> Floats:
    """part / whole, and 0 where `whole` is 0."""
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def _has_several(counts: Floats) -> NDArray[np.bool_]:
    """Whether more than one class has a count above 0; counts are [K, R], the result is [R]."""
    return (counts > 0).sum(axis=0) > 1


def _mean_where_defined(values: Floats) -> Floats:
    """Mean over the classes that are not NaN, [K, R] to [R]; NaN if all are."""
    defined = ~np.isnan(values)
    return np.where(defined, values, 0.0).sum(axis=0) / np.where(defined.any(axis=0), defined.sum(axis=0), np.nan)
