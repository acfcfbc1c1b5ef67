"""How large and how fast is the classifier on each backbone? Parameters, multiply-adds, and images per second on this machine.

    .venv/bin/python -m benchmarks.backbones
    .venv/bin/python -m benchmarks.backbones --backbones resnet50 mobilenet_v2

Each backbone is measured in a process of its own: first alone, then with the default pyramid over its levels, each as a
classifier for 10 classes at 224x224x3 with random weights, in batches of 8. After a warm-up, single steps are timed for about
three seconds, and the median counts: prediction as a TensorFlow function, training as the compiled step of AdamW without XLA.
Memory is the highest of the process so far, which the first classifier has left before the second one is built.

docs/backbones.json is written after every backbone: started again, the benchmark goes on where it stopped. Results of other
code under models/ or of another machine are dropped. docs/model.md gets the table.
"""

import argparse
import gc
import hashlib
import json
import math
import statistics
import time
import typing
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from base.local_files import write_text
from benchmarks.measurement import machine, paragraph, peak_memory, run_apart, table
from models.backbones import BACKBONES
from models.choices import BackboneName
from models.fpn import build_classifier
from pipeline.config.network import ModelConfig
from pipeline.dag.code_digest import code_digest
from pipeline.dag.component_settings import classifier_config

SIDE, CLASSES, BATCH_SIZE = 224, 10, 8
SECONDS = 3.0  # of each measurement, after the warm-up; at least one step
MOST_STEPS = 50


@dataclass(frozen=True)
class Classifier:
    """Its size, images per second, and the highest memory of the process in bytes."""

    parameters: int
    multiply_adds: int
    predict_rate: float
    train_rate: float
    memory: int


@dataclass(frozen=True)
class Result:
    """One backbone, alone and with a pyramid; `digest` is of the code and settings that it depends on."""

    backbone: str
    machine: str
    digest: str
    alone: Classifier
    pyramid: Classifier


def multiply_adds(model: keras.Model) -> int:
    """Counts the multiplications, each with its addition, of all convolutions and dense layers for one image.

    Each kernel is used once at each position of its layer's output.

    Args:
      model: of channels-last layers, built for one size of images.
    """
    convolutions = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D)
    layers = [layer for layer in model._flatten_layers() if isinstance(layer, (*convolutions, keras.layers.Dense))]
    total = 0

    def counted(layer: Any) -> Callable[..., Any]:
        call, size = layer.call, sum(math.prod(weight.shape) for weight in layer.weights if len(weight.shape) > 1)

        def call_and_count(inputs: Any, **options: Any) -> Any:
            nonlocal total
            output = call(inputs, **options)
            total += math.prod(output.shape[1:-1]) * size
            return output

        return call_and_count

    for layer in layers:
        layer.call = counted(layer)
    try:
        model(keras.ops.zeros((1, *model.input_shape[1:])), training=False)
    finally:
        for layer in layers:
            del layer.call
    return total


def rate(step: Callable[[], Any]) -> float:
    """Images a second of the median step."""
    for _ in range(2):
        step()
    times: list[float] = []
    start = time.perf_counter()
    while not times or (time.perf_counter() - start < SECONDS and len(times) < MOST_STEPS):
        before = time.perf_counter()
        step()
        times.append(time.perf_counter() - before)
    return BATCH_SIZE / statistics.median(times)


def settings(name: str, alone: bool) -> ModelConfig:
    levels = [feature.level for feature in BACKBONES[name].features]
    section = {"backbone": name, "max_level": levels[-1], **({"fusion_type": "none"} if alone else {})}
    return ModelConfig.model_validate(section)


def measure(name: str) -> Result:
    """Measures the classifiers on a backbone."""
    return Result(
        name, machine(), digest(name), measure_classifier(settings(name, True)), measure_classifier(settings(name, False))
    )


def measure_classifier(config: ModelConfig) -> Classifier:
    gc.collect()  # of what the classifier before has left
    model = build_classifier(
        classifier_config(config),
        image_shape=(SIDE, SIDE, 3),
        num_classes=CLASSES,
        channel_mean=[127.5] * 3,
        channel_variance=[64.0**2] * 3,
    )
    random = np.random.default_rng(0)
    images = tf.constant(random.integers(0, 256, (BATCH_SIZE, SIDE, SIDE, 3), dtype=np.uint8))
    labels = tf.one_hot(random.integers(0, CLASSES, BATCH_SIZE), CLASSES)
    counted = multiply_adds(model)

    predict = tf.function(lambda batch: model(batch, training=False))
    predict_rate = rate(lambda: predict(images).numpy())
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(1e-4), loss, jit_compile=False)
    train_rate = rate(lambda: model.train_on_batch(images, labels))
    return Classifier(model.count_params(), counted, predict_rate, train_rate, peak_memory())


def digest(name: str) -> str:
    """Of the code and settings that the figures depend on."""
    text = code_digest("models.fpn") + settings(name, True).model_dump_json() + settings(name, False).model_dump_json()
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def result(stored: dict[str, Any]) -> Result:
    """From what `asdict` made of it."""
    return Result(**{**stored, **{key: Classifier(**stored[key]) for key in ("alone", "pyramid")}})


def section(results: list[Result]) -> str:
    """The section of docs/model.md."""
    text = (
        f"The classifier is for {CLASSES} classes at {SIDE}x{SIDE}x3, with the default pyramid over its levels; "
        "in brackets, with the backbone alone. Multiply-adds are for one image. Images per second are for batches of "
        f"{BATCH_SIZE}, on {results[0].machine}. A training step with the pyramid takes as many times longer as the column "
        "`step` says. Memory is the highest of the process that trains. Made by `benchmarks/backbones.py`, which measures "
        "again what has changed."
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
                f"{alone.train_rate / full.train_rate:.2f}",
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
    parser.add_argument("--backbones", nargs="+", choices=names, default=list(names), metavar="NAME", help="all if not given")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="folder for what is written (docs)")
    parser.add_argument("--measure", choices=names, help=argparse.SUPPRESS)  # what each process is started with
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(asdict(measure(options.measure))))
        return
    results = read_results(options.docs / "backbones.json")
    missing = [name for name in options.backbones if name not in results]
    for number, name in enumerate(missing, start=1):
        print(f"[{number}/{len(missing)}] {name}", flush=True)
        results[name] = result(run_apart("-m", "benchmarks.backbones", "--measure", name).result)
        ordered = [results[name] for name in names if name in results]
        write_text(options.docs / "backbones.json", json.dumps([asdict(item) for item in ordered], indent=1) + "\n")
    text = section([results[name] for name in names if name in results])
    write_section(options.docs / "model.md", "backbones", text)
    print(text)


if __name__ == "__main__":
    main()
