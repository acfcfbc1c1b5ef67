"""The two-sample tests against independent computations, and how often they are wrong when nothing has changed."""

import itertools

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.neighbors import NearestNeighbors

from evaluation import drift
from evaluation.drift import Check, judge
from evaluation.results import Metric


def checks(*values):
    return [Check(f"check {number}", "distance", 0.0, p) for number, p in enumerate(values)]


def closed_testing(values, level):
    """Holm's procedure by its definition: a check fails if each set of checks that has it fails by Bonferroni."""
    numbers = range(len(values))
    sets = [some for size in range(1, len(values) + 1) for some in itertools.combinations(numbers, size)]
    fails = {some: min(values[one] for one in some) * len(some) <= level for some in sets}
    return [all(fails[some] for some in sets if one in some) for one in numbers]


@pytest.mark.parametrize("seed", range(20))
def test_holm_is_the_closed_test_of_bonferroni(seed):
    values = np.random.default_rng(seed).beta(0.3, 4, 6).tolist()
    assert [check.failed for check in judge(checks(*values), 0.05)] == closed_testing(values, 0.05)


def test_a_check_that_was_not_made_neither_fails_nor_counts():
    judged = judge([*checks(0.009), Check("other", "distance", note="too few")], 0.01)
    assert [check.failed for check in judged] == [True, False]


def test_the_kolmogorov_smirnov_distance_is_the_largest_gap_of_the_two_steps():
    generator = np.random.default_rng(0)
    newer, reference = generator.integers(0, 20, 130).astype(float), generator.integers(2, 22, 170).astype(float)
    gaps = [abs((newer <= at).mean() - (reference <= at).mean()) for at in range(23)]
    value, p = drift.compare_numbers(newer, reference)
    assert value == pytest.approx(max(gaps))
    assert 0 < p < 0.05


def test_shares_are_tested_by_the_hypergeometric_distribution():
    newer, reference = ["cat"] * 30 + ["dog"] * 70, ["cat"] * 20 + ["dog"] * 178 + ["owl"] * 2
    value, p = drift.compare_shares(newer, reference)
    assert value == pytest.approx(0.2)
    probabilities = stats.hypergeom(300, 50, 100).pmf(np.arange(51))
    assert p == pytest.approx(3 * probabilities[probabilities <= probabilities[30] * (1 + 1e-9)].sum())


def test_the_discrepancy_is_that_of_the_formula():
    generator = np.random.default_rng(1)
    newer, reference = generator.normal(0.2, 1, (60, 5)), generator.normal(0, 1, (80, 5))
    rows = np.concatenate([newer, reference])
    width = np.median([np.linalg.norm(one - two) for one, two in itertools.combinations(rows, 2)])
    kernel = rbf_kernel(rows, gamma=1 / (2 * width**2))
    expected = kernel[:60, :60].mean() + kernel[60:, 60:].mean() - 2 * kernel[:60, 60:].mean()
    value, p = drift.compare_embeddings(newer, reference)
    assert value == pytest.approx(expected, rel=1e-4)
    signs = np.repeat([1 / 60, -1 / 80], [60, 80])
    permuted = [one @ kernel @ one for one in (generator.permutation(signs) for _ in range(5000))]
    assert p == pytest.approx(np.mean(np.array(permuted) >= expected), abs=0.05)


@pytest.mark.parametrize("rows", [100, 1000])
def test_embeddings_that_are_all_the_same_do_not_differ_by_their_rounding(rows):
    one = np.random.default_rng(4).normal(0, 1, 64)
    one /= np.linalg.norm(one)
    value, p = drift.compare_embeddings(np.tile(one, (rows, 1)), np.tile(one, (150, 1)))
    assert (value, p) == (pytest.approx(0, abs=1e-6), 1)


def test_the_largest_values_are_tested_by_the_hypergeometric_distribution():
    newer, reference = np.arange(100) + 50.5, np.arange(100.0)
    value, p = drift.compare_tails(newer, reference)
    assert value == pytest.approx(0.1)  # the ten largest of both are all newer
    assert p == pytest.approx(stats.hypergeom(200, 100, 10).pmf(10))


def test_many_rows_with_the_largest_value_are_the_tail():
    newer, reference = np.full(100, 100.0, np.float32), np.arange(1, 101, dtype=np.float32)  # percentiles end at 100
    value, p = drift.compare_tails(newer, reference)
    assert value == pytest.approx(0.99)
    assert p == pytest.approx(stats.hypergeom(200, 101, 100).pmf(100))


def test_outliers_are_judged_by_the_distance_to_the_tenth_neighbour():
    generator = np.random.default_rng(2)
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in generator.normal(0.5, 1, (2, 300, 8))]
    newer, reference = (rows.astype(np.float32) for rows in unit)
    newer[:30] = -reference[:1] + 0.01 * newer[:30]
    newer /= np.linalg.norm(newer, axis=1, keepdims=True)
    neighbours = NearestNeighbors(n_neighbors=10, metric="cosine").fit(reference)
    others, own = neighbours.kneighbors(newer)[0][:, -1], neighbours.kneighbors()[0][:, -1]
    assert drift.compare_outliers(newer, reference) == pytest.approx(drift.compare_tails(others, own))
    assert drift.compare_outliers(newer, reference)[1] < 1e-6


def test_the_interval_of_a_difference_is_newcombes():
    """Newcombe 1998, Statistics in Medicine 17, table II, method 10, contrast (a)."""

    def wilson(right, images):
        found = stats.binomtest(right, images).proportion_ci(method="wilson")
        return Metric(right / images, found.low, found.high)

    difference, p = drift.compare_metrics(wilson(56, 70), wilson(48, 80))
    assert (difference.value, difference.lower, difference.upper) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)
    assert p > 0.99
    assert drift.compare_metrics(wilson(48, 80), wilson(56, 70))[1] == pytest.approx(1 - p)


@pytest.mark.parametrize("test", [drift.compare_numbers, drift.compare_tails, drift.compare_outliers, drift.compare_embeddings])
def test_small_p_values_are_as_rare_as_they_say(monkeypatch, test):
    monkeypatch.setattr(drift, "_PERMUTATIONS", 199)
    generator = np.random.default_rng(3)
    of_rows = test in (drift.compare_outliers, drift.compare_embeddings)

    def draw(number):
        rows = generator.normal(0.3, 1, (number, 6) if of_rows else number)
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32) if of_rows else rows

    values = np.array([test(draw(120), draw(200))[1] for _ in range(300)])
    assert (values <= 0.1).mean() < 0.1 + 3 * np.sqrt(0.1 * 0.9 / 300)
    assert (values <= 0.5).mean() > 0.2  # and not so cautious that nothing is found
