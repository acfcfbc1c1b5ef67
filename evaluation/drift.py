"""Whether newer images are distributed as a model's reference is: two-sample tests, and a correction for making several.

All tests take their rows for independent of each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import pandas as pd
from scipy import stats
from scipy.spatial.distance import pdist

from evaluation.metrics import Floats
from evaluation.neighbours import NEIGHBOURS, find_nearest
from evaluation.results import Metric

LEVEL: Final = 0.01  # largest probability that any check fails though nothing has changed
FEWEST: Final = 100  # rows on either side of a comparison
_TAIL: Final = 0.05
_Z: Final = float(stats.norm.ppf(0.975))
_PERMUTATIONS: Final = 1999
_ROUNDING: Final = 1e-6  # of a discrepancy in float32; so far apart, two count as equal
_PAIRS_OF_MEDIAN: Final = 500  # rows whose distances give the kernel's width


@dataclass(frozen=True)
class Check:
    """One comparison.

    Attributes:
      name: what was compared, such as "image/mean".
      measure: what `value` is, such as "Jensen-Shannon divergence".
      value: how far the two are apart; None if the check was not made.
      p: probability of such a value or a larger one if nothing has changed; None if the check was not made.
      lower: lower end of the value's 95 % interval; None if it has none.
      upper: upper end.
      failed: whether it is a finding; see `judge`.
      note: why it was not made; else "".
    """

    name: str
    measure: str
    value: float | None = None
    p: float | None = None
    lower: float | None = None
    upper: float | None = None
    failed: bool = False
    note: str = ""


def judge(checks: Sequence[Check], level: float = LEVEL) -> list[Check]:
    """Says which checks fail, by Holm's procedure (1979, jstor.org/stable/4615733).

    If nothing has changed, one of the checks or more fails with a probability of at most `level`, however they depend on each
    other.
    """
    made = sorted((number for number, check in enumerate(checks) if check.p is not None), key=lambda one: checks[one].p or 0.0)
    judged = list(checks)
    for rank, number in enumerate(made):
        if (checks[number].p or 0.0) > level / (len(made) - rank):
            break
        judged[number] = replace(checks[number], failed=True)
    return judged


def compare_numbers(newer: Floats, reference: Floats) -> tuple[float, float]:
    """The two-sample Kolmogorov-Smirnov test.

    Args:
      newer: float [N].
      reference: float [M].

    Returns:
      The largest difference of the two distribution functions, 0..1, and its p-value. With ties the test is conservative.
    """
    found = stats.ks_2samp(newer, reference)
    return float(found.statistic), float(found.pvalue)


def compare_shares(newer: Sequence[str], reference: Sequence[str]) -> tuple[float, float]:
    """Fisher's exact test of each category against all others, corrected for their number (Bonferroni).

    It finds one category that has become more or less frequent better than the chi-squared test of all together does.

    Args:
      newer: the category of each row.
      reference: likewise.

    Returns:
      The largest difference of the share of a category, 0..1, and the p-value of all of them.
    """
    sizes = np.array([len(newer), len(reference)])
    names = sorted({*newer, *reference})
    counts = np.stack(
        [pd.Series(side, dtype=object).value_counts().reindex(names, fill_value=0) for side in (newer, reference)]
    )
    tests = [stats.fisher_exact([count, sizes - count]).pvalue for count in counts.T]
    return float(np.abs(np.diff(counts.T / sizes)).max()), float(min(1.0, len(tests) * min(tests)))


def compare_embeddings(newer: Floats, reference: Floats, seed: int = 0) -> tuple[float, float]:
    """The kernel two-sample test: the maximum mean discrepancy (Gretton et al. 2012, jmlr.org/papers/v13/gretton12a.html).

    The kernel is Gaussian; its width is the median distance (section 8 there). The p-value is that of a permutation test, exact
    and at least 1 / 2000 (Phipson & Smyth 2010, arXiv:1603.05766).

    Args:
      newer: float [N, d].
      reference: float [M, d].
      seed: of the permutations.

    Returns:
      The squared discrepancy (the biased estimate, equation 5 there), 0..2, and its p-value.
    """
    generator = np.random.default_rng(seed)
    rows = np.concatenate([newer, reference]).astype(np.float32)
    squares = (rows**2).sum(axis=1)
    kernel = np.maximum(squares[:, None] + squares - 2 * rows @ rows.T, 0)
    some = generator.permutation(len(rows))[:_PAIRS_OF_MEDIAN]
    kernel = np.exp(kernel / (-2 * max(float(np.median(pdist(rows[some]))), 1e-6) ** 2))
    side = np.repeat([1 / len(newer), -1 / len(reference)], [len(newer), len(reference)]).astype(np.float32)
    sides = np.stack([side, *(generator.permutation(side) for _ in range(_PERMUTATIONS))], axis=1)
    found = (sides * (kernel @ sides)).sum(axis=0)
    return float(found[0]), float((found >= found[0] - _ROUNDING).mean())  # the first is the observed one


def compare_tails(newer: Floats, reference: Floats) -> tuple[float, float]:
    """Whether the newer rows have more large values: Fisher's exact test, one-sided, of the largest 5 % of all.

    Args:
      newer: float [N].
      reference: float [M].

    Returns:
      The difference of the shares of rows above the 95 % quantile of both together, -1..1, and the p-value. If more than 5 %
      have the largest value, such as a percentile of 100, the shares are those of the rows that have it.
    """
    together = np.concatenate([newer, reference])
    limit = min(np.quantile(together, 1 - _TAIL), np.nextafter(together.max(), -np.inf))
    above = np.array([(newer > limit).sum(), (reference > limit).sum()])
    sizes = np.array([len(newer), len(reference)])
    shares = above / sizes
    return float(shares[0] - shares[1]), float(stats.fisher_exact([above, sizes - above], alternative="greater").pvalue)


def compare_outliers(newer: Floats, reference: Floats) -> tuple[float, float]:
    """Whether more of the newer embeddings lie where the reference has none, by the distance to the tenth neighbour.

    That distance finds images of unknown classes (Sun et al. 2022, arXiv:2204.06507). Of the reference, each row's neighbours
    are among the others.

    Args:
      newer: float [N, d], of length 1.
      reference: float [M, d], likewise.

    Returns:
      As `compare_tails`.
    """
    _, cosines = find_nearest(reference, newer, NEIGHBOURS)
    _, own = find_nearest(reference, reference, NEIGHBOURS + 1)  # the first one is the row itself
    return compare_tails(-cosines[:, -1], -own[:, -1])


def compare_metrics(newer: Metric, reference: Metric) -> tuple[Metric, float]:
    """The difference of a metric on two sets of images, with its interval (MOVER: Zou & Donner 2008, 10.1002/sim.3095).

    Args:
      newer: a metric with its 95 % interval.
      reference: likewise.

    Returns:
      The difference, negative if `newer` is smaller, with its 95 % interval; and the one-sided p-value of a smaller `newer`, by
      the end of the interval towards zero.
    """
    ends, others = (np.array([item.lower, item.upper], float) - item.value for item in (newer, reference))
    difference = newer.value - reference.value
    below, above = float(np.hypot(ends[0], others[1])), float(np.hypot(ends[1], others[0]))
    reach = max(above if difference < 0 else below, 1e-12)
    return Metric(difference, difference - below, difference + above), float(stats.norm.cdf(_Z * difference / reach))
