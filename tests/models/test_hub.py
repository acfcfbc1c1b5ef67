"""Backbones of keras-hub: levels, scaling, weights from folders of three layouts, training and export."""

import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from hub_folders import MEAN, STD, picture, write_dinov2, write_timm_resnet

from benchmarks.hub_networks import EFFICIENTNET_B0
from models import backbones, callbacks, training
from models.backbones import WeightsError
from models.fpn import build_classifier
from models.hub import read_hub_backbone
from pipeline.config.whole import Config
from pipeline.dag.component_settings import classifier_config, train_settings

hub = pytest.importorskip("keras_hub", reason="keras-hub is not installed")

FEATURES = json.loads(Path(__file__).with_name("hub_features.json").read_text())
SIDE = 64
MODELS, LAYERS = hub.models, hub.layers
EFFICIENT = EFFICIENTNET_B0 | {"stackwise_width_coefficients": [0.3] * 7, "stackwise_depth_coefficients": [0.3] * 7}
MIT = {
    "layerwise_depths": [1] * 4,
    "num_layers": 4,
    "layerwise_num_heads": [1, 2, 4, 8],
    "layerwise_sr_ratios": [8, 4, 2, 1],
    "max_drop_path_rate": 0.1,
    "layerwise_patch_sizes": [7, 3, 3, 3],
    "layerwise_strides": [4, 2, 2, 2],
    "hidden_dims": [16, 32, 64, 128],
    "image_shape": (SIDE, SIDE, 3),
}
SIGLIP = (16, 32, 2, 2, 64)
# Each family: a small network, the layer that scales its images, and the rows of its maps at 225 px, if it takes such images.
FAMILIES = {
    "ResNet (vd)": (
        lambda: MODELS.ResNetBackbone([8, 8, 16], [3] * 3, [64, 32, 64, 128], [1] * 4, [1, 2, 2, 2], "bottleneck_block_vd"),
        LAYERS.ResNetImageConverter,
        [57, 29, 15, 8],
    ),
    "DenseNet": (
        lambda: MODELS.DenseNetBackbone([2] * 4, compression_ratio=0.5, growth_rate=8),
        LAYERS.DenseNetImageConverter,
        [57, 28, 14, 7],
    ),
    "CSPNet": (
        lambda: MODELS.CSPNetBackbone(16, 3, 1, [1] * 5, [2] * 5, [16, 16, 32, 64, 64], "dark_block", stage_type="dark"),
        LAYERS.CSPNetImageConverter,
        [56, 28, 14, 7],
    ),
    "EfficientNet": (lambda: MODELS.EfficientNetBackbone(**EFFICIENT), LAYERS.EfficientNetImageConverter, [57, 29, 15, 8]),
    "MiT": (lambda: MODELS.MiTBackbone(**MIT), LAYERS.MiTImageConverter, None),
    "ViT": (lambda: MODELS.ViTBackbone((SIDE, SIDE, 3), (16, 16), 2, 2, 32, 64), LAYERS.ViTImageConverter, [15]),
    "DINOv2": (
        lambda: MODELS.DINOV2Backbone(14, 2, 32, 2, 64, num_register_tokens=2, image_shape=(56, 56, 3)),
        LAYERS.DINOV2ImageConverter,
        [15],
    ),
    "DINOv3": (
        lambda: MODELS.DINOV3Backbone(16, 2, 32, 2, 64, image_shape=(SIDE, SIDE, 3)),
        LAYERS.DINOV3ImageConverter,
        [15],
    ),
    "SigLIP": (
        lambda: MODELS.SigLIPBackbone(
            MODELS.SigLIPVisionEncoder(*SIGLIP, image_shape=(SIDE, SIDE, 3)), MODELS.SigLIPTextEncoder(50, 32, 32, 2, 2, 64)
        ),
        LAYERS.SigLIPImageConverter,
        [15],
    ),
}
SCALE, OFFSET = [1 / 58, 1 / 57, 1 / 56], [-2.0, -1.9, -1.8]


def build_backbone(folder, shape, weights="preset", grey_input="repeat", levels=(2, 5)):
    return backbones.build_backbone(f"hub:{folder}", weights, shape, *levels, grey_input=grey_input)


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=() if name == "DINOv2" else pytest.mark.extra) for name in FAMILIES],
)
def family(request, tmp_path_factory):
    """The name of a family, a network of it, and the folder in which it is saved."""
    build, converter, _ = FAMILIES[request.param]
    keras.utils.set_random_seed(2)
    network = build()
    folder = tmp_path_factory.mktemp("preset")
    network.save_to_preset(str(folder))
    converter(image_size=(SIDE, SIDE), scale=SCALE, offset=OFFSET).save_to_preset(str(folder))
    yield request.param, network, folder
    keras.backend.clear_session()


def test_maps_have_the_strides_that_their_names_say(family):
    name, _, folder = family
    odd = FAMILIES[name][2]
    levels = ["C4"] if odd == [15] else ["C2", "C3", "C4", "C5"]
    for side, rows in ((224, [14] if odd == [15] else [56, 28, 14, 7]), (225, odd)):
        if rows is None:
            with pytest.raises(WeightsError, match=r"can't be built for images of 225x225 .* multiples of 32"):
                build_backbone(folder, (side, side, 3))
            continue
        maps = build_backbone(folder, (side, side, 3), "none").output
        assert {level: value.shape[1:3] for level, value in maps.items()} == {
            level: (row, row) for level, row in zip(levels, rows, strict=True)
        }
    if odd != [15]:
        assert list(build_backbone(folder, (SIDE, SIDE, 3), levels=(3, 4)).output) == ["C3", "C4"]


def test_maps_are_those_of_the_network_on_the_pixels_that_its_own_layer_scales(family):
    name, network, folder = family
    pixels = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3)).astype(np.float32)
    scaled = pixels * SCALE + OFFSET
    maps = build_backbone(folder, (SIDE, SIDE, 3))(pixels)
    if name == "SigLIP":
        encoder = network.vision_encoder
        wanted = {"C4": keras.Model(encoder.inputs, encoder.post_layer_norm.output)([scaled])}
    elif name in ("ViT", "DINOv2", "DINOv3"):
        side = 56 if name == "DINOv2" else SIDE
        wanted = {"C4": keras.Model(network.inputs, network.output)([keras.ops.image.resize(scaled, (side, side))])}
    else:
        wanted = keras.Model(network.inputs, network.pyramid_outputs)([scaled])
    for level, (value, expected) in enumerate(zip(reversed(maps.values()), reversed(wanted.values()), strict=False)):
        if name in ("ViT", "DINOv2", "DINOv3", "SigLIP"):
            expected = np.asarray(expected)[:, -16:].reshape(value.shape)
        assert np.ptp(expected) > 0, level
        np.testing.assert_allclose(value, expected, atol=1e-4 * np.abs(expected).max())


def test_summed_kernel_and_repeated_channel_give_the_same_maps_of_a_grey_image(family):
    _, _, folder = family
    grey = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 1)).astype(np.float32)
    colour = build_backbone(folder, (SIDE, SIDE, 3))(np.repeat(grey, 3, axis=-1))
    for grey_input in ("repeat", "sum"):
        maps = build_backbone(folder, (SIDE, SIDE, 1), grey_input=grey_input)(grey)
        for level, wanted in colour.items():
            np.testing.assert_allclose(maps[level], wanted, atol=2e-4 * np.abs(wanted).max())


def test_a_network_computes_in_the_precision_of_the_training(family):
    _, _, folder = family
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        backbone = build_backbone(folder, (SIDE, SIDE, 3))
    finally:
        keras.config.set_dtype_policy(policy)
    assert {layer.compute_dtype for layer in backbone._flatten_layers() if layer.weights} == {"bfloat16"}


@pytest.mark.extra
def test_a_classifier_trains_goes_on_after_a_crash_and_is_exported(family, tmp_path, monkeypatch):
    _, _, folder = family
    model = {"backbone": f"hub:{folder}", "weights": "preset", "num_filters": 8}
    config = Config.model_validate(
        {
            "name": "x",
            "data": {"path": "."},
            "image": {"height": SIDE, "width": SIDE, "channels": 3},
            "model": model,
            "train": {"epochs": 1, "frozen_epochs": 1, "batch_size": 4, "optimizer": "adamw", "freeze_batch_norm": True},
        }
    )
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (8, SIDE, SIDE, 3), dtype=np.uint8)
    data = tf.data.Dataset.from_tensor_slices((images, np.eye(2, dtype=np.float32)[np.arange(8) % 2]))

    def build():
        keras.utils.set_random_seed(0)
        shape = (SIDE, SIDE, 3)
        return build_classifier(
            classifier_config(config.model),
            image_shape=shape,
            num_classes=2,
            channel_mean=[0.0] * 3,
            channel_variance=[1.0] * 3,
        )

    def fit(model, checkpoints):
        read = training.build_batches(data, examples=8, batch_size=4, seed=0, cache_bytes=0, augment=lambda *batch: batch)
        strategy, folder = tf.distribute.get_strategy(), str(tmp_path / "log")
        return training.fit(
            model, strategy, read, data.batch(4), 2, train_settings(config.train), folder, None, str(tmp_path / checkpoints)
        )

    before = [weight.numpy() for weight in build().get_layer("backbone").weights]
    whole = build()
    history = fit(whole, "whole")
    assert all(np.isfinite(row["loss"]) for row in history)
    assert any((new.numpy() != old).any() for new, old in zip(whole.get_layer("backbone").weights, before, strict=True))

    save = callbacks.save_checkpoint
    monkeypatch.setattr(callbacks, "save_checkpoint", lambda *arguments: (save(*arguments), 1 / 0))
    with pytest.raises(ZeroDivisionError):
        fit(build(), "killed")
    monkeypatch.undo()
    resumed = build()
    assert [row["loss"] for row in fit(resumed, "killed")] == pytest.approx([row["loss"] for row in history], rel=1e-3)

    whole.export(str(tmp_path / "model"), verbose=False)
    exported = tf.saved_model.load(str(tmp_path / "model"))
    np.testing.assert_allclose(exported.serve(images), whole.predict(images, verbose=0), atol=1e-4)


@pytest.mark.parametrize("case", FEATURES)
def test_folders_of_transformers_and_of_timm_give_the_features_of_those_packages(case, tmp_path):
    """`hub_folders.py` made the numbers: with transformers 5.24, timm 1.0.31 and torch 2.15."""
    name, side = case.removesuffix(" px").split(", ")
    folder = {"dinov2": write_dinov2, "resnet": write_timm_resnet}[name](tmp_path / "folder")
    maps = build_backbone(folder, (int(side), int(side), 3))(picture(int(side))[np.newaxis].astype(np.float32))
    last = np.asarray(list(maps.values())[-1])[0]
    # At 128 px, position embeddings are interpolated, by another cubic kernel than torch's.
    tolerance = 5e-3 if case == "dinov2, 128 px" else 1e-5
    np.testing.assert_allclose([last[0, 0, :8], last[-1, -1, :8]], FEATURES[case], atol=tolerance)


def test_the_class_token_follows_the_channels_of_each_patch(tmp_path):
    folder, pixels = write_dinov2(tmp_path / "folder"), picture(80)[np.newaxis].astype(np.float32)
    plain, joined = (
        np.asarray(
            backbones.build_backbone(f"hub:{folder}", "preset", (80, 80, 3), 2, 5, grey_input="repeat", class_token=joins)(
                pixels
            )["C4"]
        )
        for joins in (False, True)
    )
    channels = plain.shape[-1]
    np.testing.assert_array_equal(joined[..., :channels], plain)

    network = MODELS.Backbone.from_preset(str(folder), image_shape=(70, 70, 3))  # 14 pixels for each 16
    scaled = (pixels / 255 - MEAN) / STD
    token = np.asarray(network(np.asarray(keras.ops.image.resize(scaled, (70, 70)), np.float32)))[:, 0]
    np.testing.assert_allclose(joined[..., channels:], np.broadcast_to(token[:, None, None], plain.shape), atol=1e-5)


def test_a_network_without_class_token_is_told(tmp_path):
    folder = write_timm_resnet(tmp_path / "folder")
    with pytest.raises(WeightsError, match=r"model\.class_token: hub:.*, a ResNetBackbone, has no class token"):
        backbones.build_backbone(f"hub:{folder}", "none", (64, 64, 3), 2, 5, grey_input="repeat", class_token=True)


def test_blocks_are_skipped_as_often_as_told(tmp_path):
    from keras_hub.src.models.mit.mit_layers import DropPath

    MODELS.MiTBackbone(**MIT).save_to_preset(str(tmp_path))
    LAYERS.MiTImageConverter(image_size=(SIDE, SIDE), scale=SCALE, offset=OFFSET).save_to_preset(str(tmp_path))
    backbone = backbones.build_backbone(
        f"hub:{tmp_path}", "preset", (SIDE, SIDE, 3), 2, 5, grey_input="repeat", stochastic_depth=0.6
    )
    rates = sorted(layer.rate for layer in backbone._flatten_layers() if isinstance(layer, DropPath))
    assert rates == pytest.approx([0, 0.2, 0.4, 0.6])


def test_blocks_that_can_not_be_skipped_are_told(tmp_path):
    folder = write_dinov2(tmp_path / "folder")
    with pytest.raises(
        WeightsError, match=r"model\.stochastic_depth: hub:.*, a DINOV2Backbone, has no blocks that can be skipped"
    ):
        backbones.build_backbone(f"hub:{folder}", "none", (64, 64, 3), 2, 5, grey_input="repeat", stochastic_depth=0.1)


@pytest.mark.parametrize("side", [20, 33, 40, 66])
def test_no_level_is_lost_in_small_images(side, tmp_path):
    folder = write_timm_resnet(tmp_path / "folder")
    maps = build_backbone(folder, (side, side, 3), "none").output
    assert {level: value.shape[-1] for level, value in maps.items()} == {"C2": 64, "C3": 128, "C4": 256, "C5": 512}


def test_networks_whose_strides_are_others_are_refused(tmp_path):
    MODELS.CSPNetBackbone(16, 3, 1, [1] * 3, [2] * 3, [16, 16, 32], "dark_block", stage_type="dark").save_to_preset(
        str(tmp_path)
    )
    with pytest.raises(WeightsError, match="strides of its maps are 2 to the powers"):
        build_backbone(tmp_path, (64, 64, 3), "none")


@pytest.mark.parametrize(
    ("settings", "mean", "std"),
    [
        ({"image_mean": [0.5, 0.4, 0.3], "image_std": [0.5, 0.25, 0.1]}, (127.5, 102.0, 76.5), (127.5, 63.75, 25.5)),
        ({"image_mean": 0.5, "image_std": [0.5], "rescale_factor": 1 / 127.5}, (63.75,) * 3, (63.75,) * 3),
        ({"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "do_normalize": False}, (0.0,) * 3, (255.0,) * 3),
        ({"image_mean": [120.0] * 3, "image_std": [60.0] * 3, "do_rescale": False}, (120.0,) * 3, (60.0,) * 3),
    ],
)
def test_the_scaling_of_transformers_is_read(settings, mean, std, tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    scaling = read_hub_backbone(f"hub:{tmp_path}", "preset").scaling
    assert scaling.mean == pytest.approx(mean)
    assert scaling.std == pytest.approx(std)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        '{"image_mean": null, "image_std": null}',
        '{"image_mean": [0.5, 0.5], "image_std": [0.5, 0.5]}',
        '{"image_mean": [0.5, 0.5, 0.5], "image_std": [0, 0, 0]}',
        '{"image_mean": [0.5, 0.5, 0.5], "image_std": [1, 1, 1], "rescale_factor": 0}',
    ],
)
def test_a_scaling_that_can_not_be_read_is_told(text, tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(text)
    with pytest.raises(WeightsError, match=f"the scaling of hub:{tmp_path} can't be read .* correct its preprocessor_config"):
        read_hub_backbone(f"hub:{tmp_path}", "preset")


def test_weights_made_with_the_padding_of_tensorflow_are_refused(tmp_path):
    folder = write_timm_resnet(tmp_path / "folder")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architecture": "tf_efficientnet_b0"}))
    with pytest.raises(WeightsError, match="no converter for timm models with architecture `'tf_efficientnet_b0'`"):
        build_backbone(folder, (64, 64, 3))


def test_a_folder_that_can_not_be_used_is_named_with_the_cure(tmp_path):
    (tmp_path / "empty").mkdir()
    for folder, reason in ((tmp_path / "missing", "no such folder"), (tmp_path / "empty", "Preset .*config.json")):
        with pytest.raises(WeightsError, match=f"hub:{folder} can't be read .{reason}.* give a folder with the config.json"):
            build_backbone(folder, (64, 64, 3), "none")
    folder = write_dinov2(tmp_path / "dinov2")
    with pytest.raises(WeightsError, match="DINOV2Backbone takes square images"):
        build_backbone(folder, (64, 128, 3))
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(WeightsError, match=r"does not say how its weights want images scaled; add .*preprocessor_config\.json"):
        build_backbone(folder, (64, 64, 3))
    shutil.copy(Path(__file__), folder / "model.safetensors")
    (folder / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}')
    with pytest.raises(WeightsError, match="can't be built"):
        build_backbone(folder, (64, 64, 3))


def test_a_network_without_maps_is_refused(tmp_path):
    MODELS.VGGBackbone([1, 1], [4, 4]).save_to_preset(str(tmp_path))
    with pytest.raises(WeightsError, match="VGGBackbone gives no maps of an image"):
        build_backbone(tmp_path, (64, 64, 3), "none")
