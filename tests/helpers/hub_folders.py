"""Folders of pretrained networks as transformers and timm write them, with weights from a seed.

    python tests/helpers/hub_folders.py FILE

writes what the networks of those packages themselves give for the folders, in an environment with torch, timm and transformers.
"""

import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
DINOV2 = {
    "model_type": "dinov2",
    "architectures": ["Dinov2Model"],
    "attention_probs_dropout_prob": 0.0,
    "drop_path_rate": 0.0,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.0,
    "hidden_size": 24,
    "image_size": 70,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-06,
    "layerscale_value": 1.0,
    "mlp_ratio": 2,
    "num_attention_heads": 3,
    "num_channels": 3,
    "num_hidden_layers": 2,
    "patch_size": 14,
    "qkv_bias": True,
    "use_swiglu_ffn": False,
}
RESNET = {
    "architecture": "resnet18",
    "num_classes": 0,
    "num_features": 512,
    "pretrained_cfg": {"input_size": [3, 224, 224], "interpolation": "bilinear", "mean": MEAN, "std": STD},
}


def picture(side: int) -> np.ndarray:
    """uint8 [side, side, 3]: waves of another length and direction in each channel, so that no two places are alike."""
    y, x = np.mgrid[:side, :side] / 10
    waves = [np.sin(x + 0.3 * y), np.sin(0.5 * x - y) * np.cos(0.2 * y), np.cos(0.1 * x * y)]
    return (127.5 + 127 * np.stack(waves, axis=-1)).astype(np.uint8)


def write_dinov2(folder: Path) -> Path:
    width, layers, inner = 24, 2, 48
    shapes = {
        "embeddings.cls_token": (1, 1, width),
        "embeddings.mask_token": (1, width),
        "embeddings.position_embeddings": (1, 26, width),
        "embeddings.patch_embeddings.projection.weight": (width, 3, 14, 14),
        "embeddings.patch_embeddings.projection.bias": (width,),
        **_pair("layernorm", (width,)),
    }
    for layer in range(layers):
        name = f"encoder.layer.{layer}"
        for part in (
            "attention.attention.query",
            "attention.attention.key",
            "attention.attention.value",
            "attention.output.dense",
        ):
            shapes |= _pair(f"{name}.{part}", (width, width))
        shapes |= _pair(f"{name}.mlp.fc1", (inner, width)) | _pair(f"{name}.mlp.fc2", (width, inner))
        for number in (1, 2):
            shapes |= _pair(f"{name}.norm{number}", (width,)) | {f"{name}.layer_scale{number}.lambda1": (width,)}
    preprocessing = {
        "image_processor_type": "BitImageProcessor",
        "do_rescale": True,
        "do_normalize": True,
        "rescale_factor": 1 / 255,
        "image_mean": MEAN,
        "image_std": STD,
        "size": {"shortest_edge": 80},
        "crop_size": {"height": 70, "width": 70},
        "resample": 3,
    }
    _write(folder, DINOV2, shapes)
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing))
    return folder


def write_timm_resnet(folder: Path) -> Path:
    shapes = {"conv1.weight": (64, 3, 7, 7), **_norm("bn1", 64)}
    before = 64
    for stage, width in enumerate((64, 128, 256, 512), start=1):
        for block in range(2):
            name = f"layer{stage}.{block}"
            shapes |= {f"{name}.conv1.weight": (width, before, 3, 3), **_norm(f"{name}.bn1", width)}
            shapes |= {f"{name}.conv2.weight": (width, width, 3, 3), **_norm(f"{name}.bn2", width)}
            if before != width:
                shapes |= {f"{name}.downsample.0.weight": (width, before, 1, 1), **_norm(f"{name}.downsample.1", width)}
            before = width
    _write(folder, RESNET, shapes)
    return folder


def _pair(name: str, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def _norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.{part}": (width,) for part in ("weight", "bias", "running_mean", "running_var")}


def _write(folder: Path, config: dict[str, object], shapes: dict[str, tuple[int, ...]]) -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    random = np.random.default_rng(0)
    tensors = {}
    for name, shape in shapes.items():
        spread = 1 / np.sqrt(np.prod(shape[1:])) if len(shape) > 1 else 0.1
        is_scale = name.endswith("weight") and ("norm" in name or "bn" in name or ".downsample.1" in name)
        around = 1.0 if is_scale or name.endswith("running_var") else 0.0
        value = around + spread * random.normal(size=shape)
        tensors[name] = np.abs(value).astype(np.float32) if name.endswith("running_var") else value.astype(np.float32)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _features() -> Iterator[tuple[str, list[list[float]]]]:
    """Channels of the first and of the last cell of each network's last map, the first eight."""
    import timm
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModel

    def of(
        write: Callable[[Path], Path], side: int, last_map: Callable[[str, "torch.Tensor"], "torch.Tensor"]
    ) -> list[list[float]]:
        with tempfile.TemporaryDirectory() as parent, torch.no_grad():
            folder = write(Path(parent) / "folder")
            scaled = (picture(side) / 255 - MEAN) / STD
            found = last_map(str(folder), torch.tensor(scaled.transpose(2, 0, 1)[None], dtype=torch.float32))
        return [cell[:8].tolist() for cell in (found[0, 0], found[-1, -1])]

    def dinov2(folder: str, image: "torch.Tensor") -> "torch.Tensor":
        image = torch.nn.functional.interpolate(image, scale_factor=14 / 16, mode="bilinear")  # a patch for each 16 pixels
        tokens = AutoModel.from_pretrained(folder).eval()(pixel_values=image).last_hidden_state[0, 1:]
        side = round(len(tokens) ** 0.5)
        return tokens.reshape(side, side, -1)

    def resnet(folder: str, image: "torch.Tensor") -> "torch.Tensor":
        network = timm.create_model("resnet18", num_classes=0).eval()
        network.load_state_dict(load_file(f"{folder}/model.safetensors"), strict=False)
        return network.forward_features(image)[0].permute(1, 2, 0)

    yield "dinov2, 80 px", of(write_dinov2, 80, dinov2)
    yield "dinov2, 128 px", of(write_dinov2, 128, dinov2)
    yield "resnet, 96 px", of(write_timm_resnet, 96, resnet)
    yield "resnet, 97 px", of(write_timm_resnet, 97, resnet)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(dict(_features()), indent=1) + "\n")
