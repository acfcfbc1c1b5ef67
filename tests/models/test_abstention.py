"""The threshold of confidence: how often its risk is as promised, against SciPy's bound, and what is not promised."""

import numpy as np
import pytest
from scipy import stats

from models.abstention import fit_abstention, upper_bound
from models.fitting import Answers, fit_answers
from models.settings import AbstainSettings, CalibrationSettings, UnusualSettings
from models.unusual import fit_distance

RISK = AbstainSettings(risk=0.05, confidence=0.95)


def answers(sure, wrong):
    """Probabilities of two classes with these confidences, and labels such that these answers are wrong."""
    return np.stack([sure, 1 - sure], axis=1), wrong.astype(np.int64)


def draw(rng, groups, size=1):
    """Confidences, and wrong answers with the chance 2 (1 - confidence)^2, the same answer for all images of a group."""
    sure = rng.uniform(0.5, 1, groups)
    wrong = rng.uniform(size=groups) < 2 * (1 - sure) ** 2
    return sure.repeat(size), wrong.repeat(size), np.arange(groups).repeat(size)


def true_risk(threshold):
    """Of `draw`: the mean of 2 (1 - confidence)^2 above a threshold."""
    return 2 / 3 * (1 - max(threshold, 0.5)) ** 2


@pytest.mark.parametrize(("groups", "size"), [(2000, 1), (2000, 8)])
def test_the_risk_is_kept_in_95_of_100_data_sets_and_much_is_answered(groups, size):
    rng = np.random.default_rng(1)
    found = []
    for _ in range(200):
        sure, wrong, of = draw(rng, groups, size)
        found.append(fit_abstention(*answers(sure, wrong), of, RISK))
    kept = [item.threshold is None or true_risk(item.threshold) <= RISK.risk for item in found]
    assert np.mean(kept) >= 0.95
    # At the threshold whose risk is 0.05, 0.55 are answered.
    assert np.mean([item.answered / groups for item in found]) > 0.35


def test_images_of_a_group_taken_for_independent_would_break_the_promise():
    rng = np.random.default_rng(2)
    broken = 0
    for _ in range(100):
        sure, wrong, of = draw(rng, 100, 30)
        found = fit_abstention(*answers(sure, wrong), np.arange(len(of)), RISK)
        broken += found.threshold is not None and true_risk(found.threshold) > RISK.risk
    assert broken > 5


def test_the_bound_is_that_of_scipy():
    for errors, number in ((0, 10), (3, 250), (20, 20), (249, 250)):
        expected = stats.binomtest(errors, number, alternative="less").proportion_ci(0.97, method="exact").high
        assert upper_bound(errors, number, 0.03) == pytest.approx(expected, abs=1e-9)


def test_the_least_of_the_thresholds_that_keep_the_risk_is_taken():
    sure = np.linspace(0.999, 0.5, 1000)
    wrong = np.arange(1000) >= 600
    found = fit_abstention(*answers(sure, wrong), np.arange(1000), RISK)
    assert found.threshold == pytest.approx(sure[600])
    assert (found.answered, found.wrong, found.images) == (600, 0, 1000)
    assert found.bound == pytest.approx(1 - (0.05 / 20) ** (1 / 600))
    assert not found.problem


def test_a_model_that_is_good_enough_answers_all():
    found = fit_abstention(*answers(np.full(1000, 0.7), np.zeros(1000, bool)), np.arange(1000), RISK)
    assert (found.threshold, found.answered) == (0.0, 1000)


@pytest.mark.parametrize(("images", "wrong"), [(40, 0), (1000, 300)])
def test_a_risk_that_can_not_be_shown_is_not_promised_and_all_is_answered(images, wrong):
    sure = np.full(images, 0.9)
    found = fit_abstention(*answers(sure, np.arange(images) < wrong), np.arange(images), RISK)
    assert found.threshold is None
    assert f"a risk of 0.05 can't be promised: {images} images" in found.problem


def test_an_unknown_class_is_a_wrong_answer():
    probabilities, labels = answers(np.linspace(0.999, 0.5, 1000), np.zeros(1000, bool))
    labels[500:] = -1
    assert fit_abstention(probabilities, labels, np.arange(1000), RISK).answered == 500


@pytest.mark.parametrize(("cutoff", "answered"), [(None, 1000), (50.0, 250)])
def test_the_risk_is_of_what_the_cutoff_of_unusual_images_lets_through(tmp_path, cutoff, answered):
    """Unusual images are answered rightly, and hide that of the others each twentieth answer is wrong."""
    number = np.arange(1000)
    is_usual, is_sure = number % 2 == 0, number % 4 < 2
    wrong = number % 40 == 2
    probabilities, labels = answers(np.where(is_sure, 0.9, 0.6), wrong)
    distances = np.where(is_usual, 1.0, 2.0) + 0.001 * number / 1000
    settings = CalibrationSettings(temperature=False, sets=None, abstain=RISK, unusual=UnusualSettings(cutoff=cutoff))
    given = Answers(np.log(probabilities), np.eye(2)[labels], number, distances.astype(np.float32))
    found = fit_answers(given, settings, str(tmp_path), distance=fit_distance(np.eye(3)))
    assert found.abstention.answered == answered
    assert found.abstention.wrong == (wrong.sum() if cutoff is None else 0)
