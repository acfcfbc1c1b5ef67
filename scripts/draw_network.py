"""Draws the network of a configuration, from the model itself: docs/images/network.png for configs/lin2017.yaml."""

import argparse
import re
import textwrap
from dataclasses import replace
from pathlib import Path

import keras
import matplotlib.pyplot as plt

from models.fpn import FeaturePyramid, build_classifier
from pipeline.config.loading import load_config
from pipeline.dag.component_settings import classifier_config

_COLOURS = {"C": "#dbe4f0", "merge": "#fdf1d8", "P": "#d9ecdc", "head": "#f3dede"}
_COLUMNS = {"C": 0.0, "merge": 2.1, "P": 3.75, "head": 5.45, "logits": 7.2}


class _Canvas:
    def __init__(self, axis: plt.Axes) -> None:
        self._axis = axis

    def box(self, column: str, row: float, text: str, colour: str, width: float = 1.0, height: float = 0.62) -> None:
        x = _COLUMNS[column]
        patch = plt.Rectangle((x - width / 2, row - height / 2), width, height, facecolor=colour, edgecolor="#555", lw=0.8)
        self._axis.add_patch(patch)
        self._axis.text(x, row, text, ha="center", va="center", fontsize=8.5)

    def arrow(self, start: tuple[float, float], end: tuple[float, float], text: str = "", bend: float = 0.0) -> None:
        style = {"arrowstyle": "-|>", "color": "#333", "lw": 0.9, "connectionstyle": f"arc3,rad={bend}"}
        self._axis.annotate("", end, start, arrowprops=style)
        if text:
            x, y = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
            offset = (0.06, 0) if start[0] == end[0] else (0, 0.1)
            self._axis.text(x + offset[0], y + offset[1], text, ha="left" if offset[0] else "center", va="center", fontsize=7.5)


def _kind(convolution: keras.Sequential) -> str:
    kernel = convolution.layers[0].kernel_size[0]
    return f"{kernel}x{kernel} conv" + ("".join(f", {layer.name.split('_')[0]} norm" for layer in convolution.layers[1:]))


def draw(model: keras.Model, title: str, path: Path) -> None:
    """Draws backbone maps, pyramid, heads and answer, each with its shape and number of weights.

    Args:
      model: of `build_classifier`, with a pyramid that merges by sum or concat.
      title: what stands above.
      path: of the picture.
    """
    pyramid: FeaturePyramid = model.get_layer("pyramid")
    backbone: keras.Model = model.get_layer("backbone")
    heads = [layer for layer in model.layers if layer.name.startswith("head")]
    figure, axis = plt.subplots(figsize=(10.5, 1.2 + 1.05 * len(pyramid.levels)), layout="constrained")
    canvas = _Canvas(axis)
    rows = {level: 1.15 * (level - pyramid.min_level) for level in pyramid.levels}
    maps = backbone.output
    outputs = dict(zip((f"P{level}" for level in pyramid.levels), pyramid.output, strict=True))

    def size(tensor: keras.KerasTensor) -> str:
        return " x ".join(str(side) for side in tensor.shape[1:])

    given = [level for level in pyramid.levels if f"C{level}" in pyramid.lateral]
    for level in pyramid.levels:
        row = rows[level]
        canvas.box("P", row, f"P{level}\n{size(outputs[f'P{level}'])}", _COLOURS["P"], width=1.25)
        shared = len(heads) == 1
        head = heads[0] if shared else heads[level - pyramid.min_level]
        layers = [*(layer for layer in model.layers if layer.name == f"relu_P{level}"), *head.layers]
        kinds = [type(layer).__name__.removeprefix("Global").removesuffix("2D") for layer in layers]
        steps = textwrap.fill(", ".join(re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", " ", kind) for kind in kinds), 26)
        name = "shared head" if shared else f"head P{level}"
        canvas.box("head", row, f"{name}\n{steps.lower().replace('relu', 'ReLU')}", _COLOURS["head"], width=1.6, height=0.8)
        canvas.arrow((_COLUMNS["P"] + 0.63, row), (_COLUMNS["head"] - 0.8, row))
        middle = (rows[pyramid.min_level] + rows[pyramid.max_level]) / 2
        canvas.arrow((_COLUMNS["head"] + 0.8, row), (_COLUMNS["logits"] - 0.52, middle))
        if level not in given:
            kind = _kind(pyramid.coarse[f"P{level}"]) if pyramid.coarse else "subsampling"
            canvas.arrow((_COLUMNS["P"], row - 0.84), (_COLUMNS["P"], row - 0.31), f"{kind}, stride 2")
            continue
        canvas.box("C", row, f"C{level}\n{size(maps[f'C{level}'])}", _COLOURS["C"], width=1.25)
        merge = (
            "+" if pyramid.fusion_type == "sum" else f"concat,\n{_kind(pyramid.fuse[f'P{level}'])}" if level < given[-1] else ""
        )
        canvas.box("merge", row, merge if level < given[-1] else "start", _COLOURS["merge"], width=0.8, height=0.45)
        canvas.arrow((0.63, row), (_COLUMNS["merge"] - 0.4, row), _kind(pyramid.lateral[f"C{level}"]))
        canvas.arrow((_COLUMNS["merge"] + 0.4, row), (_COLUMNS["P"] - 0.63, row), _kind(pyramid.smooth[f"P{level}"]))
        if level != given[-1]:
            canvas.arrow((_COLUMNS["merge"], rows[level + 1] - 0.23), (_COLUMNS["merge"], row + 0.23), "2x up")
            canvas.arrow((0, row + 0.31), (0, rows[level + 1] - 0.31))
    canvas.box("logits", middle, f"{model.layers[-1].name}\n{size(model.output)}", "#eee")
    bottom = rows[pyramid.min_level]
    image = f"{model.input.dtype} image {size(model.input)}, scaled inside"
    axis.text(0, bottom - 0.78, image, ha="center", va="center", fontsize=8.5)
    canvas.arrow((0, bottom - 0.68), (0, bottom - 0.31))
    of = {"backbone": backbone.count_params(), "pyramid": pyramid.count_params(), "all": model.count_params()}
    weights = ", ".join(f"{name} {count / 1e6:.2f} M" for name, count in of.items())
    axis.set_title(f"{title}\nweights: {weights}", fontsize=10)
    axis.set_xlim(-1.3, _COLUMNS["logits"] + 0.6)
    axis.set_ylim(bottom - 1.0, rows[pyramid.max_level] + 0.55)
    axis.axis("off")
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("configs/lin2017.yaml"))
    parser.add_argument("--output", type=Path, default=Path("docs/images/network.png"))
    options = parser.parse_args()
    config = load_config(options.config)
    image = config.image
    model = build_classifier(
        replace(classifier_config(config.model), weights="none"),
        image_shape=(image.height, image.width, image.channels),
        num_classes=10,
        channel_mean=[0.0] * image.channels,
        channel_variance=[1.0] * image.channels,
    )
    draw(model, f"{config.model.backbone} with a Feature Pyramid ({options.config.name}), 10 classes", options.output)


if __name__ == "__main__":
    main()
