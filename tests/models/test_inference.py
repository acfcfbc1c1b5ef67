"""The answers of the exported model are those of all views of an image together."""

import keras
import numpy as np
import pytest

from models.inference import average_views

RANDOM = np.random.default_rng(8)
HEIGHT, WIDTH = 30, 52  # shifts of 1 and 2 pixels
IMAGES = RANDOM.integers(0, 256, (5, HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def classifier():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((HEIGHT, WIDTH, 3), dtype="uint8")
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Conv2D(4, 3, strides=3, activation="relu")(x)
    return keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(x)), name="classifier")


def shifted(images):
    """The four shifts by NumPy's own padding."""
    padded = np.pad(images, ((0, 0), (1, 1), (2, 2), (0, 0)), mode="reflect")
    offsets = {(0, 2), (2, 2), (1, 0), (1, 4)}
    return [padded[:, top : top + HEIGHT, left : left + WIDTH] for top, left in sorted(offsets)]


VIEWS = {
    "none": [IMAGES],
    "flip": [IMAGES, IMAGES[:, :, ::-1]],
    "shift": [IMAGES, *shifted(IMAGES)],
    "flip_shift": [view[:, :, ::step] for view in [IMAGES, *shifted(IMAGES)] for step in (1, -1)],
}


@pytest.mark.parametrize("views", VIEWS)
def test_logits_are_the_mean_over_the_views(classifier, views):
    expected = np.mean([classifier(view).numpy() for view in VIEWS[views]], axis=0)
    np.testing.assert_allclose(average_views(classifier, IMAGES, views), expected, atol=1e-5)


def test_probabilities_are_the_geometric_mean_of_the_views(classifier):
    each = [keras.ops.softmax(classifier(view)).numpy() for view in VIEWS["flip"]]
    geometric = np.sqrt(each[0] * each[1])
    averaged = keras.ops.softmax(average_views(classifier, IMAGES, "flip"))
    np.testing.assert_allclose(averaged, geometric / geometric.sum(-1, keepdims=True), atol=1e-6)


def test_a_symmetric_image_has_the_same_answer_with_its_mirror_image(classifier):
    symmetric = np.concatenate([IMAGES[:, :, : WIDTH // 2], IMAGES[:, :, : WIDTH // 2][:, :, ::-1]], axis=2)
    np.testing.assert_allclose(average_views(classifier, symmetric, "flip"), classifier(symmetric), atol=1e-6)
    assert np.abs(average_views(classifier, IMAGES, "flip") - classifier(IMAGES)).max() > 1e-3


def test_a_uniform_image_has_the_same_answer_with_all_views(classifier):
    uniform = np.full_like(IMAGES, 77)
    np.testing.assert_allclose(average_views(classifier, uniform, "flip_shift"), classifier(uniform), atol=1e-5)
