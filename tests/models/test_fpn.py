"""The pyramid against independent NumPy computations, and the classifier's shapes."""

from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf

from models.fpn import Coordinates, FeaturePyramid, GeneralizedMeanPooling, LogSumExpPooling, build_classifier
from pipeline.config.network import ModelConfig
from pipeline.dag.component_settings import classifier_config

RANDOM = np.random.default_rng(3)


def conv(x, kernel, bias):
    """Convolution of [N, H, W, C] with [k, k, C, D], stride 1, zero padding, as sums of shifted products."""
    size = kernel.shape[0]
    reach = size // 2
    padded = np.pad(x, [(0, 0), (reach, reach), (reach, reach), (0, 0)])
    height, width = x.shape[1:3]
    return bias + sum(padded[:, i : i + height, j : j + width] @ kernel[i, j] for i in range(size) for j in range(size))


def every_second(x):
    """What a convolution of stride 2 with `same` padding keeps: from the first where the side is odd, else from the second."""
    return x[:, 1 - x.shape[1] % 2 :: 2, 1 - x.shape[2] % 2 :: 2]


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
            if fusion_type != "concat":
                merged = lateral + finer
            else:
                merged = conv(np.concatenate([lateral, finer], -1), *weights[f"fuse_{level}"])
        outputs[f"P{level}"] = conv(merged, *weights[f"smooth_{level}"])
    return outputs


def randomise(layer):
    for variable in layer.weights:
        variable.assign(RANDOM.normal(0, 0.3, variable.shape))


def weights_by_name(pyramid):
    parts = (pyramid.lateral, pyramid.coarse, pyramid.fuse, pyramid.smooth, pyramid.down, pyramid.up)
    convolutions = [layer for part in parts for layer in part.values()]
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


def pool(x, height, width):
    """Maximum over 3x3 cells around 2i, 2j, or around 2i + 1, 2j + 1 where the side is even (as `same` padding has it)."""
    rows, columns = x.shape[1:3]
    shift = [1 - side % 2 for side in (rows, columns)]
    result = np.empty((x.shape[0], height, width, x.shape[3]))
    for i in range(height):
        for j in range(width):
            top, left = 2 * i + shift[0], 2 * j + shift[1]
            result[:, i, j] = x[:, max(top - 1, 0) : top + 2, max(left - 1, 0) : left + 2].max((1, 2))
    return result


@pytest.mark.parametrize("sizes", [ROUNDED_UP, ROUNDED_DOWN], ids=["rounded_up", "rounded_down"])
def test_bifpn_equals_numpy_for_a_round_over_odd_sizes(sizes):
    maps = {f"C{level}": RANDOM.normal(size=(2, *sizes[level - 2], 5)).astype(np.float32) for level in (3, 4, 5)}
    pyramid = FeaturePyramid(3, 5, num_filters=4, fusion_type="bifpn", bifpn_repeats=1, activation="relu")
    pyramid.build({name: value.shape for name, value in maps.items()})
    randomise(pyramid)
    fusions = [*pyramid.down_fusion.values(), *pyramid.up_fusion.values()]
    for fusion in fusions:
        fusion.weight.assign(RANDOM.uniform(0.1, 2.0, fusion.weight.shape))
    pyramid.up_fusion["1_P4"].weight.assign([0.5, -1.0, 2.0])  # what is below zero does not count
    weights = weights_by_name(pyramid)
    of = {fusion.name: fusion.weight.numpy().astype(np.float64) for fusion in fusions}

    def node(name, fusion, *parts):
        weight = np.maximum(of[fusion], 0)
        mean = sum(part * share for part, share in zip(parts, weight, strict=True)) / (weight.sum() + 1e-4)
        return conv(np.maximum(mean, 0), *weights[name])

    c = {level: conv(maps[f"C{level}"], *weights[f"lateral_{level}"]) for level in (3, 4, 5)}
    size = {level: value.shape[1:3] for level, value in c.items()}
    middle = node("down_1_P4", "down_fusion_1_P4", c[4], upsample(c[5], *size[4]))
    p3 = node("down_1_P3", "down_fusion_1_P3", c[3], upsample(middle, *size[3]))
    p4 = node("up_1_P4", "up_fusion_1_P4", c[4], middle, pool(p3, *size[4]))
    p5 = node("up_1_P5", "up_fusion_1_P5", c[5], pool(p4, *size[5]))
    outputs = pyramid(maps)
    for name, expected in (("P3", p3), ("P4", p4), ("P5", p5)):
        np.testing.assert_allclose(outputs[name], np.maximum(expected, 0), atol=1e-4)


@pytest.mark.parametrize("sizes", [ROUNDED_UP, ROUNDED_DOWN], ids=["rounded_up", "rounded_down"])
def test_panet_equals_numpy_over_odd_sizes(sizes):
    maps = {f"C{level}": RANDOM.normal(size=(2, *sizes[level - 2], 5)).astype(np.float32) for level in (3, 4, 5)}
    pyramid = FeaturePyramid(3, 5, num_filters=4, fusion_type="panet")
    pyramid.build({name: value.shape for name, value in maps.items()})
    randomise(pyramid)
    weights = weights_by_name(pyramid)
    p = pyramid_in_numpy(maps, weights, (3, 4, 5), "sum")
    n4 = p["P4"] + np.maximum(every_second(conv(p["P3"], *weights["down_3"])), 0)[:, : sizes[2][0], : sizes[2][1]]
    n4 = np.maximum(conv(n4, *weights["up_4"]), 0)
    n5 = p["P5"] + np.maximum(every_second(conv(n4, *weights["down_4"])), 0)[:, : sizes[3][0], : sizes[3][1]]
    n5 = np.maximum(conv(n5, *weights["up_5"]), 0)
    outputs = pyramid(maps)
    for name, expected in (("P3", p["P3"]), ("P4", n4), ("P5", n5)):
        np.testing.assert_allclose(outputs[name], expected, atol=1e-4)


@pytest.mark.parametrize("fusion_type", ["sum", "concat", "bifpn", "panet"])
@pytest.mark.parametrize("coarse_levels", ["conv", "pool"])
def test_levels_beyond_the_backbones_last_are_made_from_the_one_before(fusion_type, coarse_levels):
    maps = {f"C{level}": np.ones((1, side, side, 8), np.float32) for level, side in ((3, 29), (4, 15), (5, 8))}
    pyramid = FeaturePyramid(3, 7, 4, fusion_type, coarse_levels=coarse_levels)
    outputs = pyramid(maps)
    assert {name: value.shape[1] for name, value in outputs.items()} == {"P3": 29, "P4": 15, "P5": 8, "P6": 4, "P7": 2}
    assert pyramid.compute_output_shape({key: item.shape for key, item in maps.items()}) == {
        name: tuple(value.shape) for name, value in outputs.items()
    }
    if fusion_type in ("sum", "concat") and coarse_levels == "pool":
        np.testing.assert_array_equal(outputs["P7"], np.asarray(outputs["P5"])[:, ::4, ::4])


def test_coarse_levels_by_convolution_equal_numpy():
    maps = {"C3": RANDOM.normal(size=(1, 9, 11, 3)).astype(np.float32)}
    pyramid = FeaturePyramid(3, 5, 4)
    pyramid.build({"C3": maps["C3"].shape})
    randomise(pyramid)
    weights = weights_by_name(pyramid)
    outputs = {name: np.asarray(value, np.float64) for name, value in pyramid(maps).items()}

    p4 = every_second(conv(outputs["P3"], *weights["coarse_4"]))
    p5 = every_second(conv(np.maximum(p4, 0), *weights["coarse_5"]))
    np.testing.assert_allclose(outputs["P4"], p4, atol=1e-4)
    np.testing.assert_allclose(outputs["P5"], p5, atol=1e-4)


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_a_norm_stands_in_for_every_bias(norm):
    maps = {"C3": np.ones((2, 8, 8, 3), np.float32), "C4": np.ones((2, 4, 4, 3), np.float32)}
    pyramid = FeaturePyramid(3, 4, 6, norm=norm)
    pyramid(maps, training=True)
    names = [variable.path for variable in pyramid.weights]
    assert not any("conv2d" in name and name.endswith("bias") for name in names)
    assert sum(name.endswith("gamma") for name in names) == 4
    moved = [variable for variable in pyramid.weights if variable.path.endswith("moving_mean")]
    assert len(moved) == (4 if norm == "batch" else 0)
    assert all(np.abs(variable.numpy()).sum() > 0 for variable in moved)


def test_separable_convolutions_have_the_weights_of_one_filter_a_channel():
    maps = {"C3": np.ones((1, 4, 4, 16), np.float32)}
    counts = {}
    for separable in (False, True):
        pyramid = FeaturePyramid(3, 3, 16, separable=separable)
        pyramid(maps)
        counts[separable] = pyramid.count_params()
    assert counts[False] - counts[True] == 9 * 16 * 16 - (9 * 16 + 16 * 16)


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
    pyramid = FeaturePyramid(3, 5, 7, "concat", norm="group", separable=True, activation="silu", name="neck")
    assert FeaturePyramid.from_config(pyramid.get_config()).get_config() == pyramid.get_config()


def test_pyramid_names_the_levels_that_are_missing():
    with pytest.raises(ValueError, match="needs C3, but was given C2, C4"):
        FeaturePyramid(2, 4, 8).build({"C2": (1, 8, 8, 3), "C4": (1, 2, 2, 3)})


@pytest.mark.parametrize("arguments", [{"min_level": 5, "max_level": 3}, {"fusion_type": "product"}, {"norm": "layer"}])
def test_pyramid_refuses_bad_arguments(arguments):
    with pytest.raises(ValueError, match=r"min_level|fusion_type|norm"):
        FeaturePyramid(**arguments)


SMALL = classifier_config(ModelConfig(backbone="small_resnet10", min_level=2, max_level=4, num_filters=8, dropout=0.5))


def classifier(image_shape=(33, 47, 1), **changes):
    return build_classifier(
        replace(SMALL, **changes), image_shape=image_shape, num_classes=3, channel_mean=[90.0], channel_variance=[400.0]
    )


@pytest.mark.parametrize("fusion_type", ["sum", "concat", "bifpn", "panet", "none"])
def test_classifier_gives_finite_logits_for_uint8_images(fusion_type):
    model = classifier(image_shape=(65, 47, 1), fusion_type=fusion_type)
    images = RANDOM.integers(0, 256, (2, 65, 47, 1), dtype=np.uint8)
    logits = model(images).numpy()
    assert model.input.dtype == "uint8"
    assert logits.shape == (2, 3)
    assert logits.dtype == np.float32
    assert np.isfinite(logits).all()


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_coordinates_are_those_of_the_centres_of_cells(policy):
    maps = RANDOM.normal(size=(2, 4, 3, 5)).astype(np.float32)
    found = np.asarray(Coordinates(dtype=policy)(maps), np.float32)
    places = (
        np.broadcast_to(np.array([-3, -1, 1, 3])[None, :, None] / 4, (2, 4, 3)),
        np.broadcast_to(np.array([-2, 0, 2]) / 3, (2, 4, 3)),
    )
    np.testing.assert_allclose(found, np.concatenate([maps, np.stack(places, -1)], -1), rtol=1e-2 if "16" in policy else 1e-6)


def test_the_pyramid_is_given_coordinates_on_every_level():
    plain, placed = classifier(min_level=2, max_level=5), classifier(min_level=2, max_level=5, coordinates=True)
    lateral = [model.get_layer("pyramid").lateral["C4"].get_weights()[0].shape for model in (plain, placed)]
    assert lateral[1] == (1, 1, lateral[0][2] + 2, lateral[0][3])
    names = [layer.name for layer in placed.layers if isinstance(layer, Coordinates)]
    assert names == [f"C{level}_coordinates" for level in (2, 3, 4)]


IMAGES = RANDOM.integers(0, 256, (2, 33, 47, 1), dtype=np.uint8)


def head_in_numpy(pooling, x, weights):
    """Logits of one level's map [N, h, w, c]; a ReLU comes before all poolings but maxima."""
    above = np.maximum(x, 0)
    if "max" not in pooling:
        x = above
    if pooling == "log_sum_exp":
        kernel, bias, log_sharpness = weights
        sharpness = np.exp(log_sharpness)
        return np.log(np.exp(sharpness * (x @ kernel + bias)).mean((1, 2))) / sharpness
    *more, kernel, bias = weights
    if pooling == "attention":
        score = np.exp(x @ more[0])
        pooled = (x * score[..., None]).sum((1, 2)) / score.sum((1, 2))[:, None]
    elif pooling == "generalized_mean":
        pooled = (np.maximum(x, 1e-6) ** more[0]).mean((1, 2)) ** (1 / more[0])
    else:
        parts = {"average": [x.mean((1, 2))], "max": [x.max((1, 2))], "average_max": [above.mean((1, 2)), x.max((1, 2))]}
        pooled = np.concatenate(parts[pooling], axis=-1)
    return pooled @ kernel + bias


@pytest.mark.parametrize(
    ("pooling", "shared_head", "combine"),
    [
        ("average", False, "mean"),
        ("average", True, "learned"),
        ("max", True, "mean"),
        ("max", False, "concat"),
        ("attention", False, "learned"),
        ("attention", True, "concat"),
        ("average_max", False, "mean"),
        ("average_max", True, "concat"),
        ("generalized_mean", False, "mean"),
        ("generalized_mean", True, "learned"),
        ("log_sum_exp", False, "mean"),
        ("log_sum_exp", True, "learned"),
    ],
)
def test_heads_equal_numpy(pooling, shared_head, combine):
    model = classifier(min_level=2, max_level=4, pooling=pooling, shared_head=shared_head, combine=combine)
    for variable in model.trainable_variables:
        if any(part in variable.path for part in ("head", "logits")):
            # One number alone is an exponent or a sharpness.
            variable.assign(RANDOM.normal(0, 0.5, variable.shape) if len(variable.shape) else RANDOM.uniform(1, 4))
    heads = [layer for layer in model.layers if layer.name.startswith("head")]
    assert [layer.name for layer in heads] == (["head"] if shared_head else ["head_P2", "head_P3", "head_P4"])
    maps, logits = keras.Model(model.input, [model.get_layer("pyramid").output, model.output])(IMAGES)
    answers = []
    for index, value in enumerate(maps):
        value = np.asarray(value, np.float64)
        answers.append(head_in_numpy(pooling, value, heads[0 if shared_head else index].get_weights()))
    if combine == "mean":
        expected = np.mean(answers, axis=0)
    elif combine == "learned":
        share = np.exp(model.get_layer("logits").weight.numpy())
        expected = np.tensordot(share / share.sum(), answers, 1)
    else:
        kernel, bias = model.get_layer("logits").get_weights()
        expected = np.concatenate(answers, axis=1) @ kernel + bias
    np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_log_sum_exp_lies_between_the_mean_and_the_maximum():
    x = RANDOM.normal(size=(2, 5, 3)).astype(np.float32)
    pooling = LogSumExpPooling()
    pooling.build(x.shape)
    for log_sharpness, expected in ((-7.0, x.mean(1)), (7.0, x.max(1))):
        pooling.log_sharpness.assign(log_sharpness)
        np.testing.assert_allclose(pooling(x), expected, atol=0.02)


def test_the_generalised_mean_is_finite_with_a_gradient_for_any_exponent_and_map():
    maps = np.random.default_rng(0).random((4, 8, 8, 5), dtype=np.float32)
    maps *= np.array([0.0, 1e-5, 1.0, 1e4], np.float32)[:, None, None, None]
    pooling = GeneralizedMeanPooling()
    pooling.build(maps.shape)
    for exponent in (1.0, 3.0, 20.0):  # 1e4 to the 20 is above float32's range, 1e-6 to the 20 is 0 there
        pooling.exponent.assign(exponent)
        x = tf.Variable(maps)
        with tf.GradientTape() as tape:
            pooled = pooling(x)
        above = np.maximum(maps.astype(np.float64), 1e-6)
        np.testing.assert_allclose(pooled, (above**exponent).mean(axis=(1, 2)) ** (1 / exponent), rtol=1e-4)
        for gradient in tape.gradient(pooled, [x, pooling.exponent.value]):
            assert np.isfinite(gradient).all()


def test_without_a_pyramid_nothing_beyond_the_last_level_is_built():
    names = {layer.name for layer in classifier(fusion_type="none", max_level=3).get_layer("backbone").layers}
    assert "stage3_block1_out" in names
    assert "stage4_block1_out" not in names


def test_mixed_precision_keeps_the_logits_in_float32():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = classifier()
    finally:
        keras.config.set_dtype_policy(policy)
    assert model.get_layer("pyramid").compute_dtype == "bfloat16"
    assert model.output.dtype == "float32"
