"""The Feature Pyramid Network (Lin et al. 2016, arXiv:1612.03144) and the image classifier on it."""

from typing import Any, Literal

import keras

from models.backbones import BACKBONES, build_backbone

FusionType = Literal["sum", "concat"]


def _upsample(x: keras.KerasTensor, size: tuple[int, int]) -> keras.KerasTensor:
    """Nearest upsampling by 2 to a given size: [N, h, w, c] to [N, *size, c], where size is 2h-1, 2h or 2h+1 (w likewise).

    Backbones round odd sizes up or down, so the finer map may lack or exceed the double by one. Row i shows row i // 2, the
    last one again where there is none. Unlike a resize operation, its gradient compiles under XLA.
    """
    for axis, length in zip((1, 2), size, strict=True):
        last = x[:, -1:] if axis == 1 else x[:, :, -1:]
        x = keras.ops.repeat(keras.ops.concatenate([x, last], axis), 2, axis)
        x = x[:, :length] if axis == 1 else x[:, :, :length]
    return x


@keras.saving.register_keras_serializable(package="fpn")
class FeaturePyramid(keras.layers.Layer):
    """Merges a backbone's maps from coarse to fine, so that every level sees both detail and context.

    Each map passes a 1x1 lateral convolution to `num_filters` channels; the coarser merged map, upsampled (nearest) to the
    lateral's own size, is fused with it; a 3x3 convolution on each merged map lessens the aliasing of the upsampling. There
    is no non-linearity (arXiv:1612.03144, section 3).

    >>> pyramid = FeaturePyramid(min_level=2, max_level=4, num_filters=64)
    >>> maps = pyramid({"C2": ops.ones((1, 56, 56, 24)), "C3": ops.ones((1, 28, 28, 32)), "C4": ops.ones((1, 14, 14, 96))})
    >>> {level: map.shape for level, map in maps.items()}
    {'P2': (1, 56, 56, 64), 'P3': (1, 28, 28, 64), 'P4': (1, 14, 14, 64)}

    Args:
      min_level: the finest level, of stride 2^min_level.
      max_level: the coarsest level.
      num_filters: channels of every merged and every output map.
      fusion_type: "sum" adds lateral and upsampled map; "concat" stacks them and brings them back to `num_filters` by a
        learned 1x1 convolution (of which the sum is the special case of two stacked identities).
    """

    def __init__(
        self, min_level: int = 2, max_level: int = 5, num_filters: int = 256, fusion_type: FusionType = "sum", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if min_level > max_level:
            raise ValueError(f"min_level {min_level} is above max_level {max_level}")
        if fusion_type not in ("sum", "concat"):
            raise ValueError(f"fusion_type must be sum or concat, is {fusion_type}")
        self.min_level = min_level
        self.max_level = max_level
        self.num_filters = num_filters
        self.fusion_type = fusion_type
        self.levels = range(min_level, max_level + 1)
        self.lateral = {f"C{level}": keras.layers.Conv2D(num_filters, 1, name=f"lateral_{level}") for level in self.levels}
        self.fuse = {
            f"P{level}": keras.layers.Conv2D(num_filters, 1, name=f"fuse_{level}")
            for level in self.levels[:-1]
            if fusion_type == "concat"
        }
        self.smooth = {
            f"P{level}": keras.layers.Conv2D(num_filters, 3, padding="same", name=f"smooth_{level}") for level in self.levels
        }

    def build(self, input_shape: dict[str, tuple[int | None, ...]]) -> None:
        missing = [f"C{level}" for level in self.levels if f"C{level}" not in input_shape]
        if missing:
            raise ValueError(f"the pyramid needs {', '.join(missing)}, but was given {', '.join(input_shape)}")
        for level in self.levels:
            shape = tuple(input_shape[f"C{level}"])
            self.lateral[f"C{level}"].build(shape)
            self.smooth[f"P{level}"].build((*shape[:-1], self.num_filters))
            if f"P{level}" in self.fuse:
                self.fuse[f"P{level}"].build((*shape[:-1], 2 * self.num_filters))
        self.built = True

    def call(self, inputs: dict[str, keras.KerasTensor]) -> dict[str, keras.KerasTensor]:
        """{"C2": [N, H/4, W/4, c2], ...} to {"P2": [N, H/4, W/4, num_filters], ...}; any size of maps."""
        outputs = {}
        merged = None
        for level in reversed(self.levels):
            lateral = self.lateral[f"C{level}"](inputs[f"C{level}"])
            if merged is None:
                merged = lateral
            else:
                upsampled = _upsample(merged, size=keras.ops.shape(lateral)[1:3])
                if self.fusion_type == "sum":
                    merged = lateral + upsampled
                else:
                    merged = self.fuse[f"P{level}"](keras.ops.concatenate([lateral, upsampled], axis=-1))
            outputs[f"P{level}"] = self.smooth[f"P{level}"](merged)
        return {f"P{level}": outputs[f"P{level}"] for level in self.levels}

    def compute_output_shape(self, input_shape: dict[str, tuple[int | None, ...]]) -> dict[str, tuple[int | None, ...]]:
        return {f"P{level}": (*input_shape[f"C{level}"][:-1], self.num_filters) for level in self.levels}

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "min_level": self.min_level,
            "max_level": self.max_level,
            "num_filters": self.num_filters,
            "fusion_type": self.fusion_type,
        }


def build_classifier(
    *,
    image_shape: tuple[int, int, int],
    num_classes: int,
    channel_mean: list[float],
    channel_variance: list[float],
    backbone: str,
    weights: str,
    min_level: int,
    max_level: int,
    num_filters: int,
    fusion_type: FusionType | Literal["none"],
    dropout: float,
) -> keras.Model:
    """Builds the classifier: scaling, backbone, pyramid, a head on every level, and the mean of the heads' answers.

    Args:
      image_shape: (height, width, channels).
      num_classes: two or more.
      channel_mean: mean of each channel over the training split, 0..255; used by backbones without a scaling of their own.
      channel_variance: the variance likewise.
      backbone: a key of `models.backbones.BACKBONES`.
      weights: as in `build_backbone`.
      min_level: the pyramid's finest level.
      max_level: the coarsest level.
      num_filters: channels of the pyramid.
      fusion_type: as in `FeaturePyramid`; "none" leaves the pyramid out and puts one head on the map C<max_level>.
      dropout: share of the pooled features that training drops before each head, 0..1.

    Returns:
      A model from uint8 [N, *image_shape] to logits float32 [N, num_classes].
    """
    spec = BACKBONES[backbone]
    inputs = keras.Input(image_shape, dtype="uint8", name="image")
    x = keras.layers.Rescaling(1.0, name="to_float")(inputs)
    if spec.channels == 3 and image_shape[-1] == 1:
        x = keras.layers.Concatenate(name="grey_to_rgb")([x, x, x])
    if spec.scale is None:
        x = keras.layers.Normalization(mean=channel_mean, variance=channel_variance, name="scale")(x)
    else:
        x = spec.scale(x)
    if fusion_type == "none":
        levels = build_backbone(backbone, weights, tuple(x.shape[1:]), max_level, max_level)(x)
    else:
        maps = build_backbone(backbone, weights, tuple(x.shape[1:]), min_level, max_level)(x)
        levels = FeaturePyramid(min_level, max_level, num_filters, fusion_type, name="pyramid")(maps)

    answers = []
    for name, level in levels.items():
        # Without this non-linearity pyramid, pooling and head would be one linear map of the backbone's pooled features.
        level = keras.layers.ReLU(name=f"relu_{name}")(level)
        pooled = keras.layers.GlobalAveragePooling2D(name=f"pool_{name}")(level)
        pooled = keras.layers.Dropout(dropout, name=f"dropout_{name}")(pooled)
        # The logits stay float32 under mixed precision: softmax and loss need the range.
        answers.append(keras.layers.Dense(num_classes, dtype="float32", name=f"head_{name}")(pooled))
    logits = keras.layers.Average(name="logits", dtype="float32")(answers) if len(answers) > 1 else answers[0]
    return keras.Model(inputs, logits, name="classifier")
