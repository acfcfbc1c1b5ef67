"""Affine maps of images."""

import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf

from models.affine import affine_transform

IMAGES = np.random.default_rng(0).uniform(0, 255, (2, 9, 12, 3)).astype(np.float32)


def transformed(images, matrix):
    return affine_transform(tf.constant(images), tf.constant([matrix] * len(images), tf.float32)).numpy()


def test_the_identity_changes_nothing():
    np.testing.assert_array_equal(transformed(IMAGES, [[1, 0, 0], [0, 1, 0]]), IMAGES)


def test_a_shift_by_whole_pixels_moves_pixels_and_mirrors_what_comes_in():
    mirrored = np.pad(IMAGES, [(0, 0), (3, 3), (4, 4), (0, 0)], "symmetric")
    np.testing.assert_array_equal(transformed(IMAGES, [[1, 0, 4], [0, 1, -3]]), mirrored[:, 0:9, 8:20])


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_quarter_turns_are_rot90(turns):
    square = IMAGES[:, :, :9]
    cos, sin = round(np.cos(turns * np.pi / 2)), round(np.sin(turns * np.pi / 2))
    expected = np.rot90(square, turns, axes=(1, 2))
    np.testing.assert_allclose(transformed(square, [[cos, -sin, 0], [sin, cos, 0]]), expected, atol=1e-3)


def test_any_matrix_interpolates_as_scipy_does():
    a, b = np.array([[0.9, 0.3], [-0.2, 1.2]]), np.array([1.7, -2.2])  # in (x, y)
    centre = (np.array(IMAGES.shape[1:3]) - 1) / 2
    swapped, offset = a[::-1, ::-1], b[::-1]  # in (y, x), as scipy has it
    for before, after in zip(IMAGES, transformed(IMAGES, np.column_stack([a, b])), strict=True):
        for channel in range(3):
            expected = scipy.ndimage.affine_transform(
                before[..., channel], swapped, centre + offset - swapped @ centre, order=1, mode="reflect"
            )
            np.testing.assert_allclose(after[..., channel], expected, atol=1e-2)
