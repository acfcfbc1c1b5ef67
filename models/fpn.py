"""The Feature Pyramid Network (Lin et al. 2016, arXiv:1612.03144) and an image classifier with it."""

import math
from typing import Any, Final, get_args

import keras

from models.backbones import build_backbone
from models.choices import Activation, CoarseLevels, FusionType, Norm, Pooling
from models.settings import ClassifierConfig

_EPSILON = 1e-4  # of the weighted fusion (arXiv:1911.09070, section 3.3)


def _cut(x: keras.KerasTensor, size: tuple[int, int]) -> keras.KerasTensor:
    return x[:, : size[0], : size[1]]


def _upsample(x: keras.KerasTensor, size: tuple[int, int]) -> keras.KerasTensor:
    """Nearest upsampling by 2 to a given size: [N, h, w, c] to [N, *size, c], where size is 2h-1, 2h or 2h+1 (w likewise).

    Backbones round odd sizes up or down, so the finer map may be one smaller or larger than the double. Row i of the result is
    row i // 2, or the last row if there is no such row. Unlike that of a resize operation, the gradient compiles under XLA.
    """
    for axis in (1, 2):
        last = x[:, -1:] if axis == 1 else x[:, :, -1:]
        x = keras.ops.repeat(keras.ops.concatenate([x, last], axis), 2, axis)
    return _cut(x, size)


def _downsample(x: keras.KerasTensor, size: tuple[int, int]) -> keras.KerasTensor:
    """3x3 maximum pooling of stride 2 to a given size: [N, h, w, c] to [N, *size, c], where size is h/2 rounded either way."""
    return _cut(keras.ops.max_pool(x, 3, strides=2, padding="same"), size)


def _size(x: keras.KerasTensor) -> tuple[int, int]:
    return keras.ops.shape(x)[1:3]


class _WeightedMean(keras.layers.Layer):
    """Mean of tensors of one shape with learned weights, all the same at the start."""

    def build(self, input_shape: list[tuple[int | None, ...]]) -> None:
        self.weight = self.add_weight(name="weight", shape=(len(input_shape),), initializer="ones")
        self.built = True

    def call(self, inputs: list[keras.KerasTensor]) -> keras.KerasTensor:
        share = self._shares(self.weight)
        return sum(share[index] * x for index, x in enumerate(inputs))

    def compute_output_shape(self, input_shape: list[tuple[int | None, ...]]) -> tuple[int | None, ...]:
        return input_shape[0]

    def _shares(self, weight: keras.KerasTensor) -> keras.KerasTensor:
        raise NotImplementedError


@keras.saving.register_keras_serializable(package="fpn")
class WeightedFusion(_WeightedMean):
    """Mean of maps of one shape with learned w_i >= 0: sum(w_i x_i) / (sum(w_i) + 1e-4) (arXiv:1911.09070, section 3.3)."""

    def _shares(self, weight: keras.KerasTensor) -> keras.KerasTensor:
        weight = keras.ops.relu(weight)
        return weight / (keras.ops.sum(weight) + _EPSILON)


@keras.saving.register_keras_serializable(package="fpn")
class LearnedMean(_WeightedMean):
    """Mean of tensors of one shape with learned weights, the softmax of one number each."""

    def _shares(self, weight: keras.KerasTensor) -> keras.KerasTensor:
        return keras.ops.softmax(weight)


@keras.saving.register_keras_serializable(package="fpn")
class Coordinates(keras.layers.Layer):
    """Gives each cell its place: [N, h, w, c] to [N, h, w, c + 2] (arXiv:1807.03247, section 3).

    The channels that follow the others are y and x of the cell's centre, where the image's edges are -1 and 1. So cells of
    maps of different strides that show the same place have the same values.
    """

    def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
        images, height, width, _ = keras.ops.shape(x)
        y = keras.ops.reshape(self._centres(height), (1, height, 1, 1))
        places = keras.ops.reshape(self._centres(width), (1, 1, width, 1))
        shape = (images, height, width, 1)
        return keras.ops.concatenate([x, keras.ops.broadcast_to(y, shape), keras.ops.broadcast_to(places, shape)], axis=-1)

    def _centres(self, count: int) -> keras.KerasTensor:
        return keras.ops.cast((2 * keras.ops.arange(count, dtype="float32") + 1) / count - 1, self.compute_dtype)


@keras.saving.register_keras_serializable(package="fpn")
class FeaturePyramid(keras.layers.Layer):
    """Merges a backbone's maps, so that every level sees both detail and context.

    A 1x1 lateral convolution brings each map to `num_filters` channels. Then, depending on `fusion_type`:

    - "sum" (arXiv:1612.03144, section 3): from coarse to fine, the merged map is upsampled (nearest) to the size of the next
      lateral and added to it; a 3x3 convolution on each merged map lessens the aliasing of the upsampling.
    - "concat": likewise, but lateral and upsampled map are stacked, and a learned 1x1 convolution brings them back to
      `num_filters` channels (the sum is the special case of two stacked identities).
    - "bifpn" (arXiv:1911.09070, section 3): `bifpn_repeats` rounds, each first from coarse to fine and then from fine to
      coarse. Every node is a weighted mean (see `WeightedFusion`) of the round's input, of the node before it (upsampled or
      pooled) and, from fine to coarse, of the same level's node from the first direction; the activation and a 3x3 convolution
      follow.
    - "panet" (arXiv:1803.01534, section 3.1): the sum, and then from fine to coarse: a 3x3 convolution of stride 2 of the
      finer output is added to the map, and a 3x3 convolution follows, each with a ReLU behind it.

    Levels beyond the coarsest input are made from the level before, by a 3x3 convolution of stride 2 (from the second of them
    on after a ReLU: arXiv:1708.02002, section 4) or by subsampling (arXiv:1612.03144, section 4.1). A bifpn merges them, too.

    >>> pyramid = FeaturePyramid(min_level=2, max_level=4, num_filters=64)
    >>> maps = pyramid({"C2": ops.ones((1, 56, 56, 24)), "C3": ops.ones((1, 28, 28, 32)), "C4": ops.ones((1, 14, 14, 96))})
    >>> {level: map.shape for level, map in maps.items()}
    {'P2': (1, 56, 56, 64), 'P3': (1, 28, 28, 64), 'P4': (1, 14, 14, 64)}

    Args:
      min_level: the finest level, with stride 2^min_level.
      max_level: the coarsest level.
      num_filters: channels of every merged and every output map.
      fusion_type: "sum", "concat", "bifpn" or "panet".
      coarse_levels: how levels beyond the coarsest input are made: "conv" or "pool".
      bifpn_repeats: rounds of a bifpn.
      separable: whether 3x3 convolutions are depthwise separable.
      norm: "none", "batch" or "group", after every convolution.
      activation: after the last convolution of every level, and before every convolution of a bifpn.
    """

    def __init__(
        self,
        min_level: int = 2,
        max_level: int = 5,
        num_filters: int = 256,
        fusion_type: FusionType = "sum",
        *,
        coarse_levels: CoarseLevels = "conv",
        bifpn_repeats: int = 3,
        separable: bool = False,
        norm: Norm = "none",
        activation: Activation = "none",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if min_level > max_level:
            raise ValueError(f"min_level {min_level} is above max_level {max_level}")
        for name, value, choice in (
            ("fusion_type", fusion_type, FusionType),
            ("coarse_levels", coarse_levels, CoarseLevels),
            ("norm", norm, Norm),
            ("activation", activation, Activation),
        ):
            known = get_args(choice)
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, is {value}")
        self.min_level = min_level
        self.max_level = max_level
        self.num_filters = num_filters
        self.fusion_type = fusion_type
        self.coarse_levels = coarse_levels
        self.bifpn_repeats = bifpn_repeats
        self.separable = separable
        self.norm = norm
        self.activation = activation
        self.levels = range(min_level, max_level + 1)
        self._activate = keras.layers.Activation("linear" if activation == "none" else activation)

    def _convolution(self, name: str, kernel_size: int, in_channels: int | None, strides: int = 1) -> keras.Sequential:
        """Convolution to `num_filters` and normalisation, built."""
        kind = keras.layers.SeparableConv2D if self.separable and kernel_size > 1 else keras.layers.Conv2D
        layers = [kind(self.num_filters, kernel_size, strides, padding="same", use_bias=self.norm == "none")]
        if self.norm == "batch":
            layers.append(keras.layers.BatchNormalization(momentum=0.9))
        elif self.norm == "group":
            layers.append(keras.layers.GroupNormalization(math.gcd(32, self.num_filters)))
        convolution = keras.Sequential(layers, name=name)
        convolution.build((None, None, None, in_channels))
        return convolution

    def build(self, input_shape: dict[str, tuple[int | None, ...]]) -> None:
        given = [level for level in self.levels if f"C{level}" in input_shape]
        missing = [f"C{level}" for level in range(self.min_level, max(given, default=self.min_level) + 1) if level not in given]
        if missing:
            raise ValueError(f"the pyramid needs {', '.join(missing)}, but was given {', '.join(input_shape)}")
        filters = self.num_filters
        self._given = given
        self.lateral = {f"C{n}": self._convolution(f"lateral_{n}", 1, input_shape[f"C{n}"][-1]) for n in given}
        coarse = self.levels[len(given) :] if self.coarse_levels == "conv" else ()
        self.coarse = {f"P{level}": self._convolution(f"coarse_{level}", 3, filters, strides=2) for level in coarse}
        self.fuse, self.smooth = {}, {}
        self.down_fusion, self.down, self.up_fusion, self.up = {}, {}, {}, {}
        if self.fusion_type == "bifpn":
            shape = (None, None, None, filters)
            for repeat in range(1, self.bifpn_repeats + 1):
                for level in self.levels[:-1]:
                    key = f"{repeat}_P{level}"
                    self.down_fusion[key] = WeightedFusion(name=f"down_fusion_{key}")
                    self.down_fusion[key].build([shape] * 2)
                    self.down[key] = self._convolution(f"down_{key}", 3, filters)
                for level in self.levels[1:]:
                    key = f"{repeat}_P{level}"
                    self.up_fusion[key] = WeightedFusion(name=f"up_fusion_{key}")
                    self.up_fusion[key].build([shape] * (2 if level == self.max_level else 3))
                    self.up[key] = self._convolution(f"up_{key}", 3, filters)
        else:
            if self.fusion_type == "concat":
                self.fuse = {f"P{level}": self._convolution(f"fuse_{level}", 1, 2 * filters) for level in given[:-1]}
            self.smooth = {f"P{level}": self._convolution(f"smooth_{level}", 3, filters) for level in given}
            if self.fusion_type == "panet":
                self.down = {f"P{level}": self._convolution(f"down_{level}", 3, filters, strides=2) for level in given[:-1]}
                self.up = {f"P{level}": self._convolution(f"up_{level}", 3, filters) for level in given[1:]}
        self.built = True

    def call(self, inputs: dict[str, keras.KerasTensor], training: bool | None = None) -> dict[str, keras.KerasTensor]:
        """From {"C2": [N, H/4, W/4, c2], ...} to {"P2": [N, H/4, W/4, num_filters], ...}; the maps may have any size."""
        laterals = {level: self.lateral[f"C{level}"](inputs[f"C{level}"], training=training) for level in self._given}
        if self.fusion_type == "bifpn":
            maps = self._with_coarse_levels(laterals, training)
            for repeat in range(1, self.bifpn_repeats + 1):
                maps = self._both_ways(maps, repeat, training)
        else:
            maps = self._with_coarse_levels(self._top_down(laterals, training), training)
        return {f"P{level}": self._activate(maps[level]) for level in self.levels}

    def _top_down(self, laterals: dict[int, keras.KerasTensor], training: bool | None) -> dict[int, keras.KerasTensor]:
        outputs = {}
        merged = None
        for level in reversed(self._given):
            lateral = laterals[level]
            if merged is None:
                merged = lateral
            elif self.fusion_type == "concat":
                stacked = keras.ops.concatenate([lateral, _upsample(merged, _size(lateral))], axis=-1)
                merged = self.fuse[f"P{level}"](stacked, training=training)
            else:
                merged = lateral + _upsample(merged, _size(lateral))
            outputs[level] = self.smooth[f"P{level}"](merged, training=training)
        return self._bottom_up(outputs, training) if self.fusion_type == "panet" else outputs

    def _bottom_up(self, maps: dict[int, keras.KerasTensor], training: bool | None) -> dict[int, keras.KerasTensor]:
        outputs = {self.min_level: maps[self.min_level]}
        for level in self._given[1:]:
            finer = keras.ops.relu(self.down[f"P{level - 1}"](outputs[level - 1], training=training))
            fused = maps[level] + _cut(finer, _size(maps[level]))
            outputs[level] = keras.ops.relu(self.up[f"P{level}"](fused, training=training))
        return outputs

    def _with_coarse_levels(self, maps: dict[int, keras.KerasTensor], training: bool | None) -> dict[int, keras.KerasTensor]:
        maps = dict(maps)
        for level in self.levels[len(self._given) :]:
            x = maps[level - 1]
            if self.coarse_levels == "pool":
                maps[level] = x[:, ::2, ::2]
            else:
                x = x if level - 1 in self._given else keras.ops.relu(x)
                maps[level] = self.coarse[f"P{level}"](x, training=training)
        return maps

    def _both_ways(
        self, maps: dict[int, keras.KerasTensor], repeat: int, training: bool | None
    ) -> dict[int, keras.KerasTensor]:
        """One round of a bifpn over maps of `num_filters` channels."""
        middle = {self.max_level: maps[self.max_level]}
        for level in reversed(self.levels[:-1]):
            key = f"{repeat}_P{level}"
            fused = self.down_fusion[key]([maps[level], _upsample(middle[level + 1], _size(maps[level]))])
            middle[level] = self.down[key](self._activate(fused), training=training)
        outputs = {self.min_level: middle[self.min_level]}
        for level in self.levels[1:]:
            key = f"{repeat}_P{level}"
            finer = _downsample(outputs[level - 1], _size(maps[level]))
            parts = [maps[level], finer] if level == self.max_level else [maps[level], middle[level], finer]
            outputs[level] = self.up[key](self._activate(self.up_fusion[key](parts)), training=training)
        return outputs

    def compute_output_shape(self, input_shape: dict[str, tuple[int | None, ...]]) -> dict[str, tuple[int | None, ...]]:
        shapes: dict[str, tuple[int | None, ...]] = {}
        batch, height, width = None, None, None
        for level in self.levels:
            if f"C{level}" in input_shape:
                batch, height, width, _ = input_shape[f"C{level}"]
            else:
                height, width = (None if side is None else (side + 1) // 2 for side in (height, width))
            shapes[f"P{level}"] = (batch, height, width, self.num_filters)
        return shapes

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "min_level": self.min_level,
            "max_level": self.max_level,
            "num_filters": self.num_filters,
            "fusion_type": self.fusion_type,
            "coarse_levels": self.coarse_levels,
            "bifpn_repeats": self.bifpn_repeats,
            "separable": self.separable,
            "norm": self.norm,
            "activation": self.activation,
        }


@keras.saving.register_keras_serializable(package="fpn")
class AttentionPooling(keras.layers.Layer):
    """Mean over positions with learned weights: [N, h, w, c] to [N, c].

    The weights are a softmax over all positions. Each position's score is linear in its channels (the attention of
    arXiv:1802.04712, equations 7 and 8, with a linear score). At the start, all positions have the same weight.
    """

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.score = self.add_weight(name="score", shape=(input_shape[-1],), initializer="zeros")
        self.built = True

    def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
        positions = keras.ops.reshape(x, (keras.ops.shape(x)[0], -1, x.shape[-1]))
        # In float32, as every softmax over many values should be.
        score = keras.ops.cast(keras.ops.einsum("npc,c->np", positions, self.score), "float32")
        weight = keras.ops.cast(keras.ops.softmax(score, axis=-1), x.dtype)
        return keras.ops.einsum("npc,np->nc", positions, weight)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (input_shape[0], input_shape[-1])


@keras.saving.register_keras_serializable(package="fpn")
class AverageMaxPooling(keras.layers.Layer):
    """Mean of what is above zero, and maximum, over positions: [N, h, w, c] to [N, 2c]."""

    def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
        mean = keras.ops.mean(keras.ops.relu(x), axis=(1, 2))
        return keras.ops.concatenate([mean, keras.ops.max(x, axis=(1, 2))], axis=-1)


@keras.saving.register_keras_serializable(package="fpn")
class GeneralizedMeanPooling(keras.layers.Layer):
    """Mean over positions with a learned exponent: (mean of x^p)^(1/p), [N, h, w, c] to [N, c] (arXiv:1711.02512, equation 3).

    p is 3 at the start, as there; 1 would be the mean, and a large one the maximum. Values are taken as at least 1e-6.
    """

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.exponent = self.add_weight(name="exponent", shape=(), initializer=keras.initializers.Constant(3.0))
        self.built = True

    def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
        exponent = keras.ops.maximum(keras.ops.cast(self.exponent, "float32"), 1.0)
        # A sum and not a maximum with 1e-6: LiteRT's XNNPACK can't prepare the maximum of a convolution and a number.
        above = keras.ops.relu(keras.ops.cast(x, "float32") - 1e-6) + 1e-6
        log_mean = _log_mean_exp(exponent * keras.ops.log(above))  # of x^p, which float32 can't always hold
        return keras.ops.cast(keras.ops.exp(log_mean / exponent), x.dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (input_shape[0], input_shape[-1])


@keras.saving.register_keras_serializable(package="fpn")
class LogSumExpPooling(keras.layers.Layer):
    """Smooth maximum over positions of each class's logit: log(mean of exp(r x)) / r, [N, ..., c] to [N, c].

    r > 0 is learned, and 1 at the start: towards 0 this is the mean, and with a large r the maximum (arXiv:1411.6228, equation
    6).
    """

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.log_sharpness = self.add_weight(name="log_sharpness", shape=(), initializer="zeros")
        self.built = True

    def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
        sharpness = keras.ops.exp(self.log_sharpness)
        return _log_mean_exp(sharpness * x) / sharpness

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (input_shape[0], input_shape[-1])


def _log_mean_exp(x: keras.KerasTensor) -> keras.KerasTensor:
    """Log of the mean of e^x over positions: [N, ..., c] to [N, c]."""
    positions = keras.ops.reshape(x, (keras.ops.shape(x)[0], -1, x.shape[-1]))
    count = keras.ops.cast(keras.ops.shape(positions)[1], x.dtype)
    return keras.ops.logsumexp(positions, axis=1) - keras.ops.log(count)


def _levels_of(x: keras.KerasTensor, min_level: int, max_level: int) -> dict[str, keras.KerasTensor]:
    """Makes maps of several strides from C4 alone, [N, h, w, c] (the simple feature pyramid of arXiv:2203.16527, section 3).

    Transposed convolutions give C3 [N, 2h, 2w, c/2] and C2 [N, 4h, 4w, c/4], with a layer normalisation and GELU between the
    two of C2. C5 [N, h/2, w/2, c] is the maximum of every two by two cells.
    """
    maps = {}
    for level in range(min_level, max_level + 1):
        y = x
        for step in range(1, 5 - level):
            if step > 1:
                y = keras.layers.LayerNormalization(epsilon=1e-6, name=f"C{level}_norm")(y)
                y = keras.layers.Activation("gelu", name=f"C{level}_gelu")(y)
            y = keras.layers.Conv2DTranspose(x.shape[-1] // 2**step, 2, 2, name=f"C{level}_up{step}")(y)
        maps[f"C{level}"] = keras.layers.MaxPooling2D(2, padding="same", name="C5_down")(y) if level == 5 else y
    return maps


_POOLING: Final[dict[Pooling, type[keras.layers.Layer]]] = {
    "average": keras.layers.GlobalAveragePooling2D,
    "max": keras.layers.GlobalMaxPooling2D,
    "average_max": AverageMaxPooling,
    "generalized_mean": GeneralizedMeanPooling,
    "attention": AttentionPooling,
}
_NON_LINEAR: Final = ("max", "average_max")  # poolings that need no ReLU before them


def build_classifier(
    config: ClassifierConfig,
    *,
    image_shape: tuple[int, int, int],
    num_classes: int,
    channel_mean: list[float],
    channel_variance: list[float],
) -> keras.Model:
    """Builds the classifier: scaling, backbone, pyramid, a head on every level, and the combination of the levels' answers.

    Args:
      config: the network.
      image_shape: (height, width, channels).
      num_classes: two or more.
      channel_mean: mean of each channel over the training split, 0..255; only for backbones without a scaling of their own.
      channel_variance: variance of each channel, likewise.

    Returns:
      A model from uint8 [N, *image_shape] to logits float32 [N, num_classes].
    """
    inputs = keras.Input(image_shape, dtype="uint8", name="image")
    x = keras.layers.Rescaling(1.0, name="to_float")(inputs)
    maps = build_backbone(
        config.backbone,
        config.weights,
        image_shape,
        config.max_level if config.fusion_type == "none" else config.min_level,
        config.max_level,
        grey_input=config.grey_input,
        class_token=config.class_token,
        stochastic_depth=config.stochastic_depth,
        channel_mean=channel_mean,
        channel_variance=channel_variance,
    )(x)
    if config.fusion_type != "none":
        if f"C{config.min_level}" not in maps:  # of a plain vision transformer, which has one map
            maps = _levels_of(maps["C4"], config.min_level, min(config.max_level, 5))
        if config.coordinates:
            maps = {name: Coordinates(name=f"{name}_coordinates")(level) for name, level in maps.items()}
        maps = FeaturePyramid(
            config.min_level,
            config.max_level,
            config.num_filters,
            config.fusion_type,
            coarse_levels=config.coarse_levels,
            bifpn_repeats=config.bifpn_repeats,
            separable=config.separable,
            norm=config.norm,
            activation=config.activation,
            name="pyramid",
        )(maps)

    if config.activation == "none" and config.pooling not in _NON_LINEAR:
        # Without this non-linearity, pyramid, pooling and head would be one linear map of the backbone's pooled features.
        # Grad-CAM (`models.gradcam`) looks for these layers by name. A maximum needs none: behind a ReLU, a channel whose
        # largest value falls below zero in all images would never learn again.
        maps = {name: keras.layers.ReLU(name=f"relu_{name}")(level) for name, level in maps.items()}

    def head(name: str, channels: int) -> keras.Sequential:
        # The logits stay float32 under mixed precision: softmax and loss need the range.
        logits = keras.layers.Dense(num_classes, dtype="float32")
        if config.pooling == "log_sum_exp":
            layers = [keras.layers.Dropout(config.dropout), logits, LogSumExpPooling(dtype="float32")]
        else:
            layers = [_POOLING[config.pooling](), keras.layers.Dropout(config.dropout), logits]
        sequence = keras.Sequential(layers, name=name)
        sequence.build((None, None, None, channels))  # of any size, because a shared head gets maps of all sizes
        return sequence

    if config.shared_head:
        shared = head("head", next(iter(maps.values())).shape[-1])
        answers = [shared(level) for level in maps.values()]
    else:
        answers = [head(f"head_{name}", level.shape[-1])(level) for name, level in maps.items()]
    if len(answers) == 1:
        logits = answers[0]
    elif config.combine == "mean":
        logits = keras.layers.Average(name="logits", dtype="float32")(answers)
    elif config.combine == "learned":
        logits = LearnedMean(name="logits", dtype="float32")(answers)
    else:
        stacked = keras.layers.Concatenate(name="levels", dtype="float32")(answers)
        logits = keras.layers.Dense(num_classes, name="logits", dtype="float32")(stacked)
    return keras.Model(inputs, logits, name="classifier")
