"""Prediction sets against MAPIE, their coverage on new images and on new groups, and what is not promised."""

import json
from dataclasses import replace

import numpy as np
import pytest
from mapie.conformity_scores import APSConformityScore, LACConformityScore, RAPSConformityScore
from mapie.utils import _compute_classification_quantile
from scipy import special
from sklearn.preprocessing import LabelEncoder

from models import conformal
from models.conformal import SETS_FILE, fit_sets, quantile
from models.fitting import Answers, fit_answers
from models.settings import CalibrationSettings, SetSettings

METHODS = ("lac", "aps", "raps")
CLASSES = 6


def promise(coverage=0.9, method="lac", by_class=False):
    return SetSettings(coverage=coverage, method=method, by_class=by_class)


def draw(rng, number, sharpness=2.0):
    """Probabilities, and labels drawn from them."""
    probabilities = special.softmax(sharpness * rng.normal(size=(number, CLASSES)), axis=-1).astype(np.float32)
    return probabilities, (probabilities.cumsum(axis=-1) < rng.uniform(size=(number, 1))).sum(axis=-1).clip(0, CLASSES - 1)


class _WholeProbability(np.random.RandomState):
    """MAPIE takes a random share of the class's own probability off the cumulated one; `scores` takes all of it."""

    def uniform(self, *arguments, size=None, **named):
        return np.ones(size)


def oracle(method, probabilities, labels, new, coverage, last="randomized"):
    """MAPIE's quantile and sets; `last` is whether the class at which the quantile is passed is in them."""
    score = {"lac": LACConformityScore, "aps": APSConformityScore, "raps": RAPSConformityScore}[method]()
    classes, alpha = np.arange(CLASSES), np.array([1 - coverage])
    score.set_external_attributes(classes=classes, label_encoder=LabelEncoder().fit(classes), random_state=_WholeProbability(0))
    of_score = LACConformityScore if method == "lac" else APSConformityScore  # that of RAPS chooses its parameters itself
    found = of_score.get_conformity_scores(score, labels, probabilities.astype(np.float64), y_enc=labels)
    if method == "raps":
        score.lambda_star, score.k_star = conformal.PENALTY, np.array([conformal.FREE_RANKS])
        found = score._regularize_conformity_score(score.k_star, score.lambda_star, found, score.cutoff)[:, :, 0]
    score.quantiles_ = _compute_classification_quantile(found, alpha)
    sets = score.get_prediction_sets(new.astype(np.float64)[:, :, None], found, alpha, cv="prefit", include_last_label=last)
    return score.quantiles_[0], sets[:, :, 0]


def by_hand(probabilities, limit):
    """The sets of RAPS in plain loops."""
    sets = np.zeros(probabilities.shape, bool)
    for row, values in enumerate(probabilities.astype(np.float64)):
        before = 0.0
        for rank, position in enumerate(sorted(range(CLASSES), key=lambda position: -values[position]), start=1):
            sets[row, position] = before + conformal.PENALTY * max(rank - conformal.FREE_RANKS, 0) <= limit
            before += values[position]
    return sets


@pytest.mark.parametrize("sharpness", [1.0, 3.0])
@pytest.mark.parametrize("method", METHODS)
def test_thresholds_and_sets_are_those_of_mapie(method, sharpness):
    rng = np.random.default_rng(3)
    (probabilities, labels), (new, _) = draw(rng, 353, sharpness), draw(rng, 500, sharpness)
    sets = fit_sets(probabilities, labels, np.arange(353), promise(0.9, method))
    limit, expected = oracle(method, probabilities, labels, new, 0.9)
    assert sets.thresholds == pytest.approx([limit] * CLASSES, abs=1e-6)
    chosen = sets.select(new).numpy()
    if method == "raps":  # whose random version MAPIE has otherwise than the paper: its sets without and with the last class
        without, with_last = (oracle(method, probabilities, labels, new, 0.9, last)[1] for last in (False, True))
        assert (without <= chosen).all()
        assert (chosen <= with_last).all()
        assert (without < with_last).any()
        expected = by_hand(new, limit)
    assert chosen.tolist() == expected.tolist()
    assert 1 < expected.sum(axis=-1).mean() < CLASSES
    assert not sets.problem


@pytest.mark.parametrize("method", METHODS)
def test_by_class_each_class_has_the_threshold_of_its_own_images(method):
    probabilities, labels = draw(np.random.default_rng(4), 900)
    sets = fit_sets(probabilities, labels, np.arange(900), promise(0.8, method, by_class=True))
    for position, limit in enumerate(sets.thresholds):
        own = labels == position
        assert limit == pytest.approx(oracle(method, probabilities[own], labels[own], probabilities, 0.8)[0], abs=1e-6)
        assert sets.groups[position] == own.sum()


@pytest.mark.parametrize("method", METHODS)
def test_new_images_are_covered_as_promised(method):
    rng = np.random.default_rng(5)
    covered = []
    for _ in range(100):
        (probabilities, labels), (new, truths) = draw(rng, 200), draw(rng, 400)
        sets = fit_sets(probabilities, labels, np.arange(200), promise(0.9, method)).select(new).numpy()
        covered.append(sets[np.arange(400), truths].mean())
        assert method == "lac" or sets[np.arange(400), new.argmax(axis=-1)].all()
    # The mean of 100 such shares has a deviation of 0.0026.
    assert 0.9 - 0.008 < np.mean(covered) < (0.913 if method == "lac" else 1)


def test_images_of_new_groups_are_covered_as_promised():
    """In each group all images are alike, and a few groups, which are hard, have few images."""
    rng = np.random.default_rng(6)

    def draw_groups(number):
        hard = rng.uniform(size=number) < 0.2
        sizes = np.where(hard, 1, 20)
        return np.repeat(np.where(hard, rng.uniform(1, 2, number), rng.uniform(0, 1, number)), sizes), np.arange(number).repeat(
            sizes
        )

    by_group, by_image = [], []
    for _ in range(200):
        values, groups = draw_groups(40)
        new, of = draw_groups(400)
        one = np.unique(of, return_index=True)[1]
        by_group.append((new[one] <= quantile(values, groups, 0.9)).mean())
        by_image.append((new[one] <= quantile(values, np.arange(len(values)), 0.9)).mean())
    assert np.mean(by_group) >= 0.9 - 0.01
    assert np.mean(by_image) < 0.85


def test_a_quantile_gives_each_group_the_same_weight():
    values, groups = np.array([5.0, 1.0, 3.0, 2.0]), np.array([7, 7, 8, 9])
    # Weights of 1/8 each for 5 and 1, and of 1/4 for 3 and for 2; the rest is infinity's.
    for coverage, expected in ((0.12, 1.0), (0.13, 2.0), (0.37, 2.0), (0.38, 3.0), (0.62, 3.0), (0.63, 5.0), (0.75, 5.0)):
        assert quantile(values, groups, coverage) == expected
    assert quantile(values, groups, 0.76) == np.inf


@pytest.mark.parametrize(
    ("number", "coverage", "needed", "enough"),
    [(18, 0.95, 19, False), (19, 0.95, 19, True), (9998, 0.9999, 9999, False), (9999, 0.9999, 9999, True)],
)
def test_with_too_few_groups_nothing_is_promised_and_all_classes_are_in_the_set(number, coverage, needed, enough):
    probabilities, labels = draw(np.random.default_rng(7), number)
    sets = fit_sets(probabilities, labels, np.arange(number), promise(coverage))
    assert sets.needed == needed
    assert (sets.problem == "") == enough
    assert sets.select(probabilities).numpy().all() == (not enough)


def test_a_class_of_too_few_images_is_in_every_set():
    probabilities, labels = draw(np.random.default_rng(8), 900)
    few = (labels != 2) | (np.cumsum(labels == 2) <= 5)
    sets = fit_sets(probabilities[few], labels[few], np.arange(few.sum()), promise(0.9, by_class=True))
    assert [limit is None for limit in sets.thresholds] == [position == 2 for position in range(CLASSES)]
    assert "1 of 6 classes, which are in every set: it needs 9 or more groups" in sets.problem
    assert sets.problem.endswith("and there are 5")


def test_images_of_an_unknown_class_count_as_never_covered():
    probabilities, labels = draw(np.random.default_rng(9), 400)
    sets = fit_sets(probabilities, labels, np.arange(400), promise(0.9))
    labels[:20] = -1
    assert fit_sets(probabilities, labels, np.arange(400), promise(0.9)).thresholds > sets.thresholds
    labels[:41] = -1
    problem = fit_sets(probabilities, labels, np.arange(400), promise(0.9)).problem
    assert "too many images of the eval split are of classes that the training split has not" in problem


def test_a_trainings_sets_are_of_its_calibrated_probabilities_and_are_kept_with_the_run(tmp_path, caplog):
    probabilities, labels = draw(np.random.default_rng(10), 500)
    one_hot = np.eye(CLASSES, dtype=np.float32)[labels]
    answers = Answers(3 * np.log(probabilities), one_hot, np.arange(500))
    settings = CalibrationSettings(temperature=True, sets=promise(0.9), abstain=None, unusual=None)
    fitted = fit_answers(answers, settings, str(tmp_path))
    assert 2.5 < fitted.temperature < 3.6
    calibrated = special.softmax(answers.logits / fitted.temperature, axis=-1).astype(np.float32)
    assert fitted.sets.thresholds == pytest.approx(
        fit_sets(calibrated, labels, np.arange(500), promise(0.9)).thresholds, abs=1e-6
    )
    kept = json.loads((tmp_path / SETS_FILE).read_text())
    assert kept["thresholds"] == list(fitted.sets.thresholds)
    assert kept["problem"] == ""
    assert "WARNING" not in caplog.text
    few = Answers(answers.logits[:5], one_hot[:5], np.arange(5))
    assert fit_answers(few, replace(settings, temperature=False), str(tmp_path)).sets.thresholds == (None,) * CLASSES
    assert "a coverage of 0.9 is not promised for any class: it needs 9 or more groups" in caplog.text


def test_a_diverged_model_promises_nothing(tmp_path):
    answers = Answers(np.full((50, CLASSES), np.nan, np.float32), np.eye(CLASSES)[np.zeros(50, int)], np.arange(50))
    settings = CalibrationSettings(temperature=True, sets=promise(0.9), abstain=None, unusual=None)
    assert fit_answers(answers, settings, str(tmp_path)).sets.select(np.zeros((3, CLASSES), np.float32)).numpy().all()
