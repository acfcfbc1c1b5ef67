"""The benchmark of needles: its images are what they say, and its figures equal those of independent computations."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from benchmarks.needle_images import make_needles, read_pictures
from benchmarks.needles import TEST, Result, bits, difference, is_inside

TRAIN_PICTURES = read_pictures("digits", test=False)


def test_no_picture_is_both_for_training_and_for_test():
    training = {image.tobytes() for image in TRAIN_PICTURES.images}
    assert len(training) > 1000
    assert training.isdisjoint(image.tobytes() for image in read_pictures("digits", test=True).images)


def test_the_same_seed_makes_the_same_images_with_all_classes_and_sizes_alike():
    first, again, other = (make_needles(TRAIN_PICTURES, 60, 48, (8, 16), seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.images, again.images)
    assert (first.images != other.images).any()
    assert np.bincount(first.labels).tolist() == [6] * 10
    assert sorted(first.sizes) == [8] * 30 + [16] * 30


def test_the_object_is_in_its_box_and_clutter_is_not():
    alone, cluttered = (make_needles(TRAIN_PICTURES, 40, 64, (12, 20), seed=3, halves=halves) for halves in (0, 12))
    for needles, bright_outside in ((alone, False), (cluttered, True)):
        for image, size, (top, left, bottom, right) in zip(needles.images[..., 0], needles.sizes, needles.boxes, strict=True):
            assert bottom - top == right - left == size
            assert image[top:bottom, left:right].max() > 150
            outside = image.copy()
            outside[top:bottom, left:right] = 0
            assert (outside.max() > 150) == bright_outside
    for image, (top, left, bottom, right) in zip(cluttered.images[..., 0], cluttered.boxes, strict=True):
        border = image[top:bottom, left:right]  # digits leave the corners of their box dark
        assert border[0, 0] < 120
        assert border[-1, 0] < 120


def test_the_largest_cell_counts_where_its_centre_is_in_the_box():
    maps = np.zeros((3, 4, 8))
    maps[0, 1, 6] = maps[1, 1, 6] = maps[2, 3, 0] = 1.0
    # On 64 px, cells are 16 px high and 8 px wide: centres at row 24, column 52; and at row 56, column 4.
    boxes = np.array([[20, 50, 28, 56], [25, 50, 30, 56], [56, 4, 64, 12]])
    assert is_inside(maps, boxes, 64).tolist() == [True, False, True]


def result(seed: int, right: np.ndarray) -> Result:
    bits = np.packbits(right.astype(bool)).tobytes().hex()
    blank = Result("d", "v", 0, "", 0.0, {}, "", {}, 0, 0, 0.0, 0.0, 1)
    return replace(blank, seed=seed, right=bits, accuracy=float(right.mean()))


def test_the_difference_of_one_seed_is_the_paired_one_over_images():
    random = np.random.default_rng(0)
    first, second = random.random((2, TEST)) < [[0.9], [0.8]]
    mean, half = difference([result(0, first)], [result(0, second)])
    expected = stats.ttest_rel(first.astype(float), second.astype(float)).confidence_interval()
    assert (mean - half, mean + half) == pytest.approx(tuple(expected))


def test_the_difference_of_several_seeds_has_their_spread_in_it():
    random = np.random.default_rng(1)
    first = [result(seed, random.random(TEST) < 0.9) for seed in range(3)]
    second = [result(seed, random.random(TEST) < 0.7 + 0.05 * seed) for seed in range(3)]
    mean, half = difference(first, second)
    differences = np.stack([bits(a) - bits(b) for a, b in zip(first, second, strict=True)])
    by_seed, by_image = differences.mean(axis=1), differences.mean(axis=0)
    assert mean == pytest.approx(by_seed.mean())
    # Welch's test of two samples adds the same two variances, with the same degrees of freedom.
    interval = stats.ttest_ind(by_seed, by_image, equal_var=False).confidence_interval()
    assert half == pytest.approx((interval.high - interval.low) / 2)
