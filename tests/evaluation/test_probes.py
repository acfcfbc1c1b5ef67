"""Linear models on embeddings answer images of groups that they have not seen."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from evaluation.label_issues import find_label_issues
from evaluation.probes import cross_validate, find_learnable
from models import features

CLASSES = ["ant", "bee", "cow", "rare"]
NUMBER = 400


def make_rows(labels, groups=None):
    names = [f"{number}.png" for number in range(len(labels))]
    return pd.DataFrame({features.FILENAME: names, features.GROUP: groups or names, features.LABEL: labels})


def unit(values):
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def test_flipped_labels_are_found():
    generator = np.random.default_rng(0)
    truth = generator.integers(0, 3, NUMBER)
    vectors = unit(np.eye(12)[truth] + 0.15 * generator.normal(size=(NUMBER, 12)))
    given = truth.copy()
    given[:20] = (truth[:20] + 1) % 3
    labels = [CLASSES[label] for label in given]
    labels[50] = "rare"  # the only one of its class
    found = find_label_issues(cross_validate(vectors, make_rows(labels), CLASSES, False, folds=5))
    flipped = {f"{number}.png" for number in range(20)}
    assert flipped <= set(found["path"])
    assert len(found) <= 24
    suggested = found.set_index("path").loc[sorted(flipped, key=lambda name: int(name[:-4])), "suggested"]
    assert suggested.tolist() == [CLASSES[label] for label in truth[:20]]


def test_images_of_a_group_do_not_answer_for_each_other():
    """Vectors without any meaning, twice the same in each group: a model that sees one of two knows the other."""
    generator = np.random.default_rng(2)
    vectors = np.repeat(unit(generator.normal(size=(NUMBER // 2, 64))), 2, axis=0)
    labels = np.repeat(generator.integers(0, 2, NUMBER // 2), 2)
    names = [CLASSES[label] for label in labels]
    groups = [str(number // 2) for number in range(NUMBER)]
    apart = cross_validate(vectors, make_rows(names, groups), CLASSES[:2], False, folds=4)
    together = cross_validate(vectors, make_rows(names), CLASSES[:2], False, folds=4)
    assert roc_auc_score(labels, apart.probabilities[:, 1]) < 0.58
    assert roc_auc_score(labels, together.probabilities[:, 1]) > 0.68


@pytest.mark.parametrize("folds", [2, 5])
def test_each_class_of_multi_label_data_is_answered(folds):
    generator = np.random.default_rng(2)
    has = generator.random((NUMBER, 3)) < 0.4
    vectors = unit(np.concatenate([has, np.ones((NUMBER, 1))], axis=1) + 0.1 * generator.normal(size=(NUMBER, 4)))
    labels = ["|".join(name for name, there in zip(CLASSES, row, strict=False) if there) for row in has]
    found = cross_validate(vectors, make_rows(labels), CLASSES, True, folds)
    for number in range(3):
        assert roc_auc_score(has[:, number], found.probabilities[:, number]) > 0.98
    assert (found.probabilities[:, 3] == 0).all()


def test_data_of_which_each_set_of_classes_is_rarer_than_the_folds_are_many_is_answered():
    has = np.array([[number >> bit & 1 for bit in range(6)] for number in range(64)], bool)
    labels = ["|".join(name for name, there in zip("abcdef", row, strict=True) if there) for row in has]
    found = cross_validate(unit(has + 1), make_rows(labels), list("abcdef"), True, folds=4)
    assert ((found.probabilities > 0) & (found.probabilities < 1)).all()


def test_labels_can_be_answered_if_all_their_classes_are_in_enough_groups():
    """Without the images of the rare class, the class beside it is rare, too."""
    labels = ["ant"] * 3 + ["bee", "bee", "bee|rare"] + [""]
    assert find_learnable(make_rows(labels), True, folds=3).tolist() == [True] * 3 + [False] * 3 + [True]
    labels = ["ant|bee"] * 3 + ["cow"] * 3 + [""]
    groups = [*"abc", *"dde", "f"]
    assert find_learnable(make_rows(labels, groups), False, folds=3).tolist() == [True] * 3 + [False] * 4
