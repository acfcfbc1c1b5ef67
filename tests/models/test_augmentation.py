"""Random changes to training images."""

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from models.augmentation import build_augmentation
from models.settings import AugmentSettings

OFF = AugmentSettings(
    flip="none",
    shift=0.0,
    zoom=0.0,
    rotation=0.0,
    contrast=0.0,
    rand_augment=0.0,
    erasing=0.0,
    mixup=0.0,
    cutmix=0.0,
)
ALL = {
    "flip": "both",
    "shift": 0.3,
    "zoom": 0.3,
    "rotation": 0.2,
    "contrast": 0.5,
    "rand_augment": 0.5,
    "erasing": 0.5,
    "mixup": 0.4,
    "cutmix": 1.0,
}
N = 16
IMAGES = np.random.default_rng(0).integers(0, 256, (N, 12, 10, 3), dtype=np.uint8)
LABELS = np.eye(N, dtype=np.float32)  # as many classes as images, so that a label tells who is in the mixture


def augmented(images=IMAGES, labels=LABELS, seed=0, **changes):
    augment = build_augmentation(replace(OFF, **changes), seed=seed)
    images, labels = augment(tf.constant(images), tf.constant(labels))
    assert images.dtype == tf.uint8
    assert labels.dtype == tf.float32
    return images.numpy(), labels.numpy()


def test_nothing_changes_when_all_is_off():
    images, labels = object(), object()
    assert build_augmentation(OFF, seed=0)(images, labels) == (images, labels)


@pytest.mark.parametrize("change", ALL)
def test_each_change_alters_pixels_and_only_mixing_alters_labels(change):
    images, labels = augmented(**{change: ALL[change]})
    assert images.shape == IMAGES.shape
    assert (images != IMAGES).any()
    assert (labels != LABELS).any() == (change in ("mixup", "cutmix"))
    np.testing.assert_allclose(labels.sum(1), 1, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 4])
def test_all_changes_together_work_in_a_data_set_with_any_channels(channels):
    images = np.repeat(IMAGES[..., :1], channels, axis=-1)
    data = tf.data.Dataset.from_tensors((images, LABELS)).map(build_augmentation(AugmentSettings(**ALL), seed=0))
    changed, labels = next(iter(data))
    assert changed.shape == images.shape
    np.testing.assert_allclose(labels.numpy().sum(1), 1, atol=1e-6)


@pytest.mark.parametrize(("flip", "ways"), [("horizontal", 2), ("vertical", 2), ("both", 4)])
def test_a_flip_only_moves_pixels(flip, ways):
    seen = set()
    for before, after in zip(IMAGES, augmented(flip=flip)[0], strict=True):
        candidates = {"as it was": before, "horizontal": before[:, ::-1], "vertical": before[::-1], "both": before[::-1, ::-1]}
        seen.add(next(name for name, image in candidates.items() if (image == after).all()))
    assert len(seen) == ways


def test_each_image_moves_by_its_own_random_amount_within_the_bounds():
    place = np.arange(100, dtype=np.uint8)  # each pixel tells where it came from
    images = np.broadcast_to(place[:, None, None], (256, 100, 100, 1))
    moved = augmented(images, np.zeros((256, 1), np.float32), shift=0.2)[0]
    shifts = moved[:, 50, 50, 0].astype(int) - 50
    assert abs(shifts).max() <= 20
    assert shifts.min() < -15
    assert shifts.max() > 15
    assert len(np.unique(shifts)) > 20


@pytest.mark.parametrize(("flip", "axis"), [("horizontal", 2), ("vertical", 1)])
def test_an_image_is_mirrored_before_it_moves(flip, axis):
    place = np.moveaxis(np.arange(100, dtype=np.uint8)[:, None, None, None], 0, axis)
    images, labels = np.broadcast_to(place, (64, 100, 100, 1)), np.zeros((64, 1), np.float32)
    moves = {"shift": 0.2, "zoom": 0.2, "rotation": 0.1}
    alone, after_a_flip = (augmented(images, labels, flip=each, **moves)[0].astype(int) for each in ("none", flip))
    mirrored = abs(after_a_flip - (99 - alone)).max((1, 2, 3)) <= 1  # to mirror the ramp is to subtract it
    assert (abs(after_a_flip - alone).max((1, 2, 3))[~mirrored] <= 1).all()
    assert 16 < mirrored.sum() < 48


def test_zoom_and_rotation_leave_the_centre_where_it_is():
    images = np.zeros((64, 31, 31, 1), np.uint8)
    images[:, 14:17, 14:17] = 200
    moved = augmented(images, np.zeros((64, 1), np.float32), zoom=0.3, rotation=0.5)[0]
    assert (moved[:, 15, 15] == 200).all()
    assert len(np.unique(moved, axis=0)) > 50


def test_contrast_scales_the_difference_from_each_channels_mean():
    images = np.random.default_rng(1).integers(100, 150, (N, 12, 10, 3), dtype=np.uint8)
    changed = augmented(images, contrast=0.5)[0].astype(float)
    mean = images.mean((1, 2), keepdims=True)
    factors = (changed - mean).std((1, 2)) / (images - mean).std((1, 2))
    assert 0.5 <= factors.min() < 0.8
    assert 1.2 < factors.max() <= 1.51
    np.testing.assert_allclose(factors, factors[:, :1] * np.ones((1, 3)), atol=0.02)
    np.testing.assert_allclose(changed, (images - mean) * factors[:, None, None, :] + mean, atol=1.5)


def test_erasing_blanks_one_rectangle_in_the_share_of_images_that_was_asked_for():
    images = np.full((1000, 32, 32, 1), 77, np.uint8)
    changed = augmented(images, np.zeros((1000, 1), np.float32), erasing=0.3)[0] != 77
    area = changed.mean((1, 2, 3))
    assert 0.25 < (area > 0).mean() < 0.35
    assert area.max() < 0.4
    for blank in changed[area > 0, :, :, 0]:
        rows, columns = np.flatnonzero(blank.any(1)), np.flatnonzero(blank.any(0))
        assert blank[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()


def neighbours_share(labels):
    """The share of the image before in each mixture, from labels that are one class an image."""
    return labels[np.arange(N), np.arange(N) - 1]


def test_mixup_blends_images_as_it_blends_labels():
    images, labels = augmented(mixup=0.4)
    other = neighbours_share(labels)
    np.testing.assert_allclose(labels, (1 - other)[:, None] * LABELS + other[:, None] * np.roll(LABELS, 1, axis=0), atol=1e-6)
    blended = (1 - other)[:, None, None, None] * IMAGES + other[:, None, None, None] * np.roll(IMAGES, 1, axis=0)
    np.testing.assert_allclose(images, blended, atol=0.51)
    assert len(np.unique(other)) > 10


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_mixtures_are_drawn_from_a_beta_distribution(alpha):
    images = np.zeros((4000, 2, 2, 1), np.uint8)
    images[::2] = 255
    labels = np.eye(2, dtype=np.float32)[np.arange(4000) % 2]
    mixed = augmented(images, labels, mixup=alpha)[1]
    share = np.where(labels[:, 0] == 1, mixed[:, 0], mixed[:, 1])
    assert share.min() >= 0.5  # the larger part is the image's own; the distribution is symmetric
    assert abs(np.square(share - 0.5).mean() - 1 / (4 * (2 * alpha + 1))) < 0.01


def test_cutmix_labels_are_the_shares_of_the_pixels():
    images = np.broadcast_to(np.arange(N, dtype=np.uint8)[:, None, None, None], (N, 20, 16, 3))
    mixed, labels = augmented(images, cutmix=1.0)
    from_neighbour = (mixed == np.roll(images, 1, axis=0)).mean((1, 2, 3))
    assert ((mixed == images) | (mixed == np.roll(images, 1, axis=0))).all()
    np.testing.assert_allclose(neighbours_share(labels), from_neighbour, atol=1e-6)
    assert len(np.unique(from_neighbour)) > 10


def test_with_both_kinds_of_mixing_each_batch_takes_one():
    augment = build_augmentation(replace(OFF, mixup=1.0, cutmix=1.0), seed=0)
    kinds = set()
    for level in range(200, 208):  # any change of a batch changes its random numbers
        levels = np.where(np.arange(N) % 2, level, 0).astype(np.uint8)
        mixed = augment(tf.constant(np.tile(levels[:, None, None, None], (1, 8, 8, 1))), tf.constant(LABELS))[0].numpy()
        uniform = (mixed == mixed[:, :1, :1]).all()
        assert uniform or np.isin(mixed, [0, level]).all()
        kinds.add("mixup" if uniform else "cutmix")
    assert kinds == {"mixup", "cutmix"}


def test_mixing_keeps_several_labels_of_an_image():
    labels = np.tile(np.array([[1, 1, 0], [0, 1, 0]], np.float32), (N // 2, 1))
    mixed = augmented(labels=labels, mixup=1.0)[1]
    np.testing.assert_allclose(mixed[:, 1], 1, atol=1e-6)  # the class that all have


def test_a_shuffled_data_set_is_changed_anew_in_every_epoch():
    augment = build_augmentation(replace(OFF, shift=0.3), seed=0)
    data = tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).shuffle(N, seed=1).batch(N).map(augment)
    epochs = []
    for _ in range(3):
        images, labels = next(iter(data))
        epochs.append(images.numpy()[labels.numpy().argmax(0)])  # back in order
    assert (epochs[0] != epochs[1]).any((1, 2, 3)).all()
    assert (epochs[1] != epochs[2]).any((1, 2, 3)).all()


def test_another_seed_changes_otherwise():
    assert (augmented(flip="both", seed=1)[0] != augmented(flip="both", seed=2)[0]).any()


def stream_digest(parallel_calls):
    tf.random.set_seed(0)  # else the order would depend on whether another test has set one
    augment = build_augmentation(replace(OFF, shift=0.3, erasing=0.5), seed=3)
    data = tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).shuffle(N, seed=1).repeat(5).batch(4)
    digest = hashlib.sha256()
    for images, labels in data.map(augment, num_parallel_calls=parallel_calls):
        digest.update(images.numpy().tobytes() + labels.numpy().tobytes())
    return digest.hexdigest()


def test_the_stream_is_the_same_with_parallel_calls_and_in_another_process():
    code = f"from {__name__} import stream_digest; print(stream_digest(1))"
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])])
    ended = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True
    )
    assert ended.stdout.strip() == stream_digest(4)
