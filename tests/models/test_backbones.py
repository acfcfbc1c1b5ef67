"""Maps, strides, scaling and weights of the backbones."""

import math

import keras
import numpy as np
import pytest

from models.backbones import BACKBONES, Feature, WeightsError, build_backbone, check_strides


@pytest.mark.parametrize("size", [64, 75])
@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_maps_have_the_strides_that_their_names_say(name, size):
    maps = build_backbone(name, "none", (size, size, 3), 2, 5).output
    assert list(maps) == ["C2", "C3", "C4", "C5"]
    for level, value in maps.items():
        height, width = value.shape[1:3]
        assert height == width == math.ceil(size / 2 ** int(level[1]))


@pytest.mark.parametrize(
    ("name", "expected"),
    [("resnet50", [256, 512, 1024, 2048]), ("mobilenet_v2", [24, 32, 96, 1280]), ("small_resnet10", [32, 64, 128, 256])],
)
def test_maps_have_the_widths_of_their_stages(name, expected):
    maps = build_backbone(name, "none", (64, 64, 3), 2, 5).output
    assert [value.shape[-1] for value in maps.values()] == expected


def test_a_stride_that_is_skipped_or_repeated_is_refused():
    check_strides((Feature("a", 4), Feature("b", 8), Feature("c", 16)))
    with pytest.raises(ValueError, match="a has 8 and b has 8"):
        check_strides((Feature("a", 8), Feature("b", 8)))
    with pytest.raises(ValueError, match="must double"):
        check_strides((Feature("a", 4), Feature("b", 16)))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mobilenet_v2", lambda pixels: pixels / 127.5 - 1),
        ("resnet50", lambda pixels: pixels[..., ::-1] - [103.939, 116.779, 123.68]),
    ],
)
def test_pixels_are_scaled_as_the_weights_were_trained(name, expected):
    inputs = keras.Input((4, 4, 3))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3)).astype(np.float32)
    scaled = keras.Model(inputs, BACKBONES[name].scale(inputs))(pixels)
    np.testing.assert_allclose(scaled, expected(pixels), atol=1e-4)


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "mobilenet_v2.weights.h5"
    network = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(64, 64, 3))
    network.save_weights(path)
    return path, network


def test_weights_are_read_from_a_file(weights_file):
    path, network = weights_file
    backbone = build_backbone("mobilenet_v2", str(path), (96, 96, 3), 5, 5)
    reference = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(96, 96, 3))
    reference.set_weights(network.get_weights())
    images = np.random.default_rng(0).normal(size=(1, 96, 96, 3)).astype(np.float32)
    np.testing.assert_allclose(backbone(images)["C5"], reference(images), atol=1e-5)


@pytest.mark.parametrize("name", ["resnet50", "small_resnet10"])
def test_weights_of_another_network_are_refused(weights_file, name):
    with pytest.raises(WeightsError, match=f"does not fit {name}") as error:
        build_backbone(name, str(weights_file[0]), (64, 64, 3), 2, 5)
    assert len(str(error.value).splitlines()) <= 2


def test_a_file_that_holds_no_weights_is_refused(tmp_path):
    path = tmp_path / "notes.weights.h5"
    path.write_text("nothing")
    with pytest.raises(WeightsError, match="does not fit"):
        build_backbone("mobilenet_v2", str(path), (64, 64, 3), 2, 5)


def test_a_missing_weights_file_is_named():
    with pytest.raises(WeightsError, match=r"no such file: nowhere\.h5"):
        build_backbone("mobilenet_v2", "nowhere.h5", (64, 64, 3), 2, 5)
