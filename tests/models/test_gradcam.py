"""Grad-CAM is what the paper's formula says, and finds evidence where it was put."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from models.fpn import FeaturePyramid
from models.gradcam import grad_cam

RANDOM = np.random.default_rng(3)
IMAGES = RANDOM.integers(0, 256, (5, 12, 20, 1), dtype=np.uint8)
CLASSES = 4


@keras.saving.register_keras_serializable(package="tests")
class Attention(keras.layers.Layer):
    """Means of positions, weighed by a softmax over a score."""

    def call(self, x):
        score = keras.ops.sum(x, -1, keepdims=True)
        weight = keras.ops.exp(score) / keras.ops.sum(keras.ops.exp(score), (1, 2), keepdims=True)
        return keras.ops.sum(x * weight, (1, 2))


POOLINGS = {
    "average": keras.layers.GlobalAveragePooling2D,
    "max": keras.layers.GlobalMaxPooling2D,
    "attention": Attention,
}


def classifier(pooling="average", combine="mean", shared=False, pyramid=True):
    keras.utils.set_random_seed(1)
    image = keras.Input((12, 20, 1), dtype="uint8")
    x = keras.layers.Rescaling(1 / 128, -1)(image)
    features = keras.Input((12, 20, 1))
    fine = keras.layers.Conv2D(6, 3, 2, "same", activation="relu")(features)
    coarse = keras.layers.Conv2D(6, 3, 2, "same", activation="relu")(fine)
    backbone = keras.Model(features, {"C1": fine, "C2": coarse} if pyramid else {"C2": coarse}, name="backbone")
    levels = backbone(x)
    if pyramid:
        levels = FeaturePyramid(1, 2, 5, name="pyramid")(levels)
    head = keras.layers.Dense(CLASSES, bias_initializer="normal", name="head")
    vectors = []
    for name, level in levels.items():
        level = keras.layers.ReLU(name=f"relu_{name}")(level)
        vectors.append(POOLINGS[pooling]()(level))
    if combine == "concat" and pyramid:
        logits = head(keras.layers.Concatenate()(vectors))
    else:
        heads = [head if shared or not index else keras.layers.Dense(CLASSES) for index in range(len(vectors))]
        answers = [head(vector) for head, vector in zip(heads, vectors, strict=True)]
        logits = keras.layers.Average()(answers) if pyramid else answers[0]
    return keras.Model(image, logits)


def level_maps(model):
    """The maps after the heads' ReLU, by NumPy, through the model's own layers."""
    x = model.layers[1](IMAGES)
    maps = model.get_layer("backbone")(x)
    if any(layer.name == "pyramid" for layer in model.layers):
        maps = model.get_layer("pyramid")(maps)
    return {name: np.maximum(np.asarray(level), 0) for name, level in maps.items()}


def kernels(model):
    """[channels, classes] of each level's own head, and the sum of the biases' parts."""
    heads = [layer for layer in model.layers if isinstance(layer, keras.layers.Dense)]
    return [head.kernel.numpy() / len(heads) for head in heads], sum(head.bias.numpy() / len(heads) for head in heads)


def test_maps_follow_the_papers_formula():
    model, chosen = classifier(), np.array([0, 3, 1, 2, 0])
    explanation = grad_cam(model, IMAGES, chosen)
    assert explanation.levels == ("P1", "P2")
    signed = []
    for (name, level), kernel in zip(level_maps(model).items(), kernels(model)[0], strict=True):
        height, width = level.shape[1:3]
        alpha = kernel[:, chosen].T / (height * width)  # average pooling: every cell has the gradient W_kc / (h w)
        signed.append(np.einsum("nk,nijk->nij", alpha, level))
        np.testing.assert_allclose(explanation.maps[name], np.maximum(signed[-1], 0), rtol=1e-4, atol=1e-7)
    assert explanation.combined.shape == (5, 6, 10)
    fine, coarse = signed[0] * 60, signed[1] * 15
    coarse = tf.image.resize(coarse[..., None], (6, 10))[..., 0].numpy()
    np.testing.assert_allclose(explanation.combined, np.maximum(fine + coarse, 0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pooling", ["average", "max"])
@pytest.mark.parametrize("combine", ["mean", "concat"])
@pytest.mark.parametrize("shared", [False, True])
def test_contributions_and_biases_add_up_to_the_logits_lead(pooling, combine, shared):
    model = classifier(pooling, combine, shared)
    logits = model(IMAGES).numpy()
    biases = kernels(model)[1]
    explanation = grad_cam(model, IMAGES)
    best = logits.argmax(-1)
    assert explanation.class_index.numpy().tolist() == best.tolist()
    lead = logits[np.arange(5), best] - logits.mean(-1)
    np.testing.assert_allclose(
        explanation.contributions.numpy().sum(-1) + biases[best] - biases.mean(), lead, rtol=1e-4, atol=1e-6
    )


def test_shares_are_contributions_over_the_sum_of_their_absolutes():
    explanation = grad_cam(classifier(), IMAGES, np.array([0, 3, 1, 2, 0]))
    contributions = explanation.contributions.numpy()
    assert (contributions < 0).any()
    np.testing.assert_allclose(
        explanation.shares, contributions / np.abs(contributions).sum(-1, keepdims=True), rtol=1e-5, atol=1e-7
    )


@pytest.mark.parametrize("pooling", ["max", "attention"])
def test_weights_are_mean_gradients_by_finite_differences(pooling):
    model = classifier(pooling)
    maps = level_maps(model)
    heads = [layer for layer in model.layers if isinstance(layer, keras.layers.Dense)]
    for (name, level), head in zip(maps.items(), heads, strict=True):
        level, step = level[0], 1e-2
        steps = step * np.eye(level.size, dtype=np.float32).reshape(-1, *level.shape)
        up, down = (head(POOLINGS[pooling]()(level + sign * steps)).numpy()[:, 2] / len(heads) for sign in (1, -1))
        alpha = ((up - down) / (2 * step)).reshape(level.shape).mean((0, 1))
        signed = level @ alpha
        explained = grad_cam(model, IMAGES[:1], np.array([2])).maps[name][0]
        np.testing.assert_allclose(explained, np.maximum(signed, 0), rtol=0.01, atol=1e-4)


def test_a_model_without_a_pyramid_is_explained_by_the_backbones_map():
    explanation = grad_cam(classifier(pyramid=False), IMAGES)
    assert explanation.levels == ("C2",)
    assert explanation.maps["C2"].shape == (5, 3, 5)
    np.testing.assert_allclose(np.abs(explanation.shares), 1)


def test_a_batch_gives_what_its_images_give_one_by_one_and_inside_a_graph():
    model, chosen = classifier("attention", "concat"), np.array([0, 3, 1, 2, 0])
    compiled = tf.function(
        lambda images, index: (lambda e: (e.scaled_maps, e.scaled_combined, e.shares))(grad_cam(model, images, index))
    )
    together = compiled(IMAGES, chosen)
    for row in (0, 4):
        alone = grad_cam(model, IMAGES[row : row + 1], chosen[row : row + 1])
        for whole, part in zip(together, (alone.scaled_maps, alone.scaled_combined, alone.shares), strict=True):
            np.testing.assert_allclose(whole[row], part[0], rtol=1e-4, atol=1e-6)


def test_scaled_maps_share_one_scale_in_which_a_level_has_the_weight_that_it_has_in_the_answer():
    explanation = grad_cam(classifier(), IMAGES)
    scaled = explanation.scaled_maps.numpy()
    assert scaled.shape == (5, 2, 6, 10)
    assert scaled.min() >= 0
    np.testing.assert_allclose(scaled.max((1, 2, 3)), 1)
    np.testing.assert_allclose(explanation.scaled_combined.numpy().max((1, 2)), 1)
    fine, coarse = explanation.maps["P1"].numpy() * 60, explanation.maps["P2"].numpy() * 15
    np.testing.assert_allclose(
        scaled[:, 0].mean((1, 2)) / scaled[:, 1].mean((1, 2)), fine.mean((1, 2)) / coarse.mean((1, 2)), rtol=1e-4
    )


def test_an_image_without_evidence_has_empty_maps():
    model = classifier()
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dense):
            layer.kernel.assign(tf.zeros_like(layer.kernel))
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
