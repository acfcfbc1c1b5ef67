"""Rates that fall from the heads to the image: which weights have which, and the updates against NumPy."""

from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from test_training import backbone_weights, changed, tiny_model, train

from models import optimization
from models.backbones import BACKBONES, build_backbone
from models.fpn import build_classifier
from models.layer_decay import rate_factors
from pipeline.config.network import ModelConfig, TrainConfig
from pipeline.dag.component_settings import classifier_config, train_settings

CONFIG = train_settings(TrainConfig(weight_decay=0.1, warmup_epochs=0.0))
RANDOM = np.random.default_rng(7)


def distances(backbone):
    """The distance from the head of every layer that has weights."""
    factors = rate_factors(backbone, backbone.trainable_variables, 0.5)
    pairs = zip(backbone.trainable_variables, factors, strict=True)
    return {variable.path.split("/")[0]: -np.log2(factor) for variable, factor in pairs}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "small_resnet10",
            {"stem_conv": 5, "stage1_block1_1_conv": 4, "stage1_block1_shortcut_conv": 4, "stage4_block1_2_bn": 1},
        ),
        ("resnet50", {"conv1_bn": 5, "conv2_block3_3_conv": 4, "conv3_block1_0_conv": 3, "conv4_block6_3_bn": 2}),
        ("mobilenet_v3_small", {"conv": 5, "expanded_conv_squeeze_excite_conv": 4, "expanded_conv_4_squeeze_excite_conv": 2}),
        ("efficientnet_v2_b0", {"stem_conv": 5, "block2b_expand_conv": 4, "block5e_se_expand": 2, "top_conv": 1}),
        ("convnext_tiny", {"convnext_tiny_stem": 4, "convnext_tiny_stage_2_block_8_layer_scale": 2}),
        ("densenet121", {"conv1_conv": 5, "conv2_block6_2_conv": 4, "pool2_conv": 4, "conv5_block16_2_conv": 1}),
    ],
)
def test_a_layer_is_as_far_from_the_head_as_its_stage(name, expected):
    # An odd size, which the strides do not divide.
    found = distances(build_backbone(name, "none", (150, 225, 3), BACKBONES[name].features[0].level, 5, grey_input="repeat"))
    assert {layer: found[layer] for layer in expected} == expected


def test_without_the_coarsest_stages_the_last_one_that_is_left_is_next_to_the_head():
    found = distances(build_backbone("resnet50", "none", (64, 64, 1), 3, 4, grey_input="sum"))
    assert set(found.values()) == {1, 2, 3, 4}
    assert found["conv4_block6_3_conv"] == 1


def test_pyramid_and_heads_have_the_whole_rate():
    config = classifier_config(ModelConfig(backbone="small_resnet10", min_level=1))
    model = build_classifier(config, image_shape=(32, 32, 1), num_classes=3, channel_mean=[0.0], channel_variance=[1.0])
    backbone = model.get_layer("backbone")
    factors = rate_factors(backbone, model.trainable_variables, 0.75)
    of_backbone = {variable.path for variable in backbone.trainable_variables}
    for variable, factor in zip(model.trainable_variables, factors, strict=True):
        assert factor == pytest.approx(1) if variable.path not in of_backbone else factor <= 0.75
    assert set(rate_factors(backbone, model.trainable_variables, 1.0)) == {1.0}


def cosine(steps, peak):
    return peak * 0.5 * (1 + np.cos(np.pi * np.arange(steps) / steps))


def sgd(weight, gradients, rates, decay):
    """With Nesterov's momentum, as Sutskever et al. 2013 write it."""
    velocity = np.zeros_like(weight)
    for gradient, rate in zip(gradients, rates, strict=True):
        velocity = 0.9 * velocity - rate * gradient
        weight = weight - rate * decay * weight + 0.9 * velocity - rate * gradient
    return weight


def adamw(weight, gradients, rates, decay):
    """Algorithm 2 of arXiv:1711.05101; Keras adds epsilon to the uncorrected root."""
    m, v = np.zeros_like(weight), np.zeros_like(weight)
    for step, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        m = 0.9 * m + 0.1 * gradient
        v = 0.999 * v + 0.001 * gradient**2
        corrected = rate * np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
        weight = weight - rate * decay * weight - corrected * m / (np.sqrt(v) + 1e-7)
    return weight


def muon(weight, gradients, rates, decay):
    """arXiv:2502.16982, with five steps of Newton and Schulz on the matrix [height * width * channels in, channels out]."""
    m = np.zeros_like(weight)
    for gradient, rate in zip(gradients, rates, strict=True):
        m = 0.95 * m + gradient
        x = (gradient + 0.95 * m).reshape(-1, weight.shape[-1])
        rows, columns = x.shape
        x = x.T / np.linalg.norm(x)  # rows > columns
        for _ in range(5):
            a = x @ x.T
            x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
        update = 0.2 * np.sqrt(max(rows, columns)) * x.T.reshape(weight.shape)
        weight = weight - rate * decay * weight - rate * update
    return weight


@pytest.mark.parametrize("steps", [1, 6])
@pytest.mark.parametrize(("name", "expected"), [("sgd", sgd), ("adamw", adamw), ("muon", muon)])
def test_updates_and_weight_decay_are_those_of_the_weights_own_rate(name, expected, steps):
    start = RANDOM.normal(size=(3, 3, 2, 4))
    gradients = RANDOM.normal(size=(steps, *start.shape))
    factors = [0.25, 1.0, 0.5]
    weights = [keras.Variable(start.astype(np.float32)) for _ in factors]
    config = replace(CONFIG, optimizer=name)
    optimizer = optimization.build_optimizer(0.05, steps, steps, weights, config, factors)
    for gradient in gradients:
        optimizer.apply([tf.constant(gradient, tf.float32)] * len(weights), weights)
    for weight, factor in zip(weights, factors, strict=True):
        rates = factor * cosine(steps, 0.05)
        # Nothing of the start may hide a difference of the updates.
        np.testing.assert_allclose(weight - start, expected(start, gradients, rates, 0.1) - start, rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize("name", sorted(optimization._OPTIMIZERS))
def test_with_every_optimizer_the_first_step_is_in_proportion_to_the_rate(name):
    factors = [1.0, 0.25]
    weights = [keras.Variable(np.full((3, 3, 2, 4), 2.0, np.float32)) for _ in factors]
    optimizer = optimization.build_optimizer(0.01, 4, 4, weights, replace(CONFIG, optimizer=name, weight_decay=0.0), factors)
    gradient = tf.constant(RANDOM.normal(size=(3, 3, 2, 4)), tf.float32)
    optimizer.apply([gradient, gradient], weights)
    whole, quarter = (weight.numpy() - 2.0 for weight in weights)
    assert np.abs(whole).max() > 1e-3
    np.testing.assert_allclose(quarter, whole / 4, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("xla", [False, True])
def test_a_network_learns_slower_in_its_backbone_alone(policy, xla, tmp_path):
    def moves(layer_decay):
        keras.config.set_dtype_policy(policy)
        try:
            model = tiny_model()
        finally:
            keras.config.set_dtype_policy("float32")
        model.layers[-2].rate = 0.0
        before = model.get_weights()
        # Accumulated over the whole epoch: one update.
        train(model, tmp_path, optimizer="sgd", layer_decay=layer_decay, xla=xla, accumulate_steps=4, learning_rate=0.1)
        changes = zip(model.weights, before, strict=True)
        return [("head" in weight.path, weight.numpy() - value) for weight, value in changes if weight.trainable]

    for (in_head, whole), (_, found) in zip(moves(1.0), moves(0.5), strict=True):
        np.testing.assert_allclose(found, whole * (1.0 if in_head else 0.5), rtol=2e-3, atol=1e-5)


def test_with_a_decay_of_0_the_backbone_stays_as_it_is(tmp_path):
    model = tiny_model()
    before = backbone_weights(model)
    head = model.layers[-1].get_weights()
    train(model, tmp_path, layer_decay=0.0)
    assert not changed(before, backbone_weights(model))
    assert not np.array_equal(model.layers[-1].get_weights()[0], head[0])
