"""What to label next: unsure images that differ from each other."""

import numpy as np
import pytest

from evaluation.selection import choose_next, uncertainty


def test_an_answer_is_unsure_where_two_classes_are_nearly_as_probable():
    probabilities = np.array([[0.5, 0.5, 0], [0.9, 0.05, 0.05], [1, 0, 0], [0.4, 0.35, 0.25]])
    np.testing.assert_allclose(uncertainty(probabilities, multi_label=False), [1, 0.15, 0, 0.95])
    of_each_class = np.array([[0.5, 0.99], [1.0, 0.0], [0.7, 0.2]])
    np.testing.assert_allclose(uncertainty(of_each_class, multi_label=True), [1, 0, 0.6])


@pytest.fixture
def pool():
    """Four groups of 50 unsure images that are nearly alike, and 300 sure ones all over."""
    generator = np.random.default_rng(0)
    centres = np.eye(8)[:4]
    unsure = np.repeat(centres, 50, axis=0) + 0.01 * generator.normal(size=(200, 8))
    vectors = np.concatenate([unsure, generator.normal(size=(300, 8))])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    first = np.concatenate([generator.uniform(0.5, 0.6, 200), generator.uniform(0.95, 1, 300)])
    return np.stack([first, 1 - first], axis=1), vectors.astype(np.float32)


def test_of_many_that_are_nearly_alike_one_is_chosen(pool):
    probabilities, vectors = pool
    chosen = choose_next(probabilities, vectors, 4, multi_label=False)
    assert sorted(number // 50 for number in chosen) == [0, 1, 2, 3]
    doubt = uncertainty(probabilities[chosen], multi_label=False)
    assert (np.diff(doubt) <= 0).all()


@pytest.mark.parametrize("number", [1, 7, 499, 500, 900])
def test_as_many_as_wanted_are_chosen_and_none_twice(pool, number):
    probabilities, vectors = pool
    chosen = choose_next(probabilities, vectors, number, multi_label=False)
    assert len(chosen) == len(set(chosen.tolist())) == min(number, 500)


def test_equal_images_are_chosen_too_where_there_are_no_others():
    vectors = np.tile(np.float32([1, 0]), (30, 1))
    probabilities = np.full((30, 2), 0.5)
    assert len(set(choose_next(probabilities, vectors, 10, multi_label=False).tolist())) == 10
