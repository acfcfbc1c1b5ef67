"""How large and how fast is the classifier on each backbone? Parameters, multiply-adds, and images per second on this machine.

    .venv/bin/python -m benchmarks.backbones                                   one or two of each family
    .venv/bin/python -m benchmarks.backbones --backbones resnet50 mobilenet_v2
    .venv/bin/python -m benchmarks.backbones --hub                             one of each family of keras-hub

Each backbone is measured alone and with the default pyramid over its levels, each as a classifier for 10 classes at 224x224x3
with random weights, in batches of 8. Steps of the two are timed in turns, because a machine's speed drifts, and the medians
count, as does that of the ratios of the turns: prediction as a TensorFlow function, training as the compiled step of AdamW
without XLA. Memory is the highest of a process that has trained with one of the two and no more.

docs/backbones.json, or docs/hub_backbones.json, is written after every backbone: started again, the benchmark goes on where it
stopped. Results of other code under models/ or of another machine are dropped. docs/model.md gets the table.
"""

import argparse
import hashlib
import inspect
import json
import math
import statistics
import time
import typing
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from base.local_files import write_text
from benchmarks import hub_networks
from benchmarks.measurement import machine, paragraph, peak_memory, run_apart, table
from models.backbones import BACKBONES
from models.choices import BackboneName
from models.fpn import build_classifier
from pipeline.config.network import ModelConfig
from pipeline.dag.code_digest import code_digest
from pipeline.dag.component_settings import classifier_config

SIDE, CLASSES, BATCH_SIZE = 224, 10, 8
WARM_UP = 3  # steps before the timed ones
SECONDS = 8.0  # of a measurement in turns, after the warm-up; at least MIN_TURNS
MIN_TURNS, MAX_TURNS = 7, 50
SHOWN = (  # the default
    "small_resnet10",
    "small_resnet18",
    "resnet50",
    "resnet50_v2",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "efficientnet_lite0",
    "efficientnet_lite2",
    "efficientnet_v2_b0",
    "efficientnet_v2_s",
    "convnext_tiny",
    "densenet121",
    "xception",
)


@dataclass(frozen=True)
class Classifier:
    """Its size, images per second, and the highest memory of its process in bytes."""

    parameters: int
    multiply_adds: int
    predict_rate: float
    train_rate: float
    memory: int


@dataclass(frozen=True)
class Result:
    """One backbone, alone and with a pyramid: a training step of this takes `step_ratio` times as long.

    `digest` is of the code and settings that the figures depend on.
    """

    backbone: str
    machine: str
    digest: str
    alone: Classifier
    pyramid: Classifier
    step_ratio: float


def multiply_adds(model: keras.Model) -> int:
    """Counts the multiplications, each with its addition, of all convolutions and matrix products for one image.

    They are those of the operations of the TensorFlow graph, so the products of attention are among them.

    Args:
      model: of channels-last layers, built for one size of images.

    Raises:
      ValueError: an operation's shapes are not known.
    """
    image = tf.TensorSpec((1, *model.input_shape[1:]), tf.float32)
    was_eager = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)  # so those that layers call become a part of this graph
    try:
        graph = tf.function(partial(model, training=False)).get_concrete_function(image).graph
    finally:
        tf.config.run_functions_eagerly(was_eager)
    return sum(_COUNTED[operation.type](operation) for operation in graph.get_operations() if operation.type in _COUNTED)


def _size(tensor: Any) -> int:
    if not tensor.shape.is_fully_defined():
        raise ValueError(f"{tensor.name}: its shape {tensor.shape} is not known")
    return math.prod(tensor.shape)


def _of_einsum(operation: Any) -> int:
    """As many as there are combinations of the values of all indices."""
    terms = operation.get_attr("equation").decode().split("->")[0].split(",")
    for tensor in operation.inputs:
        _size(tensor)
    lengths = {
        index: n for term, x in zip(terms, operation.inputs, strict=True) for index, n in zip(term, x.shape, strict=True)
    }
    return math.prod(lengths.values())


def _of_product(operation: Any) -> int:
    """[..., m, k] by [..., k, n], transposed or not."""
    first = operation.inputs[0]
    name = "transpose_a" if operation.type == "MatMul" else "adj_x"
    return _size(operation.outputs[0]) * first.shape[-2 if operation.get_attr(name) else -1]


_COUNTED: dict[str, Callable[[Any], int]] = {  # of kernels [height, width, inputs of a group, outputs]
    "Conv2D": lambda of: _size(of.outputs[0]) * _size(of.inputs[1]) // of.inputs[1].shape[-1],
    "DepthwiseConv2dNative": lambda of: _size(of.outputs[0]) * math.prod(of.inputs[1].shape[:2]),
    "Conv2DBackpropInput": lambda of: _size(of.inputs[2]) * _size(of.inputs[1]) // of.inputs[1].shape[-1],
    "MatMul": _of_product,
    "BatchMatMulV2": _of_product,
    "Einsum": _of_einsum,
}


def turns(first: Callable[[], Any], second: Callable[[], Any]) -> tuple[float, float, float]:
    """Images per second of the median step of each, and the median over the turns of how many times longer the second takes."""
    for _ in range(WARM_UP):
        first()
        second()
    times: list[tuple[float, float]] = []
    start = time.perf_counter()
    while len(times) < MIN_TURNS or (time.perf_counter() - start < SECONDS and len(times) < MAX_TURNS):
        times.append((seconds(first), seconds(second)))
    rates = [BATCH_SIZE / statistics.median(column) for column in zip(*times, strict=True)]
    return rates[0], rates[1], statistics.median(after / before for before, after in times)


def seconds(step: Callable[[], Any]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def settings(name: str, alone: bool) -> ModelConfig:
    if name in BACKBONES:
        section = {"backbone": name, "max_level": BACKBONES[name].features[-1].level}
    else:
        section = {"backbone": f"hub:{hub_networks.folder_of(name)}"}
    return ModelConfig.model_validate({**section, **({"fusion_type": "none"} if alone else {})})


def measure(name: str) -> Result:
    """Measures both classifiers on a backbone; their memory in processes of their own."""
    if name in hub_networks.NETWORKS:
        hub_networks.write_network(name)
    memory = [run_apart("-m", "benchmarks.backbones", "--memory", name, fusion).result for fusion in ("none", "sum")]
    models = [build(settings(name, alone)) for alone in (True, False)]
    answers = [tf.function(partial(model, training=False)) for model in models]
    images, labels = batch()
    *predicted, _ = turns(*(lambda answer=answer: answer(images).numpy() for answer in answers))
    *trained, ratio = turns(*(lambda model=model: model.train_on_batch(images, labels) for model in models))
    found = [
        Classifier(model.count_params(), multiply_adds(model), *figures)
        for model, *figures in zip(models, predicted, trained, memory, strict=True)
    ]
    return Result(name, machine(), digest(name), *found, ratio)


def measure_memory(name: str, alone: bool) -> int:
    model, (images, labels) = build(settings(name, alone)), batch()
    for _ in range(WARM_UP):
        model.train_on_batch(images, labels)
    return peak_memory()


def batch() -> tuple[tf.Tensor, tf.Tensor]:
    random = np.random.default_rng(0)
    images = tf.constant(random.integers(0, 256, (BATCH_SIZE, SIDE, SIDE, 3), dtype=np.uint8))
    return images, tf.one_hot(random.integers(0, CLASSES, BATCH_SIZE), CLASSES)


def build(config: ModelConfig) -> keras.Model:
    model = build_classifier(
        classifier_config(config),
        image_shape=(SIDE, SIDE, 3),
        num_classes=CLASSES,
        channel_mean=[127.5] * 3,
        channel_variance=[64.0**2] * 3,
    )
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(1e-4), loss, jit_compile=False)
    return model


def digest(name: str) -> str:
    """Of the code and settings that the figures depend on."""
    text = "" if name in BACKBONES else inspect.getsource(hub_networks)
    text += code_digest("models.fpn") + settings(name, True).model_dump_json() + settings(name, False).model_dump_json()
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def result(stored: dict[str, Any]) -> Result:
    """From what `asdict` made of it."""
    return Result(**{**stored, **{key: Classifier(**stored[key]) for key in ("alone", "pyramid")}})


def section(results: list[Result]) -> str:
    """The section of docs/model.md."""
    if results[0].backbone in BACKBONES:
        text = (
            f"The classifier is for {CLASSES} classes at {SIDE}x{SIDE}x3, with the default pyramid over its levels; in "
            "brackets, with the backbone alone. Multiply-adds are for one image. Images per second are for batches of "
            f"{BATCH_SIZE}, on {results[0].machine}. A training step with the pyramid takes as many times as long as the "
            "column `step` says. Memory is the highest of the process that trains. Made by `benchmarks/backbones.py`, which "
            "measures again what has changed, and other networks with `--backbones`."
        )
    else:
        text = (
            "One of each family with random weights, measured as the table above (its columns are explained there), on "
            f"{results[0].machine}, so the speeds of the two tables can't be compared. Made by `benchmarks/backbones.py --hub`."
        )
    header = ["backbone", "parameters, millions", "multiply-adds, billions", "predicted images/s", "trained images/s", "step"]
    rows = []
    for item in results:
        full, alone = item.pyramid, item.alone
        rows.append(
            [
                item.backbone,
                f"{full.parameters / 1e6:.1f} ({alone.parameters / 1e6:.1f})",
                f"{full.multiply_adds / 1e9:.2f} ({alone.multiply_adds / 1e9:.2f})",
                f"{full.predict_rate:.1f} ({alone.predict_rate:.1f})",
                f"{full.train_rate:.1f} ({alone.train_rate:.1f})",
                f"{item.step_ratio:.2f}",
                f"{full.memory / 2**30:.2f} ({alone.memory / 2**30:.2f})",
            ]
        )
    return f"{paragraph(text)}\n\n{table([*header, 'memory, GiB'], rows)}\n"


def write_section(page: Path, name: str, text: str) -> None:
    """Puts the section between its two marks in the page."""
    before, mark, rest = page.read_text().partition(f"<!-- {name} -->\n")
    _, end, after = rest.partition(f"<!-- end of {name} -->")
    if not mark or not end:
        raise SystemExit(f"{page}: has no marks for the section of the {name}")
    write_text(page, before + mark + text + end + after)


def read_results(path: Path) -> dict[str, Result]:
    """The results so far, without those of other code or of another machine."""
    stored = [result(item) for item in json.loads(path.read_text())] if path.exists() else []
    current = {item.backbone: item for item in stored if (item.digest, item.machine) == (digest(item.backbone), machine())}
    if len(current) < len(stored):
        print(f"{path}: {len(stored) - len(current)} results of other code or of another machine dropped")
    return current


def main() -> None:
    names = typing.get_args(BackboneName)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--backbones", nargs="+", choices=names, default=SHOWN, metavar="NAME", help="one or two of each family"
    )
    parser.add_argument("--hub", action="store_true", help="those of keras-hub instead")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="folder for what is written (docs)")
    parser.add_argument("--measure", help=argparse.SUPPRESS)  # what each process is started with
    parser.add_argument("--memory", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(asdict(measure(options.measure))))
        return
    if options.memory:
        name, fusion = options.memory
        print(measure_memory(name, fusion == "none"))
        return
    known, wanted, kind = (
        (hub_networks.NETWORKS, hub_networks.NETWORKS, "hub_backbones")
        if options.hub
        else (names, options.backbones, "backbones")
    )
    stored = options.docs / f"{kind}.json"
    results = read_results(stored)
    missing = [name for name in wanted if name not in results]
    for number, name in enumerate(missing, start=1):
        print(f"[{number}/{len(missing)}] {name}", flush=True)
        results[name] = result(run_apart("-m", "benchmarks.backbones", "--measure", name).result)
        ordered = [results[name] for name in known if name in results]
        write_text(stored, json.dumps([asdict(item) for item in ordered], indent=1) + "\n")
    text = section([results[name] for name in known if name in results])
    write_section(options.docs / "model.md", kind, text)
    print(text)


if __name__ == "__main__":
    main()
