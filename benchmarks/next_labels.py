"""What `fpn label-next` is worth: accuracy by the number of labels, with its choice and with a random one, on Fashion-MNIST.

    .venv/bin/python -m benchmarks.next_labels

A network is trained on 500 labels; then 500 more are added at a time, up to 3,000, from a pool of 20,000 training images, and
a new network is trained. The choice is that of `evaluation.selection`, by the network that was trained before. Accuracy is that
on the 10,000 official test images.

docs/next_labels.json is written after every seed and choice: started again, the benchmark goes on where it stopped. It needs
the Debian package `dataset-fashion-mnist`. docs/images/next_labels.png shows the accuracies.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf

from base.local_files import write_text
from benchmarks.measurement import table
from benchmarks.needle_images import read_pictures
from evaluation.selection import choose_next
from models import training
from models.augmentation import build_augmentation
from models.embedding import find_pooling, normalize
from models.fpn import build_classifier
from models.gradcam import split
from pipeline.config.whole import Config
from pipeline.dag.component_settings import augment_settings, classifier_config, train_settings

POOL, CLASSES, STEP, MOST = 20_000, 10, 500, 3000
CHOICES = ("random", "label-next")


@dataclass(frozen=True)
class Result:
    """The accuracies of one seed and choice, by number of labels."""

    choice: str
    seed: int
    labels: list[int]
    accuracies: list[float]


def config_of(seed: int) -> Config:
    """As configs/fashion_mnist.yaml, with a smaller network and a given number of steps."""
    return Config.model_validate(
        {
            "name": "next",
            "data": {"path": "."},
            "image": {"height": 28, "width": 28, "channels": 1},
            "augment": {"flip": "horizontal", "shift": 0.07},
            "model": {"backbone": "small_resnet10", "max_level": 3},
            "train": {"seed": seed, "steps": 800, "batch_size": 64},
        }
    )


def batches(images: np.ndarray, labels: np.ndarray, classes: int) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices((images, np.eye(classes, dtype=np.float32)[labels]))


def train(images: np.ndarray, labels: np.ndarray, seed: int, classes: int = CLASSES) -> keras.Model:
    """A new network, trained on these images as the Trainer does it; a tenth of them watches."""
    config = config_of(seed)
    settings = train_settings(config.train)
    keras.utils.set_random_seed(seed)
    model = build_classifier(
        classifier_config(config.model),
        image_shape=(28, 28, 1),
        num_classes=classes,
        channel_mean=[float(images.mean())],
        channel_variance=[float(images.var(dtype=np.float64))],
    )
    watched = len(images) // 10
    read = training.build_batches(
        batches(images[watched:], labels[watched:], classes),
        examples=len(images) - watched,
        batch_size=settings.batch_size,
        seed=seed,
        cache_bytes=2**30,
        augment=build_augmentation(augment_settings(config.augment), seed),
    )
    evaluation = batches(images[:watched], labels[:watched], classes).batch(settings.batch_size)
    with tempfile.TemporaryDirectory() as folder:
        steps = (len(images) - watched) // settings.batch_size
        training.fit(model, tf.distribute.get_strategy(), read, evaluation, steps, settings, folder)
    return model


def embed(model: keras.Model, images: np.ndarray) -> np.ndarray:
    levels, trunk, _ = split(model)
    pool = find_pooling(model, levels)
    look = tf.function(lambda part: normalize(pool(trunk(part, training=False))))
    return np.concatenate([look(tf.constant(part)) for part in np.array_split(images, len(images) // 250)])


def measure(choice: str, seed: int) -> Result:
    """Trains again and again, each time with more labels."""
    pictures, test = read_pictures("fashion", test=False), read_pictures("fashion", test=True)
    generator = np.random.default_rng(seed)
    drawn = generator.permutation(len(pictures.images))[:POOL]
    images, labels = pictures.images[drawn, ..., np.newaxis], pictures.labels[drawn]
    has_label = np.arange(POOL) < STEP
    order = np.arange(STEP)
    found = Result(choice, seed, [], [])
    while True:
        model = train(images[order], labels[order], seed)
        answers = model.predict(test.images[..., np.newaxis], batch_size=250, verbose=0)
        found.labels.append(len(order))
        found.accuracies.append(float((answers.argmax(axis=-1) == test.labels).mean()))
        print(f"{choice}, seed {seed}, {len(order)} labels: {found.accuracies[-1]:.4f}", flush=True)
        if len(order) >= MOST:
            return found
        pool = np.flatnonzero(~has_label)
        if choice == "random":
            chosen = pool[:STEP]
        else:
            probabilities = tf.nn.softmax(model.predict(images[pool], batch_size=250, verbose=0)).numpy()
            chosen = pool[choose_next(probabilities, embed(model, images[pool]), STEP, multi_label=False)]
        has_label[chosen] = True
        order = generator.permutation(np.flatnonzero(has_label))


def accuracies(results: Sequence[Result], choice: str) -> list[tuple[float, float]]:
    """Mean and standard deviation over the seeds, for each number of labels."""
    values = zip(*(item.accuracies for item in results if item.choice == choice), strict=True)
    return [(statistics.mean(some), statistics.stdev(some) if len(some) > 1 else 0.0) for some in values]


def page(results: Sequence[Result]) -> str:
    rows = [
        [choice, *(f"{mean:.4f} ± {deviation:.4f}" for mean, deviation in accuracies(results, choice))]
        for choice in CHOICES
        if any(item.choice == choice for item in results)
    ]
    return table(["choice", *(f"{number:,} labels" for number in results[0].labels)], rows)


def draw(results: Sequence[Result], path: Path) -> None:
    figure, axis = plt.subplots(figsize=(6.5, 4), layout="constrained")
    for choice, colour in zip(CHOICES, ("#5d6470", "#1f5fa8"), strict=True):
        means, deviations = zip(*accuracies(results, choice), strict=True)
        axis.errorbar(
            results[0].labels, means, yerr=deviations, marker="o", markersize=4, capsize=3, color=colour, label=choice
        )
    axis.axhline(accuracies(results, "random")[-1][0], color="#5d6470", linewidth=0.8, linestyle=":")
    axis.set_xlabel("labels")
    axis.set_ylabel("test accuracy")
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    options = parser.parse_args()
    file = options.docs / "next_labels.json"
    results = [Result(**item) for item in json.loads(file.read_text())] if file.exists() else []
    for seed in range(options.seeds):
        for choice in CHOICES:
            if not any((item.choice, item.seed) == (choice, seed) for item in results):
                results.append(measure(choice, seed))
                write_text(file, json.dumps([asdict(item) for item in results], indent=1) + "\n")
    draw(results, options.docs / "images" / "next_labels.png")
    print(page(results))


if __name__ == "__main__":
    main()
