"""Intervals: how often they cover the truth on small data sets, and what they are where that is known."""

from collections import Counter

import numpy as np
import pytest
from scipy import optimize, stats

from evaluation import intervals, metrics
from evaluation.results import Metric

METHODS = ["jackknife", "poisson_bootstrap"]
NAMES = ["accuracy", "balanced_accuracy", "f1", "auc", "matthews", "cross_entropy"]
SETS = 200


def _draw(
    rng: np.random.Generator, images: int, quality: float, grouped: str, noise: float = 1.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels of three classes, probabilities and groups of 1 to 9 images; half of the answers' noise is the group's.

    Args:
      quality: how far the right class stands out; the more, the better the model.
      grouped: "" for images that are all apart, "mixed" for groups with several labels, "whole" for groups with one.
      noise: how much the model has of it.
    """
    groups = np.arange(images)
    if grouped:
        groups = np.repeat(np.arange(images), rng.integers(1, 10, images))[:images]
    labels = rng.integers(0, 3, images)
    if grouped == "whole":
        labels = labels[groups]
    logits = rng.normal(size=(images, 3)) * noise
    if grouped:
        logits = (logits + noise * rng.normal(size=(images, 3))[groups]) / np.sqrt(2)
    logits[np.arange(images), labels] += quality
    return labels, _softmax(1.3 * logits), groups


def _softmax(logits: np.ndarray) -> np.ndarray:
    odds = np.exp(logits)
    return odds / odds.sum(axis=-1, keepdims=True)


def _covers(interval: Metric, truth: float) -> bool:
    assert interval.lower is not None
    assert interval.upper is not None
    return interval.lower <= truth <= interval.upper


@pytest.mark.parametrize(
    ("images", "quality", "grouped"),
    [(60, 1.0, ""), (100, 2.5, ""), (100, 1.5, "mixed"), (150, 2.0, "whole"), (120, 0.5, "whole")],
)
def test_intervals_cover_the_truth_in_90_to_99_of_100_small_data_sets(images: int, quality: float, grouped: str) -> None:
    rng = np.random.default_rng(1)
    labels, probabilities, _ = _draw(rng, 100_000, quality, grouped)
    truth = metrics.compute(NAMES, labels, probabilities)
    covered: Counter[tuple[str, str]] = Counter()
    for _ in range(SETS):
        data = _draw(rng, images, quality, grouped)
        for method in METHODS:
            for name, interval in intervals.estimate(NAMES, *data, method).items():
                covered[method, name] += _covers(interval, truth[name])
    shares = {key: count / SETS for key, count in covered.items()}
    assert len(shares) == len(METHODS) * len(NAMES)
    assert all(0.90 <= share <= 0.99 for share in shares.values()), shares


@pytest.mark.parametrize("grouped", ["", "mixed"])
def test_intervals_of_a_difference_cover_the_truth(grouped: str) -> None:
    """Both models see the same image's noise, and the second one some of its own."""
    rng = np.random.default_rng(2)

    def draw(images: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        labels, probabilities, groups = _draw(rng, images, 1.5, grouped)
        return labels, probabilities, _softmax(np.log(probabilities) + rng.normal(size=probabilities.shape)), groups

    labels, probabilities, baseline, _ = draw(100_000)
    first, second = (metrics.compute(NAMES, labels, model) for model in (probabilities, baseline))
    covered: Counter[tuple[str, str]] = Counter()
    for _ in range(SETS):
        data = draw(100)
        for method in METHODS:
            for name, comparison in intervals.estimate_difference(NAMES, *data, method).items():
                covered[method, name] += _covers(comparison.difference, first[name] - second[name])
    shares = {key: count / SETS for key, count in covered.items()}
    assert len(shares) == len(METHODS) * len(NAMES)
    assert all(0.90 <= share <= 0.99 for share in shares.values()), shares


@pytest.mark.parametrize("grouped", ["", "mixed"])
def test_the_calibration_error_is_too_large_on_few_images_and_its_interval_makes_up_for_that(grouped: str) -> None:
    rng = np.random.default_rng(4)
    labels, probabilities, _ = _draw(rng, 100_000, 2.0, grouped)
    truth = metrics.compute(["ece"], labels, probabilities)["ece"]
    for method in METHODS:
        found = [intervals.estimate(["ece"], *_draw(rng, 80, 2.0, grouped), method)["ece"] for _ in range(SETS)]
        assert np.mean([metric.value for metric in found]) > 1.2 * truth
        assert np.mean([_covers(metric, truth) for metric in found]) >= 0.90


def test_the_interval_of_multi_label_metrics_covers_the_truth() -> None:
    rng = np.random.default_rng(3)
    names = ["accuracy", "exact_match", "balanced_accuracy", "f1_micro", "f1", "auc"]

    def draw(images: int) -> tuple[np.ndarray, np.ndarray]:
        labels = (rng.random((images, 4)) < 0.3).astype(np.uint8)
        logits = rng.normal(size=labels.shape) + rng.normal(size=(images, 1)) + 3.0 * labels - 1.5
        return labels, 1 / (1 + np.exp(-logits))

    truth = metrics.compute(names, *draw(100_000))
    covered: Counter[tuple[str, str]] = Counter()
    for _ in range(SETS):
        data = draw(80)
        for method in METHODS:
            for name, interval in intervals.estimate(names, *data, np.arange(80), method).items():
                covered[method, name] += _covers(interval, truth[name])
    shares = {key: count / SETS for key, count in covered.items()}
    assert len(shares) == len(METHODS) * len(names)
    assert all(0.90 <= share <= 0.99 for share in shares.values()), shares


@pytest.mark.parametrize("method", METHODS)
def test_images_that_are_all_apart_have_wilsons_interval(method: str) -> None:
    labels, probabilities, groups = _draw(np.random.default_rng(0), 80, 1.0, "")
    found = intervals.estimate(["accuracy"], labels, probabilities, groups, method)["accuracy"]
    right = int((probabilities.argmax(axis=-1) == labels).sum())
    wilson = stats.binomtest(right, 80).proportion_ci(method="wilson")
    assert (found.value, found.lower, found.upper) == pytest.approx((right / 80, wilson.low, wilson.high))


def test_a_share_in_groups_of_one_size_has_the_score_interval_of_the_spread_between_groups() -> None:
    labels, probabilities, _ = _draw(np.random.default_rng(0), 80, 1.0, "")
    right = probabilities.argmax(axis=-1) == labels
    groups = np.argsort(np.argsort(right + np.random.default_rng(1).normal(size=80))) // 4  # mostly alike
    found = intervals.estimate(["accuracy"], labels, probabilities, groups, "jackknife")["accuracy"]
    means = np.array([right[groups == number].mean() for number in range(20)])
    share, variance = right.mean(), means.var(ddof=1) / 20
    number, quantile = share * (1 - share) / variance, stats.t.ppf(0.975, 19)
    assert number < 80

    def score(other: float) -> float:
        return (share - other) ** 2 - quantile**2 * other * (1 - other) / number

    assert found.lower == pytest.approx(optimize.brentq(score, 1e-9, share))
    assert found.upper == pytest.approx(optimize.brentq(score, share, 1 - 1e-9))


@pytest.mark.parametrize("method", METHODS)
def test_on_many_images_the_intervals_are_those_of_normal_theory(method: str) -> None:
    labels, probabilities, groups = _draw(np.random.default_rng(0), 3000, 1.0, "")
    labels, probabilities = (labels > 0).astype(int), np.stack([probabilities[:, 0], 1 - probabilities[:, 0]], axis=-1)
    found = intervals.estimate(["auc", "cross_entropy", "balanced_accuracy"], labels, probabilities, groups, method)
    right = probabilities.argmax(axis=-1) == labels
    positive, negative = probabilities[labels == 1, 1], probabilities[labels == 0, 1]
    above = positive[:, None] > negative  # DeLong, DeLong & Clarke-Pearson 1988
    errors = {
        "auc": np.sqrt(above.mean(axis=1).var() / len(positive) + above.mean(axis=0).var() / len(negative)),
        "cross_entropy": np.log(probabilities[np.arange(3000), labels]).std() / np.sqrt(3000),
        "balanced_accuracy": np.sqrt(sum(right[labels == number].var() / (labels == number).sum() for number in (0, 1))) / 2,
    }
    for name, error in errors.items():
        interval = found[name]
        assert (interval.upper - interval.lower) / 2 == pytest.approx(1.96 * error, rel=0.15)
        assert (interval.upper + interval.lower) / 2 == pytest.approx(interval.value, abs=0.1 * error)


@pytest.mark.parametrize("method", METHODS)
def test_where_all_are_right_there_are_as_many_answers_as_groups(method: str) -> None:
    labels = np.arange(36) % 3
    probabilities = _softmax(4.0 * np.eye(3)[labels])
    names = ["accuracy", "balanced_accuracy", "f1", "auc", "matthews"]
    apart = intervals.estimate(names, labels, probabilities, np.arange(36), method)
    low = stats.binomtest(36, 36).proportion_ci(method="wilson").low  # 0.90
    for name, metric in apart.items():
        expected = 2 * low - 1 if name == "matthews" else low
        assert (metric.value, metric.lower, metric.upper) == pytest.approx((1.0, expected, 1.0)), name
    together = intervals.estimate(names, labels, probabilities, np.arange(36) // 3, method)
    low = stats.binomtest(12, 12).proportion_ci(method="wilson").low
    assert together["accuracy"].lower == pytest.approx(low)
    assert together["auc"].lower == pytest.approx(low)


@pytest.mark.parametrize("method", METHODS)
def test_copies_of_an_image_in_its_group_tell_nothing_new(method: str) -> None:
    labels, probabilities, groups = _draw(np.random.default_rng(0), 60, 1.0, "")
    names = ["balanced_accuracy", "f1", "auc", "auc_pr", "matthews", "cross_entropy", "brier", "ece"]
    once = intervals.estimate(names, labels, probabilities, groups, method)
    copied = intervals.estimate(names, *(np.repeat(part, 4, axis=0) for part in (labels, probabilities, groups)), method)
    for name in names:
        bounds = (once[name].value, once[name].lower, once[name].upper)
        assert (copied[name].value, copied[name].lower, copied[name].upper) == pytest.approx(bounds)


@pytest.mark.parametrize("method", METHODS)
def test_bounds_lie_around_the_value_and_within_the_range_of_the_metric(method: str) -> None:
    for seed, quality in enumerate((0.0, 2.0, 4.0)):
        for grouped in ("", "whole"):
            data = _draw(np.random.default_rng(seed), 40, quality, grouped)
            names = metrics.default_metrics(multi_label=False)
            of_classes = intervals.estimate_by_class(names, *data, method)
            for found in (intervals.estimate(names, *data, method), *of_classes):
                for name, metric in found.items():
                    if metric.lower is not None:
                        definition = metrics.METRICS[name]
                        assert definition.least <= metric.lower <= metric.value <= metric.upper <= definition.most


def test_values_are_those_of_all_images_and_what_is_not_defined_is_left_out() -> None:
    labels, probabilities, groups = _draw(np.random.default_rng(0), 50, 1.0, "mixed")
    names = metrics.default_metrics(multi_label=False)
    for method in intervals.METHODS:
        labels = np.where(labels == 2, 1, labels)
        found = intervals.estimate(names, labels, probabilities, groups, method)
        expected = metrics.compute(names, labels, probabilities)
        assert list(found) == [name for name in names if not np.isnan(expected[name])]
        assert {name: metric.value for name, metric in found.items()} == pytest.approx({name: expected[name] for name in found})
        by_class = intervals.estimate_by_class(names, labels, probabilities, groups, method)
        of_classes = metrics.Measurement(labels, probabilities).compute_by_class(names, np.ones((len(labels), 1)))
        assert by_class[2] == {}
        assert {name: metric.value for name, metric in by_class[1].items()} == pytest.approx(
            {name: values[1, 0] for name, values in of_classes.items()}
        )
    one_class = intervals.estimate(names, np.zeros(50, np.int64), probabilities, groups, "jackknife")
    assert not {"auc", "auc_pr", "matthews"} & set(one_class)


@pytest.mark.parametrize("method", list(intervals.METHODS))
def test_of_one_group_or_without_resampling_there_are_no_bounds(method: str) -> None:
    labels, probabilities, groups = _draw(np.random.default_rng(0), 30, 1.0, "")
    for same in (groups if method == "none" else np.full(30, 7),):
        found = intervals.estimate(["accuracy", "auc"], labels, probabilities, same, method)
        difference = intervals.estimate_difference(["accuracy"], labels, probabilities, probabilities[::-1], same, method)
        for metric in (*found.values(), difference["accuracy"].difference):
            assert (metric.lower, metric.upper) == (None, None)


@pytest.mark.parametrize("method", METHODS)
def test_a_difference_is_told_from_the_same_groups(method: str) -> None:
    labels, probabilities, groups = _draw(np.random.default_rng(0), 150, 1.5, "mixed")
    rng = np.random.default_rng(1)
    baseline = _softmax(np.log(probabilities) + 0.3 * rng.normal(size=probabilities.shape))
    names = ["accuracy", "auc", "cross_entropy"]
    found = intervals.estimate_difference(names, labels, probabilities, baseline, groups, method)
    alone = intervals.estimate(names, labels, probabilities, groups, method)
    expected = metrics.compute(names, labels, baseline)
    for name, comparison in found.items():
        difference = comparison.difference
        assert comparison.baseline == pytest.approx(expected[name])
        assert difference.value == pytest.approx(alone[name].value - expected[name])
        assert difference.upper - difference.lower < 0.7 * (alone[name].upper - alone[name].lower)
    same = intervals.estimate_difference(names, labels, probabilities, probabilities, groups, method)
    assert all(item.difference == Metric(0.0, 0.0, 0.0) for item in same.values())


@pytest.mark.parametrize("method", METHODS)
def test_models_that_are_right_on_the_same_few_images_may_differ_on_others(method: str) -> None:
    labels = np.arange(36) % 3
    first, second = (_softmax(odds * np.eye(3)[labels]) for odds in (3.0, 4.0))
    found = intervals.estimate_difference(["accuracy", "ece"], labels, first, second, np.arange(36), method)
    reach = stats.binomtest(0, 36).proportion_ci(method="wilson").high
    accuracy = found["accuracy"].difference
    assert (accuracy.value, accuracy.lower, accuracy.upper) == pytest.approx((0.0, -reach, reach))


@pytest.mark.parametrize("method", METHODS)
def test_the_same_images_give_the_same_interval(method: str) -> None:
    data = _draw(np.random.default_rng(0), 300, 1.0, "")
    assert intervals.estimate(NAMES, *data, method) == intervals.estimate(NAMES, *data, method)
