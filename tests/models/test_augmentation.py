"""Random changes to training images."""

import numpy as np
import pytest
import tensorflow as tf

from models.augmentation import build_augmentation

OFF = {"flip": "none", "shift": 0.0, "zoom": 0.0, "rotation": 0.0, "contrast": 0.0}
IMAGES = tf.constant(np.random.default_rng(0).integers(0, 256, (8, 12, 10, 3), dtype=np.uint8))
LABELS = tf.one_hot(range(8), 8)


def test_nothing_changes_when_all_is_off():
    images, labels = build_augmentation(**OFF, seed=0)(IMAGES, LABELS)
    assert images is IMAGES
    assert labels is LABELS


@pytest.mark.parametrize(
    "change",
    [{"flip": "both"}, {"shift": 0.3}, {"zoom": 0.3}, {"rotation": 0.2}, {"contrast": 0.5}],
    ids=lambda change: next(iter(change)),
)
def test_each_change_alters_pixels_but_not_shape_or_type(change):
    changed, labels = build_augmentation(**{**OFF, **change}, seed=0)(IMAGES, LABELS)
    np.testing.assert_array_equal(labels, LABELS)
    assert changed.dtype == tf.uint8
    assert changed.shape == IMAGES.shape
    assert (changed.numpy() != IMAGES.numpy()).any()


def test_a_flip_only_moves_pixels():
    flipped = build_augmentation(**{**OFF, "flip": "horizontal"}, seed=0)(IMAGES, LABELS)[0].numpy()
    for before, after in zip(IMAGES.numpy(), flipped, strict=True):
        assert (after == before).all() or (after == before[:, ::-1]).all()


def test_every_batch_of_a_data_set_is_changed_anew():
    augment = build_augmentation(**{**OFF, "shift": 0.3}, seed=0)
    data = tf.data.Dataset.from_tensors((IMAGES, LABELS)).repeat(3).map(augment)
    first, second, third = (images.numpy() for images, _ in data)
    assert (first != second).any()
    assert (second != third).any()
