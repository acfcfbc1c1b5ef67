"""Distance and percentile of an embedding, against SciPy and scikit-learn; what unusual images get from a trained network."""

import numpy as np
import pytest
import tensorflow as tf
from scipy.spatial.distance import cdist
from scipy.stats import percentileofscore
from sklearn.covariance import LedoitWolf

from models.unusual import fit_distance, fit_percentiles, percentiles

RANDOM = np.random.default_rng(5)


def embeddings(number, size=12, classes=3):
    """Directions that scatter around one of each class, and the classes; they scatter most along one axis."""
    truth = RANDOM.integers(0, classes, number)
    points = np.eye(classes, size)[truth] + RANDOM.normal(size=(number, size)) * np.linspace(0.3, 0.02, size)
    return points / np.linalg.norm(points, axis=1, keepdims=True), np.eye(classes)[truth]


def oracle(train, labels, new):
    """By scikit-learn's covariance and SciPy's distance."""
    means = np.stack([train[labels[:, number] == 1].mean(axis=0) for number in range(labels.shape[1]) if labels[:, number].any()])
    seen = np.flatnonzero(labels.any(axis=0))
    own = means[np.searchsorted(seen, labels.argmax(axis=1))]
    precision = LedoitWolf(assume_centered=True).fit(train - own).precision_
    return cdist(new, means, "mahalanobis", VI=precision).min(axis=1) ** 2 / train.shape[1]


@pytest.mark.parametrize("number", [8, 60, 3_000], ids=["fewer than dimensions", "few", "many"])
def test_the_distance_is_that_of_mahalanobis_to_the_nearest_class(number):
    (train, labels), (new, _) = embeddings(number), embeddings(200)
    new[0] = 0.0  # an embedding of nothing
    expected = oracle(train, labels, new)
    distance = fit_distance(train, labels)
    # The least variance of a direction is added: 1e-8.
    np.testing.assert_allclose(distance(tf.constant(new)), expected, rtol=1e-4)
    np.testing.assert_allclose(distance(tf.constant(new, tf.float32)), expected, rtol=1e-3)
    assert (distance(tf.constant(np.eye(12))).numpy() >= 0).all()


def test_classes_without_an_image_and_images_without_a_class_are_left_out():
    train, labels = embeddings(300)
    some = np.insert(labels, 1, 0, axis=1)  # no image has this class
    unknown = np.concatenate([train, -train]), np.concatenate([some, 0 * some])
    expected = fit_distance(train, labels)(tf.constant(train))
    np.testing.assert_allclose(fit_distance(*unknown)(tf.constant(train)), expected, rtol=1e-9)


def test_images_of_multi_label_data_have_one_mean():
    train, _ = embeddings(300)
    labels = RANDOM.integers(0, 2, (300, 4))
    found = fit_distance(train, labels, multi_label=True)(tf.constant(train))
    np.testing.assert_allclose(found, oracle(train, np.ones((300, 1)), train), rtol=1e-4)


def test_a_single_image_a_class_gives_distances():
    train, labels = embeddings(3)
    train, labels = train[:1], labels[:1]
    found = fit_distance(train, labels)(tf.constant(np.concatenate([train, -train]))).numpy()
    assert found[0] == pytest.approx(0, abs=1e-6)
    assert found[1] > 1


@pytest.mark.parametrize("number", [1, 20, 201, 5_000])
def test_the_percentile_counts_the_smaller_distances_and_half_of_the_equal_ones(number):
    distances = RANDOM.gamma(3.0, size=number)
    new = np.concatenate([RANDOM.gamma(3.0, size=500), distances])
    fitted = fit_percentiles(distances, 7)
    assert (fitted.examples, fitted.training_examples) == (number, 7)
    found = percentiles(tf.constant(new), fitted.quantiles).numpy()
    expected = percentileofscore(distances, new, "mean")
    # Between the images the percentile rises, where that of SciPy jumps.
    assert np.abs(found - expected).max() <= 0.5 + 50 / number + 1e-6
    # Half of the first and the last image lies beyond them.
    assert np.abs(found[500:] - expected[500:]).max() <= max(0.5, 25 / number) + 1e-6
    beyond = tf.constant([0.0, distances.max() * 1.01, 1e30])
    np.testing.assert_allclose(percentiles(beyond, fitted.quantiles), [0, 100, 100], atol=1e-5)


def test_equal_distances_make_a_step():
    quantiles = fit_percentiles(np.array([1.0] * 50 + [2.0] * 50), 1).quantiles
    found = percentiles(tf.constant([0.9, 1.1, 1.9, 2.1], tf.float32), quantiles)
    np.testing.assert_allclose(found, [0, 50, 50, 100], atol=0.6)


@pytest.mark.parametrize(
    ("embedded", "labels", "reason"),
    [
        (np.full((4, 2), np.nan), np.eye(4), "the embeddings are not finite"),
        (np.ones((4, 2)), np.zeros((4, 3)), "no training image has a known class"),
    ],
)
def test_what_can_not_be_fitted_is_an_error(embedded, labels, reason):
    with pytest.raises(ValueError, match=reason):
        fit_distance(embedded, labels)


@pytest.mark.parametrize(("distances", "reason"), [([], "no images"), ([1.0, np.inf], "not finite")])
def test_distances_that_have_no_percentiles_are_an_error(distances, reason):
    with pytest.raises(ValueError, match=reason):
        fit_percentiles(np.array(distances), 1)
