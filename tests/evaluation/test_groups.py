"""One answer a group: the rules against their definitions, group by group, and metrics against scikit-learn's."""

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sklearn_metrics

from base.errors import UserError
from evaluation.flips import flips
from evaluation.groups import combine, describe, evaluate_groups
from evaluation.predictions import Predictions
from evaluation.results import Flips
from evaluation.settings import GroupRule
from models import features

CLASSES = ["covid", "flu", "healthy"]


def predictions_of(labels, probabilities, groups, classes=CLASSES, baseline=None):
    """`labels` are names, or of multi-label data rows of 0 and 1."""
    multi_label = not isinstance(labels[0], str)
    if multi_label:
        labels = ["|".join(name for name, value in zip(classes, row, strict=True) if value) for row in labels]
    rows = pd.DataFrame({features.LABEL: labels, features.GROUP: groups})
    return Predictions(rows, classes, multi_label, np.asarray(probabilities, np.float32), baseline)


@pytest.fixture(scope="module")
def slices():
    """900 images of 120 patients in no order, most of each of one class; a quarter of the patients are of an unknown one."""
    random = np.random.default_rng(5)
    patient = random.integers(0, 120, 900)
    true = np.where(random.random(900) < 0.1, random.integers(0, 4, 900), patient % 4)
    probabilities = random.dirichlet([0.6] * 3, 900)
    probabilities[true < 3] = (probabilities[true < 3] + np.eye(3)[true[true < 3]]) / 2
    return predictions_of([[*CLASSES, "other"][label] for label in true], probabilities, [f"p{number}" for number in patient])


def each(predictions):
    """Name, labels, answers and probabilities of each group."""
    frame = predictions.rows.assign(position=np.arange(len(predictions.rows)))
    for name, rows in frame.groupby(features.GROUP, sort=False):
        chosen = rows.position.to_numpy()
        yield name, predictions.labels[chosen], predictions.answers()[chosen], predictions.probabilities[chosen]


def test_mean_and_max_are_of_the_images_probabilities(slices):
    means, names, maxima = [], [], []
    for name, _, _, probabilities in each(slices):
        names.append(name)
        means.append(probabilities.mean(axis=0))
        maxima.append(probabilities.max(axis=0) / probabilities.max(axis=0).sum())
    _, found, found_names = combine(slices, "mean", 0.1, None)
    assert found_names == names
    np.testing.assert_allclose(found, means, atol=1e-6)
    np.testing.assert_allclose(combine(slices, "max", 0.1, None)[1], maxima, atol=1e-5)


def test_vote_is_the_share_of_answers_and_the_larger_sum_decides_between_equals(slices):
    _, found, _ = combine(slices, "vote", 0.1, None)
    for row, (_, _, answers, probabilities) in zip(found, each(slices), strict=True):
        shares = np.array([(answers == number).mean() for number in range(3)])
        np.testing.assert_allclose(row, shares, atol=2e-6)
        candidates = np.flatnonzero(shares == shares.max())
        assert row.argmax() == max(candidates, key=lambda number: probabilities[:, number].sum())


@pytest.mark.parametrize("share", [0.1, 0.25, 1 / 3, 1.0])
def test_share_answers_with_the_class_from_that_share_on_and_else_with_the_most_frequent_other(slices, share):
    labels, found, _ = combine(slices, "share", share, "covid")
    assert found.min() >= 0
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=2e-6)
    of_images = []
    for label, row, (_, true, answers, probabilities) in zip(labels, found, each(slices), strict=True):
        of_images.append((answers == 0).mean())
        if of_images[-1] >= share:
            assert row.argmax() == 0
        else:
            counts = [(answers == number).sum() for number in (1, 2)]
            sums = probabilities[:, 1:].sum(axis=0)
            assert row.argmax() == 1 + max((0, 1), key=lambda number: (counts[number], sums[number]))
        others = [number for number in (1, 2, -1) if (true == number).any()]
        expected = 0 if (true == 0).mean() >= share else max(others, key=lambda number: (true == number).sum())
        assert label == expected
    # A ROC curve over groups is one over the shares.
    expected = sklearn_metrics.roc_auc_score(labels == 0, of_images)
    assert sklearn_metrics.roc_auc_score(labels == 0, found[:, 0]) == pytest.approx(expected, abs=1e-9)


def test_one_slice_in_ten_makes_a_patient_positive():
    answers = np.eye(2)[[0] + 9 * [1] + 11 * [1] + [0]]  # of the second patient it is one in twelve
    predictions = predictions_of(10 * ["covid"] + 12 * ["normal"], answers, 10 * ["a"] + 12 * ["b"], ["covid", "normal"])
    labels, probabilities, _ = combine(predictions, "share", 0.1, "covid")
    assert labels.tolist() == [0, 1]
    assert probabilities.argmax(axis=1).tolist() == [0, 1]
    assert combine(predictions, "vote", 0.1, None)[1].argmax(axis=1).tolist() == [1, 1]


def test_a_group_of_several_classes_is_of_the_most_frequent():
    labels = ["flu", "covid", "covid", "healthy", "flu", "other", "other", "flu"]
    predictions = predictions_of(labels, np.full((8, 3), 1 / 3), list("aaabbccc"))
    for rule in ("mean", "max", "vote"):
        assert combine(predictions, rule, 0.1, None)[0].tolist() == [0, 1, -1]


def test_multi_label_groups_have_each_class_by_itself():
    true = [[1, 0], [0, 0], [0, 0], [1, 1], [1, 0]]
    probabilities = [[0.9, 0.2], [0.1, 0.6], [0.2, 0.1], [0.7, 0.4], [0.1, 0.8]]
    predictions = predictions_of(true, probabilities, list("aaabb"), ["mass", "nodule"])
    expected = {
        "mean": ([[0, 0], [1, 1]], [[0.4, 0.3], [0.4, 0.6]]),
        "max": ([[1, 0], [1, 1]], [[0.9, 0.6], [0.7, 0.8]]),
        "vote": ([[0, 0], [1, 1]], [[1 / 3, 1 / 3], [0.5, 0.5]]),
        "share": ([[1, 0], [1, 1]], [[0.5 + (1 / 3 - 0.25) / 1.5, 1 / 3], [2 / 3, 0.5]]),
    }
    for rule, (labels, values) in expected.items():
        found_labels, found, _ = combine(predictions, rule, 0.25, "mass")
        assert found_labels.tolist() == labels
        np.testing.assert_allclose(found, values, atol=1e-6)


def test_metrics_and_confusion_over_groups_are_those_of_scikit_learn():
    random = np.random.default_rng(8)
    patient = np.sort(random.integers(0, 60, 400))
    probabilities = (random.dirichlet([0.5] * 3, 400) * 2 + np.eye(3)[patient % 3]) / 3
    predictions = predictions_of(
        [CLASSES[number % 3] for number in patient], probabilities, [str(number) for number in patient]
    )
    settings = GroupRule(rule="mean", share=0.1, positive=None)
    names = ["accuracy", "balanced_accuracy", "f1", "auc", "matthews", "cross_entropy"]
    result = evaluate_groups(predictions, settings, names, "jackknife")
    labels = patient[np.unique(patient, return_index=True)[1]] % 3
    means = pd.DataFrame(predictions.probabilities).groupby(patient).mean().to_numpy(np.float64)
    answers = means.argmax(axis=1)
    expected = {
        "accuracy": sklearn_metrics.accuracy_score(labels, answers),
        "balanced_accuracy": sklearn_metrics.balanced_accuracy_score(labels, answers),
        "f1": sklearn_metrics.f1_score(labels, answers, average="macro"),
        "auc": sklearn_metrics.roc_auc_score(labels, means / means.sum(axis=1, keepdims=True), multi_class="ovr"),
        "matthews": sklearn_metrics.matthews_corrcoef(labels, answers),
    }
    assert {name: metric.value for name, metric in result.metrics.items()} == pytest.approx(expected, abs=1e-6)
    assert result.confusion == sklearn_metrics.confusion_matrix(labels, answers).tolist()
    assert (result.groups, result.rule) == (len(labels), "mean of the images' probabilities")
    accuracy = result.metrics["accuracy"]
    assert accuracy.lower < accuracy.value < accuracy.upper


def test_images_without_groups_have_no_group_level():
    predictions = predictions_of(["flu", "covid"], np.eye(3)[[1, 0]], ["a.png", "b.png"])
    assert evaluate_groups(predictions, GroupRule(rule="mean", share=0.1, positive=None), ["accuracy"], "none") is None


@pytest.mark.parametrize(
    ("positive", "message"), [(None, "is missing"), ("covd", "there is no class covd.*covid, flu, healthy")]
)
def test_the_rule_share_needs_a_class_that_there_is(slices, positive, message):
    with pytest.raises(UserError, match=rf"evaluate\.groups\.positive: {message}"):
        combine(slices, "share", 0.1, positive)


def test_a_rule_is_told_in_words():
    rule = GroupRule(rule="share", share=0.1, positive="covid")
    assert describe(rule) == "covid where at least 10 % of the images are"


def test_flips_are_the_images_that_one_of_two_models_has_right():
    labels = ["flu", "flu", "covid", "covid", "other"]
    now, before = np.eye(3)[[1, 1, 0, 1, 2]], np.eye(3)[[0, 2, 0, 0, 1]]
    assert flips(predictions_of(labels, now, list("abcde"), baseline=before)) == Flips(fixed=2, broken=1)
    assert flips(predictions_of(labels, now, list("abcde"))) is None
    true = [[1, 0, 0], [0, 0, 0]]  # of several labels all must be right
    now, before = np.array([[0.5, 0.4, 0.1], [0, 0, 0]]), np.array([[0.9, 0.6, 0.1], [0.1, 0, 0.2]])
    assert flips(predictions_of(true, now, list("ab"), baseline=before)) == Flips(fixed=1, broken=0)
