"""The temperature and the calibration error, against planted values and independent loops."""

import numpy as np
import pytest

from models.calibration import (
    TEMPERATURES,
    calibrate,
    cross_entropy,
    expected_calibration_error,
    fit_temperature,
    probabilities,
)

RANDOM = np.random.default_rng(3)


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def examples(number, margin=1.0, classes=4):
    """Logits, and labels drawn from their very softmax: perfectly calibrated."""
    logits = RANDOM.normal(size=(number, classes))
    logits[np.arange(number), RANDOM.integers(0, classes, number)] += margin
    drawn = (softmax(logits).cumsum(axis=-1) > RANDOM.random((number, 1))).argmax(axis=-1)
    return logits, np.eye(classes)[drawn]


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_a_planted_temperature_is_found(factor):
    logits, labels = examples(20_000, margin=3.0)
    assert fit_temperature(factor * logits, labels) == pytest.approx(factor, rel=0.03)


@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_a_planted_temperature_is_found_for_multi_label_decisions(factor):
    logits = RANDOM.normal(size=(8_000, 3)) * 2
    labels = (RANDOM.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(float)
    assert fit_temperature(factor * logits, labels, multi_label=True) == pytest.approx(factor, rel=0.04)


def test_the_temperature_is_the_minimum_of_a_fine_grid():
    logits, labels = examples(300)
    logits *= 2.5
    grid = np.arange(1.5, 4.0, 0.001)
    losses = [-np.log(softmax(logits / t)[labels == 1]).mean() for t in grid]
    assert fit_temperature(logits, labels) == pytest.approx(grid[np.argmin(losses)], abs=0.002)


def test_an_overconfident_model_is_calibrated_without_changing_its_answers():
    logits, labels = examples(3_000, margin=2.0)
    new_logits, new_labels = examples(3_000, margin=2.0)
    result = calibrate(4 * logits, labels)
    assert result.examples == 3_000
    assert result.cross_entropy_after < result.cross_entropy_before
    assert result.ece_after < 0.03 < result.ece_before
    before, after = softmax(4 * new_logits), softmax(4 * new_logits / result.temperature)
    assert (before.argmax(-1) == after.argmax(-1)).all()
    new_answers = new_labels.argmax(-1)
    # It holds for examples that it was not fitted on.
    assert -np.log(after[new_labels == 1]).mean() < -np.log(before[new_labels == 1]).mean()
    assert expected_calibration_error(after, new_answers) < expected_calibration_error(before, new_answers) / 3


@pytest.mark.parametrize("multi_label", [False, True])
def test_the_measures_before_and_after_are_those_of_the_logits(multi_label):
    logits, labels = examples(200)
    result = calibrate(3 * logits, labels, multi_label)
    for scale, ece, loss in (
        (1.0, result.ece_before, result.cross_entropy_before),
        (result.temperature, result.ece_after, result.cross_entropy_after),
    ):
        scaled = 3 * logits / scale
        answers = labels if multi_label else labels.argmax(-1)
        expected = expected_calibration_error(probabilities(scaled, multi_label), answers)
        assert ece == pytest.approx(expected)
        assert loss == pytest.approx(cross_entropy(scaled, labels, multi_label))


@pytest.mark.parametrize("number", [1, 5, 200])
def test_a_model_that_is_always_right_does_not_become_surer_than_the_examples_can_show(number):
    labels = np.eye(3)[RANDOM.integers(0, 3, number)]
    sharpened = fit_temperature(labels, labels)
    # One more example of which nothing is known: N of N + 1 right, and a third of the last.
    assert softmax(labels / sharpened).max(-1) == pytest.approx((number + 1 / 3) / (number + 1), abs=1e-3)
    for margin in (12.0, 1000.0):
        assert fit_temperature(margin * labels, labels) == 1.0


@pytest.mark.parametrize("number", [1, 20, 400])
def test_the_cross_entropy_of_the_examples_never_rises(number):
    for margin in (0.0, 4.0, 12.0):
        for factor in (0.2, 1.0, 5.0):
            logits, labels = examples(number, margin)
            result = calibrate(factor * logits, labels)
            assert result.cross_entropy_after <= result.cross_entropy_before + 1e-9


def test_few_errors_do_not_make_new_examples_dearer():
    """On small splits of good models, the plain minimum raises the cross-entropy of new examples several times."""
    new_logits, new_labels = examples(20_000, margin=8.0)
    losses = [cross_entropy(new_logits / fit_temperature(*examples(100, margin=8.0)), new_labels) for _ in range(20)]
    assert np.mean(losses) < 1.2 * cross_entropy(new_logits, new_labels)


def test_temperatures_stay_in_their_range():
    labels = np.eye(2)[RANDOM.integers(0, 2, 50)]
    assert fit_temperature(-1e6 * labels, labels) == pytest.approx(TEMPERATURES[1], rel=1e-3)  # always wrong
    assert fit_temperature(1e-6 * labels, labels) >= TEMPERATURES[0]
    assert fit_temperature(np.zeros((50, 2)), labels) <= TEMPERATURES[1]


def test_examples_of_unknown_class_are_left_out():
    logits, labels = examples(100)
    with_unknown = calibrate(np.concatenate([logits, logits[:7]]), np.concatenate([labels, np.zeros((7, 4))]))
    assert with_unknown == calibrate(logits, labels)


@pytest.mark.parametrize(("logits", "words"), [(np.zeros((0, 2)), "no examples"), (np.array([[1.0, np.nan]]), "not finite")])
def test_what_cannot_be_fitted_is_refused(logits, words):
    with pytest.raises(ValueError, match=words):
        calibrate(logits, np.eye(2)[: len(logits)])


def test_cross_entropies_are_those_of_the_probabilities():
    logits, labels = examples(50)
    p = softmax(logits)
    assert cross_entropy(logits, labels) == pytest.approx(-np.log(p[labels == 1]).mean())
    q = 1 / (1 + np.exp(-logits))
    loss = -np.where(labels == 1, np.log(q), np.log(1 - q)).mean()
    assert cross_entropy(logits, labels, multi_label=True) == pytest.approx(loss)


def test_the_calibration_error_is_that_of_a_plain_loop():
    p = softmax(3 * RANDOM.normal(size=(400, 3)))
    p[:2] = [[1.0, 0.0, 0.0], [0.6, 0.3, 0.1]]
    labels = np.eye(3)[RANDOM.integers(0, 3, 400)]
    pairs = [(row.max(), label[row.argmax()]) for row, label in zip(p, labels, strict=True)]
    assert expected_calibration_error(p, labels.argmax(-1)) == pytest.approx(plain_loop(pairs))
    pairs = list(zip(p.ravel(), labels.ravel(), strict=True))
    assert expected_calibration_error(p, labels) == pytest.approx(plain_loop(pairs))


def plain_loop(pairs, bins=15):
    total = 0.0
    for index in range(bins):
        inside = [
            (confidence, right)
            for confidence, right in pairs
            if index / bins < confidence <= (index + 1) / bins or (index == 0 and confidence == 0)
        ]
        if inside:
            confidences, rights = zip(*inside, strict=True)
            total += len(inside) / len(pairs) * abs(sum(confidences) / len(inside) - sum(rights) / len(inside))
    return total


def test_the_calibration_error_of_a_case_by_hand():
    p = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.3, 0.7]])
    # |1.8 - 1| + |0.6 - 1| + |0.7 - 1|, over four.
    assert expected_calibration_error(p, np.array([0, 1, 1, 1])) == pytest.approx(1.5 / 4)
