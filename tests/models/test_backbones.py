"""Maps, strides, scaling and weights of the backbones."""

import functools
import itertools
import re

import keras
import numpy as np
import pytest

from models import backbones, efficientnet_lite
from models.backbones import BACKBONES, Feature, WeightsError, check_strides

build_backbone = functools.partial(backbones.build_backbone, grey_input="repeat")

APPLICATIONS = keras.applications


def efficientnet_lite0(input_shape, **_):
    return efficientnet_lite.build(keras.Input(input_shape), 1.0, 1.0)


# One network of each family: the function that makes it, and how its users have to scale the input.
FAMILIES = {
    "resnet50": (APPLICATIONS.ResNet50, APPLICATIONS.resnet.preprocess_input),
    "resnet50_v2": (APPLICATIONS.ResNet50V2, APPLICATIONS.resnet_v2.preprocess_input),
    "mobilenet_v2": (APPLICATIONS.MobileNetV2, APPLICATIONS.mobilenet_v2.preprocess_input),
    "mobilenet_v3_small": (APPLICATIONS.MobileNetV3Small, APPLICATIONS.mobilenet_v3.preprocess_input),
    "mobilenet_v3_large": (APPLICATIONS.MobileNetV3Large, APPLICATIONS.mobilenet_v3.preprocess_input),
    "efficientnet_v2_b0": (APPLICATIONS.EfficientNetV2B0, APPLICATIONS.efficientnet_v2.preprocess_input),
    "efficientnet_v2_s": (APPLICATIONS.EfficientNetV2S, APPLICATIONS.efficientnet_v2.preprocess_input),
    "efficientnet_lite0": (efficientnet_lite0, lambda pixels: (pixels - 127) / 128),
    "convnext_tiny": (APPLICATIONS.ConvNeXtTiny, APPLICATIONS.convnext.preprocess_input),
    "densenet121": (APPLICATIONS.DenseNet121, APPLICATIONS.densenet.preprocess_input),
    "xception": (APPLICATIONS.Xception, APPLICATIONS.xception.preprocess_input),
}
# Rows of the maps at 225 and at 350 px, by how the network rounds; at 224 px they are 224 / stride.
ROUNDS_UP = {225: [57, 29, 15, 8], 350: [88, 44, 22, 11]}
ROUNDS_DOWN = {225: [56, 28, 14, 7], 350: [87, 43, 21, 10]}
ROUNDS_DOWN_LATER = {225: [57, 28, 14, 7], 350: [88, 44, 22, 11]}  # pooling without padding between its blocks
WITHOUT_PADDING = {224: [55, 28, 14, 7], 225: [55, 28, 14, 7], 350: [86, 43, 22, 11]}  # of its first convolutions


def rows(name, size):
    if name == "xception":
        return WITHOUT_PADDING[size]
    if size == 224:
        return [56, 28, 14, 7]
    if name.startswith("densenet"):
        return ROUNDS_DOWN_LATER[size]
    return (ROUNDS_DOWN if name.startswith("convnext") else ROUNDS_UP)[size]


# The large ones of a family whose small one is among the ordinary tests.
LARGE = re.compile("efficientnet_v2_[ml]|resnet1.*|densenet(169|201)|convnext_(small|base)")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.extra] if LARGE.fullmatch(name) else []) for name in BACKBONES]
)
def test_maps_have_the_shapes_and_strides_that_their_names_say(name):
    features = BACKBONES[name].features
    for size, channels in itertools.product((224, 225, 350), (1, 3)):
        expected = rows(name, size)
        if name.startswith("small_resnet"):  # C1 to C4
            expected = [{224: 112, 225: 113, 350: 175}[size], *expected[:3]]
        with keras.StatelessScope(initialize_variables=False):  # shapes need no values, whose making takes longest
            maps = build_backbone(name, "none", (size, size, channels), features[0].level, 5).output
        assert list(maps) == [f"C{feature.level}" for feature in features]
        assert [tuple(value.shape) for value in maps.values()] == [
            (None, side, side, feature.channels) for side, feature in zip(expected, features, strict=True)
        ]
    *finer, coarsest = maps.values()
    for value in finer:
        assert is_whole(value, coarsest)
    keras.backend.clear_session()


def is_whole(value, later):
    """Whether all that the network does later is made of this map, or of what its norm or activation was made of.

    A branch of a residual block is not: its shortcut leads around it.
    """
    for _ in range(3):
        try:
            keras.Model(value, later)
            return True
        except ValueError:  # another path leads from the image
            above = keras.tree.flatten(value._keras_history.operation.input)
            if len(above) > 1:
                return False
            (value,) = above
    return False


def test_a_branch_is_no_whole_map():
    network = keras.applications.ConvNeXtTiny(include_top=False, weights=None, input_shape=(64, 64, 3))
    assert not is_whole(network.get_layer("convnext_tiny_stage_0_block_2_identity").output, network.output)


def test_a_stride_that_is_skipped_or_repeated_is_refused():
    check_strides((Feature("a", 1, 4), Feature("b", 1, 8), Feature("c", 1, 16)))
    with pytest.raises(ValueError, match="a has 8 and b has 8"):
        check_strides((Feature("a", 1, 8), Feature("b", 1, 8)))
    with pytest.raises(ValueError, match="must double"):
        check_strides((Feature("a", 1, 4), Feature("b", 1, 16)))


def test_a_level_that_the_network_has_not_is_refused():
    with pytest.raises(ValueError, match="resnet50 has no map C1, only C2, C3, C4, C5"):
        build_backbone("resnet50", "none", (64, 64, 3), 1, 5)
    with pytest.raises(ValueError, match="takes images of 1 or 3 channels, not 4"):
        build_backbone("resnet50", "none", (64, 64, 4), 2, 5)


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory):
    """Name, function and scaling of a network, and a file with its (random) weights."""
    build, scale = FAMILIES[request.param]
    keras.utils.set_random_seed(1)
    network = build(include_top=False, weights=None, input_shape=(80, 80, 3))
    path = tmp_path_factory.mktemp("weights") / "network.weights.h5"
    network.save_weights(path)
    return request.param, network, scale, str(path)


def test_a_file_of_weights_gives_the_maps_of_the_published_network_on_plain_pixels(family):
    name, network, scale, path = family
    features = BACKBONES[name].features
    outputs = [network.get_layer(item.layer).output if item.layer else network.output for item in features]
    if name == "convnext_tiny":  # whose stages end without a name, and are what the next one's first block is given
        following = [network.get_layer(f"convnext_tiny_downsampling_block_{stage}") for stage in range(3)]
        outputs = [*(layer._inbound_nodes[-1].input_tensors[0] for layer in following), network.output]
    pixels = np.random.default_rng(0).integers(0, 256, (2, 80, 80, 3)).astype(np.float32)
    expected = keras.Model(network.input, outputs)(scale(pixels.copy()))
    maps = build_backbone(name, path, (80, 80, 3), 2, 5)(pixels)
    for value, wanted in zip(maps.values(), expected, strict=True):
        assert np.ptp(wanted) > 0
        np.testing.assert_allclose(value, wanted, atol=1e-4 * np.abs(wanted).max())


def test_summed_kernel_and_repeated_channel_give_the_same_maps_of_a_grey_image(family):
    name, _, _, path = family
    grey = np.random.default_rng(0).integers(0, 256, (2, 80, 80, 1)).astype(np.float32)
    colour = build_backbone(name, path, (80, 80, 3), 2, 5)(np.repeat(grey, 3, axis=-1))
    repeated = build_backbone(name, path, (80, 80, 1), 2, 5)(grey)
    summed = build_backbone(name, path, (80, 80, 1), 2, 5, grey_input="sum")(grey)
    for level, wanted in colour.items():
        tolerance = 1e-4 * np.abs(wanted).max()
        np.testing.assert_allclose(repeated[level], wanted, atol=tolerance)
        np.testing.assert_allclose(summed[level], wanted, atol=tolerance)


def test_a_network_without_pretrained_weights_is_given_the_moments_of_the_data():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 4)).astype(np.float32)
    mean, variance = [10.0, 20.0, 30.0, 40.0], [4.0, 9.0, 16.0, 25.0]
    plain = build_backbone("small_resnet10", "none", (32, 32, 4), 1, 4)
    scaled = build_backbone("small_resnet10", "none", (32, 32, 4), 1, 4, channel_mean=mean, channel_variance=variance)
    scaled.set_weights(plain.get_weights())
    expected = plain((pixels - mean) / np.sqrt(variance))
    for level, value in scaled(pixels).items():
        np.testing.assert_allclose(value, expected[level], atol=1e-3)


def rates_of(backbone):
    return [layer.rate for layer in backbone.layers if isinstance(layer, keras.layers.Dropout)]


def test_stochastic_depth_rises_to_the_given_rate():
    own, given = (
        build_backbone("efficientnet_v2_b0", "none", (64, 64, 3), 2, 5, stochastic_depth=rate) for rate in (None, 0.1)
    )
    reference = keras.applications.EfficientNetV2B0(include_top=False, weights=None, input_shape=(64, 64, 3))
    assert rates_of(own) == rates_of(reference)
    assert rates_of(given) == pytest.approx([rate / 2 for rate in rates_of(reference)])
    assert max(rates_of(given)) == pytest.approx(0.1, abs=0.01)
    assert sorted(rates_of(given)) == rates_of(given)


def test_stochastic_depth_of_a_network_that_has_none_is_refused():
    with pytest.raises(ValueError, match="resnet50 has no stochastic depth"):
        build_backbone("resnet50", "none", (64, 64, 3), 2, 5, stochastic_depth=0.1)


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "mobilenet_v2.weights.h5"
    keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(64, 64, 3)).save_weights(path)
    return str(path)


@pytest.mark.parametrize("name", ["resnet50", "small_resnet10"])
def test_weights_of_another_network_are_refused(weights_file, name):
    with pytest.raises(WeightsError, match=f"does not fit {name}") as error:
        build_backbone(name, weights_file, (64, 64, 3), 2, 5)
    assert len(str(error.value).splitlines()) <= 2


def test_a_file_that_holds_no_weights_is_refused(tmp_path):
    path = tmp_path / "notes.weights.h5"
    path.write_text("nothing")
    with pytest.raises(WeightsError, match="does not fit"):
        build_backbone("mobilenet_v2", str(path), (64, 64, 3), 2, 5)


def test_a_missing_weights_file_is_named():
    with pytest.raises(WeightsError, match=r"no such file: nowhere\.h5"):
        build_backbone("mobilenet_v2", "nowhere.h5", (64, 64, 3), 2, 5)
