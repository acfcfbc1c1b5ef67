"""Losses, metrics, rates and updates against NumPy."""

from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import f1_score
from sklearn.utils.class_weight import compute_class_weight

from models import optimization
from pipeline.config.network import TrainConfig
from pipeline.dag.component_settings import train_settings

RANDOM = np.random.default_rng(3)
LOGITS = RANDOM.normal(size=(6, 4)).astype(np.float32)
CLASSES = np.array([0, 3, 1, 1, 2, 0])
LABELS = np.eye(4, dtype=np.float32)[CLASSES]
MIXED = (0.3 * LABELS + 0.7 * LABELS[::-1]).astype(np.float32)
LOG_P = LOGITS - np.log(np.exp(LOGITS).sum(-1, keepdims=True))
CONFIG = train_settings(TrainConfig(weight_decay=0.0, warmup_epochs=0.0))


@pytest.mark.parametrize("labels", [LABELS, MIXED], ids=["hard", "mixed"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_cross_entropy_is_taken_against_smoothed_labels(labels, smoothing):
    targets = (1 - smoothing) * labels + smoothing / 4
    loss = optimization.build_loss("cross_entropy", label_smoothing=smoothing)(labels, LOGITS)
    np.testing.assert_allclose(loss, -(targets * LOG_P).sum(-1), rtol=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_the_focal_loss_weighs_down_what_is_right_already(gamma):
    loss = optimization.build_loss("focal", focal_gamma=gamma)(LABELS, LOGITS)
    log_p = LOG_P[np.arange(6), CLASSES]
    np.testing.assert_allclose(loss, -((1 - np.exp(log_p)) ** gamma) * log_p, rtol=1e-4)


def test_the_focal_loss_has_a_gradient_where_the_answer_is_certain():
    logits = tf.Variable([[200.0, 0.0]])
    with tf.GradientTape() as tape:
        loss = optimization.build_loss("focal", focal_gamma=0.5)(tf.constant([[1.0, 0.0]]), logits)
    assert np.isfinite(tape.gradient(loss, logits)).all()


def test_balanced_weights_are_those_of_scikit_learn():
    counts = np.bincount(CLASSES)
    expected = compute_class_weight("balanced", classes=np.arange(4), y=CLASSES)
    np.testing.assert_allclose(optimization.balanced_weights(counts.tolist()), expected)


def test_class_weights_count_by_the_share_of_each_label():
    weights = [0.5, 1.0, 2.0, 4.0]
    loss = optimization.build_loss("cross_entropy", class_weights=weights)(MIXED, LOGITS)
    np.testing.assert_allclose(loss, (MIXED @ weights) * -(MIXED * LOG_P).sum(-1), rtol=1e-5)


def test_the_metrics_are_accuracy_and_the_mean_of_the_classes_f1():
    accuracy, f1 = optimization.build_metrics(4)
    for metric in (accuracy, f1):
        metric.update_state(LABELS, LOGITS)
    answers = LOGITS.argmax(-1)
    assert float(accuracy.result()) == pytest.approx((answers == CLASSES).mean())
    assert float(f1.result()) == pytest.approx(f1_score(CLASSES, answers, average="macro"))


HOT = (RANDOM.random((6, 4)) < 0.4).astype(np.float32)


@pytest.mark.parametrize("name", ["cross_entropy", "focal"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, [0.5, 1.0, 2.0, 4.0]])
def test_each_class_of_a_multi_label_image_is_a_decision_of_its_own(name, smoothing, weights):
    build = {"focal_gamma": 1.5, "label_smoothing": smoothing, "class_weights": weights, "multi_label": True}
    loss = optimization.build_loss(name, **build)(HOT, LOGITS)
    p = 1 / (1 + np.exp(-LOGITS.astype(np.float64)))
    t = (1 - smoothing) * HOT + smoothing / 2
    present = (1 - p) ** 1.5 if name == "focal" else 1
    absent = p**1.5 if name == "focal" else 1
    terms = (weights or 1) * t * present * np.log(p) + (1 - t) * absent * np.log(1 - p)
    np.testing.assert_allclose(loss, -terms.mean(-1), rtol=1e-4)


def test_multi_label_losses_agree_with_keras():
    smoothed = keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=0.1)(HOT, LOGITS)
    ours = optimization.build_loss("cross_entropy", label_smoothing=0.1, multi_label=True)(HOT, LOGITS)
    assert float(np.mean(ours)) == pytest.approx(float(smoothed), rel=1e-5)
    focal = keras.losses.BinaryFocalCrossentropy(from_logits=True, gamma=2.0)(HOT, LOGITS)
    ours = optimization.build_loss("focal", focal_gamma=2.0, multi_label=True)(HOT, LOGITS)
    assert float(np.mean(ours)) == pytest.approx(float(focal), rel=1e-4)


def test_positive_weights_make_presence_count_as_much_as_absence():
    counts = np.array([1, 3, 6, 10])
    weights = np.array(optimization.positive_weights(counts.tolist(), examples=10))
    np.testing.assert_allclose((weights * counts)[:3], (10 - counts)[:3])
    assert weights[3] == 0.1


def test_multi_label_metrics_are_the_share_of_right_answers_and_the_mean_of_the_classes_f1():
    accuracy, f1 = optimization.build_metrics(4, multi_label=True)
    for rows in (slice(0, 2), slice(2, 6)):
        for metric in (accuracy, f1):
            metric.update_state(HOT[rows], LOGITS[rows])
    assert float(accuracy.result()) == pytest.approx(((LOGITS > 0) == HOT).mean())
    assert float(f1.result()) == pytest.approx(f1_score(HOT, LOGITS > 0, average="macro", zero_division=0.0))


def test_the_rate_warms_up_linearly_and_falls_along_a_cosine():
    schedule = optimization.build_schedule(0.1, steps=100, warmup_steps=20)
    rates = np.array([schedule(step) for step in range(101)])
    np.testing.assert_allclose(rates[:21], np.linspace(0, 0.1, 21), atol=1e-7)
    np.testing.assert_allclose(rates[20:], 0.05 * (1 + np.cos(np.pi * np.arange(81) / 80)), atol=1e-7)


def test_steps_limit_the_warm_up_to_a_tenth_of_them():
    optimizer = optimization.build_optimizer(0.1, 50, 100, [], replace(CONFIG, steps=50, warmup_epochs=1.0))
    rates = np.array([optimizer._learning_rate(step) for step in range(51)])
    np.testing.assert_allclose(rates[:6], np.linspace(0, 0.1, 6), atol=1e-7)
    np.testing.assert_allclose(rates[5:], 0.05 * (1 + np.cos(np.pi * np.arange(46) / 45)), atol=1e-7)


def test_one_single_step_can_be_trained():
    assert float(optimization.build_schedule(0.1, steps=1, warmup_steps=5)(0)) == pytest.approx(0.1)


def variable(values):
    return keras.Variable(np.asarray(values, np.float32))


def updates(gradients, learning_rate=0.1, start=1.0, **changes):
    """The values of one weight after each of the gradients, and the optimizer."""
    weight = variable([[start]])
    optimizer = optimization.build_optimizer(
        learning_rate, len(gradients), len(gradients), [weight], replace(CONFIG, **{"optimizer": "sgd"} | changes)
    )
    values = []
    for gradient in gradients:
        optimizer.apply([tf.constant([[gradient]], tf.float32)], [weight])
        values.append(float(weight[0, 0]))
    return np.array(values), optimizer


def sgd(gradients, rates, start=1.0, momentum=0.9):
    """Stochastic gradient descent with Nesterov's momentum, as Sutskever et al. 2013 write it."""
    weight, velocity, values = start, 0.0, []
    for gradient, rate in zip(gradients, rates, strict=True):
        velocity = momentum * velocity - rate * gradient
        weight = weight + momentum * velocity - rate * gradient
        values.append(weight)
    return np.array(values)


def cosine(steps, peak=0.1):
    return peak * 0.5 * (1 + np.cos(np.pi * np.arange(steps) / steps))


def test_accumulated_gradients_are_averaged_and_the_rate_still_ends_with_the_steps():
    gradients = RANDOM.normal(size=8)
    values, optimizer = updates(gradients, accumulate_steps=4)
    expected = sgd(gradients.reshape(2, 4).mean(-1), cosine(8)[[3, 7]])
    np.testing.assert_allclose(values, np.repeat([1.0, *expected], [3, 4, 1]), rtol=1e-5)
    assert float(optimizer.learning_rate) == pytest.approx(0, abs=1e-8)


def test_averaged_weights_have_the_same_momentum_from_update_to_update_when_accumulating():
    gradients = RANDOM.normal(size=8)
    for accumulate in (1, 2):
        values, optimizer = updates(gradients, ema=0.8, accumulate_steps=accumulate)
        momentum = 0.8 ** (1 / accumulate)
        average = values[0]
        for step, value in enumerate(values):
            average = value if step < accumulate else momentum * average + (1 - momentum) * value
        assert float(optimizer._model_variables_moving_average[0][0, 0]) == pytest.approx(average, rel=1e-5)


def test_gradients_are_clipped_to_one_norm_together():
    weights = [variable(np.zeros((2, 2))), variable(np.zeros(2))]
    optimizer = optimization.build_optimizer(0.1, 10, 10, weights, replace(CONFIG, optimizer="sgd", clip_norm=1.0))
    gradients = [np.full((2, 2), 3.0, np.float32), np.full(2, 4.0, np.float32)]
    optimizer.apply([tf.constant(gradient) for gradient in gradients], weights)
    norm = np.sqrt(sum((gradient**2).sum() for gradient in gradients))
    for weight, gradient in zip(weights, gradients, strict=True):
        np.testing.assert_allclose(weight, -0.1 * 1.9 * gradient / norm, rtol=1e-5)  # 1.9: Nesterov's first step


@pytest.mark.parametrize("name", sorted(optimization._OPTIMIZERS))
def test_every_optimizer_decays_kernels_alone_and_lowers_the_loss(name):
    kernels = [variable(np.full((3, 3, 2, 4), 2.0)), variable(np.full((4, 3), 2.0))]
    others = [variable(np.full(4, 2.0)), variable(np.full(3, 2.0))]
    variables = [kernels[0], others[0], kernels[1], others[1]]
    config = replace(CONFIG, optimizer=name, weight_decay=0.5)
    optimizer = optimization.build_optimizer(0.1, 1, 1, variables, config)
    optimizer.apply([tf.zeros(item.shape) for item in variables], variables)
    for kernel in kernels:
        np.testing.assert_allclose(kernel, 2.0 * (1 - 0.1 * 0.5), rtol=1e-5)
    for other in others:
        np.testing.assert_array_equal(other, 2.0)

    target = RANDOM.normal(size=(3, 3, 2, 4)).astype(np.float32)
    weight = variable(np.ones_like(target))
    optimizer = optimization.build_optimizer(0.03, 20, 20, [weight], replace(CONFIG, optimizer=name))
    for _ in range(20):
        optimizer.apply([weight - target], [weight])
    assert ((weight - target) ** 2).numpy().mean() < 0.95 * ((1 - target) ** 2).mean()


@pytest.mark.parametrize("name", sorted(optimization._OPTIMIZERS))
def test_a_model_trains_with_every_optimizer(name):
    model = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Conv2D(2, 3), keras.layers.Flatten()])
    model.compile(optimization.build_optimizer(0.1, 2, 2, model.trainable_variables, replace(CONFIG, optimizer=name)), "mse")
    before = model.get_weights()[0]
    model.fit(np.ones((4, 4, 4, 1)), np.ones((4, 8)), batch_size=2, verbose=0)
    assert not np.array_equal(model.get_weights()[0], before)


def test_muon_makes_the_update_of_a_convolution_nearly_orthogonal():
    weight = variable(np.zeros((3, 3, 2, 4)))
    optimizer = optimization.build_optimizer(0.1, 10, 10, [weight], replace(CONFIG, optimizer="muon"))
    optimizer.apply([tf.constant(RANDOM.normal(size=weight.shape), tf.float32)], [weight])
    step = weight.numpy().reshape(18, 4) / (0.1 * 0.2 * np.sqrt(18))  # rate, and the scale of arXiv:2502.16982
    assert np.linalg.svd(step, compute_uv=False) == pytest.approx(np.ones(4), abs=0.35)
