"""`run_fn` of the Trainer component: builds the classifier, trains it, exports it."""

import json
import logging
import os
import time
from dataclasses import asdict
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
from tfx.components.trainer.fn_args_utils import FnArgs

from models import features
from models.augmentation import build_augmentation
from models.calibration import CALIBRATION_FILE, calibrate
from models.export import export_model
from models.fpn import build_classifier
from models.inference import build_inference_model
from models.preprocessing import parse_images

# INFO has a line for each epoch, DEBUG one about every second; both carry `progress` (see _Progress) for a display.
log = logging.getLogger(__name__)

_SHUFFLE_BYTES = 2**29  # of pixels that wait in the shuffle buffer


def run_fn(fn_args: FnArgs) -> None:
    """Trains on the `train` split, watches the `eval` split, and writes the SavedModel.

    Args:
      fn_args: with `custom_config` holding the sections `image`, `model`, `augment`, `train` and `export` of the configuration;
        if the Tuner has run, with its best `hyperparameters`, which replace what the sections say.

    Raises:
      WeightsError: the weights do not fit the backbone.
    """
    config = fn_args.custom_config
    if fn_args.hyperparameters:
        config = with_hyperparameters(config, fn_args.hyperparameters["values"])
    model, evaluation = train_model(fn_args, config, fn_args.model_run_dir)
    views = config["export"]["test_time_augmentation"]
    inference = build_inference_model(model, 1.0, views)
    if config["train"]["calibrate"]:
        temperature = find_temperature(inference, evaluation, fn_args.model_run_dir)
        inference = build_inference_model(model, temperature, views)
    export_model(inference, tft.TFTransformOutput(fn_args.transform_graph_path), fn_args.serving_model_dir)


def with_hyperparameters(config: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """The sections of a configuration with other values.

    Args:
      config: {section: {key: value}}.
      values: {"section.key": value}, as the Tuner names them.

    Raises:
      ValueError: there is no such key.
    """
    changed = {section: dict(content) if isinstance(content, dict) else content for section, content in config.items()}
    for name, value in values.items():
        section, _, key = name.partition(".")
        if key not in config.get(section, {}):
            raise ValueError(f"the hyperparameter {name} is no key of the configuration")
        changed[section][key] = value
    return changed


def train_model(fn_args: FnArgs, config: dict[str, Any], log_dir: str) -> tuple[keras.Model, tf.data.Dataset]:
    """Builds the classifier and trains it.

    Args:
      fn_args: names the transformed examples of both splits, and the transform graph.
      config: the sections `image`, `model`, `augment` and `train` of the configuration.
      log_dir: for TensorBoard.

    Returns:
      The trained model, and the batches of the `eval` split.
    """
    train_config = config["train"]
    transform_output = tft.TFTransformOutput(fn_args.transform_graph_path)
    image_shape = (config["image"]["height"], config["image"]["width"], config["image"]["channels"])
    keras.utils.set_random_seed(train_config["seed"])

    statistics = read_statistics(fn_args.train_files)
    train_examples = int(statistics[features.TRAIN_EXAMPLES])
    batch_size = min(train_config["batch_size"], train_examples)
    augment = build_augmentation(**config["augment"], seed=train_config["seed"])
    num_classes = transform_output.vocabulary_size_by_name(features.LABEL_VOCABULARY)
    train = read_images(fn_args.train_files, image_shape, num_classes)
    if train_examples * image_shape[0] * image_shape[1] * image_shape[2] <= train_config["cache_gb"] * 2**30:
        train = train.cache()
    buffer = max(batch_size, _SHUFFLE_BYTES // (image_shape[0] * image_shape[1] * image_shape[2]))
    train = (
        train.shuffle(min(buffer, train_examples), seed=train_config["seed"])
        .batch(batch_size, drop_remainder=True)
        .map(augment, num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )
    evaluation = read_images(fn_args.eval_files, image_shape, num_classes).batch(batch_size).cache().prefetch(tf.data.AUTOTUNE)

    strategy = _strategy()
    policy = keras.config.dtype_policy()
    try:
        if train_config["mixed_precision"]:
            keras.config.set_dtype_policy("mixed_float16" if tf.config.list_physical_devices("GPU") else "mixed_bfloat16")
        with strategy.scope():
            model = build_classifier(
                image_shape=image_shape,
                num_classes=num_classes,
                channel_mean=statistics[features.CHANNEL_MEAN].tolist(),
                channel_variance=statistics[features.CHANNEL_VARIANCE].tolist(),
                **config["model"],
            )
        fit(model, strategy, train, evaluation, train_examples // batch_size, train_config, log_dir)
    finally:
        keras.config.set_dtype_policy(policy)
    return model, evaluation


def fit(
    model: keras.Model,
    strategy: tf.distribute.Strategy,
    train: tf.data.Dataset,
    evaluation: tf.data.Dataset,
    steps_per_epoch: int,
    config: dict[str, Any],
    log_dir: str,
) -> None:
    """Trains in place: first with the backbone frozen (`frozen_epochs`), then all of it (`epochs`).

    Args:
      model: from images to logits.
      strategy: under whose scope the model was built.
      train: batches of (uint8 images, float32 one-hot labels), shuffled, one pass an epoch.
      evaluation: batches likewise.
      steps_per_epoch: batches of `train`.
      config: the section `train` of the configuration.
      log_dir: for TensorBoard.
    """
    backbone = model.get_layer("backbone")
    phases = [(config["epochs"], config["learning_rate"], True)]
    if config["frozen_epochs"]:
        fine_tune = config["fine_tune_learning_rate"] or config["learning_rate"]
        phases = [(config["frozen_epochs"], config["learning_rate"], False), (config["epochs"], fine_tune, True)]
    progress = _Progress(sum(epochs for epochs, _, _ in phases), steps_per_epoch)
    tensorboard = keras.callbacks.TensorBoard(log_dir, write_graph=False)

    done = 0
    for epochs, learning_rate, trains_backbone in phases:
        backbone.trainable = trains_backbone
        if config["freeze_batch_norm"]:
            for layer in backbone.layers:
                if isinstance(layer, keras.layers.BatchNormalization):
                    layer.trainable = False
        with strategy.scope():  # compiling again is what makes a changed `trainable` count
            model.compile(
                optimizer=_optimizer(learning_rate, epochs * steps_per_epoch, steps_per_epoch, config),
                loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=config["label_smoothing"]),
                metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
                jit_compile=config["xla"],
            )
        callbacks: list[keras.callbacks.Callback] = [progress, tensorboard]
        if config["early_stopping"]:
            callbacks.append(
                keras.callbacks.EarlyStopping("val_loss", patience=config["early_stopping"], restore_best_weights=True)
            )
        model.fit(train, validation_data=evaluation, initial_epoch=done, epochs=done + epochs, callbacks=callbacks, verbose=0)
        done += epochs


def find_temperature(model: keras.Model, evaluation: tf.data.Dataset, folder: str, multi_label: bool = False) -> float:
    """Fits the temperature on the eval split, and writes what it does to CALIBRATION_FILE.

    Args:
      model: from images to logits, as it is exported but for the temperature.
      evaluation: batches of (uint8 images, float32 labels).
      folder: of the file.
      multi_label: as in `models.calibration`.

    Returns:
      The temperature; 1, and no file, where none can be fitted: training has diverged, or no label is known.
    """
    logits = model.predict(evaluation, verbose=0)
    labels = np.concatenate([labels for _, labels in evaluation.as_numpy_iterator()])
    try:
        calibration = calibrate(logits, labels, multi_label)
    except ValueError as error:
        log.warning("not calibrated: %s", error)
        return 1.0
    log.info("calibrated on the eval split: %s", calibration)
    tf.io.gfile.makedirs(folder)
    with tf.io.gfile.GFile(os.path.join(folder, CALIBRATION_FILE), "w") as file:
        json.dump(asdict(calibration), file, indent=2)
    return calibration.temperature


def read_images(files: list[str], image_shape: tuple[int, int, int], num_classes: int) -> tf.data.Dataset:
    """Reads transformed examples.

    Args:
      files: patterns of gzipped TFRecord files.
      image_shape: (height, width, channels).
      num_classes: size of the label vocabulary; a label that is not in it is all zeros.

    Returns:
      A data set of (uint8 [*image_shape], float32 [num_classes], one-hot), one element an example, decoded in parallel.
    """

    def parse(examples: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        parsed = tf.io.parse_example(
            examples,
            {
                features.IMAGE: tf.io.FixedLenFeature([], tf.string),
                features.LABEL_INDEX: tf.io.FixedLenFeature([], tf.int64),
            },
        )
        return parse_images(parsed[features.IMAGE], image_shape), tf.one_hot(parsed[features.LABEL_INDEX], num_classes)

    return _read_records(files).batch(64).map(parse, num_parallel_calls=tf.data.AUTOTUNE).unbatch()


def read_statistics(files: list[str]) -> dict[str, Any]:
    """What Transform's analyzers found over the training split: TRAIN_EXAMPLES, CHANNEL_MEAN, CHANNEL_VARIANCE, as arrays."""
    example = next(iter(_read_records(files).take(1)))
    parsed = tf.io.parse_single_example(
        example,
        {
            features.TRAIN_EXAMPLES: tf.io.FixedLenFeature([], tf.int64),
            features.CHANNEL_MEAN: tf.io.FixedLenSequenceFeature([], tf.float32, allow_missing=True),
            features.CHANNEL_VARIANCE: tf.io.FixedLenSequenceFeature([], tf.float32, allow_missing=True),
        },
    )
    return {name: value.numpy() for name, value in parsed.items()}


def _read_records(patterns: list[str]) -> tf.data.Dataset:
    files = tf.data.Dataset.list_files(patterns, shuffle=False)
    return files.interleave(lambda file: tf.data.TFRecordDataset(file, "GZIP"), num_parallel_calls=tf.data.AUTOTUNE)


def _strategy() -> tf.distribute.Strategy:
    """All GPUs of this machine as mirrors of each other, or the one device that there is."""
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        try:
            tf.config.experimental.set_memory_growth(gpu, True)
        except RuntimeError:  # an earlier step of this process has started the device
            log.warning("the memory of %s is not shared with other processes", gpu.name)
    return tf.distribute.MirroredStrategy() if len(gpus) > 1 else tf.distribute.get_strategy()


def _optimizer(learning_rate: float, steps: int, steps_per_epoch: int, config: dict[str, Any]) -> keras.optimizers.Optimizer:
    """AdamW whose rate rises linearly from 0 over `warmup_epochs`, then falls to 0 along a cosine (arXiv:1608.03983)."""
    warmup = min(int(config["warmup_epochs"] * steps_per_epoch), steps - 1)
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup else learning_rate,
        decay_steps=steps - warmup,
        warmup_target=learning_rate if warmup else None,
        warmup_steps=warmup,
    )
    return keras.optimizers.AdamW(schedule, weight_decay=config["weight_decay"])


class _Progress(keras.callbacks.Callback):
    """Logs how far training is; records carry `progress`: {"done": steps, "total": steps, "text": what to show}."""

    def __init__(self, epochs: int, steps_per_epoch: int) -> None:
        super().__init__()
        self._epochs = epochs
        self._steps_per_epoch = steps_per_epoch
        self._epoch = 0
        self._text = ""
        self._shown = 0.0

    def _log(self, level: int, step: int) -> None:
        progress = {
            "done": self._epoch * self._steps_per_epoch + step,
            "total": self._epochs * self._steps_per_epoch,
            "text": f"epoch {min(self._epoch + 1, self._epochs)}/{self._epochs}{self._text}",
        }
        log.log(level, "%(text)s, step %(done)d/%(total)d", progress, extra={"progress": progress})
        self._shown = time.monotonic()

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._epoch = epoch
        self._log(logging.DEBUG, 0)

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        if time.monotonic() - self._shown > 1:
            self._log(logging.DEBUG, batch + 1)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        logs = logs or {}
        self._text = f"  loss {logs['loss']:.3f}  eval loss {logs['val_loss']:.3f}  eval accuracy {logs['val_accuracy']:.3f}"
        self._log(logging.INFO, self._steps_per_epoch)
