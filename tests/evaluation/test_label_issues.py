"""Labels that are probably wrong: which are found, in what order, with what suggestion."""

import numpy as np
import pandas as pd
import pytest

from evaluation.label_issues import COLUMNS, find_label_issues, join_predictions
from evaluation.predictions import Predictions
from models import features

CLASSES = ["cat", "dog", "owl"]
IMAGES, WRONG = 300, 20


def predictions(probabilities, labels, classes=CLASSES, *, multi_label=False, first=0):
    names = [f"{first + number}.png" for number in range(len(labels))]
    rows = pd.DataFrame({features.FILENAME: names, features.LABEL: labels})
    return Predictions(rows, classes, multi_label, np.asarray(probabilities, np.float32))


def noisy():
    """Answers of a model that is mostly sure and right, and labels of which the first WRONG are others."""
    random = np.random.default_rng(1)
    truth = random.integers(0, 3, IMAGES)
    logits = random.normal(0, 1, (IMAGES, 3)) + 5 * np.eye(3)[truth]
    given = truth.copy()
    given[:WRONG] = (truth[:WRONG] + 1) % 3
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return shares, truth, given


def test_wrong_labels_are_found_with_the_right_one():
    shares, truth, given = noisy()
    found = find_label_issues(predictions(shares, [CLASSES[label] for label in given]))
    assert tuple(found.columns) == COLUMNS
    numbers = [int(path.removesuffix(".png")) for path in found["path"]]
    right = [number for number in numbers if number < WRONG]
    assert len(right) >= 0.9 * WRONG
    assert len(right) >= 0.9 * len(numbers)
    by_path = found.set_index("path")
    for number in right:
        row = by_path.loc[f"{number}.png"]
        assert (row["label"], row["suggested"]) == (CLASSES[given[number]], CLASSES[shares[number].argmax()])
    assert list(found["quality"]) == sorted(found["quality"])
    np.testing.assert_allclose(found["quality"], [shares[number, given[number]] for number in numbers], rtol=1e-5)
    assert np.mean(truth[right] == shares[right].argmax(axis=1)) > 0.9


def test_right_labels_are_left_alone():
    shares, truth, _ = noisy()
    surely = 0.98 * np.eye(3)[truth] + 0.01
    assert find_label_issues(predictions(surely, [CLASSES[label] for label in truth])).empty
    assert len(find_label_issues(predictions(shares, [CLASSES[label] for label in truth]))) < 0.05 * IMAGES


def test_labels_that_no_model_knows_are_left_out():
    shares, _, given = noisy()
    labels = [CLASSES[label] for label in given]
    labels[:5] = ["bird"] * 5
    assert not set(find_label_issues(predictions(shares, labels))["path"]) & {f"{number}.png" for number in range(5)}


def test_missing_and_surplus_labels_of_multi_label_data_are_found():
    random = np.random.default_rng(2)
    truth = random.random((IMAGES, 3)) < 0.4
    probabilities = np.where(truth, 0.95, 0.05) + random.normal(0, 0.01, truth.shape)
    given = truth.copy()
    given[:WRONG, 0] ^= True
    labels = [features.join_labels(np.array(CLASSES)[row]) for row in given]
    found = find_label_issues(predictions(probabilities, labels, multi_label=True))
    assert {int(path.removesuffix(".png")) for path in found["path"]} == set(range(WRONG))
    expected = {f"{number}.png": features.join_labels(np.array(CLASSES)[truth[number]]) for number in range(WRONG)}
    assert dict(zip(found["path"], found["suggested"], strict=True)) == expected


@pytest.mark.parametrize("everywhere", [["cat"], []], ids=["beside a class that all images have", "alone"])
def test_wrong_labels_of_the_only_class_that_differs_are_found(everywhere):
    has = np.arange(IMAGES) % 2 == 0
    given = has ^ (np.arange(IMAGES) < WRONG)
    probabilities = np.stack([*(np.full(IMAGES, 0.97) for _ in everywhere), np.where(has, 0.95, 0.05)], axis=1)
    labels = ["|".join([*everywhere, "dog"] if there else everywhere) for there in given]
    found = find_label_issues(predictions(probabilities, labels, [*everywhere, "dog"], multi_label=True))
    assert {int(path.removesuffix(".png")) for path in found["path"]} == set(range(WRONG))


def test_answers_of_models_with_other_orders_of_classes_are_joined():
    joined = join_predictions(
        [
            predictions([[0.7, 0.3]], ["owl"], ["owl", "cat"]),
            predictions([[0.1, 0.2, 0.7]], ["dog"], ["cat", "owl", "dog"], first=1),
        ]
    )
    assert joined.classes == ["cat", "dog", "owl"]
    assert list(joined.rows[features.FILENAME]) == ["0.png", "1.png"]
    assert joined.probabilities == pytest.approx(np.array([[0.3, 0, 0.7], [0.1, 0.7, 0.2]]))
