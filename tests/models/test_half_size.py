"""Training on images of half the size: the shared network, the pixels, and the phases."""

import logging

import keras
import numpy as np
import pytest
from test_training import EVALUATION, progress_of, tiny_model, train

from models import callbacks, half_size
from models.fpn import build_classifier
from pipeline.config.network import ModelConfig
from pipeline.dag.component_settings import classifier_config

RANDOM = np.random.default_rng(3)


def classifier(name, shape):
    config = classifier_config(ModelConfig(backbone=name, coordinates=True))
    return build_classifier(config, image_shape=shape, num_classes=3, channel_mean=[100.0] * 3, channel_variance=[900.0] * 3)


@pytest.mark.parametrize("name", ["small_resnet10", "efficientnet_lite0", "convnext_tiny", "xception"])
def test_a_network_answers_at_half_the_size_as_one_that_is_built_for_it(name):
    whole, built = classifier(name, (192, 191, 3)), classifier(name, (96, 96, 3))
    shared = half_size.share_at_half_size(whole)
    assert all(first is second for first, second in zip(whole.variables, shared.variables, strict=True))
    built.set_weights(whole.get_weights())
    images = RANDOM.integers(0, 256, (2, 96, 96, 3), dtype=np.uint8)
    np.testing.assert_allclose(shared(images), built(images), atol=1e-5)


def test_pixels_become_the_mean_of_two_by_two():
    images = RANDOM.integers(0, 256, (2, 6, 5, 3), dtype=np.uint8)
    small, labels = half_size.halve_images(images, np.zeros(2))
    assert small.dtype == "uint8"
    assert labels.shape == (2,)
    whole = images[:, :, :4].astype(float).reshape(2, 3, 2, 2, 2, 3).mean((2, 4))
    edge = images[:, :, 4:].astype(float).reshape(2, 3, 2, 1, 3).mean(2)
    np.testing.assert_array_equal(small, np.round(np.concatenate([whole, edge], axis=2)))


@pytest.fixture
def seen(monkeypatch):
    """Height of the images that each call of `fit` trains on."""
    heights = []
    fit = keras.Model.fit

    def fit_and_remember(self, data, **keywords):
        heights.append(data.element_spec[0].shape[1])
        assert keywords["validation_data"].element_spec[0].shape[1] == heights[-1]
        return fit(self, data, **keywords)

    monkeypatch.setattr(keras.Model, "fit", fit_and_remember)
    return heights


def test_the_first_share_of_the_steps_sees_small_images_and_the_rest_whole_ones(seen, tmp_path, caplog):
    model = tiny_model()
    with caplog.at_level(logging.INFO, logger="models.callbacks"):
        history = train(model, tmp_path, frozen_epochs=1, steps=10, half_size=0.6, optimizer="sgd")
    assert seen == [16, 8, 16]
    assert [row["epoch"] for row in history] == [1, 2, 3, 4]  # four frozen steps, then four and two small, four whole
    assert [item["done"] for item in progress_of(caplog)] == [4, 8, 12, 14]
    assert model.evaluate(EVALUATION, verbose=0)[0] == pytest.approx(history[-1]["val_loss"], abs=1e-5)


def test_a_training_whose_phase_of_small_images_was_cut_short_goes_on_as_if_it_had_not_been(seen, tmp_path, monkeypatch):
    settings = {"epochs": 4, "half_size": 0.5, "keep": "best", "ema": 0.5}
    model = tiny_model()
    whole = train(model, tmp_path / "whole", **settings)

    save = callbacks.save_checkpoint
    monkeypatch.setattr(callbacks, "save_checkpoint", lambda *arguments: (save(*arguments), 1 / 0))
    with pytest.raises(ZeroDivisionError):
        train(tiny_model(), tmp_path / "killed", tmp_path / "checkpoints", **settings)
    monkeypatch.setattr(callbacks, "save_checkpoint", save)
    resumed = tiny_model()
    for first, second in zip(whole, train(resumed, tmp_path / "last", tmp_path / "checkpoints", **settings), strict=True):
        assert second == pytest.approx(first, abs=1e-5)
    assert seen == [8, 16, 8, 8, 16]
    for first, second in zip(model.weights, resumed.weights, strict=True):
        np.testing.assert_allclose(first, second, atol=1e-5)
