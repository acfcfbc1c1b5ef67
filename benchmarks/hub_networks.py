"""Networks of keras-hub at the size of a published preset, one of each family: folders of a config.json, without weights."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import keras

from base.local_files import write_text

_IMAGE: Final = (224, 224, 3)
FOLDER: Final = Path("output/benchmark_data/hub")


def _siglip(models: Any) -> keras.Model:
    """Its text encoder, which the classifier leaves out, is as small as can be."""
    image = models.SigLIPVisionEncoder(16, 768, 12, 12, 3072, image_shape=_IMAGE)
    text = models.SigLIPTextEncoder(16, 768, 768, 1, 1, 8, max_sequence_length=8)
    return models.SigLIPBackbone(image, text)


EFFICIENTNET_B0: Final[dict[str, Any]] = {
    "stackwise_kernel_sizes": [3, 3, 5, 3, 5, 5, 3],
    "stackwise_num_repeats": [1, 2, 2, 3, 3, 4, 1],
    "stackwise_input_filters": [32, 16, 24, 40, 80, 112, 192],
    "stackwise_output_filters": [16, 24, 40, 80, 112, 192, 320],
    "stackwise_expansion_ratios": [1, 6, 6, 6, 6, 6, 6],
    "stackwise_squeeze_and_excite_ratios": [0.25] * 7,
    "stackwise_strides": [1, 2, 2, 2, 1, 2, 1],
    "stackwise_block_types": ["v1"] * 7,
    "stackwise_width_coefficients": [1.0] * 7,
    "stackwise_depth_coefficients": [1.0] * 7,
}
_MIT_B0: Final[dict[str, Any]] = {
    "layerwise_depths": [2] * 4,
    "num_layers": 4,
    "layerwise_num_heads": [1, 2, 5, 8],
    "layerwise_sr_ratios": [8, 4, 2, 1],
    "max_drop_path_rate": 0.1,
    "layerwise_patch_sizes": [7, 3, 3, 3],
    "layerwise_strides": [4, 2, 2, 2],
    "hidden_dims": [32, 64, 160, 256],
    "image_shape": _IMAGE,
}
NETWORKS: Final[dict[str, Callable[[Any], keras.Model]]] = {
    "ResNet-50": lambda models: models.ResNetBackbone(
        [64], [7], [64, 128, 256, 512], [3, 4, 6, 3], [1, 2, 2, 2], "bottleneck_block", image_shape=_IMAGE
    ),
    "EfficientNet-B0": lambda models: models.EfficientNetBackbone(**EFFICIENTNET_B0, input_shape=_IMAGE),
    "DenseNet-121": lambda models: models.DenseNetBackbone([6, 12, 24, 16], image_shape=_IMAGE),
    "CSPDarknet-53": lambda models: models.CSPNetBackbone(
        32,
        3,
        1,
        [1, 2, 8, 8, 4],
        [2] * 5,
        [64, 128, 256, 512, 1024],
        "dark_block",
        stage_type="csp",
        expand_ratio=[2.0] + [1.0] * 4,
        bottle_ratio=[0.5] + [1.0] * 4,
        block_ratio=[1.0] + [0.5] * 4,
        down_growth=True,
        image_shape=_IMAGE,
    ),
    "MiT-B0": lambda models: models.MiTBackbone(**_MIT_B0),
    "ViT-B/16": lambda models: models.ViTBackbone(_IMAGE, (16, 16), 12, 12, 768, 3072),
    "DINOv2-S/14": lambda models: models.DINOV2Backbone(14, 12, 384, 6, 1536, apply_layernorm=True),
    "DINOv3-S/16": lambda models: models.DINOV3Backbone(16, 12, 384, 6, 1536, image_shape=_IMAGE, apply_layernorm=True),
    "SigLIP-B/16": _siglip,
}


def folder_of(name: str) -> Path:
    """The folder of the architecture's config.json, for `model.backbone: hub:FOLDER`."""
    return FOLDER / name.replace("/", "-")


def write_network(name: str) -> None:
    """Writes the config.json, as a preset has it."""
    import keras_hub  # an extra of the project

    config = keras.saving.serialize_keras_object(NETWORKS[name](keras_hub.models))
    folder_of(name).mkdir(parents=True, exist_ok=True)
    write_text(folder_of(name) / "config.json", json.dumps(config, indent=1) + "\n")
