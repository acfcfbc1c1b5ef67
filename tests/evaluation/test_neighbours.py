"""Neighbours, outliers and near duplicates among embeddings, against scikit-learn and cases made by hand."""

import numpy as np
import pandas as pd
import pytest
from sklearn.manifold import trustworthiness
from sklearn.neighbors import NearestNeighbors

from evaluation import neighbours


def make_vectors(number, classes=20, dimensions=48, seed=0, latent=12):
    """Vectors in groups, as embeddings are, and the group of each."""
    generator = np.random.default_rng(seed)
    centres, mixing = generator.normal(size=(classes, latent)), generator.normal(size=(latent, dimensions))
    groups = generator.integers(0, classes, number)
    values = (centres[groups] + 0.3 * generator.normal(size=(number, latent))) @ mixing
    values += 0.05 * generator.normal(size=values.shape)
    return unit(values), groups


def unit(values):
    return (values / np.linalg.norm(values, axis=-1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("block", [2**24, 2**14])
def test_a_small_data_set_is_compared_exactly(monkeypatch, block):
    monkeypatch.setattr(neighbours, "_BLOCK", block)
    vectors, _ = make_vectors(700)
    positions, cosines = neighbours.find_nearest(vectors, vectors[:50], 10)
    distances, expected = NearestNeighbors(n_neighbors=10, metric="cosine").fit(vectors).kneighbors(vectors[:50])
    np.testing.assert_array_equal(positions, expected)
    np.testing.assert_allclose(cosines, 1 - distances, atol=1e-5)


def test_a_large_data_set_has_nearly_all_true_neighbours(monkeypatch):
    vectors, _ = make_vectors(8000)
    expected, _ = neighbours.find_nearest(vectors, vectors[:500], 10)
    monkeypatch.setattr(neighbours, "_EXACT", 1000)
    found, cosines = neighbours.find_nearest(vectors, vectors[:500], 10)
    recall = np.mean([len(set(one) & set(two)) / 10 for one, two in zip(found, expected, strict=True)])
    assert recall >= 0.95
    np.testing.assert_allclose(cosines, np.einsum("qd,qnd->qn", vectors[:500], vectors[found]), atol=1e-5)


def test_no_more_neighbours_than_vectors():
    vectors, _ = make_vectors(4)
    positions, _ = neighbours.find_nearest(vectors, vectors, 10)
    assert positions.shape == (4, 4)
    np.testing.assert_array_equal(positions[:, 0], np.arange(4))


def test_an_image_far_from_its_class_is_an_outlier():
    vectors, groups = make_vectors(600, classes=4)
    labels = pd.Series([f"class {group}" for group in groups])
    labels[7] = "class 0" if groups[7] != 0 else "class 1"  # lies among another class
    vectors[9] = -vectors[9]  # lies among none
    found = neighbours.find_outliers(vectors, labels)
    assert {7, 9} <= set(found["image"])
    assert len(found) < 12
    assert found["ratio"].is_monotonic_decreasing
    members = np.flatnonzero((labels == labels[9]).to_numpy())
    others = vectors[members[members != 9]] @ vectors[9]
    row = found[found["image"] == 9].iloc[0]
    assert row["distance"] == pytest.approx(1 - np.sort(others)[-10:].mean(), abs=1e-5)


def test_a_class_of_a_few_images_has_no_outliers():
    vectors, _ = make_vectors(5)
    assert neighbours.find_outliers(vectors, pd.Series(["a"] * 5)).empty


def test_copies_with_small_changes_are_pairs_and_neighbours_of_a_class_are_not():
    vectors, _ = make_vectors(2000, latent=40)
    generator = np.random.default_rng(5)
    copies = unit(vectors[:40] + 0.002 * generator.normal(size=vectors[:40].shape))
    found = neighbours.find_near_duplicates(np.concatenate([vectors, copies]))
    true = {(number, 2000 + number) for number in range(40)}
    pairs = set(zip(found["a"], found["b"], strict=True))
    assert true <= pairs
    assert len(pairs) < 50
    assert found["cosine"].is_monotonic_decreasing


def test_many_copies_of_an_image_are_pairs():
    vectors, _ = make_vectors(500, latent=40)
    found = neighbours.find_near_duplicates(np.concatenate([vectors, np.tile(vectors[:1], (19, 1))]))
    copies = {0, *range(500, 519)}
    assert copies <= {*found["a"], *found["b"]}


def test_the_map_keeps_neighbours():
    vectors, _ = make_vectors(150, classes=5)
    places = neighbours.place_on_map(vectors)
    assert places.shape == (150, 2)
    assert trustworthiness(vectors, places, n_neighbors=10) > 0.9
    np.testing.assert_array_equal(places, neighbours.place_on_map(vectors))
