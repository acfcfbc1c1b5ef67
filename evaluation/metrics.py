"""The metrics of classification: one definition of each, over labels and probabilities, for any weights of the images.

Throughout, N is the number of images and K that of classes, and

* labels are int [N], positions in the classes, and -1 for a class that the model does not know, which it never gets right;
  of multi-label data they are [N, K], 0 or 1;
* probabilities are float [N, K], 0..1;
* a weight is how many times an image counts: 0, 1, 2 gives exactly what the images would give if they were left out, there
  once, and there twice. Whole numbers come from resampling (see `intervals`); any number from 0 will do.

The answer to an image is its most probable class (of equal ones the first), of multi-label data every class from 0.5. Macro
averages are over those of the model's classes that some label names. A metric is NaN where it is not defined.
"""

import difflib
import math
import re
from collections.abc import Iterable
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

_EPSILON: Final = 1e-7  # least probability in the cross-entropy, as in Keras
_TOP_K: Final = re.compile(r"top_([1-9]\d*)_accuracy")


@dataclass(frozen=True)
class Definition:
    """What there is to know about a metric.

    Attributes:
      larger_is_better: whether it is.
      least: the least value that it can take.
      most: the largest one.
      of_multi_label: whether it is there for multi-label data.
      of_single_label: whether it is there for classes that exclude each other.
      is_proportion: whether it is a share of the images; of multi-label data the accuracy is one of image-class pairs.
      of_class: whether each class has its own.
      summary: what it is, in a line, with the formula's source.
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
    """Knows `top_<k>_accuracy` for every k."""

    def __missing__(self, name: str) -> Definition:
        if not (match := _TOP_K.fullmatch(name)):
            raise KeyError(name)
        return _define(
            f"share of images whose class is among the {match[1]} most probable (Russakovsky et al. 2015, section 4.1)",
            only="single",
            is_proportion=True,
        )


# In the order in which they are shown.
METRICS: Final[dict[str, Definition]] = _Metrics(
    accuracy=_define(
        "share of right answers; of multi-label data of image-class pairs (Sokolova & Lapalme 2009, table 3)",
        is_proportion=True,
    ),
    exact_match=_define(
        "share of images with all classes right (Sokolova & Lapalme 2009, table 4)", only="multi", is_proportion=True
    ),
    balanced_accuracy=_define("mean recall of the classes (Brodersen et al. 2010)", only="single"),
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
_SAME: Final = "recall"  # of classes that exclude each other, it is the balanced accuracy


def default_metrics(multi_label: bool) -> list[str]:
    """Names of all metrics that fit the data, in the order in which they are shown, accuracy first."""
    if multi_label:
        return [name for name, metric in METRICS.items() if metric.of_multi_label]
    return [name for name, metric in METRICS.items() if metric.of_single_label and name != _SAME]


def check_metrics(names: Iterable[str], multi_label: bool, section: str = "evaluate") -> None:
    """Raises UserError, which names the section of the configuration, if a metric is unknown or does not fit the data."""
    fitting = [name for name, metric in METRICS.items() if _fits(metric, multi_label)]
    for name in names:
        try:
            metric = METRICS[name]
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
    """Measures once.

    Args:
      names: of `METRICS`.
      labels: int [N] or [N, K], as above.
      probabilities: float [N, K].
      weights: float [N], at least 0; all 1 if not given.

    Returns:
      The metrics by name, NaN where not defined.
    """
    column = np.ones((len(labels), 1)) if weights is None else np.asarray(weights, np.float64)[:, None]
    found = Measurement(labels, probabilities).compute(names, column)
    return {name: float(values[0]) for name, values in found.items()}


class Measurement:
    """Images prepared once, to be measured under many weightings.

    Weights belong to units, sets of images that are left out or drawn together. Sums over images are summed up by unit once;
    for the areas under curves each class is sorted once.

    Below, R is the number of weightings. Weights are float [units, R], at least 0.
    """

    def __init__(self, labels: Integers, probabilities: Floats, units: Integers | None = None) -> None:
        """Takes the images; what a metric needs is prepared when it is first asked for.

        Args:
          labels: int [N] or [N, K], as above.
          probabilities: float [N, K].
          units: int [N], the unit of each image, from 0; each image is one of its own if not given.
        """
        self.multi_label = labels.ndim == 2
        self._labels = labels
        self._probabilities = np.asarray(probabilities, np.float64)
        self._images, self._classes = probabilities.shape
        self._units: Integers = np.arange(self._images) if units is None else units
        self._num_units = int(self._units.max(initial=-1)) + 1
        self._sums: dict[str, Floats] = {}

    def compute(self, names: Iterable[str], weights: Floats) -> dict[str, Floats]:
        """The metrics by name, float [R]."""
        names = list(names)
        by_class = self.compute_by_class([_SAME if name == "balanced_accuracy" else name for name in names], weights)
        found = {name: _mean_where_defined(values) for name, values in by_class.items()}
        special = {"matthews": self._matthews, "ece": self._ece, "f1_micro": self._f1_micro}
        with np.errstate(divide="ignore", invalid="ignore"):
            for name in names:
                if name == "balanced_accuracy":
                    found[name] = found[_SAME]
                elif name in special:
                    found[name] = special[name](weights)
                elif name not in found:
                    found[name] = self._mean(name, weights)
        return {name: found[name] for name in names}

    def compute_by_class(self, names: Iterable[str], weights: Floats) -> dict[str, Floats]:
        """Those metrics that there are of a class, by name, float [K, R]; NaN where no label names the class."""
        wanted = [name for name in names if METRICS[name].of_class]
        found: dict[str, Floats] = {}
        with np.errstate(divide="ignore", invalid="ignore"):
            if {"f1", "precision", "recall"} & set(wanted):
                right, answered, actual = (part[: self._classes] for part in self._counts(weights))
                absent = np.where(actual > 0, 0.0, np.nan)
                found["f1"] = 2 * right / (answered + actual) + absent
                found["precision"] = _share(right, answered) + absent
                found["recall"] = right / actual
            if {"auc", "auc_pr"} & set(wanted):
                areas = [curve.areas(weights) for curve in self._curves]
                found["auc"], found["auc_pr"] = (np.stack(part) for part in zip(*areas, strict=True))
        return {name: found[name] for name in wanted}

    def ece_excess(self) -> float:
        """By how much the expected calibration error is too large because its bins hold few images, as far as can be told.

        A bin's distance from 0 is chance in part. Its square less its variance is what is not (Kumar et al. 2019, "Verified
        uncertainty calibration", section 4), and the variance is that of the units' sums.
        """
        distances = self._bins.sum(axis=1)
        units = self._num_units
        squares = (self._bins**2).sum(axis=1) - distances**2 / units
        variances = squares * units / max(units - 1, 1)
        left = np.sqrt(np.maximum(distances**2 - variances, 0.0))
        pairs = self._classes if self.multi_label else 1
        return float((np.abs(distances) - left).sum() / (pairs * self._images))

    def _count(self, weights: Floats) -> Floats:
        """Images, [R]."""
        return np.bincount(self._units, minlength=self._num_units).astype(np.float64) @ weights

    def _mean(self, name: str, weights: Floats) -> Floats:
        """Of a value that each image has by itself, [R]."""
        if name not in self._sums:
            values = _of_images(name, self._labels, self._probabilities)
            self._sums[name] = np.bincount(self._units, values, self._num_units).astype(np.float64)
        return self._sums[name] @ weights / self._count(weights)

    def _matthews(self, weights: Floats) -> Floats:
        """0 where all answers are the same."""
        right, answered, actual = self._counts(weights)
        count = self._count(weights)
        covariance = count * right.sum(axis=0) - (answered * actual).sum(axis=0)
        of_answers, of_labels = (count**2 - (part**2).sum(axis=0) for part in (answered, actual))
        correlation = covariance / np.sqrt(of_answers * of_labels)
        return np.where(_several(actual), np.where(_several(answered), correlation, 0.0), np.nan)

    def _ece(self, weights: Floats) -> Floats:
        pairs = self._classes if self.multi_label else 1
        return np.abs(self._bins @ weights).sum(axis=0) / (pairs * self._count(weights))

    def _f1_micro(self, weights: Floats) -> Floats:
        right, answered, actual = (part.sum(axis=0) for part in self._counts(weights))
        return _share(2 * right, answered + actual)

    def _counts(self, weights: Floats) -> tuple[Floats, Floats, Floats]:
        """Of each class the right answers, all answers and all labels, [K, R]; of single-label data a last row for label -1."""
        right, answered, actual = self._confusion
        return right @ weights, answered @ weights, actual @ weights

    @cached_property
    def _confusion(self) -> tuple[sparse.csr_array, sparse.csr_array, sparse.csr_array]:
        """What `_counts` counts, by unit."""
        if self.multi_label:
            answers, actual = self._probabilities >= 0.5, self._labels > 0
            parts = []
            for part in (answers & actual, answers, actual):
                images, classes = np.nonzero(part)
                parts.append(self._by_unit(classes, self._units[images], None, self._classes))
            return parts[0], parts[1], parts[2]
        answers = self._probabilities.argmax(axis=-1)
        right = np.flatnonzero(answers == self._labels)
        rows = self._classes + 1
        return (
            self._by_unit(answers[right], self._units[right], None, rows),
            self._by_unit(answers, self._units, None, rows),
            self._by_unit(np.where(self._labels < 0, self._classes, self._labels), self._units, None, rows),
        )

    @cached_property
    def _bins(self) -> sparse.csr_array:
        """Of each bin of confidences their sum less the sum of right answers, by unit."""
        bins, confidences, right = calibration_bins(self._probabilities, self._labels)
        units = np.repeat(self._units, self._classes) if self.multi_label else self._units
        return self._by_unit(bins, units, confidences - right, CALIBRATION_BINS)

    @cached_property
    def _curves(self) -> list["_Curve"]:
        labels = self._labels if self.multi_label else self._labels[:, None] == np.arange(self._classes)
        return [
            _Curve(self._probabilities[:, number], labels[:, number] > 0, self._units, self._num_units)
            for number in range(self._classes)
        ]

    def _by_unit(self, rows: Integers, units: Integers, values: Floats | None, num_rows: int) -> sparse.csr_array:
        return _sum_up(rows, units, values, (num_rows, self._num_units))


class _Curve:
    """A class's images in the order of its probability, prepared for the areas under its curves.

    What lies between two positives needs no order: the images are put into segments, from the most probable on, each the
    images of one probability that some positive has, or all negatives between two such.
    """

    def __init__(self, scores: Floats, positive: NDArray[np.bool_], units: Integers, num_units: int) -> None:
        """Takes scores float [N], whether each image is of the class, bool [N], and units as `Measurement` has them."""
        order = np.argsort(-scores)
        scores, positive, units = scores[order], positive[order], units[order]
        ties = np.cumsum(np.r_[0, scores[1:] != scores[:-1]]) if len(scores) else np.zeros(0, np.int64)
        with_positives = np.bincount(ties, positive) > 0
        # A run of equal scores starts a segment if it has positives, or if the run before it has.
        starts = with_positives | np.r_[True, with_positives[:-1]]
        segments = (np.cumsum(starts) - 1)[ties]
        shape = (int(starts.sum()), num_units)
        self._all = _sum_up(segments, units, None, shape)
        self._positive = _sum_up(segments[positive], units[positive], None, shape)

    def areas(self, weights: Floats) -> tuple[Floats, Floats]:
        """Under the ROC curve, and the average precision, both [R]; NaN where there are no positives or no negatives."""
        inside, positive = self._all @ weights, self._positive @ weights
        above = np.cumsum(inside, axis=0)
        count, positives = inside.sum(axis=0), positive.sum(axis=0)
        negatives = count - positives
        # Each positive's weight above it, half of its equals included, less that of positives among themselves.
        lost = (positive * (above - inside / 2)).sum(axis=0) - positives**2 / 2
        precision = _share(np.cumsum(positive, axis=0), above)
        undefined = np.where((positives > 0) & (negatives > 0), 0.0, np.nan)
        return (
            1 - lost / (positives * negatives) + undefined,
            (positive * precision).sum(axis=0) / positives + undefined,
        )


def _of_images(name: str, labels: Integers, probabilities: Floats) -> Floats:
    """The values that a metric is the mean of, float [N]."""
    if labels.ndim == 2:
        return _of_multi_label_images(name, labels, probabilities)
    known = labels >= 0
    given = np.where(known, probabilities[np.arange(len(labels)), labels], 0.0)  # to the class that is right
    if name == "accuracy":
        return (probabilities.argmax(axis=-1) == labels).astype(np.float64)
    if name == "cross_entropy":
        return -np.log(np.clip(given, _EPSILON, 1 - _EPSILON))
    if name == "brier":
        return (probabilities**2).sum(axis=-1) - 2 * given + known
    if match := _TOP_K.fullmatch(name):
        if int(match[1]) >= probabilities.shape[1]:
            return np.full(len(labels), np.nan)  # among all classes it always is
        before = (probabilities > given[:, None]).sum(axis=-1)
        before += ((probabilities == given[:, None]) & (np.arange(probabilities.shape[1]) < labels[:, None])).sum(axis=-1)
        return (known & (before < int(match[1]))).astype(np.float64)
    raise KeyError(name)


def _of_multi_label_images(name: str, labels: Integers, probabilities: Floats) -> Floats:
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
    """Sums of the values (1 if not given) that fall into the same cell."""
    data = np.ones(len(rows)) if values is None else values
    return sparse.coo_array((data, (rows, columns)), shape).tocsr()


def _share(part: Floats, whole: Floats) -> Floats:
    """0 where there is nothing to have a share of."""
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def _several(counts: Floats) -> NDArray[np.bool_]:
    """Of counts by class [K, R], whether more than one class has any."""
    return (counts > 0).sum(axis=0) > 1


def _mean_where_defined(values: Floats) -> Floats:
    """Over classes, [K, R] to [R]; NaN where none is."""
    defined = ~np.isnan(values)
    return np.where(defined, values, 0.0).sum(axis=0) / np.where(defined.any(axis=0), defined.sum(axis=0), np.nan)
