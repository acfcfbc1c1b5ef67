"""What a backbone is: how to build it, its maps, and the scaling of its input."""

from collections.abc import Callable
from dataclasses import dataclass

import keras


class WeightsError(ValueError):
    """The weights can't be loaded, or belong to another network; the text names the file and what to do."""


@dataclass(frozen=True)
class Feature:
    """One map of a backbone.

    Attributes:
      layer: name of the layer whose output it is; None for the network's own output, which has no name in some networks.
      channels: number of channels of the map.
      stride: number of input pixels that one cell stands for, along each axis.
      is_branch: whether the map is not the layer's output, but the sum, which has no name, of it and a shortcut.
    """

    layer: str | None
    channels: int
    stride: int
    is_branch: bool = False

    @property
    def level(self) -> int:
        """l of the map C_l, whose stride is 2^l."""
        return self.stride.bit_length() - 1


@dataclass(frozen=True)
class Scaling:
    """The input that weights were trained with: (x - mean) / std for each channel of an RGB image, 0..255.

    Attributes:
      mean: red, green, blue.
      std: red, green, blue.
      reverse: whether the network takes the scaled channels as blue, green, red.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    reverse: bool = False


@dataclass(frozen=True)
class Backbone:
    """How to build a backbone, the names of its maps, and the input that it was trained with.

    Attributes:
      build: takes the scaled input and the weights (None, "imagenet" or "preset"), returns the network without its top.
      features: the maps, finest first; each has twice the stride of the one before. () for a network whose output is a dict
        of its maps already.
      scaling: the scaling that the weights expect, for three channels; None for a network without pretrained weights, which
        takes any number of channels and is scaled with the data set's own channel means and variances.
    """

    build: Callable[[keras.KerasTensor, str | None], keras.Model]
    features: tuple[Feature, ...]
    scaling: Scaling | None
