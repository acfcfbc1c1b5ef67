"""Distance and percentile of an embedding, against SciPy and scikit-learn; what unusual images get from a trained network."""

import numpy as np
import pytest
import tensorflow as tf
from scipy.stats import percentileofscore
from sklearn.covariance import LedoitWolf

from models.unusual import fit_distance, fit_percentiles, percentiles

RANDOM = np.random.default_rng(5)


def embeddings(number, size=12):
    """Directions that scatter around one of three, most along one axis."""
    points = np.eye(3, size)[RANDOM.integers(0, 3, number)] + RANDOM.normal(size=(number, size)) * np.linspace(0.3, 0.02, size)
    return points / np.linalg.norm(points, axis=1, keepdims=True)


@pytest.mark.parametrize("number", [8, 60, 3_000], ids=["fewer than dimensions", "few", "many"])
def test_the_distance_is_that_of_scikit_learn(number):
    train, new = embeddings(number), embeddings(200)
    new[0] = 0.0  # an embedding of nothing
    expected = LedoitWolf().fit(train).mahalanobis(new) / train.shape[1]
    distance = fit_distance(train)
    np.testing.assert_allclose(distance(tf.constant(new)), expected, rtol=1e-6)
    np.testing.assert_allclose(distance(tf.constant(new, tf.float32)), expected, rtol=1e-4)
    assert distance(tf.constant(train)).numpy().mean() < 1.1


def test_images_that_are_all_the_same_give_distances():
    train = embeddings(1)
    found = fit_distance(np.repeat(train, 5, axis=0))(tf.constant(np.concatenate([train, -train]))).numpy()
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
    ("embedded", "reason"), [(np.full((4, 2), np.nan), "not finite"), (np.ones((0, 2)), "no training images")]
)
def test_what_can_not_be_fitted_is_an_error(embedded, reason):
    with pytest.raises(ValueError, match=reason):
        fit_distance(embedded)


@pytest.mark.parametrize(("distances", "reason"), [([], "no images"), ([1.0, np.inf], "not finite")])
def test_distances_that_have_no_percentiles_are_an_error(distances, reason):
    with pytest.raises(ValueError, match=reason):
        fit_percentiles(np.array(distances), 1)
