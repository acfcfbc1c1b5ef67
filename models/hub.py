"""Backbones of keras-hub, an optional package: the maps of a preset, with its weights or without.

A preset is a folder in the layout of Keras, transformers or timm, or a name or handle that keras-hub itself finds.
"""

import json
import math
import os
from collections.abc import Sequence
from functools import partial
from types import ModuleType
from typing import Any, Final

import keras
import numpy as np
import tensorflow as tf

from models.backbone import Backbone, Scaling, WeightsError

PRESET: Final = "preset"  # as weights: those of the preset
_STRIDE: Final = 16  # of the map of a plain vision transformer
_PROBE: Final = 256  # side of an image by which the strides of maps are found: all of them divide it


def read_hub_backbone(name: str, weights: str, class_token: bool = False, stochastic_depth: float | None = None) -> Backbone:
    """The backbone `hub:<preset>`.

    Networks with maps of several strides give C2 to C5 as keras-hub does. Plain vision transformers (ViT, DINOv2, DINOv3,
    SigLIP) give C4 alone, made of the patches' tokens behind the last normalisation, without class and register tokens.
    Their image is resized so that each patch stands for 16 pixels, and position embeddings are interpolated to it.

    Building it raises WeightsError where the preset can't be read, or can't take images of that size.

    Args:
      name: with its `hub:`.
      weights: PRESET, whose scaling is then read, or "none".
      class_token: whether the class token's channels follow those of each patch (arXiv:2103.13413, section 3.1); building
        raises WeightsError where the network has none.
      stochastic_depth: as in `backbones.build_backbone`; building raises WeightsError where the network has none.

    Raises:
      WeightsError: keras-hub is not installed, or the preset says nothing useful about its scaling.
    """
    preset, hub = name.removeprefix("hub:"), _import()
    scaling = _read_scaling(hub, name, preset) if weights == PRESET else None
    return Backbone(partial(_build, name, preset, scaling is not None, class_token, stochastic_depth), (), scaling)


def _import() -> ModuleType:
    try:
        import keras_hub
    except ImportError as error:
        raise WeightsError(
            "model.backbone: hub: needs the package keras-hub; install the project with its extra hub"
        ) from error
    return keras_hub


def _read_scaling(hub: ModuleType, name: str, preset: str) -> Scaling | None:
    """The Scaling that a preset says its weights want; None if it says nothing."""
    file = os.path.join(preset, "preprocessor_config.json")  # of transformers, which keras-hub does not read for these networks
    is_file = preset.partition("://")[0] in ("", preset, *tf.io.gfile.get_registered_schemes())
    try:
        if is_file and tf.io.gfile.exists(file):
            with tf.io.gfile.GFile(file) as opened:
                settings = json.load(opened)
            most = 1 / settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale", True) else 1.0
            is_normalised = settings.get("do_normalize", True)
            mean, std = (settings["image_mean"], settings["image_std"]) if is_normalised else (0.0, 1.0)
            mean, std = np.multiply(mean, most), np.multiply(std, most)
        else:
            converter = _find_converter(hub, preset)
            if converter is None:
                return None
            scale, offset = converter.scale, converter.offset  # x * scale + offset; numbers, or one for each channel
            std = 1 / np.asarray(1.0 if scale is None else scale)
            mean = -np.asarray(0.0 if offset is None else offset) * std
        mean, std = np.broadcast_to(mean, 3), np.broadcast_to(std, 3)
        if not (np.isfinite([mean, std]).all() and (std > 0).all()):
            raise ValueError(f"mean {mean.tolist()}, deviation {std.tolist()}")
    except Exception as error:
        raise WeightsError(
            f"model.backbone: the scaling of {name} can't be read ({type(error).__name__}: {error}); correct its "
            f"preprocessor_config.json or preprocessor.json: mean and deviation of an image's three channels"
        ) from error
    return Scaling(tuple(mean.tolist()), tuple(std.tolist()))


def _find_converter(hub: ModuleType, preset: str) -> Any:
    try:
        return hub.layers.ImageConverter.from_preset(preset)
    except Exception:  # no two kinds of presets tell in the same way that they have none
        return None


def _build(
    name: str,
    preset: str,
    is_scaled: bool,
    class_token: bool,
    stochastic_depth: float | None,
    x: keras.KerasTensor,
    weights: str | None,
) -> keras.Model:
    """The network from the scaled input to {"C2": ...}."""
    hub = _import()
    try:
        own = hub.models.Backbone.from_preset(preset, load_weights=False)
    except Exception as error:
        is_missing = "://" not in preset and os.sep in preset and not os.path.exists(preset)
        reason = "no such folder" if is_missing else str(error).strip().splitlines()[0]
        raise WeightsError(
            f"model.backbone: {name} can't be read ({reason}); give a folder with the config.json of an image backbone that "
            f"keras-hub knows"
        ) from error
    vision = getattr(own, "vision_encoder", own)
    if class_token and not _has_class_token(hub.models, vision):
        raise WeightsError(f"model.class_token: {name}, a {type(vision).__name__}, has no class token; set it to false")
    changes = {}
    if stochastic_depth is not None:
        if not isinstance(own, hub.models.MiTBackbone):  # DINOv2 and DINOv3 fail to train with it (keras-hub 0.32.0)
            raise WeightsError(
                f"model.stochastic_depth: {name}, a {type(vision).__name__}, has no blocks that can be skipped; leave it out"
            )
        changes["max_drop_path_rate"] = stochastic_depth
    if weights == PRESET and not is_scaled:
        raise WeightsError(
            f"model.backbone: {name} does not say how its weights want images scaled; add the file of its preprocessing "
            f"(preprocessor.json or preprocessor_config.json) to the folder, or set model.weights to none"
        )
    try:
        network = _network(hub.models, own, preset, x, weights == PRESET, class_token, changes)
        # Some can be built for an image that they can't take.
        values = network([np.zeros((1, *network.input_shape[1:]), np.float32)])
        if not all(np.isfinite(value).all() for value in values.values()):
            raise ValueError("its weights are not numbers")
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise WeightsError(
            f"model.backbone: {name} can't be built for images of {x.shape[1]}x{x.shape[2]} ({reason}); see that its weights "
            f"are whole, and that sides are equal and multiples of 32, which all networks take"
        ) from error
    return network


def _has_class_token(models: ModuleType, network: keras.Model) -> bool:
    is_dino = isinstance(network, models.DINOV2Backbone | models.DINOV3Backbone)
    return is_dino or (isinstance(network, models.ViTBackbone) and network.use_class_token)


def _network(
    models: ModuleType,
    own: keras.Model,
    preset: str,
    x: keras.KerasTensor,
    load: bool,
    class_token: bool,
    changes: dict[str, float],
) -> keras.Model:
    if isinstance(own, models.DINOV2Backbone | models.DINOV3Backbone | models.ViTBackbone | models.SigLIPBackbone):
        maps = {"C4": _map_of_patches(models, own, preset, x, load, class_token)}
    elif isinstance(own, models.FeaturePyramidBackbone):
        key = "image_shape" if "image_shape" in own.get_config() else "input_shape"
        probe = models.Backbone.from_preset(preset, load_weights=False, **{key: (_PROBE, _PROBE, 3)})
        levels = [math.log2(_PROBE / value.shape[1]) for value in probe.pyramid_outputs.values()]
        network = models.Backbone.from_preset(preset, load_weights=load, **{key: tuple(x.shape[1:])}, **changes)
        given = keras.Model(network.inputs, network.pyramid_outputs, name=network.name)([x])
        maps = {f"C{level:.0f}": value for level, value in zip(levels, given.values(), strict=True) if 2 <= level <= 5}
        if list(maps) != ["C2", "C3", "C4", "C5"]:
            raise ValueError(f"the strides of its maps are 2 to the powers {levels}, and not 2 to 5")
    else:
        raise ValueError(f"{type(own).__name__} gives no maps of an image")
    return keras.Model(keras.utils.get_source_inputs(x), maps)


def _map_of_patches(
    models: ModuleType, own: keras.Model, preset: str, x: keras.KerasTensor, load: bool, class_token: bool
) -> keras.KerasTensor:
    """[N, h/16, w/16, d] of the tokens of an image's patches; 2d with the class token behind each of them."""
    if isinstance(own, models.SigLIPBackbone):
        own = own.vision_encoder
    grid = tuple(math.ceil(side / _STRIDE) for side in x.shape[1:3])
    if grid[0] != grid[1] and not isinstance(own, models.ViTBackbone):
        raise ValueError(f"{type(own).__name__} takes square images")
    height, width = np.multiply(grid, own.patch_size).tolist()
    if tuple(x.shape[1:3]) != (height, width):
        x = keras.ops.image.resize(x, (height, width), interpolation="bilinear")
    shape = (height, width, x.shape[-1])
    if isinstance(own, models.DINOV2Backbone | models.DINOV3Backbone):  # which interpolate by themselves
        network = models.Backbone.from_preset(preset, load_weights=load, image_shape=shape)
    else:
        # A network within a preset brings the precision that it was saved with.
        network = type(own).from_config({**own.get_config(), "image_shape": shape, "dtype": keras.config.dtype_policy()})
        if load:
            source = models.Backbone.from_preset(preset)
            _copy_weights(getattr(source, "vision_encoder", source), network, grid)
    tokens = network.post_layer_norm.output if isinstance(own, models.SigLIPVisionEncoder) else network.output
    tokens = keras.Model(network.inputs, tokens, name=network.name)([x])
    patches = tokens[:, -grid[0] * grid[1] :]  # behind the class token and registers
    if class_token:
        patches = keras.ops.concatenate([patches, keras.ops.repeat(tokens[:, :1], grid[0] * grid[1], axis=1)], axis=-1)
    return keras.layers.Reshape((*grid, patches.shape[-1]), name="patches")(patches)


def _copy_weights(source: keras.Model, target: keras.Model, grid: Sequence[int]) -> None:
    """Copies all weights, those of positions [positions, d] or [1, positions, d] interpolated to another grid."""
    for old, new in zip(source.weights, target.weights, strict=True):
        value = np.asarray(old)
        if np.issubdtype(value.dtype, np.integer):  # numbers of the positions
            continue
        if old.shape != new.shape:
            positions = value.reshape(-1, value.shape[-1])
            side = math.isqrt(len(positions))
            first = len(positions) - side**2  # that of the class token
            square = positions[first:].reshape(1, side, side, -1)
            resized = np.asarray(keras.ops.image.resize(square, grid, interpolation="bicubic"))
            value = np.concatenate([positions[:first], resized.reshape(-1, value.shape[-1])]).reshape(new.shape)
        new.assign(value)
