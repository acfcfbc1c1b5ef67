"""The peer: the same network trained the way one would without TFX, in one script with Keras and scikit-learn.

    .venv/bin/python -m benchmarks.plain_keras DATA --config configs/digits.yaml --output DIR
    .venv/bin/python -m benchmarks.plain_keras DATA --config configs/digits.yaml --output DIR --in-memory

DATA holds train, eval and test, each with a folder a class. Of the configuration it takes image, augment, model and train, as
far as a short script would go: images stretched to size, AdamW along a cosine, shift, flip, rotation and contrast. With
--in-memory all images are first decoded with Pillow into one array, as FPN_TensorFlow did. Prints the seconds of each part as
JSON on the last line.
"""

import argparse
import json
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from PIL import Image
from sklearn.metrics import accuracy_score, classification_report

from models.fpn import build_classifier
from pipeline.config.loading import load_config
from pipeline.config.whole import Config
from pipeline.dag.component_settings import classifier_config


def read_streamed(data: Path, split: str, config: Config) -> tuple[tf.data.Dataset, list[str]]:
    """Images (uint8) and labels (int) one by one, and the names of the classes."""
    images = keras.utils.image_dataset_from_directory(
        data / split,
        color_mode={1: "grayscale", 3: "rgb", 4: "rgba"}[config.image.channels],
        image_size=(config.image.height, config.image.width),
        batch_size=None,
        shuffle=False,
        verbose=False,
    )
    as_integers = images.map(lambda image, label: (tf.cast(tf.round(image), tf.uint8), label), tf.data.AUTOTUNE)
    return as_integers.cache(), images.class_names


def read_at_once(data: Path, split: str, config: Config) -> tuple[tf.data.Dataset, list[str]]:
    """The same from one array that holds all of them."""
    names = sorted(path.name for path in (data / split).iterdir())
    files = [(path, label) for label, name in enumerate(names) for path in sorted((data / split / name).iterdir())]
    size = (config.image.width, config.image.height)
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[config.image.channels]
    images = np.stack([np.asarray(Image.open(path).convert(mode).resize(size, Image.Resampling.BILINEAR)) for path, _ in files])
    shape = (config.image.height, config.image.width, config.image.channels)
    labels = np.array([label for _, label in files], np.int32)
    return tf.data.Dataset.from_tensor_slices((images.reshape(-1, *shape), labels)), names


def mean_and_variance(images: tf.data.Dataset) -> tuple[list[float], list[float]]:
    """Of each channel, 0..255."""
    layer = keras.layers.Normalization(axis=-1)
    layer.adapt(images.batch(256).map(lambda image, label: tf.cast(image, tf.float32)))
    return np.ravel(layer.mean).tolist(), np.ravel(layer.variance).tolist()


def build_augmentation(config: Config) -> keras.Sequential:
    augment = config.augment
    layers: list[keras.layers.Layer] = []
    if augment.flip != "none":
        layers.append(keras.layers.RandomFlip({"both": "horizontal_and_vertical"}.get(augment.flip, augment.flip)))
    if augment.shift:
        layers.append(keras.layers.RandomTranslation(augment.shift, augment.shift))
    if augment.rotation:
        layers.append(keras.layers.RandomRotation(augment.rotation))
    if augment.contrast:
        layers.append(keras.layers.RandomContrast(augment.contrast))
    return keras.Sequential(layers)


def train(model: keras.Model, batches: tf.data.Dataset, validation: tf.data.Dataset, config: Config, steps: int) -> None:
    """First with the backbone frozen, then all of it."""
    settings = config.train
    phases = [(settings.frozen_epochs, settings.learning_rate, False)] if settings.frozen_epochs else []
    fine_tune = settings.fine_tune_learning_rate if phases and settings.fine_tune_learning_rate else settings.learning_rate
    for epochs, rate, all_of_it in [*phases, (settings.epochs, fine_tune, True)]:
        model.get_layer("backbone").trainable = all_of_it
        if settings.freeze_batch_norm:
            for layer in model.get_layer("backbone").layers:
                layer.trainable = all_of_it and not isinstance(layer, keras.layers.BatchNormalization)
        schedule = keras.optimizers.schedules.CosineDecay(0.0, epochs * steps, warmup_target=rate, warmup_steps=steps)
        model.compile(
            keras.optimizers.AdamW(schedule, weight_decay=settings.weight_decay),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        model.fit(batches, validation_data=validation, epochs=epochs, verbose=2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--in-memory", action="store_true", help="all images in one array")
    options = parser.parse_args()
    config = load_config(options.config, data=str(options.data))
    ends = [time.perf_counter()]

    read = read_at_once if options.in_memory else read_streamed
    (training, names), (validation, _), (test, _) = (read(options.data, split, config) for split in ("train", "eval", "test"))
    mean, variance = mean_and_variance(training)
    count = int(training.reduce(0, lambda total, _: total + 1))
    ends.append(time.perf_counter())

    keras.utils.set_random_seed(config.train.seed)
    model = build_classifier(
        classifier_config(config.model),
        image_shape=(config.image.height, config.image.width, config.image.channels),
        num_classes=len(names),
        channel_mean=mean,
        channel_variance=variance,
    )
    augmentation = build_augmentation(config)
    size = min(config.train.batch_size, count)
    batches = training.shuffle(min(count, 20_000)).batch(size, drop_remainder=True)
    if augmentation.layers:
        batches = batches.map(
            lambda images, labels: (tf.cast(augmentation(images, training=True), tf.uint8), labels), tf.data.AUTOTUNE
        )
    train(model, batches.prefetch(tf.data.AUTOTUNE), validation.batch(size).prefetch(1), config, count // size)
    ends.append(time.perf_counter())

    answers = np.argmax(model.predict(test.batch(256), verbose=0), axis=-1)
    labels = np.array([label for _, label in test.as_numpy_iterator()])
    print(classification_report(labels, answers, labels=range(len(names)), target_names=names, zero_division=0.0))
    ends.append(time.perf_counter())
    model.export(options.output, verbose=False)
    ends.append(time.perf_counter())
    seconds = dict(zip(("read", "train", "evaluate", "export"), np.diff(ends).tolist(), strict=True))
    print(json.dumps({"seconds": seconds, "accuracy": accuracy_score(labels, answers)}))


if __name__ == "__main__":
    main()
