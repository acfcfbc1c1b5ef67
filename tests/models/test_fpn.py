"""The pyramid against an independent NumPy computation, and the classifier's shapes."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from models.backbones import BACKBONES
from models.fpn import FeaturePyramid, build_classifier

RANDOM = np.random.default_rng(3)


def conv(x, kernel, bias):
    """Convolution of [N, H, W, C] with [k, k, C, D], stride 1, zero padding, as sums of shifted products."""
    size = kernel.shape[0]
    reach = size // 2
    padded = np.pad(x, [(0, 0), (reach, reach), (reach, reach), (0, 0)])
    height, width = x.shape[1:3]
    return bias + sum(padded[:, i : i + height, j : j + width] @ kernel[i, j] for i in range(size) for j in range(size))


def upsample(x, height, width):
    """Row i of the result is row i // 2, the last one where that is past the end; columns likewise."""
    rows = np.minimum(np.arange(height) // 2, x.shape[1] - 1)
    columns = np.minimum(np.arange(width) // 2, x.shape[2] - 1)
    return x[:, rows][:, :, columns]


def pyramid_in_numpy(maps, weights, levels, fusion_type):
    outputs, merged = {}, None
    for level in reversed(levels):
        lateral = conv(maps[f"C{level}"], *weights[f"lateral_{level}"])
        if merged is None:
            merged = lateral
        else:
            finer = upsample(merged, *lateral.shape[1:3])
            if fusion_type == "sum":
                merged = lateral + finer
            else:
                merged = conv(np.concatenate([lateral, finer], -1), *weights[f"fuse_{level}"])
        outputs[f"P{level}"] = conv(merged, *weights[f"smooth_{level}"])
    return outputs


def randomise(layer):
    for variable in layer.weights:
        variable.assign(RANDOM.normal(0, 0.3, variable.shape))


def weights_by_name(pyramid):
    convolutions = [*pyramid.lateral.values(), *pyramid.fuse.values(), *pyramid.smooth.values()]
    return {layer.name: [np.asarray(value, np.float64) for value in layer.get_weights()] for layer in convolutions}


# Heights and widths that a stride-2 network makes of 75x101 rounding up, and of 87x175 rounding down.
ROUNDED_UP = [(75, 101), (38, 51), (19, 26), (10, 13), (5, 7)]
ROUNDED_DOWN = [(87, 175), (43, 87), (21, 43), (10, 21), (5, 10)]


@pytest.mark.parametrize("fusion_type", ["sum", "concat"])
@pytest.mark.parametrize("sizes", [ROUNDED_UP, ROUNDED_DOWN], ids=["rounded_up", "rounded_down"])
def test_pyramid_equals_numpy_for_five_levels_of_odd_sizes(fusion_type, sizes):
    maps = {
        f"C{level}": RANDOM.normal(size=(2, *size, level + 2)).astype(np.float32) for level, size in enumerate(sizes, start=2)
    }
    pyramid = FeaturePyramid(2, 6, num_filters=5, fusion_type=fusion_type)
    pyramid.build({name: value.shape for name, value in maps.items()})
    randomise(pyramid)
    outputs = pyramid(maps)
    expected = pyramid_in_numpy(maps, weights_by_name(pyramid), range(2, 7), fusion_type)
    assert list(outputs) == ["P2", "P3", "P4", "P5", "P6"]
    for name, value in outputs.items():
        assert value.shape == pyramid.compute_output_shape({key: item.shape for key, item in maps.items()})[name]
        np.testing.assert_allclose(value, expected[name], atol=1e-4)


def test_concat_with_stacked_identities_is_the_sum():
    maps = {
        "C3": RANDOM.normal(size=(1, 9, 7, 4)).astype(np.float32),
        "C4": RANDOM.normal(size=(1, 5, 4, 6)).astype(np.float32),
    }
    added, stacked = FeaturePyramid(3, 4, 3, "sum"), FeaturePyramid(3, 4, 3, "concat")
    for pyramid in (added, stacked):
        pyramid.build({name: value.shape for name, value in maps.items()})
    randomise(added)
    for level in (3, 4):
        stacked.lateral[f"C{level}"].set_weights(added.lateral[f"C{level}"].get_weights())
        stacked.smooth[f"P{level}"].set_weights(added.smooth[f"P{level}"].get_weights())
    stacked.fuse["P3"].set_weights([np.concatenate([np.eye(3), np.eye(3)])[None, None], np.zeros(3)])
    for name, value in added(maps).items():
        np.testing.assert_allclose(stacked(maps)[name], value, atol=1e-5)


def test_one_pyramid_takes_images_of_any_size():
    inputs = {"C2": keras.Input((None, None, 4)), "C3": keras.Input((None, None, 8))}
    model = keras.Model(inputs, FeaturePyramid(2, 3, 6)(inputs))
    for height, width in [(8, 8), (9, 15), (10, 7)]:
        coarse = ((height + 1) // 2, (width + 1) // 2)
        outputs = model({"C2": np.ones((1, height, width, 4)), "C3": np.ones((1, *coarse, 8))})
        assert outputs["P2"].shape == (1, height, width, 6)
        assert outputs["P3"].shape == (1, *coarse, 6)


def test_training_through_the_pyramid_compiles_under_xla():
    maps = {"C2": tf.random.normal((1, 9, 9, 3)), "C3": tf.random.normal((1, 5, 5, 3))}
    pyramid = FeaturePyramid(2, 3, 4)
    pyramid(maps)

    @tf.function(jit_compile=True)
    def gradient():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(pyramid(maps)["P2"]))
        return tape.gradient(loss, [variable.value for variable in pyramid.lateral["C3"].trainable_variables])

    assert all(np.abs(value).sum() > 0 for value in gradient())


def test_pyramid_can_be_saved_and_made_again():
    pyramid = FeaturePyramid(3, 5, 7, "concat", name="neck")
    assert FeaturePyramid.from_config(pyramid.get_config()).get_config() == pyramid.get_config()


def test_pyramid_names_the_levels_that_are_missing():
    with pytest.raises(ValueError, match="needs C4, but was given C2, C3"):
        FeaturePyramid(2, 4, 8).build({"C2": (1, 8, 8, 3), "C3": (1, 4, 4, 3)})


@pytest.mark.parametrize("arguments", [{"min_level": 5, "max_level": 3}, {"fusion_type": "product"}])
def test_pyramid_refuses_bad_arguments(arguments):
    with pytest.raises(ValueError, match=r"min_level|fusion_type"):
        FeaturePyramid(**arguments)


def classifier(**changes):
    arguments = {
        "image_shape": (33, 47, 1),
        "num_classes": 3,
        "channel_mean": [90.0],
        "channel_variance": [400.0],
        "backbone": "small_resnet10",
        "weights": "none",
        "min_level": 2,
        "max_level": 4,
        "num_filters": 8,
        "fusion_type": "sum",
        "dropout": 0.5,
    }
    return build_classifier(**{**arguments, **changes})


@pytest.mark.parametrize("fusion_type", ["sum", "concat", "none"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("backbone", sorted(BACKBONES))
def test_classifier_gives_finite_logits_for_uint8_images(backbone, channels, fusion_type):
    model = classifier(
        backbone=backbone,
        image_shape=(65, 47, channels),
        channel_mean=[90.0] * channels,
        channel_variance=[400.0] * channels,
        fusion_type=fusion_type,
    )
    images = RANDOM.integers(0, 256, (2, 65, 47, channels), dtype=np.uint8)
    logits = model(images).numpy()
    assert model.input.dtype == "uint8"
    assert logits.shape == (2, 3)
    assert logits.dtype == np.float32
    assert np.isfinite(logits).all()


def test_every_level_has_a_head_and_their_mean_is_the_answer():
    model = classifier(min_level=3, max_level=5)
    heads = [model.get_layer(f"head_P{level}").output for level in (3, 4, 5)]
    images = RANDOM.integers(0, 256, (2, 33, 47, 1), dtype=np.uint8)
    *answers, logits = keras.Model(model.input, [*heads, model.output])(images)
    np.testing.assert_allclose(logits, np.mean(answers, axis=0), atol=1e-6)


def test_without_a_pyramid_nothing_beyond_the_last_level_is_built():
    names = {layer.name for layer in classifier(fusion_type="none", max_level=3).get_layer("backbone").layers}
    assert "stage3_out" in names
    assert "stage4_out" not in names


def test_grey_images_reach_a_pretrained_network_as_three_equal_channels():
    grey = classifier(backbone="mobilenet_v2", image_shape=(64, 64, 1))
    colour = classifier(backbone="mobilenet_v2", image_shape=(64, 64, 3), channel_mean=[90.0] * 3, channel_variance=[400.0] * 3)
    colour.set_weights(grey.get_weights())
    images = RANDOM.integers(0, 256, (2, 64, 64, 1), dtype=np.uint8)
    np.testing.assert_allclose(grey(images), colour(np.repeat(images, 3, -1)), atol=1e-5)


def test_mixed_precision_keeps_the_logits_in_float32():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = classifier()
    finally:
        keras.config.set_dtype_policy(policy)
    assert model.get_layer("pyramid").compute_dtype == "bfloat16"
    assert model.output.dtype == "float32"
