"""Does the input keep up? Step times in the Trainer's own `fit`, against the same compiled model on tensors in memory.

    .venv/bin/python -m benchmarks.step_time

Writes TFRecords as Transform does, trains from them as the Trainer does, and measures in turns (input, memory, input, ...),
because a machine's speed drifts; what counts is the median over the rounds of the ratio of the two means. A step lasts from
the end of a batch to the end of the next, over the ends of epochs too; the first epoch, which fills the cache, is left out.
Writes docs/step_time.json.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmarks.measurement import Figure
from models import features, training
from models.augmentation import build_augmentation
from models.fpn import build_classifier
from models.optimization import build_loss, build_metrics, build_optimizer
from models.preprocessing import serialize_images
from pipeline.config.whole import Config
from pipeline.dag.component_settings import augment_settings, classifier_config, train_settings

CLASSES = 10
CLASS_NAMES = [str(number) for number in range(CLASSES)]
LIMIT = 1.05  # of the ratio, with augmentation off
AUGMENTED = {"flip": "horizontal", "shift": 0.1, "rotation": 0.02}
CASES: dict[str, dict[str, Any]] = {
    "small": {
        "image": {"height": 32, "width": 32, "channels": 1},
        "model": {"backbone": "small_resnet10", "min_level": 2, "max_level": 4, "num_filters": 32},
        "train": {"batch_size": 64},
        "examples": 1600,
        "steps": 50,
    },
    "large": {
        "image": {"height": 224, "width": 224, "channels": 3},
        "model": {"backbone": "resnet50"},
        "train": {"batch_size": 8},
        "examples": 32,
        "steps": 4,
    },
}


class StepTimes(keras.callbacks.Callback):
    """Seconds from the end of each batch to the end of the next."""

    def __init__(self) -> None:
        super().__init__()
        self._ends: list[float] = []

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self._ends.append(time.perf_counter())

    @property
    def seconds(self) -> list[float]:
        return np.diff(self._ends).tolist()


def write_records(path: str, examples: int, shape: tuple[int, int, int]) -> None:
    """Writes decoded examples of random pixels, smoothed a little."""
    random = np.random.default_rng(0)
    with tf.io.TFRecordWriter(path) as writer:
        for _ in range(examples):
            coarse = random.integers(0, 256, (1, -(-shape[0] // 4), -(-shape[1] // 4), shape[2])).astype(np.float32)
            pixels = tf.image.resize(coarse, shape[:2]) + random.normal(0, 4, (1, *shape))
            image = serialize_images(tf.cast(tf.clip_by_value(pixels, 0, 255), tf.uint8)).numpy()[0]
            example = tf.train.Example()
            example.features.feature[features.PIXELS].bytes_list.value.append(image)
            example.features.feature[features.LABEL].bytes_list.value.append(str(random.integers(CLASSES)).encode())
            writer.write(example.SerializeToString())


def build_inputs(case: dict[str, Any], config: Config, path: str) -> dict[str, Callable[[], tf.data.Dataset]]:
    """Endless batches: "input" and "augmented" as the Trainer reads them, "memory" one batch again and again."""
    shape = (config.image.height, config.image.width, config.image.channels)

    def read(**augment: Any) -> Callable[[int], tf.data.Dataset]:
        return training.build_batches(
            training.read_images([path], shape, CLASS_NAMES),
            examples=case["examples"],
            batch_size=config.train.batch_size,
            seed=0,
            cache_bytes=2**30,
            augment=build_augmentation(replace(augment_settings(config.augment), **augment), seed=0),
        )

    plain, augmented = read(), read(**AUGMENTED)
    for fill_the_cache in (plain, augmented):
        for _ in fill_the_cache(0).take(case["examples"] // config.train.batch_size):
            pass
    batch = next(iter(plain(0)))
    return {
        "memory": lambda: tf.data.Dataset.from_tensors(batch).repeat(),
        "input": lambda: plain(1),
        "augmented": lambda: augmented(1),
    }


def measure(name: str, rounds: int, folder: str) -> dict[str, Any]:
    """Milliseconds a step by input, and their ratios to "memory" in the same round: median and quartiles."""
    case = CASES[name]
    sections = {key: case[key] for key in ("image", "model", "train")}
    config = Config.model_validate({"name": "steps", "data": {"path": "."}, **sections})
    shape = (config.image.height, config.image.width, config.image.channels)
    path = f"{folder}/{name}.tfrecord"
    write_records(path, case["examples"], shape)
    inputs = build_inputs(case, config, path)

    model = build_classifier(
        classifier_config(config.model),
        image_shape=shape,
        num_classes=CLASSES,
        channel_mean=[127.0] * shape[2],
        channel_variance=[5000.0] * shape[2],
    )
    train, variables = train_settings(config.train), model.trainable_variables
    optimizer = build_optimizer(1e-4, 10_000, 100, variables, train)
    model.compile(optimizer, build_loss("cross_entropy"), metrics=build_metrics(model.output_shape[-1]))
    model.fit(inputs["memory"](), steps_per_epoch=2, shuffle=False, verbose=0)

    seconds: dict[str, list[float]] = {key: [] for key in inputs}  # the mean step of each round
    for _ in range(rounds):
        for key, dataset in inputs.items():
            times = StepTimes()
            steps = case["examples"] // config.train.batch_size
            epochs = case["steps"] // steps
            model.fit(dataset(), steps_per_epoch=steps, epochs=epochs, callbacks=[times], shuffle=False, verbose=0)
            seconds[key].append(statistics.fmean(times.seconds))
    ratios = {key: np.divide(seconds[key], seconds["memory"]) for key in inputs if key != "memory"}
    return {
        "model": config.model.backbone,
        "image": shape,
        "batch_size": config.train.batch_size,
        "rounds": rounds,
        "steps_a_round": case["steps"] - 1,
        "milliseconds": {key: round(1000 * statistics.median(values), 2) for key, values in seconds.items()},
        "ratio": {key: round(float(np.median(values)), 3) for key, values in ratios.items()},
        "quartiles": {key: np.quantile(values, [0.25, 0.75]).round(3).tolist() for key, values in ratios.items()},
        "seconds": seconds,
    }


def figures(cases: Sequence[str], rounds: int) -> list[Figure]:
    """The mean step of each round, with augmentation off and on."""
    found = []
    for name in cases:
        print(f"training steps, {name} network, {rounds} rounds", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            result = measure(name, rounds, folder)
        took = {key: [1000 * value for value in values] for key, values in result["seconds"].items()}
        what = f"training step, {result['model']}, {result['batch_size']} of {'x'.join(map(str, result['image']))}"
        found.append(Figure(f"{what}, against tensors in memory", "ms", took["input"], took["memory"], LIMIT))
        found.append(Figure(f"{what}, with augmentation", "ms", took["augmented"], took["memory"]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--case", choices=list(CASES), action="append", help="all if not given")
    parser.add_argument("--output", type=Path, default=Path("docs/step_time.json"))
    arguments = parser.parse_args()
    results = {}
    print("| model | batch | in memory, ms | input, ms | ratio | augmented, ms | ratio |\n" + "| --- " * 7 + "|")
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.case or CASES:
            result = results[name] = measure(name, arguments.rounds, folder)
            del result["seconds"]
            took, ratio = result["milliseconds"], result["ratio"]
            batch = f"{result['batch_size']} x {'x'.join(map(str, result['image']))}"
            print(
                f"| {result['model']} | {batch} | {took['memory']} | {took['input']} | {ratio['input']} "
                f"| {took['augmented']} | {ratio['augmented']} |"
            )
    arguments.output.write_text(json.dumps(results, indent=1) + "\n")
    if any(result["ratio"]["input"] > LIMIT for result in results.values()):
        raise SystemExit(f"the input holds training up: a ratio is above {LIMIT}")


if __name__ == "__main__":
    main()
