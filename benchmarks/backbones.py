"""How large and how fast is the classifier on each backbone? Parameters, multiply-adds, and images per second on this machine.

    .venv/bin/python -m benchmarks.backbones
    .venv/bin/python -m benchmarks.backbones --backbones resnet50 mobilenet_v2

Each backbone is measured in a process of its own: the classifier for 10 classes at 224x224x3 with a pyramid (sum, 256 filters)
over the strides 8 to 32, random weights, batches of 8. After a warm-up, single steps are timed for about three seconds, and the
median counts: prediction as a TensorFlow function, training as the compiled step of AdamW without XLA.

docs/backbones.json is written after every backbone: started again, the benchmark goes on where it stopped. Results of other
code under models/ or of another machine are dropped. docs/model.md gets the table.
"""

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
import typing
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from base.local_files import write_text
from benchmarks.measurement import paragraph
from models.choices import BackboneName
from pipeline.dag.code_digest import code_digest

if typing.TYPE_CHECKING:
    import keras

SIDE, CLASSES, BATCH_SIZE, FINEST_LEVEL = 224, 10, 8, 3
SECONDS = 3.0  # of each measurement, after the warm-up; at least one step
MOST_STEPS = 50


@dataclass(frozen=True)
class Result:
    """One backbone; `digest` is of the code that it depends on, rates are in images per second."""

    backbone: str
    machine: str
    digest: str
    parameters: int
    backbone_parameters: int
    multiply_adds: int
    backbone_multiply_adds: int
    predict_rate: float
    train_rate: float


def machine() -> str:
    """Processor and number of cores that this process may use."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    cores = len(os.sched_getaffinity(0))
    return f"{cores} core{'s' if cores > 1 else ''} of {names[0] if names else platform.machine()}"


def multiply_adds(model: "keras.Model") -> int:
    """Counts the multiplications, each with its addition, of all convolutions and dense layers for one image.

    Each kernel is used once at each position of its layer's output.

    Args:
      model: of channels-last layers, built for one size of images.
    """
    import keras

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


def measure(name: str) -> Result:
    """Builds the classifier on a backbone and measures it."""
    import keras
    import numpy as np
    import tensorflow as tf

    from models.backbones import BACKBONES
    from models.fpn import build_classifier
    from pipeline.config.network import ModelConfig
    from pipeline.dag.component_settings import classifier_config

    levels = [feature.level for feature in BACKBONES[name].features]
    section = {"backbone": name, "min_level": max(FINEST_LEVEL, levels[0]), "max_level": levels[-1]}
    model = build_classifier(
        classifier_config(ModelConfig.model_validate(section)),
        image_shape=(SIDE, SIDE, 3),
        num_classes=CLASSES,
        channel_mean=[127.5] * 3,
        channel_variance=[64.0**2] * 3,
    )
    backbone = model.get_layer("backbone")
    random = np.random.default_rng(0)
    images = tf.constant(random.integers(0, 256, (BATCH_SIZE, SIDE, SIDE, 3), dtype=np.uint8))
    labels = tf.one_hot(random.integers(0, CLASSES, BATCH_SIZE), CLASSES)
    counted = multiply_adds(model), multiply_adds(backbone)

    predict = tf.function(lambda batch: model(batch, training=False))
    predict_rate = rate(lambda: predict(images).numpy())
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(1e-4), loss, jit_compile=False)
    train_rate = rate(lambda: model.train_on_batch(images, labels))
    return Result(
        backbone=name,
        machine=machine(),
        digest=digest(),
        parameters=model.count_params(),
        backbone_parameters=backbone.count_params(),
        multiply_adds=counted[0],
        backbone_multiply_adds=counted[1],
        predict_rate=predict_rate,
        train_rate=train_rate,
    )


def digest() -> str:
    """Of the code that the figures depend on."""
    return code_digest("models.fpn")[:16]


def measure_apart(name: str) -> Result:
    """`measure` in a process of its own: memory and graphs of one backbone do not weigh on the next.

    Raises:
      SystemExit: it has failed; it has said why.
    """
    command = [sys.executable, "-m", "benchmarks.backbones", "--measure", name]
    root = str(Path(__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root, "TF_CPP_MIN_LOG_LEVEL": "2"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name} could not be measured")
    return Result(**json.loads(done.stdout.splitlines()[-1]))


def section(results: list[Result]) -> str:
    """The section of docs/model.md."""
    text = (
        f"The classifier is for {CLASSES} classes at {SIDE}x{SIDE}x3, with a pyramid (sum, 256 filters) over the strides "
        f"{2**FINEST_LEVEL} to 32. The backbone's part is in brackets. Multiply-adds are for one image. Images per second "
        f"are for batches of {BATCH_SIZE}, on {results[0].machine}. Made by `benchmarks/backbones.py`, which measures again "
        "what has changed."
    )
    lines = [
        paragraph(text),
        "",
        "| backbone | parameters, millions | multiply-adds, billions | predicted images/s | trained images/s |",
        "| --- | --- | --- | --- | --- |",
    ]
    for item in results:
        cells = (
            item.backbone,
            f"{item.parameters / 1e6:.1f} ({item.backbone_parameters / 1e6:.1f})",
            f"{item.multiply_adds / 1e9:.2f} ({item.backbone_multiply_adds / 1e9:.2f})",
            f"{item.predict_rate:.1f}",
            f"{item.train_rate:.1f}",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def write_section(page: Path, name: str, text: str) -> None:
    """Puts the section between its two marks in the page."""
    before, mark, rest = page.read_text().partition(f"<!-- {name} -->\n")
    _, end, after = rest.partition(f"<!-- end of {name} -->")
    if not mark or not end:
        raise SystemExit(f"{page}: has no marks for the section of the {name}")
    write_text(page, before + mark + text + end + after)


def read_results(path: Path) -> dict[str, Result]:
    """The results so far, without those of other code or of another machine."""
    stored = [Result(**item) for item in json.loads(path.read_text())] if path.exists() else []
    current = {item.backbone: item for item in stored if (item.digest, item.machine) == (digest(), machine())}
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
        results[name] = measure_apart(name)
        ordered = [results[name] for name in names if name in results]
        write_text(options.docs / "backbones.json", json.dumps([asdict(item) for item in ordered], indent=1) + "\n")
    text = section([results[name] for name in names if name in results])
    write_section(options.docs / "model.md", "backbones", text)
    print(text)


if __name__ == "__main__":
    main()
