"""The configurations of published networks: they load, and build what was published."""

from dataclasses import replace
from pathlib import Path

import keras
import pytest

from models.fpn import build_classifier
from pipeline.config.loading import load_config
from pipeline.dag.component_settings import classifier_config

CONFIGS = Path(__file__).parents[3] / "configs"


def build(name):
    config = load_config(CONFIGS / f"{name}.yaml")
    image = config.image
    with keras.StatelessScope(initialize_variables=False):
        return build_classifier(
            replace(classifier_config(config.model), weights="none", grey_input="repeat"),
            image_shape=(image.height, image.width, image.channels),
            num_classes=3,
            channel_mean=[0.0] * image.channels,
            channel_variance=[1.0] * image.channels,
        )


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_configuration_is_valid(path):
    assert load_config(path).name.replace("-", "_") == path.stem


@pytest.mark.parametrize(
    ("name", "maps", "heads"),
    [
        ("lin2017", {"P2": 56, "P3": 28, "P4": 14, "P5": 7}, ["head"]),
        ("fpn_tensorflow", {"P3": 44, "P4": 22, "P5": 11}, ["head_P3", "head_P4", "head_P5"]),
        (
            "covid_ctset",
            {"P3": 64, "P4": 32, "P5": 16, "P6": 8, "P7": 4},
            ["head_P3", "head_P4", "head_P5", "head_P6", "head_P7"],
        ),
    ],
)
def test_presets_have_the_published_levels_and_heads(name, maps, heads):
    model = build(name)
    pyramid = model.get_layer("pyramid")
    shapes = [tuple(output.shape[1:]) for output in pyramid.output]
    assert dict(zip((f"P{level}" for level in pyramid.levels), shapes, strict=True)) == {
        level: (side, side, 256) for level, side in maps.items()
    }
    assert [layer.name for layer in model.layers if layer.name.startswith("head")] == heads
