"""95 % confidence intervals of metrics, and of the difference between two models, by resampling whole groups.

Images of a group (a patient, a product) are not independent, so a group is always left out or drawn as a whole. Two methods
estimate how much a metric would vary on other groups:

* "jackknife": the metric is measured without each group in turn. If there are more than `BLOCKS` groups, they are put into
  `BLOCKS` blocks, and each block is left out in turn (Shao & Tu 1995, "The Jackknife and Bootstrap", section 2.3).
* "poisson_bootstrap": the metric is measured `REPLICATES` times. Each time, every group has as weight a random number from a
  Poisson distribution with mean 1 (Hanley & MacGibbon 2006, "Creating non-parametric bootstrap samples using Poisson
  frequencies").

Both methods give a standard error with degrees of freedom. A symmetric interval is not used, because it covers the truth far
too seldom if a model is nearly always right. The percentiles of the bootstrap are not used, because on few images they hardly
spread in that case. Instead:

* Metrics that count answers have Wilson's score interval (Wilson 1927) for the number of images that would give the same
  standard error, as in surveys (Dean & Pagano 2015, "Evaluating confidence interval methods for binomial proportions in
  clustered surveys").
* Areas under curves and distances of probabilities have an interval that is symmetric on the logit scale (Pepe 2003, "The
  Statistical Evaluation of Medical Tests", section 5.2).
* The lower bound of the calibration error is lowered further, because on few images the error itself is too large.

If resampling shows no spread, for example because all answers are right, Wilson's interval is used with the number of groups
as the number of answers. The random draws are the same at each call. tests/evaluation/test_intervals.py measures how often the
intervals cover the truth.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import special

from evaluation.metrics import METRICS, Floats, Integers, Measurement
from evaluation.results import Comparison, Metric
from evaluation.settings import IntervalMethod

METHODS: Final[dict[IntervalMethod, str]] = {
    "jackknife": "95 % intervals by a jackknife over groups",
    "poisson_bootstrap": "95 % intervals by a Poisson bootstrap over groups",
    "none": "no intervals",
}
BLOCKS: Final = 100  # largest number of blocks of the jackknife
REPLICATES: Final = 200  # replicates of the bootstrap
_LEAST_FREEDOM: Final = 5.0  # lower limit of the degrees of freedom; smaller numbers can't be estimated from the data
_CHUNK: Final = 2_000_000  # image weights in memory at a time
_CONTINUOUS: Final = frozenset({"auc", "auc_pr", "ece", "brier", "cross_entropy"})  # all other metrics count answers
_DISTANCES: Final = frozenset({"ece", "brier", "cross_entropy"})  # have no interval if resampling shows no spread
_TINY: Final = 1e-9
_OVER_ALL_IMAGES: Final = frozenset({"f1_micro", "ece", "brier", "cross_entropy"})  # no means over classes

_Measure = Callable[[Floats], Floats]  # weights [units, R] to values [M, R]


def estimate(names: Iterable[str], labels: Integers, probabilities: Floats, groups: Integers, method: str) -> dict[str, Metric]:
    """Computes metrics with their intervals.

    Args:
      names: metrics of `metrics.METRICS`.
      labels: int [N], or [N, K] for multi-label data, as in `metrics`.
      probabilities: float [N, K].
      groups: int [N], equal numbers for images of one group.
      method: a key of `METHODS`.

    Returns:
      The metrics by name, in the order of the names, without those that are not defined on these images. Bounds are None with
      the method "none", with a single group, and if no interval can be computed.
    """
    names = list(dict.fromkeys(names))
    if not names:
        return {}
    sizes = _Sizes.of(labels, probabilities.shape[1], groups)

    def prepare(units: Integers) -> _Measure:
        measurement = Measurement(labels, probabilities, units)
        return lambda weights: _stack(measurement.compute(names, weights))

    spread = _resample(prepare, sizes, [sizes.num_means(name) for name in names], method)
    found = {
        name: _metric(name, spread, row, sizes.num_independent(name), sizes)
        for row, name in enumerate(names)
        if np.isfinite(spread.values[row])
    }
    if (ece := found.get("ece")) and ece.lower is not None:
        excess = Measurement(labels, probabilities, sizes.groups).ece_excess()
        found["ece"] = Metric(ece.value, max(ece.lower - excess, 0.0), ece.upper)
    return found


def estimate_by_class(
    names: Iterable[str], labels: Integers, probabilities: Floats, groups: Integers, method: str
) -> list[dict[str, Metric]]:
    """Computes the metrics that are defined for a single class, for each class against the rest.

    Args: as in `estimate`.

    Returns:
      One dict per class, each as returned by `estimate`.
    """
    names = [name for name in dict.fromkeys(names) if METRICS[name].of_class]
    classes = probabilities.shape[1]
    if not names:
        return [{} for _ in range(classes)]
    sizes = _Sizes.of(labels, classes, groups)

    def prepare(units: Integers) -> _Measure:
        measurement = Measurement(labels, probabilities, units)
        return lambda weights: np.concatenate(list(measurement.compute_by_class(names, weights).values()))

    spread = _resample(prepare, sizes, [1] * (len(names) * classes), method, np.tile(sizes.by_class, len(names)))
    found: list[dict[str, Metric]] = [{} for _ in range(classes)]
    for row, value in enumerate(spread.values):
        if np.isfinite(value):
            name, number = names[row // classes], row % classes
            found[number][name] = _metric(name, spread, row, float(sizes.by_class[number]), sizes)
    return found


def estimate_difference(
    names: Iterable[str], labels: Integers, probabilities: Floats, baseline: Floats, groups: Integers, method: str
) -> dict[str, Comparison]:
    """Compares two models on the same images: the metrics of the first minus those of the second.

    Both are measured on the same resampled groups, so images that are hard for both models do not widen the interval.

    Args:
      baseline: float [N, K], the second model's probabilities; the others as in `estimate`.

    Returns:
      The comparisons by name, without metrics that are not defined on these images.
    """
    names = list(dict.fromkeys(names))
    if not names:
        return {}
    sizes = _Sizes.of(labels, probabilities.shape[1], groups)

    def prepare(units: Integers) -> _Measure:
        measurements = [Measurement(labels, model, units) for model in (probabilities, baseline)]

        def measure(weights: Floats) -> Floats:
            first, second = (_stack(measurement.compute(names, weights)) for measurement in measurements)
            return np.concatenate([first, second, first - second])

        return measure

    spread = _resample(prepare, sizes, [sizes.num_means(name) for name in names] * 3, method)
    same = np.array_equal(probabilities, baseline)
    found = {}
    for row, name in enumerate(names):
        rows = (row, row + len(names), row + 2 * len(names))
        if np.isfinite(spread.values[rows[2]]):
            first, second = (_metric(name, spread, row, sizes.num_independent(name), sizes) for row in rows[:2])
            more = 1 / len(labels) if sizes.is_share_of_images(name) else 0.0
            difference = _difference(first, second, spread.errors[list(rows)], more)
            found[name] = Comparison(
                second.value, Metric(0.0, 0.0, 0.0) if same and difference.lower is not None else difference
            )
    return found


@dataclass(frozen=True)
class _Sizes:
    """Numbers of groups, on which the intervals depend.

    Attributes:
      groups: int [N], the group of each image, numbered from 0 without gaps.
      count: number of groups.
      effective: number of groups of equal size with the same information (Kish 1965): (sum of sizes)^2 / sum of squared sizes.
      by_class: float [K], number of groups with images of the class, or number of groups with other images if that is smaller.
      multi_label: whether an image can have any number of classes.
    """

    groups: Integers
    count: int
    effective: float
    by_class: Floats
    multi_label: bool

    @classmethod
    def of(cls, labels: Integers, classes: int, groups: Integers) -> "_Sizes":
        groups = np.unique(groups, return_inverse=True)[1].reshape(-1)
        sizes = np.bincount(groups)
        images, numbers = np.nonzero(labels) if labels.ndim == 2 else (np.flatnonzero(labels >= 0), labels[labels >= 0])
        cells, counts = np.unique(groups[images] * classes + numbers, return_counts=True)
        with_class = np.bincount(cells % classes, minlength=classes)
        full = np.bincount(cells[counts == sizes[cells // classes]] % classes, minlength=classes)
        by_class = np.minimum(with_class, len(sizes) - full)
        # A class that all images have is measured on all groups.
        by_class = np.where(full == len(sizes), len(sizes), by_class)
        return cls(
            groups, len(sizes), float(sizes.sum() ** 2 / (sizes**2).sum()), by_class.astype(np.float64), labels.ndim == 2
        )

    @property
    def is_ungrouped(self) -> bool:
        """Whether each image is a group of its own."""
        return self.count == len(self.groups)

    def is_share_of_images(self, name: str) -> bool:
        # Multi-label accuracy is a share of image-class pairs.
        return METRICS[name].is_proportion and not (self.multi_label and name == "accuracy")

    def num_independent(self, name: str) -> float:
        """Number of independent answers on which a metric is based.

        It is the number of groups. A mean over K present classes has the variance of a mean of K values that are measured on
        `by_class` groups each, and so is based on K^2 / sum(1 / by_class) answers, at most the number of groups.
        """
        present = self.by_class[self.by_class > 0]
        if METRICS[name].is_proportion or name in _OVER_ALL_IMAGES or not len(present):
            return float(self.count)
        return min(len(present) ** 2 / float((1 / present).sum()), float(self.count))

    def num_means(self, name: str) -> int:
        """Number of means that the metric estimates, each of which costs a degree of freedom: one, or one per class."""
        return 1 if METRICS[name].is_proportion or name in _OVER_ALL_IMAGES else int((self.by_class > 0).sum())


@dataclass(frozen=True)
class _Spread:
    """For each of M metrics its value, the standard error (NaN if there is none) and the error's degrees of freedom."""

    values: Floats
    errors: Floats
    freedom: Floats


def _resample(
    prepare: Callable[[Integers], _Measure], sizes: _Sizes, num_means: list[int], method: str, counts: Floats | None = None
) -> _Spread:
    """Measures all images and resampled images.

    Args:
      prepare: takes the unit of each image, int [N], and returns a function from weights of the units to values.
      sizes: numbers of groups.
      num_means: [M], as `_Sizes.num_means`.
      method: a key of `METHODS`.
      counts: [M], number of groups on which each metric is based; all groups if not given.
    """
    if method == "none" or sizes.count < 2:
        values = prepare(np.zeros_like(sizes.groups))(np.ones((1, 1)))[:, 0]
        return _Spread(values, np.full(len(values), np.nan), np.ones(len(values)))
    if method == "jackknife":
        return _jackknife(prepare, sizes)
    known = sizes.effective / sizes.count * (np.full(len(num_means), sizes.count) if counts is None else counts)
    return _bootstrap(prepare, sizes, np.array(num_means), known)


def _jackknife(prepare: Callable[[Integers], _Measure], sizes: _Sizes) -> _Spread:
    """Measures without each block of groups in turn.

    The degrees of freedom follow Satterthwaite (1946): 2 / the relative variance of the squared error. That variance is
    (kurtosis - 1) / blocks (Cramér 1946, section 27.4); it is large if a few blocks cause all of the spread.
    """
    blocks = sizes.groups
    if sizes.count > BLOCKS:
        blocks = (np.random.default_rng(0).permutation(sizes.count) % BLOCKS)[sizes.groups]
    number = min(sizes.count, BLOCKS)
    found = prepare(blocks)(np.hstack([np.ones((number, 1)), 1 - np.eye(number)]))
    values, without = found[:, 0], found[:, 1:]
    defined = np.isfinite(without)
    counts = np.maximum(defined.sum(axis=1), 1)
    means = np.where(defined, without, 0.0).sum(axis=1) / counts
    strays = np.where(defined, without - means[:, None], 0.0)
    squares = (strays**2).sum(axis=1)
    kurtosis = counts * (strays**4).sum(axis=1) / np.maximum(squares**2, 1e-300)
    freedom = 2 * counts / np.maximum(kurtosis - 1, 1e-9)
    return _Spread(values, np.sqrt((counts - 1) / counts * squares), _limit_freedom(freedom, counts - 1.0))


def _bootstrap(prepare: Callable[[Integers], _Measure], sizes: _Sizes, num_means: Integers, known: Floats) -> _Spread:
    """Measures with random weights of the groups.

    The deviation of the replicates divides by the number of groups instead of the degrees of freedom, so it is scaled up.
    """
    measure = prepare(sizes.groups)
    values = measure(np.ones((sizes.count, 1)))[:, 0]
    generator = np.random.default_rng(0)
    step = max(1, _CHUNK // len(sizes.groups))
    parts = [
        measure(generator.poisson(1.0, (min(step, REPLICATES - start), sizes.count)).T.astype(np.float64))
        for start in range(0, REPLICATES, step)
    ]
    found = np.ma.masked_invalid(np.concatenate(parts, axis=1))
    errors = np.ma.filled(found.std(axis=1, ddof=1), 0.0)
    known = np.maximum(known, 2.0)
    freedom = known - np.minimum(num_means, known / 2)
    return _Spread(values, errors * np.sqrt(known / freedom), _limit_freedom(freedom, freedom))


def _limit_freedom(freedom: Floats, most: Floats) -> Floats:
    return np.maximum(np.minimum(np.maximum(freedom, _LEAST_FREEDOM), most), 1.0)


def _metric(name: str, spread: _Spread, row: int, num_independent: float, sizes: _Sizes) -> Metric:
    """A value with its interval.

    Args:
      name: the metric.
      spread: values, errors and degrees of freedom of all metrics.
      row: position of the metric in `spread`.
      num_independent: number of independent answers to assume if resampling shows no spread.
      sizes: numbers of groups.
    """
    value, error = float(spread.values[row]), float(spread.errors[row])
    if np.isnan(error):
        return Metric(value)
    definition = METRICS[name]
    least, width = definition.least, definition.most - definition.least
    quantile = _quantile(spread.freedom[row])
    share, error = min(max((value - least) / width, 0.0), 1.0), error / width
    flat = error < _TINY or share * (1 - share) < _TINY
    if sizes.is_share_of_images(name) and (sizes.is_ungrouped or not flat):
        # The number of images is known here, so the random noise that the blocks add to the error can be avoided.
        images = len(sizes.groups)
        if sizes.is_ungrouped:
            lower, upper = _wilson(share, images, _quantile(np.inf))
        else:
            lower, upper = _wilson(share, min(share * (1 - share) / error**2, images), _quantile(sizes.effective - 1))
    elif not flat and name in _CONTINUOUS:
        lower, upper = special.expit(special.logit(share) + np.array([-1, 1]) * quantile * error / (share * (1 - share)))
    elif not flat:
        lower, upper = _wilson(share, share * (1 - share) / error**2, quantile)
    elif num_independent >= 2 and name not in _DISTANCES:
        lower, upper = _wilson(share, num_independent, _quantile(np.inf))
    else:
        return Metric(value)
    return Metric(value, min(float(least + width * lower), value), max(float(least + width * upper), value))


def _difference(first: Metric, second: Metric, errors: Floats, more: float) -> Metric:
    """The difference of two values, with an interval computed from the intervals of both.

    (Zou 2007, "Toward using confidence intervals to compare correlations", eq. 15; for two shares Newcombe 1998, "Improved
    confidence intervals for the difference between binomial proportions based on paired data", method 10.)

    Args:
      first: a value with its interval.
      second: the value that is subtracted, with its interval.
      errors: standard errors of both values and of their difference, from which the correlation follows.
      more: added in quadrature to the error of the difference. For shares it stands for one more image on which the models
        disagree, and replaces Newcombe's continuity correction.
    """
    value = first.value - second.value
    if first.lower is None or first.upper is None or second.lower is None or second.upper is None:
        return Metric(value)
    product = 2 * errors[0] * errors[1]
    together = (errors[0] ** 2 + errors[1] ** 2 - errors[2] ** 2 - more**2) / product if product > _TINY**2 else 0.0

    def reach(one: float, other: float) -> float:
        return float(np.sqrt(max(one**2 + other**2 - 2 * together * one * other, 0.0)))

    below = reach(first.value - first.lower, second.upper - second.value)
    above = reach(first.upper - first.value, second.value - second.lower)
    return Metric(value, value - below, value + above)


def _wilson(share: float, number: float, quantile: float) -> tuple[float, float]:
    """Wilson's score interval of a share of `number` answers, 0..1."""
    square = quantile**2 / number
    centre = (share + square / 2) / (1 + square)
    reach = quantile / (1 + square) * np.sqrt(share * (1 - share) / number + square / (4 * number))
    return max(float(centre - reach), 0.0), min(float(centre + reach), 1.0)


def _quantile(freedom: float) -> float:
    """The 97.5 % quantile of Student's t distribution; of the normal distribution if `freedom` is infinite."""
    return float(special.stdtrit(max(freedom, 1.0), 0.975)) if np.isfinite(freedom) else float(special.ndtri(0.975))


def _stack(found: dict[str, Floats]) -> Floats:
    """Stacks the values of M metrics to [M, R]."""
    return np.stack(list(found.values()))
