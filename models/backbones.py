"""Backbones: networks that turn an image into feature maps with strides 2, 4, 8, 16 and 32.

C_l is the output of the last block of the stage whose stride is 2^l (Lin et al. 2016, arXiv:1612.03144, section 3).
"""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Final

import keras
import numpy as np

from models import efficientnet_lite
from models.backbone import Backbone, Feature, Scaling, WeightsError
from models.choices import BackboneName, GreyInput
from models.hub import read_hub_backbone

# Momentum of the batch statistics. Small data sets have few steps: with Keras' 0.99 the statistics would not reach the data's.
_MOMENTUM: Final = 0.9

# What `layer.rate` rises to in those networks of keras.applications that have stochastic depth.
_OWN_STOCHASTIC_DEPTH: Final = 0.2

_SYMMETRIC: Final = Scaling((127.5,) * 3, (127.5,) * 3)  # -1..1
_EFFICIENT: Final = Scaling((128.0,) * 3, (128.0,) * 3)
_LITE: Final = Scaling((127.0,) * 3, (128.0,) * 3)
_CAFFE: Final = Scaling((123.68, 116.779, 103.939), (1.0,) * 3, reverse=True)
_NORMALISED: Final = Scaling((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))  # ImageNet's own moments, times 255


def _residual_block(x: keras.KerasTensor, filters: int, stride: int, name: str) -> keras.KerasTensor:
    """Two 3x3 convolutions and a shortcut, the identity or a projection (He et al. 2015, arXiv:1512.03385)."""
    shortcut = x
    if stride != 1 or x.shape[-1] != filters:
        shortcut = keras.layers.Conv2D(filters, 1, stride, use_bias=False, name=f"{name}_shortcut_conv")(x)
        shortcut = keras.layers.BatchNormalization(momentum=_MOMENTUM, name=f"{name}_shortcut_bn")(shortcut)
    x = keras.layers.Conv2D(filters, 3, stride, padding="same", use_bias=False, name=f"{name}_1_conv")(x)
    x = keras.layers.BatchNormalization(momentum=_MOMENTUM, name=f"{name}_1_bn")(x)
    x = keras.layers.ReLU(name=f"{name}_1_relu")(x)
    x = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"{name}_2_conv")(x)
    x = keras.layers.BatchNormalization(momentum=_MOMENTUM, name=f"{name}_2_bn")(x)
    x = keras.layers.Add(name=f"{name}_add")([x, shortcut])
    return keras.layers.ReLU(name=f"{name}_out")(x)


def _small_resnet(width: int, blocks: tuple[int, ...]) -> Backbone:
    """A residual network for small images: its stem keeps the full resolution, and each stage halves it.

    Args:
      width: filters of the first stage; each later stage has twice as many as the one before. Stage l has stride 2^l.
      blocks: number of residual blocks in each stage.
    """

    def build(x: keras.KerasTensor, weights: str | None) -> keras.Model:
        if weights is not None:
            raise ValueError("there are no pretrained weights of the small residual networks")
        inputs = keras.utils.get_source_inputs(x)
        # No batch normalisation: the input is normalised already, and at full resolution it would take half of a step on CPUs.
        x = keras.layers.Conv2D(16, 3, padding="same", activation="relu", name="stem_conv")(x)
        for stage, count in enumerate(blocks, start=1):
            for block in range(1, count + 1):
                name = f"stage{stage}_block{block}"
                x = _residual_block(x, filters=width * 2 ** (stage - 1), stride=2 if block == 1 else 1, name=name)
        return keras.Model(inputs, x)

    features = (
        Feature(f"stage{stage}_block{count}_out", width * 2 ** (stage - 1), 2**stage)
        for stage, count in enumerate(blocks, start=1)
    )
    return Backbone(build, tuple(features), scaling=None)


def _application(
    build: Callable[..., keras.Model],
    scaling: Scaling,
    *taps: tuple[str | None, int],
    scales_itself: bool = False,
    gives_branches: bool = False,
) -> Backbone:
    """A network of keras.applications.

    Args:
      build: the function that makes the network.
      scaling: the scaling that its weights expect.
      *taps: layer and channels of C2, C3, C4 and C5.
      scales_itself: whether the network contains its scaling, which is then switched off: it differs with the number of
        channels.
      gives_branches: whether the layers that are named end the branches of residual blocks, as in `Feature`.
    """
    options = {"include_preprocessing": False} if scales_itself else {}

    def build_without_top(x: keras.KerasTensor, weights: str | None) -> keras.Model:
        return build(include_top=False, weights=weights, input_tensor=x, input_shape=tuple(x.shape[1:]), **options)

    features = (
        Feature(layer, channels, 4 * 2**index, gives_branches and layer is not None)
        for index, (layer, channels) in enumerate(taps)
    )
    return Backbone(build_without_top, tuple(features), scaling)


def _resnet(build: Callable[..., keras.Model], blocks3: int, blocks4: int) -> Backbone:
    return _application(
        build,
        _CAFFE,
        ("conv2_block3_out", 256),
        (f"conv3_block{blocks3}_out", 512),
        (f"conv4_block{blocks4}_out", 1024),
        ("conv5_block3_out", 2048),
    )


def _resnet_v2(build: Callable[..., keras.Model], blocks3: int, blocks4: int) -> Backbone:
    # The last block of a stage already halves the size, so the stage's map is the input of this block.
    return _application(
        build,
        _SYMMETRIC,
        ("conv2_block3_preact_relu", 256),
        (f"conv3_block{blocks3}_preact_relu", 512),
        (f"conv4_block{blocks4}_preact_relu", 1024),
        ("post_relu", 2048),
    )


def _efficientnet_v2(
    build: Callable[..., keras.Model], scaling: Scaling, c2: tuple[str, int], c3: tuple[str, int], c4: tuple[str, int], top: int
) -> Backbone:
    return _application(build, scaling, c2, c3, c4, ("top_activation", top), scales_itself=True)


def _efficientnet_lite(
    variant: int, width: float, depth: float, c2: tuple[str, int], c3: tuple[str, int], c4: tuple[str, int]
) -> Backbone:
    def build(x: keras.KerasTensor, weights: str | None) -> keras.Model:
        network = efficientnet_lite.build(x, width, depth)
        if weights is not None:
            try:
                efficientnet_lite.load_imagenet(network, variant)
            except Exception as error:
                raise WeightsError(
                    f"model.weights: imagenet weights of efficientnet_lite{variant} could not be loaded ({error}); "
                    f"install the project with its extra lite, or set model.weights to a file or none"
                ) from error
        return network

    taps = zip((c2, c3, c4, ("top_activation", 1280)), (4, 8, 16, 32), strict=True)
    return Backbone(build, tuple(Feature(*tap, stride) for tap, stride in taps), _LITE)


def _convnext(build: Callable[..., keras.Model], name: str, channels: int, blocks4: int) -> Backbone:
    taps = [
        (f"convnext_{name}_stage_{stage}_block_{blocks - 1}_identity", channels * 2**stage)
        for stage, blocks in enumerate((3, 3, blocks4))
    ]
    return _application(build, _NORMALISED, *taps, (None, channels * 8), scales_itself=True, gives_branches=True)


def _densenet(build: Callable[..., keras.Model], c4: int, c5: int) -> Backbone:
    return _application(build, _NORMALISED, ("pool2_relu", 256), ("pool3_relu", 512), ("pool4_relu", c4), ("relu", c5))


_APPLICATIONS: Final = keras.applications
BACKBONES: Final[dict[BackboneName, Backbone]] = {
    "small_resnet10": _small_resnet(16, (1, 1, 1, 1)),
    "small_resnet18": _small_resnet(32, (2, 2, 2, 2)),
    "small_resnet34": _small_resnet(32, (3, 4, 6, 3)),
    "resnet50": _resnet(_APPLICATIONS.ResNet50, 4, 6),
    "resnet101": _resnet(_APPLICATIONS.ResNet101, 4, 23),
    "resnet152": _resnet(_APPLICATIONS.ResNet152, 8, 36),
    "resnet50_v2": _resnet_v2(_APPLICATIONS.ResNet50V2, 4, 6),
    "resnet101_v2": _resnet_v2(_APPLICATIONS.ResNet101V2, 4, 23),
    "resnet152_v2": _resnet_v2(_APPLICATIONS.ResNet152V2, 8, 36),
    "mobilenet_v2": _application(
        _APPLICATIONS.MobileNetV2,
        _SYMMETRIC,
        ("block_2_add", 24),
        ("block_5_add", 32),
        ("block_12_add", 96),
        ("out_relu", 1280),
    ),
    "mobilenet_v3_small": _application(
        _APPLICATIONS.MobileNetV3Small,
        _SYMMETRIC,
        ("expanded_conv_project_bn", 16),
        ("expanded_conv_2_add", 24),
        ("expanded_conv_7_add", 48),
        (None, 576),
        scales_itself=True,
    ),
    "mobilenet_v3_large": _application(
        _APPLICATIONS.MobileNetV3Large,
        _SYMMETRIC,
        ("expanded_conv_2_add", 24),
        ("expanded_conv_5_add", 40),
        ("expanded_conv_11_add", 112),
        (None, 960),
        scales_itself=True,
    ),
    "efficientnet_v2_b0": _efficientnet_v2(
        _APPLICATIONS.EfficientNetV2B0, _NORMALISED, ("block2b_add", 32), ("block3b_add", 48), ("block5e_add", 112), 1280
    ),
    "efficientnet_v2_b1": _efficientnet_v2(
        _APPLICATIONS.EfficientNetV2B1, _NORMALISED, ("block2c_add", 32), ("block3c_add", 48), ("block5f_add", 112), 1280
    ),
    "efficientnet_v2_b2": _efficientnet_v2(
        _APPLICATIONS.EfficientNetV2B2, _NORMALISED, ("block2c_add", 32), ("block3c_add", 56), ("block5f_add", 120), 1408
    ),
    "efficientnet_v2_b3": _efficientnet_v2(
        _APPLICATIONS.EfficientNetV2B3, _NORMALISED, ("block2c_add", 40), ("block3c_add", 56), ("block5g_add", 136), 1536
    ),
    "efficientnet_v2_s": _efficientnet_v2(
        _APPLICATIONS.EfficientNetV2S, _EFFICIENT, ("block2d_add", 48), ("block3d_add", 64), ("block5i_add", 160), 1280
    ),
    "efficientnet_v2_m": _efficientnet_v2(
        _APPLICATIONS.EfficientNetV2M, _EFFICIENT, ("block2e_add", 48), ("block3e_add", 80), ("block5n_add", 176), 1280
    ),
    "efficientnet_v2_l": _efficientnet_v2(
        _APPLICATIONS.EfficientNetV2L, _EFFICIENT, ("block2g_add", 64), ("block3g_add", 96), ("block5s_add", 224), 1280
    ),
    "efficientnet_lite0": _efficientnet_lite(0, 1.0, 1.0, ("block2b_add", 24), ("block3b_add", 40), ("block5c_add", 112)),
    "efficientnet_lite1": _efficientnet_lite(1, 1.0, 1.1, ("block2c_add", 24), ("block3c_add", 40), ("block5d_add", 112)),
    "efficientnet_lite2": _efficientnet_lite(2, 1.1, 1.2, ("block2c_add", 24), ("block3c_add", 48), ("block5d_add", 120)),
    "convnext_tiny": _convnext(_APPLICATIONS.ConvNeXtTiny, "tiny", 96, 9),
    "convnext_small": _convnext(_APPLICATIONS.ConvNeXtSmall, "small", 96, 27),
    "convnext_base": _convnext(_APPLICATIONS.ConvNeXtBase, "base", 128, 27),
    "densenet121": _densenet(_APPLICATIONS.DenseNet121, 1024, 1024),
    "densenet169": _densenet(_APPLICATIONS.DenseNet169, 1280, 1664),
    "densenet201": _densenet(_APPLICATIONS.DenseNet201, 1792, 1920),
    # The sums at the ends of the blocks have no names of their own; these are the ReLUs of them that begin the next blocks.
    "xception": _application(
        _APPLICATIONS.Xception,
        _SYMMETRIC,
        ("block3_sepconv1_act", 128),
        ("block4_sepconv1_act", 256),
        ("block13_sepconv1_act", 728),
        ("block14_sepconv2_act", 2048),
    ),
}


def check_strides(features: tuple[Feature, ...]) -> None:
    """Raises ValueError unless every map has twice the stride of the one before."""
    for finer, coarser in itertools.pairwise(features):
        if coarser.stride != 2 * finer.stride:
            raise ValueError(
                f"the strides of a backbone's maps must double from one to the next, "
                f"but {finer.layer} has {finer.stride} and {coarser.layer} has {coarser.stride}"
            )


def build_backbone(
    name: str,
    weights: str,
    input_shape: tuple[int | None, int | None, int],
    min_level: int,
    max_level: int,
    *,
    grey_input: GreyInput,
    class_token: bool = False,
    stochastic_depth: float | None = None,
    channel_mean: list[float] | None = None,
    channel_variance: list[float] | None = None,
) -> keras.Model:
    """Builds a backbone that contains its input scaling, and gives its maps by level.

    Args:
      name: a key of `BACKBONES`, or `hub:<preset>` for a backbone of keras-hub, see `models.hub`.
      weights: "none", "imagenet" (downloaded by Keras on first use; those of efficientnet_lite are in an installed package),
        "preset" (those of the preset of keras-hub), or the path of a file that `keras.Model.save_weights` wrote for this
        network without its top.
      input_shape: (height, width, channels). Networks with pretrained weights take 3 channels, or 1.
      min_level: the finest map to give, with stride 2^min_level.
      max_level: the coarsest map to give; layers beyond it are left out. May be above the network's coarsest level.
      grey_input: how a network for three channels takes one channel: the channel is repeated, or the first kernel is summed
        over its input channels. Both give the same maps; the sum needs less computation.
      class_token: of plain vision transformers, as in `models.hub.read_hub_backbone`.
      stochastic_depth: largest share of images, 0..1, for which training skips a residual block (arXiv:1603.09382); where the
        network's own rises from block to block, so does this. The network's own if not given.
      channel_mean: mean of each channel, 0..255, for networks without a scaling of their own; 0 if not given.
      channel_variance: variance of each channel, for the same networks; 1 if not given.

    Returns:
      A model from float [N, height, width, channels] in 0..255 to {"C2": [N, height/4, width/4, c2], "C3": ...}; plain vision
      transformers give C4 alone, whatever the levels.

    Raises:
      WeightsError: the weights can't be loaded, or belong to another network.
      ValueError: the network has no map of min_level, or does not take this number of channels.
    """
    backbone = BACKBONES[name] if name in BACKBONES else read_hub_backbone(name, weights, class_token, stochastic_depth)
    check_strides(backbone.features)
    features = [feature for feature in backbone.features if min_level <= feature.level <= max_level]
    if backbone.features and (not features or features[0].level != min_level):
        levels = ", ".join(f"C{feature.level}" for feature in backbone.features)
        raise ValueError(f"{name} has no map C{min_level}, only {levels}")
    inputs = keras.Input(input_shape)
    scaling = backbone.scaling
    if scaling is None:
        moments = {"mean": channel_mean or [0.0] * input_shape[-1], "variance": channel_variance or [1.0] * input_shape[-1]}
        network = _load(name, backbone.build, keras.layers.Normalization(**moments, name="scale")(inputs), weights)
    elif input_shape[-1] == 1 and grey_input == "sum":
        network = _sum_first_kernel(name, backbone.build, scaling, inputs, weights)
    elif input_shape[-1] in (1, 3):
        colour = keras.layers.Concatenate(name="grey_to_rgb")([inputs] * 3) if input_shape[-1] == 1 else inputs
        x = keras.layers.Normalization(mean=scaling.mean, variance=np.square(scaling.std), name="scale")(colour)
        network = _load(name, backbone.build, keras.ops.flip(x, axis=-1) if scaling.reverse else x, weights)
    else:
        raise ValueError(f"{name} takes images of 1 or 3 channels, not {input_shape[-1]}")
    if backbone.features:
        if stochastic_depth is not None:
            _set_stochastic_depth(name, network, stochastic_depth)
        maps = {f"C{feature.level}": _map_of(network, name, feature) for feature in features}
    elif len(network.output) > 1:
        maps = {key: value for key, value in network.output.items() if min_level <= int(key[1:]) <= max_level}
    else:
        maps = network.output
    return keras.Model(inputs, maps, name="backbone")


def _set_stochastic_depth(name: str, network: keras.Model, rate: float) -> None:
    drops = [
        layer for layer in network.layers if isinstance(layer, keras.layers.Dropout) and layer.noise_shape == (None, 1, 1, 1)
    ]
    if not drops:
        raise ValueError(f"{name} has no stochastic depth")
    for layer in drops:
        layer.rate *= rate / _OWN_STOCHASTIC_DEPTH


def _map_of(network: keras.Model, name: str, feature: Feature) -> keras.KerasTensor:
    output = network.get_layer(feature.layer).output if feature.layer else network.output
    if feature.is_branch:
        (output,) = (
            operation.output
            for operation in network.operations
            if any(value is output for value in keras.tree.flatten(operation.input))
        )
    if output.shape[-1] != feature.channels:
        raise ValueError(f"{feature.layer or 'the output'} of {name} has {output.shape[-1]} channels, not {feature.channels}")
    return output


def _load(
    name: str, build: Callable[[keras.KerasTensor, str | None], keras.Model], x: keras.KerasTensor, weights: str
) -> keras.Model:
    """The network on a scaled input, with its weights."""
    try:
        network = build(x, weights if weights in ("imagenet", "preset") else None)
    except WeightsError:
        raise
    except Exception as error:
        if weights != "imagenet":
            raise
        raise WeightsError(
            f"model.weights: imagenet weights of {name} could not be downloaded ({error}); "
            f"fetch the file elsewhere and give its path, or use none"
        ) from error
    if weights not in ("none", "imagenet", "preset"):
        if not Path(weights).is_file():
            raise WeightsError(f"model.weights: no such file: {weights}")
        try:
            network.load_weights(weights)
        except Exception as error:
            reason = str(error).splitlines()[0]
            raise WeightsError(
                f"model.weights: {weights} does not fit {name} without its top ({reason}); "
                f"give a file made for this backbone, or set model.weights to none"
            ) from error
    return network


def _sum_first_kernel(
    name: str,
    build: Callable[[keras.KerasTensor, str | None], keras.Model],
    scaling: Scaling,
    inputs: keras.KerasTensor,
    weights: str,
) -> keras.Model:
    """The network for one channel, with the first kernel summed over the three channels that it was trained with.

    Let k_c, mu_c, s_c be the kernel, mean and deviation of channel c, and m, s the averages of the latter two. The kernel for
    the scaled channel z = (x - m) / s is sum_c k_c s / s_c. If the means differ, there is a second channel of ones with the
    kernel sum_c k_c (m - mu_c) / s_c. A bias would be wrong: the zeros around the image, which stand for the means, must not
    get it.
    """
    colour = _load(name, build, keras.Input((*inputs.shape[1:3], 3)), weights)
    mean, std = np.asarray(scaling.mean), np.asarray(scaling.std)
    centre, spread = mean.mean(), std.mean()
    x = keras.layers.Normalization(mean=[centre], variance=[spread**2], name="scale")(inputs)
    factors = [spread / std]
    if not np.allclose(mean, centre):
        x = keras.layers.Concatenate(name="with_ones")([x, keras.ops.ones_like(x)])
        factors.append((centre - mean) / std)
    network = build(x, None)
    for target, source in zip(network.weights, colour.weights, strict=True):
        if target.shape == source.shape:
            target.assign(source)
        else:  # the first kernel, [height, width, 3, filters]
            of_channel = np.asarray(factors)[:, ::-1] if scaling.reverse else np.asarray(factors)
            target.assign(np.einsum("hwcf,ic->hwif", source.numpy(), of_channel))
    return network
