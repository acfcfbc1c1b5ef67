"""By what a model is judged where no thresholds are set."""

import numpy as np
import pytest

from evaluation.default_rules import METRIC, judge_by_default
from evaluation.intervals import estimate, estimate_difference
from evaluation.results import Slice
from evaluation.verdicts import needed_metrics


def judge(labels, answers, served=None, groups=None, method="jackknife"):
    """The verdicts on answers, which are positions of classes, or for multi-label data 0 or 1."""
    groups = np.arange(len(labels)) if groups is None else groups
    classes = max(labels.max(), np.max(answers), 0 if served is None else np.max(served)) + 1

    def sure(given):
        return given.astype(float) if labels.ndim == 2 else np.eye(classes)[given]

    compared = {}
    if served is not None:
        compared = estimate_difference([METRIC], labels, sure(answers), sure(served), groups, method)
    metrics = estimate([METRIC], labels, sure(answers), groups, method)
    overall = Slice((), len(labels), len(np.unique(groups)), metrics, comparisons=compared)
    return judge_by_default(overall, labels, method != "none")


def draw(images, skill, seed=0, classes=3, shares=None):
    """Labels, and answers of which a share is right and the others are guessed."""
    random = np.random.default_rng(seed)
    labels, guessed = random.choice(classes, (2, images), p=shares)
    return labels, np.where(random.random(images) < skill, labels, guessed)


@pytest.mark.parametrize("method", ["jackknife", "poisson_bootstrap", "none"])
def test_always_the_most_frequent_class_is_not_blessed_however_often_it_is_right(method):
    labels = np.repeat([0, 1, 2], [900, 60, 40])  # accuracy 0.9
    (verdict,) = judge(labels, np.zeros(1000, int), method=method)
    assert (verdict.metric, verdict.passed, verdict.measured.value) == (METRIC, False, pytest.approx(1 / 3))
    assert "(always the most frequent class gives 0.3333)" in str(verdict)
    assert str(verdict).endswith("(the model is no better than that)")


def test_a_model_that_is_better_than_that_is_blessed_and_the_interval_is_told():
    (verdict,) = judge(*draw(300, 0.8))
    assert verdict.passed
    assert verdict.lower == pytest.approx(1 / 3)
    assert f"is {verdict.measured.value:.4f} [{verdict.measured.lower:.3f}, " in str(verdict)
    assert "must be above 0.3333 with its whole interval" in str(verdict)


def test_a_few_images_do_not_tell_and_the_cure_is_named():
    labels, answers = np.repeat([0, 1], 6), np.array([0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 0, 0])
    (few,) = judge(labels, answers)
    assert not few.passed
    assert few.found == "12 test images are too few to tell; give more of them, or set evaluate.thresholds"
    (many,) = judge(np.tile(labels, 20), np.tile(answers, 20))
    assert many.passed
    assert many.measured.value == few.measured.value
    (of_few_patients,) = judge(np.tile(labels, 20), np.tile(answers, 20), groups=np.tile(np.arange(12), 20))
    assert of_few_patients.found.startswith("240 test images of 12 groups are too few to tell")
    (of_one,) = judge(labels, answers, groups=np.zeros(12, int))
    assert not of_one.passed
    assert of_one.found.startswith("12 test images of 1 group give no interval")


@pytest.mark.parametrize("shares", [None, [0.9, 0.06, 0.04]])
def test_a_model_without_skill_is_blessed_in_at_most_one_of_20_data_sets(shares):
    blessed = [judge(*draw(80, 0.0, seed, shares=shares))[0].passed for seed in range(200)]
    assert np.mean(blessed) <= 0.05


def test_the_lower_end_is_that_of_a_plain_bootstrap():
    labels, answers = draw(600, 0.3, seed=1)
    random = np.random.default_rng(0)

    def balanced(chosen):
        return np.mean([(answers[chosen][labels[chosen] == number] == number).mean() for number in range(3)])

    drawn = [balanced(random.integers(0, 600, 600)) for _ in range(2000)]
    (verdict,) = judge(labels, answers)
    assert verdict.measured.lower == pytest.approx(np.quantile(drawn, 0.025), abs=0.005)


def test_without_intervals_the_value_decides_and_that_is_told():
    labels, answers = np.repeat([0, 1], 6), np.array([0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 0, 0])
    served = np.where(np.arange(12) == 4, 0, answers)  # right once more
    first, second = judge(labels, answers, served, method="none")
    assert (first.passed, second.passed) == (True, False)
    assert "by its value, as no intervals are computed" in str(first)
    assert "not worse than the served model by its value, as there is no interval" in str(second)


def test_several_labels_are_compared_with_always_the_same_set():
    random = np.random.default_rng(0)
    labels = (random.random((200, 3)) < [0.05, 0.3, 0.8]).astype(np.uint8)
    for constant in ([0, 0, 0], [0, 0, 1], [1, 1, 1]):
        (verdict,) = judge(labels, np.tile(np.array(constant), (200, 1)))
        assert (verdict.passed, verdict.measured.value) == (False, 0.5)
    assert "(always the same classes gives 0.5)" in str(verdict)
    (good,) = judge(labels, np.where(random.random(labels.shape) < 0.2, 1 - labels, labels))
    assert good.passed


def test_test_images_of_one_class_or_of_unknown_ones_tell_nothing():
    (one,) = judge(np.ones(50, int), np.ones(50, int))
    assert not one.passed
    assert one.found.startswith("all test images are of one class")
    (unknown,) = judge(np.full(50, -1), np.ones(50, int))
    assert (unknown.passed, unknown.measured) == (False, None)
    (without_one,) = judge(*draw(300, 0.8, shares=[0.5, 0.5, 0.0]))
    assert without_one.lower == 0.5


@pytest.mark.parametrize(("lost", "passed"), [(0, True), (3, True), (60, False)])
def test_only_a_significantly_worse_model_than_the_served_one_fails(lost, passed):
    """`lost` images of 300 that the served model has right."""
    labels, served = draw(300, 0.8, seed=2)
    right = np.flatnonzero(labels == served)[:lost]
    answers = served.copy()
    answers[right] = (labels[right] + 1) % 3
    first, second = judge(labels, answers, served)
    assert first.passed
    assert (second.passed, second.against) == (passed, "the served model")
    assert "not significantly worse than the served model (interval not wholly below 0)" in str(second)


def test_the_difference_has_the_paired_interval_of_a_plain_bootstrap():
    """The images that both models have wrong or right do not widen it."""
    labels, served = draw(600, 0.7, seed=3)
    random = np.random.default_rng(0)
    answers = np.where(random.random(600) < 0.04, (labels + 1) % 3, served)

    def balanced(given, chosen):
        return np.mean([(given[chosen][labels[chosen] == number] == number).mean() for number in range(3)])

    drawn = []
    for _ in range(2000):
        chosen = random.integers(0, 600, 600)
        drawn.append(balanced(answers, chosen) - balanced(served, chosen))
    _, verdict = judge(labels, answers, served)
    difference = verdict.measured
    assert [difference.lower, difference.upper] == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.004)
    assert verdict.passed == (np.quantile(drawn, 0.975) >= 0)
    alone = judge(labels, answers)[0].measured
    assert difference.upper - difference.lower < (alone.upper - alone.lower) / 2


def test_the_metric_is_computed_though_it_is_not_listed():
    assert needed_metrics(["accuracy"], [], multi_label=False) == ["accuracy", METRIC]
