"""Backbones: networks that turn an image into the feature maps C2..C5 of strides 4, 8, 16 and 32.

C_l is the output of the last block of the stage whose stride is 2^l (Lin et al. 2016, arXiv:1612.03144, section 3).
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import keras


class WeightsError(ValueError):
    """The weights can't be had, or belong to another network; the text names the file and the cure."""


@dataclass(frozen=True)
class Feature:
    """One map of a backbone: the layer that puts it out, and how many input pixels one of its cells stands for."""

    layer: str
    stride: int

    @property
    def level(self) -> int:
        """l of the map C_l, whose stride is 2^l."""
        return self.stride.bit_length() - 1


@dataclass(frozen=True)
class Backbone:
    """How to build a backbone, what its maps are called, and the input that it was trained with.

    Attributes:
      build: takes `weights` (None or "imagenet") and `input_shape`, returns the network without its top.
      features: the maps, finest first; strides 4, 8, 16, ... without a gap.
      scale: from float [N, H, W, C] in 0..255 to the input that the weights expect; None where the data set's own
        channel means and variances are to be used.
      channels: the only number of input channels that it takes; None for any.
    """

    build: Callable[..., keras.Model]
    features: tuple[Feature, ...]
    scale: Callable[[keras.KerasTensor], keras.KerasTensor] | None
    channels: int | None


# Of the batch statistics: small data sets have few steps, in which Keras' 0.99 would not get from its start to the data.
_MOMENTUM: Final = 0.9


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


def small_resnet(weights: None, input_shape: tuple[int | None, int | None, int], width: int = 16) -> keras.Model:
    """A thin residual network for small images: one block a stage, and a stem that keeps the full resolution.

    Args:
      weights: None; there are no pretrained ones.
      input_shape: (height, width, channels).
      width: filters at full and at half resolution; each later stage has twice those of the one before.
    """
    del weights
    inputs = keras.Input(input_shape)
    # No batch normalisation here: the input is normalised already, and at full resolution it is half of a step's time on CPUs.
    x = keras.layers.Conv2D(width, 3, padding="same", activation="relu", name="stem_conv")(inputs)
    for level in range(1, 6):
        x = _residual_block(x, filters=width * 2 ** (level - 1), stride=2, name=f"stage{level}")
    return keras.Model(inputs, x, name="small_resnet")


def _taps(*layers: str) -> tuple[Feature, ...]:
    return tuple(Feature(layer, 4 * 2**index) for index, layer in enumerate(layers))


BACKBONES: Final[dict[str, Backbone]] = {
    "small_resnet": Backbone(
        build=small_resnet,
        features=_taps("stage2_out", "stage3_out", "stage4_out", "stage5_out"),
        scale=None,
        channels=None,
    ),
    "resnet50": Backbone(
        build=keras.applications.ResNet50,
        features=_taps("conv2_block3_out", "conv3_block4_out", "conv4_block6_out", "conv5_block3_out"),
        scale=keras.applications.resnet.preprocess_input,
        channels=3,
    ),
    "resnet101": Backbone(
        build=keras.applications.ResNet101,
        features=_taps("conv2_block3_out", "conv3_block4_out", "conv4_block23_out", "conv5_block3_out"),
        scale=keras.applications.resnet.preprocess_input,
        channels=3,
    ),
    "mobilenet_v2": Backbone(
        build=keras.applications.MobileNetV2,
        features=_taps("block_2_add", "block_5_add", "block_12_add", "out_relu"),
        scale=keras.applications.mobilenet_v2.preprocess_input,
        channels=3,
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


def build_backbone(name: str, weights: str, input_shape: tuple[int, int, int], min_level: int, max_level: int) -> keras.Model:
    """Builds a backbone that gives its maps by level.

    Args:
      name: a key of `BACKBONES`.
      weights: "none", "imagenet" (downloaded by Keras on first use), or the path of a file that
        `keras.Model.save_weights` wrote for this network without its top.
      input_shape: (height, width, channels).
      min_level: the finest map to give, of stride 2^min_level.
      max_level: the coarsest; what the network computes beyond it is left out.

    Returns:
      A model from scaled float [N, height, width, channels] to {"C2": [N, height/4, width/4, c2], "C3": ...}.

    Raises:
      WeightsError: the weights can't be had, or belong to another network.
    """
    backbone = BACKBONES[name]
    check_strides(backbone.features)
    try:
        network = backbone.build(
            weights="imagenet" if weights == "imagenet" else None,
            input_shape=input_shape,
            **({} if name == "small_resnet" else {"include_top": False}),
        )
    except Exception as error:
        if weights != "imagenet":
            raise
        raise WeightsError(
            f"model.weights: imagenet weights of {name} could not be downloaded ({error}); "
            f"fetch the file elsewhere and give its path, or use none"
        ) from error
    if weights not in ("none", "imagenet"):
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
    maps = {
        f"C{feature.level}": network.get_layer(feature.layer).output
        for feature in backbone.features
        if min_level <= feature.level <= max_level
    }
    return keras.Model(network.input, maps, name="backbone")
