"""RandAugment and its operations."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

from models.rand_augment import OPERATIONS, rand_augment

PIXELS = np.random.default_rng(0).integers(20, 200, (10, 12, 3), dtype=np.uint8)


def operated(name, pixels, magnitude):
    changed = OPERATIONS[name](tf.constant(pixels, tf.float32), tf.constant(magnitude))
    return np.clip(changed.numpy(), 0, 255)


@pytest.mark.parametrize(
    ("name", "by_pillow", "tolerance"),
    [
        ("brightness", lambda image: ImageEnhance.Brightness(image).enhance(1.45), 1.0),
        ("contrast", lambda image: ImageEnhance.Contrast(image).enhance(1.45), 1.5),
        ("colour", lambda image: ImageEnhance.Color(image).enhance(1.45), 1.5),
        ("posterize", lambda image: ImageOps.posterize(image, 6), 0.0),
        ("solarize", lambda image: ImageOps.solarize(image, 128), 0.0),
        ("auto_contrast", ImageOps.autocontrast, 1.0),
    ],
)
def test_an_operation_is_what_pillow_makes_of_it(name, by_pillow, tolerance):
    expected = np.asarray(by_pillow(Image.fromarray(PIXELS)), np.float32)
    np.testing.assert_allclose(operated(name, PIXELS, 0.5), expected, atol=tolerance)


def test_sharpness_exaggerates_the_difference_from_the_smoothed_image():
    sharper = operated("sharpness", PIXELS, 0.5)[1:-1, 1:-1]
    expected = np.asarray(ImageEnhance.Sharpness(Image.fromarray(PIXELS)).enhance(1.45), np.float32)[1:-1, 1:-1]
    np.testing.assert_allclose(sharper, expected, atol=1.5)


def test_equalize_spreads_the_levels_by_their_ranks():
    ranks = np.searchsorted(np.sort(PIXELS[..., 0], axis=None), PIXELS[..., 0], side="right")
    expected = (ranks - ranks.min()) * 255 / (ranks.max() - ranks.min())
    np.testing.assert_allclose(operated("equalize", PIXELS, 0.5)[..., 0], expected, atol=1e-2)


def test_translations_move_by_their_share_of_the_image():
    moved = operated("translate_x", PIXELS, 1 / (0.45 * 12))
    np.testing.assert_allclose(moved[:, :-1], PIXELS[:, 1:], atol=1e-2)
    moved = operated("translate_y", PIXELS, -1 / (0.45 * 10))
    np.testing.assert_allclose(moved[1:], PIXELS[:-1], atol=1e-2)


@pytest.mark.parametrize("name", sorted(OPERATIONS.keys() - {"auto_contrast", "equalize"}))
def test_an_operation_of_magnitude_zero_changes_nothing(name):
    np.testing.assert_allclose(operated(name, PIXELS, 0.0), PIXELS, atol=1e-3)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("level", [0, 7, 255])
def test_an_image_of_one_level_stays_one(name, level):
    changed = operated(name, np.full((6, 6, 1), level, np.uint8), 0.5)
    assert np.isfinite(changed).all()
    np.testing.assert_allclose(changed, changed[0, 0, 0], atol=1e-3)


def test_each_image_has_its_own_operations_and_alpha_stays_opaque():
    images = np.concatenate([np.broadcast_to(PIXELS, (64, *PIXELS.shape)), np.full((64, 10, 12, 1), 255)], axis=-1)
    changed = rand_augment(tf.constant(images, tf.float32), 0.5, tf.constant([1, 2])).numpy()
    assert len(np.unique(changed.round(), axis=0)) > 40
    assert (changed[..., 3] == 255).all()
    assert changed.min() >= 0
    assert changed.max() <= 255
