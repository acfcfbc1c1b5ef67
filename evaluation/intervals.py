"""95 % confidence intervals of metrics, by resampling whole groups, and of the difference between two models.

Images of a group (a patient, a product) hang together, so a group is left out or drawn as a whole. Two methods tell how far a
metric would stray on other groups:

* "jackknife": it is measured without each group in turn, of many groups without each of `BLOCKS` blocks of them (Shao & Tu
  1995, "The Jackknife and Bootstrap", section 2.3);
* "poisson_bootstrap": it is measured `REPLICATES` times with each group drawn as often as a Poisson number of mean 1 says
  (Hanley & MacGibbon 2006, "Creating non-parametric bootstrap samples using Poisson frequencies").

Both give a standard error with degrees of freedom. The interval is not the symmetric one, which covers far too seldom where a
model is nearly always right, and neither are the bootstrap's percentiles, which on few images show next to no spread there:

* of metrics that count answers it is Wilson's score interval (Wilson 1927) with the number of images that would have this
  standard error, as surveys do it (Dean & Pagano 2015, "Evaluating confidence interval methods for binomial proportions in
  clustered surveys");
* of the areas under curves and of the distances of probabilities it is symmetric on the logit scale (Pepe 2003, "The
  Statistical Evaluation of Medical Tests", section 5.2);
* that of the calibration error reaches further down, as the error itself is too large on few images.

Where resampling shows no spread, as when all answers are right, it is Wilson's interval of as many answers as there are
groups. The draws are the same at each call. How often the intervals cover the truth is measured in
tests/evaluation/test_intervals.py.
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
BLOCKS: Final = 100  # of the jackknife, at most
REPLICATES: Final = 200  # of the bootstrap
_LEAST_FREEDOM: Final = 5.0  # degrees of freedom; fewer can't be told from the data
_CHUNK: Final = 2_000_000  # image weights at a time
_CONTINUOUS: Final = frozenset({"auc", "auc_pr", "ece", "brier", "cross_entropy"})  # the others count answers
_DISTANCES: Final = frozenset({"ece", "brier", "cross_entropy"})  # without spread, nothing is known of them
_NOTHING: Final = 1e-9
_OF_ALL: Final = frozenset({"f1_micro", "ece", "brier", "cross_entropy"})  # over all images, like proportions

_Measure = Callable[[Floats], Floats]  # weights [units, R] to values [M, R]


def estimate(names: Iterable[str], labels: Integers, probabilities: Floats, groups: Integers, method: str) -> dict[str, Metric]:
    """Measures, with intervals.

    Args:
      names: of `metrics.METRICS`.
      labels: int [N], or [N, K] of multi-label data, as in `metrics`.
      probabilities: float [N, K].
      groups: int [N], equal numbers for images of one group.
      method: of `METHODS`.

    Returns:
      The metrics by name, in the order of the names, without those that are not defined here. Bounds are None with the method
      "none", with a single group, and where nothing can be said.
    """
    names = list(dict.fromkeys(names))
    if not names:
        return {}
    sizes = _Sizes.of(labels, probabilities.shape[1], groups)

    def prepare(units: Integers) -> _Measure:
        measurement = Measurement(labels, probabilities, units)
        return lambda weights: _stack(measurement.compute(names, weights))

    spread = _resample(prepare, sizes, [sizes.lost(name) for name in names], method)
    found = {
        name: _metric(name, spread, row, sizes.alike(name), sizes)
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
    """Measures each class against the rest, with those of the metrics that there are of a class.

    Args: as of `estimate`.

    Returns:
      As of `estimate`, a class an item.
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
    """Measures two models on the same images, and by how much the first one's metrics are above the second one's.

    Both are measured on the same resampled groups, so what makes an image hard for both does not widen the interval.

    Args:
      baseline: float [N, K], the second model's probabilities; the others as of `estimate`.

    Returns:
      By name, without metrics that are not defined here.
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

    spread = _resample(prepare, sizes, [sizes.lost(name) for name in names] * 3, method)
    same = np.array_equal(probabilities, baseline)
    found = {}
    for row, name in enumerate(names):
        rows = (row, row + len(names), row + 2 * len(names))
        if np.isfinite(spread.values[rows[2]]):
            first, second = (_metric(name, spread, row, sizes.alike(name), sizes) for row in rows[:2])
            more = 1 / len(labels) if sizes.is_share_of_images(name) else 0.0
            difference = _difference(first, second, spread.errors[list(rows)], more)
            found[name] = Comparison(
                second.value, Metric(0.0, 0.0, 0.0) if same and difference.lower is not None else difference
            )
    return found


@dataclass(frozen=True)
class _Sizes:
    """How many groups there are to tell something from.

    Attributes:
      groups: int [N], from 0, without gaps.
      count: number of groups.
      effective: number of groups of equal size that would tell as much (Kish 1965): (sum of sizes)^2 / sum of squared sizes.
      by_class: float [K], groups with images of the class, or with others, if those are fewer.
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
        # A class that all images have is measured on them all.
        by_class = np.where(full == len(sizes), len(sizes), by_class)
        return cls(
            groups, len(sizes), float(sizes.sum() ** 2 / (sizes**2).sum()), by_class.astype(np.float64), labels.ndim == 2
        )

    @property
    def apart(self) -> bool:
        """Whether each image is a group of its own."""
        return self.count == len(self.groups)

    def is_share_of_images(self, name: str) -> bool:
        return METRICS[name].is_proportion and not (self.multi_label and name == "accuracy")  # which is one of pairs

    def alike(self, name: str) -> float:
        """The number of independent answers that a metric's worth of groups comes to.

        A mean over classes is as sure as its parts, each with its own number of groups.
        """
        present = self.by_class[self.by_class > 0]
        if METRICS[name].is_proportion or name in _OF_ALL or not len(present):
            return float(self.count)
        return min(len(present) ** 2 / float((1 / present).sum()), float(self.count))

    def lost(self, name: str) -> int:
        """Degrees of freedom that the metric's own means take: one, or one a class."""
        return 1 if METRICS[name].is_proportion or name in _OF_ALL else int((self.by_class > 0).sum())


@dataclass(frozen=True)
class _Spread:
    """Of each of M metrics the value, its standard error (NaN where there is none) and the error's degrees of freedom."""

    values: Floats
    errors: Floats
    freedom: Floats


def _resample(
    prepare: Callable[[Integers], _Measure], sizes: _Sizes, lost: list[int], method: str, counts: Floats | None = None
) -> _Spread:
    """Measures all images, and resampled ones.

    Args:
      prepare: takes the unit of each image, int [N], and gives what measures for weights of the units.
      sizes: of the groups.
      lost: [M], as `_Sizes.lost`.
      method: of `METHODS`.
      counts: [M], number of groups that each metric is told from; all that there are if not given.
    """
    if method == "none" or sizes.count < 2:
        values = prepare(np.zeros_like(sizes.groups))(np.ones((1, 1)))[:, 0]
        return _Spread(values, np.full(len(values), np.nan), np.ones(len(values)))
    if method == "jackknife":
        return _jackknife(prepare, sizes)
    known = sizes.effective / sizes.count * (np.full(len(lost), sizes.count) if counts is None else counts)
    return _bootstrap(prepare, sizes, np.array(lost), known)


def _jackknife(prepare: Callable[[Integers], _Measure], sizes: _Sizes) -> _Spread:
    """Degrees of freedom by Satterthwaite (1946): 2 / the relative variance of the squared error.

    That variance is (kurtosis - 1) / blocks (Cramér 1946, section 27.4): where few blocks make all of the spread, it is large.
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
    return _Spread(values, np.sqrt((counts - 1) / counts * squares), _freedom(freedom, counts - 1.0))


def _bootstrap(prepare: Callable[[Integers], _Measure], sizes: _Sizes, lost: Integers, known: Floats) -> _Spread:
    """The replicates' deviation is one of means over n, not over degrees of freedom, so it is widened."""
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
    freedom = known - np.minimum(lost, known / 2)
    return _Spread(values, errors * np.sqrt(known / freedom), _freedom(freedom, freedom))


def _freedom(freedom: Floats, most: Floats) -> Floats:
    return np.maximum(np.minimum(np.maximum(freedom, _LEAST_FREEDOM), most), 1.0)


def _metric(name: str, spread: _Spread, row: int, alike: float, sizes: _Sizes) -> Metric:
    """A value with its interval.

    Args:
      alike: the number of independent answers to count on where resampling shows no spread.
    """
    value, error = float(spread.values[row]), float(spread.errors[row])
    if np.isnan(error):
        return Metric(value)
    definition = METRICS[name]
    least, width = definition.least, definition.most - definition.least
    quantile = _quantile(spread.freedom[row])
    share, error = min(max((value - least) / width, 0.0), 1.0), error / width
    flat = error < _NOTHING or share * (1 - share) < _NOTHING
    if sizes.is_share_of_images(name) and (sizes.apart or not flat):
        # The number of images is known, and what the blocks' chance adds to the error can be left out.
        images = len(sizes.groups)
        if sizes.apart:
            lower, upper = _wilson(share, images, _quantile(np.inf))
        else:
            lower, upper = _wilson(share, min(share * (1 - share) / error**2, images), _quantile(sizes.effective - 1))
    elif not flat and name in _CONTINUOUS:
        lower, upper = special.expit(special.logit(share) + np.array([-1, 1]) * quantile * error / (share * (1 - share)))
    elif not flat:
        lower, upper = _wilson(share, share * (1 - share) / error**2, quantile)
    elif alike >= 2 and name not in _DISTANCES:
        lower, upper = _wilson(share, alike, _quantile(np.inf))
    else:
        return Metric(value)
    return Metric(value, min(float(least + width * lower), value), max(float(least + width * upper), value))


def _difference(first: Metric, second: Metric, errors: Floats, more: float) -> Metric:
    """A difference with the interval that follows from both values' own.

    (Zou 2007, "Toward using confidence intervals to compare correlations", eq. 15; of two shares Newcombe 1998, "Improved
    confidence intervals for the difference between binomial proportions based on paired data", method 10.)

    Args:
      first: a value with its interval.
      second: likewise.
      errors: standard errors of both and of their difference, which tell how closely they go together.
      more: added to the last error, as the square root of a sum of squares; of shares, one more image on which the models
        disagree, in the place of Newcombe's correction for continuity.
    """
    value = first.value - second.value
    if first.lower is None or first.upper is None or second.lower is None or second.upper is None:
        return Metric(value)
    product = 2 * errors[0] * errors[1]
    together = (errors[0] ** 2 + errors[1] ** 2 - errors[2] ** 2 - more**2) / product if product > _NOTHING**2 else 0.0

    def reach(one: float, other: float) -> float:
        return float(np.sqrt(max(one**2 + other**2 - 2 * together * one * other, 0.0)))

    below = reach(first.value - first.lower, second.upper - second.value)
    above = reach(first.upper - first.value, second.value - second.lower)
    return Metric(value, value - below, value + above)


def _wilson(share: float, number: float, quantile: float) -> tuple[float, float]:
    """Score interval of a share of `number` answers."""
    square = quantile**2 / number
    centre = (share + square / 2) / (1 + square)
    reach = quantile / (1 + square) * np.sqrt(share * (1 - share) / number + square / (4 * number))
    return max(float(centre - reach), 0.0), min(float(centre + reach), 1.0)


def _quantile(freedom: float) -> float:
    """Of Student's t, for 95 % in the middle."""
    return float(special.stdtrit(max(freedom, 1.0), 0.975)) if np.isfinite(freedom) else float(special.ndtri(0.975))


def _stack(found: dict[str, Floats]) -> Floats:
    """[M, R]."""
    return np.stack(list(found.values()))
