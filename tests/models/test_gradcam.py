"""Grad-CAM is what the paper's formula says, and finds evidence where it was put."""

from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf

from models.fpn import build_classifier
from models.gradcam import explain_maps, split
from pipeline.config.network import ModelConfig
from pipeline.dag.component_settings import classifier_config

RANDOM = np.random.default_rng(3)
IMAGES = RANDOM.integers(0, 256, (5, 24, 40, 1), dtype=np.uint8)
CHOSEN = np.array([0, 3, 1, 2, 0])


SMALL = classifier_config(ModelConfig(backbone="small_resnet10", max_level=3, num_filters=5, norm="none", pooling="average"))


def classifier(**options):
    """A small network with random weights everywhere, biases and attention included."""
    keras.utils.set_random_seed(1)
    model = build_classifier(
        replace(SMALL, **options),
        image_shape=IMAGES.shape[1:],
        num_classes=4,
        channel_mean=[127.0],
        channel_variance=[5000.0],
    )
    for weight in model.weights:
        if any(name in weight.path for name in ("head", "logits")):
            weight.assign(keras.random.normal(weight.shape, stddev=0.5, seed=len(weight.path)))
    return model


def grad_cam(model, images, class_index=None, multi_label=False):
    levels, trunk, head = split(model)
    return explain_maps(trunk(images, training=False), levels, head, class_index, multi_label)


def pooled_maps(model):
    """What each level's pooling sees."""
    maps = model.get_layer("backbone")(model.get_layer("to_float")(IMAGES), training=False)
    if any(layer.name == "pyramid" for layer in model.layers):
        maps = model.get_layer("pyramid")(maps, training=False)
    has_relu = any(layer.name.startswith("relu_") for layer in model.layers)
    return {name: np.maximum(level, 0) if has_relu else np.asarray(level) for name, level in maps.items()}


def logits_of(model, maps):
    """From what the poolings see to the answer."""
    layers = {layer.name: layer for layer in model.layers}
    answers = [(layers.get("head") or layers[f"head_{name}"])(level, training=False) for name, level in maps.items()]
    if "levels" in layers:
        answers = layers["levels"](answers)
    return np.asarray(layers["logits"](answers) if "logits" in layers else answers[0])


def test_maps_follow_the_papers_formula():
    model = classifier()
    explanation = grad_cam(model, IMAGES, CHOSEN)
    assert explanation.levels == ("P2", "P3")
    signed = []
    for name, level in pooled_maps(model).items():
        height, width = level.shape[1:3]
        # Average pooling and the mean of two levels: every cell has the gradient W_kc / (2 h w).
        alpha = model.get_layer(f"head_{name}").layers[-1].kernel.numpy()[:, CHOSEN].T / (2 * height * width)
        signed.append(np.einsum("nk,nijk->nij", alpha, level))
        np.testing.assert_allclose(explanation.maps[name], np.maximum(signed[-1], 0), rtol=1e-4, atol=1e-6)
    assert explanation.combined.shape == (5, 6, 10)
    fine, coarse = signed[0] * 60, signed[1] * 15
    coarse = tf.image.resize(coarse[..., None], (6, 10))[..., 0].numpy()
    np.testing.assert_allclose(explanation.combined, np.maximum(fine + coarse, 0), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"pooling": "average", "combine": "mean"},
        {"pooling": "max", "combine": "concat", "shared_head": True},
        {"pooling": "average", "combine": "learned", "fusion_type": "bifpn", "activation": "silu"},
        {"fusion_type": "none"},
    ],
    ids=str,
)
def test_contributions_and_biases_add_up_to_the_logits_lead(options):
    model = classifier(**options)
    explanation = grad_cam(model, IMAGES)
    logits = model.predict(IMAGES, verbose=0)
    best = logits.argmax(-1)
    assert explanation.class_index.numpy().tolist() == best.tolist()
    maps = explanation.levels
    shapes = {name: (1, *level.shape[1:]) for name, level in pooled_maps(model).items()}
    assert tuple(shapes) == maps
    biases = logits_of(model, {name: np.zeros(shape, np.float32) for name, shape in shapes.items()})[0]
    lead = (logits[np.arange(5), best] - logits.mean(-1)) - (biases[best] - biases.mean())
    np.testing.assert_allclose(explanation.contributions.numpy().sum(-1), lead, rtol=1e-3, atol=1e-4)


def test_a_multi_label_models_contributions_add_up_to_the_logit_itself():
    model = classifier()
    maps = pooled_maps(model)
    biases = logits_of(model, {name: np.zeros_like(level) for name, level in maps.items()})
    wanted = (logits_of(model, maps) - biases)[np.arange(5), CHOSEN]
    explanation = grad_cam(model, IMAGES, CHOSEN, multi_label=True)
    np.testing.assert_allclose(explanation.contributions.numpy().sum(-1), wanted, rtol=1e-3, atol=1e-4)


def test_shares_are_contributions_over_the_sum_of_their_absolutes():
    explanation = grad_cam(classifier(), IMAGES, CHOSEN)
    contributions = explanation.contributions.numpy()
    assert (contributions < 0).any()
    np.testing.assert_allclose(explanation.shares, contributions / np.abs(contributions).sum(-1, keepdims=True), rtol=1e-5)


@pytest.mark.parametrize(
    "options",
    [{"pooling": "attention", "combine": "learned"}, {"pooling": "max", "combine": "concat", "shared_head": True}],
    ids=str,
)
def test_channel_weights_are_mean_gradients_by_finite_differences(options):
    model = classifier(**options)
    explained = grad_cam(model, IMAGES[:1], CHOSEN[1:2]).maps
    maps = {name: level[:1] for name, level in pooled_maps(model).items()}
    for name, level in maps.items():
        step = 1e-3 * level.max()
        steps = step * np.eye(level.size, dtype=np.float32).reshape(-1, *level.shape[1:])
        others = {other: np.repeat(values, level.size, 0) for other, values in maps.items()}
        up, down = (logits_of(model, {**others, name: level + sign * steps})[:, CHOSEN[1]] for sign in (1, -1))
        alpha = ((up - down) / (2 * step)).reshape(level.shape[1:]).mean((0, 1))
        signed = np.maximum(level[0] @ alpha, 0)
        np.testing.assert_allclose(explained[name][0], signed, rtol=0.02, atol=0.01 * np.abs(level[0] @ alpha).max())


def test_a_model_without_a_pyramid_is_explained_by_the_backbones_map():
    explanation = grad_cam(classifier(fusion_type="none"), IMAGES)
    assert explanation.levels == ("C3",)
    assert explanation.maps["C3"].shape == (5, 3, 5)
    np.testing.assert_allclose(np.abs(explanation.shares), 1)


def test_a_batch_gives_what_its_images_give_one_by_one_and_inside_a_graph():
    model = classifier(pooling="attention")

    @tf.function
    def compiled(images, index):
        explanation = grad_cam(model, images, index)
        return explanation.scaled_maps, explanation.scaled_combined, explanation.shares

    together = compiled(IMAGES, CHOSEN)
    for row in (0, 4):
        alone = grad_cam(model, IMAGES[row : row + 1], CHOSEN[row : row + 1])
        for whole, part in zip(together, (alone.scaled_maps, alone.scaled_combined, alone.shares), strict=True):
            np.testing.assert_allclose(whole[row], part[0], rtol=1e-3, atol=1e-5)


def test_frozen_layers_and_a_compiled_model_change_nothing():
    model = classifier(fusion_type="none")
    before = grad_cam(model, IMAGES, CHOSEN).maps["C3"]
    model.trainable = False
    model.compile("adam", "categorical_crossentropy")
    after = tf.function(lambda images: grad_cam(model, images, CHOSEN).maps["C3"])(IMAGES)
    np.testing.assert_allclose(after, before, rtol=1e-3, atol=1e-5)


def test_scaled_maps_share_one_scale_in_which_a_level_has_the_weight_that_it_has_in_the_answer():
    explanation = grad_cam(classifier(), IMAGES)
    scaled = explanation.scaled_maps.numpy()
    assert scaled.shape == (5, 2, 6, 10)
    assert scaled.min() >= 0
    np.testing.assert_allclose(scaled.max((1, 2, 3)), 1)
    np.testing.assert_allclose(explanation.scaled_combined.numpy().max((1, 2)), 1)
    fine, coarse = explanation.maps["P2"].numpy() * 60, explanation.maps["P3"].numpy() * 15
    np.testing.assert_allclose(
        scaled[:, 0].mean((1, 2)) * coarse.mean((1, 2)), scaled[:, 1].mean((1, 2)) * fine.mean((1, 2)), rtol=1e-3, atol=1e-6
    )


def test_an_image_without_evidence_has_empty_maps():
    model = classifier()
    for weight in model.weights:
        if "head" in weight.path:
            weight.assign(tf.zeros_like(weight))
    explanation = grad_cam(model, IMAGES)
    for values in (explanation.scaled_maps, explanation.scaled_combined, explanation.shares):
        np.testing.assert_array_equal(values, 0)


@pytest.mark.parametrize("corner", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_evidence_lights_up_in_the_corner_that_holds_it(corner):
    """The class is brightness: heads read a channel that is the mean brightness of each cell."""
    image = keras.Input((16, 16, 1), dtype="uint8")
    x = keras.layers.Rescaling(1 / 255)(image)
    inner = keras.Input((16, 16, 1))
    fine = keras.layers.AveragePooling2D(2)(inner)
    backbone = keras.Model(inner, {"C1": fine, "C2": keras.layers.AveragePooling2D(2)(fine)}, name="backbone")
    pyramid = keras.layers.Identity(name="pyramid")
    answers = [
        keras.layers.Dense(2, kernel_initializer=lambda shape, dtype: tf.constant([[1.0, -1.0]]))(
            keras.layers.GlobalAveragePooling2D()(level)
        )
        for level in pyramid(backbone(x)).values()
    ]
    model = keras.Model(image, keras.layers.Average()(answers))
    pixels = np.full((1, 16, 16, 1), 10, np.uint8)
    rows, columns = (slice(8 * half, 8 * half + 8) for half in corner)
    pixels[:, rows, columns] = 250
    explanation = grad_cam(model, pixels, np.array([0]))
    bright = pixels[0, ::2, ::2, 0] == 250
    for values in (explanation.scaled_combined[0], *explanation.scaled_maps[0]):
        np.testing.assert_array_equal(values.numpy() > 0.5, bright)
    assert explanation.shares.numpy()[0] == pytest.approx([0.5, 0.5], abs=1e-5)
    np.testing.assert_array_equal(grad_cam(model, pixels, np.array([1])).combined, 0)
