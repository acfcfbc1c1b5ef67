"""`run_fn` of the Trainer component: builds the classifier, trains it, exports it."""

import gc
import json
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from functools import partial
from typing import Any, TypeVar

import keras
import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
from tfx.components.trainer.fn_args_utils import FnArgs
from tfx.utils import path_constants

from models import features, new_process, workers
from models.abstention import check_names
from models.augmentation import build_augmentation
from models.budget import Budget, Clock
from models.callbacks import Curves, Keeper, Progress, StepLimit
from models.checkpoints import Checkpoint, checkpoint_folder, load_checkpoint, remove_checkpoint
from models.distillation import Teacher, distil
from models.export import export_image_settings, export_model
from models.fitting import ask, find_distance, fit_answers, write_json
from models.fpn import build_classifier
from models.half_size import halve_images, share_at_half_size
from models.history import is_diverged
from models.inference import InferenceModel
from models.layer_decay import rate_factors
from models.memory import halve, is_out_of_memory
from models.optimization import balanced_weights, build_loss, build_metrics, build_optimizer, positive_weights
from models.packing import as_dict, unpack
from models.preprocessing import decode_images, is_multi_label, multi_hot, parse_images, transform_files
from models.settings import TrainerSettings, TrainingSettings, TrainSettings
from models.tiles import find_tiles, tile_classifier
from models.unusual import SAMPLE
from models.warm_start import WARM_START_FILE, BaseModel

log = logging.getLogger(__name__)

Settings = TypeVar("Settings", bound=TrainingSettings)

_SHUFFLE_BYTES = 2**29  # of pixels that wait in the shuffle buffer
_PARSED_BYTES = 2**26  # of pixels that are parsed together, or one image
# Of the eval split's batches: an iterator that tunes itself sleeps, and freeing it after its end waits for that, for seconds.
UNTUNED = tf.data.Options()
UNTUNED.autotune.enabled = False


def run_fn(fn_args: FnArgs) -> None:
    """Trains on the `train` split, watches the `eval` split, and writes the SavedModel.

    If TF_CONFIG names several workers, this is the first, and trains in a process of its own, which joins the others.

    Args:
      fn_args: with `TrainerSettings` as `custom_config`; if the Tuner has run, with its best `hyperparameters`, which replace
        what these say.

    Raises:
      WeightsError: the weights do not fit the backbone.
      TeacherError: the teacher does not fit the training.
      WarmStartError: the model to start from does not fit the network.
      WorkersError: the workers can't train together.
      LostWorkerError: a worker has ended.
      ClassNameError: a class has the name of what a model answers that abstains.
      OutOfMemoryError: not even a step of one image fits into the memory, or one of several devices does not.
    """
    if workers.are_named():
        new_process.call(train_as_worker, arguments_of(fn_args))
    else:
        _make_model(fn_args, _strategy())


def arguments_of(fn_args: FnArgs) -> dict[str, Any]:
    """What `FnArgs` has for a training, as JSON can hold it."""
    names = ("train_files", "eval_files", "transform_graph_path", "model_run_dir", "serving_model_dir", "base_model")
    return {name: getattr(fn_args, name) for name in (*names, "custom_config", "hyperparameters")}


def train_as_worker(arguments: dict[str, Any] | None = None) -> None:
    """Trains as one of the workers that TF_CONFIG names; it must be the first thing that TensorFlow does in this process.

    Args:
      arguments: of the chief, by the names of `FnArgs`; the others get them from the chief.

    Raises:
      WorkersError: the workers can't train together.
      LostWorkerError: a worker has ended.
    """
    if arguments is None and workers.cluster()[1] == 0:
        raise workers.WorkersError("the first worker is the Trainer of fpn run: start that with this TF_CONFIG")
    strategy = workers.Workers()
    with workers.losses_told():
        given = json.loads(workers.from_chief(strategy, json.dumps(arguments).encode()))
        _make_model(FnArgs(**given), strategy)
        workers.from_chief(strategy, b"")  # no one ends before the chief has exported


def _make_model(fn_args: FnArgs, strategy: tf.distribute.Strategy) -> None:
    config = unpack(TrainerSettings, fn_args.custom_config)
    if fn_args.hyperparameters:
        config = with_hyperparameters(config, fn_args.hyperparameters["values"])
    transform_output = tft.TFTransformOutput(fn_args.transform_graph_path)
    check_names(config.calibrate, _class_names(transform_output))
    data = [fn_args.train_files, fn_args.eval_files, fn_args.transform_graph_path]
    base = _find_base(fn_args.base_model or config.base_model)
    started = time.monotonic()
    while True:
        checkpoints = checkpoint_folder(
            config.checkpoints, data=data, config=as_dict(config), base=base.digest if base else None
        )
        try:
            model, evaluation = train_model(
                fn_args, config, fn_args.model_run_dir, checkpoints, strategy, started, base, transform_output
            )
            break
        except tf.errors.ResourceExhaustedError as error:
            if not is_out_of_memory(error):
                raise
            remove_checkpoint(checkpoints)  # of a frozen phase, which had room
            batch_size = min(config.train.batch_size, int(read_statistics(transform_output)[features.TRAIN_EXAMPLES]))
            config = replace(config, train=halve(config.train, batch_size, strategy.num_replicas_in_sync))
            log.warning(
                "a step of %d images needs more memory than there is: trained with %d at a time, %d for an update",
                batch_size,
                config.train.batch_size,
                config.train.accumulate_steps,
            )
        gc.collect()  # what the failed training holds
    if not workers.is_chief(strategy):
        return
    views = config.test_time_augmentation
    look = tf.function(InferenceModel(model, views), autograph=False, reduce_retracing=True)  # `predict` needs all workers
    distance = find_distance(look, _training_sample(fn_args, config, transform_output)) if config.calibrate.unusual else None
    answers = ask(look, evaluation, distance)
    fitted = fit_answers(answers, config.calibrate, fn_args.model_run_dir, is_multi_label(transform_output), distance)
    path = fn_args.serving_model_dir
    export_model(model, transform_output, path, fitted=fitted, test_time_augmentation=views, reference=answers)
    export_image_settings(config.image, fn_args.serving_model_dir)
    if base:
        start = base.compare(_class_names(transform_output))
        write_json(fn_args.model_run_dir, WARM_START_FILE, asdict(start))
    remove_checkpoint(checkpoints)


def _training_sample(fn_args: FnArgs, config: TrainerSettings, transform_output: tft.TFTransformOutput) -> tf.data.Dataset:
    """Batches of some images of the training split, of each file equally many, without augmentation."""
    images = read_images(fn_args.train_files, config.image.shape, _class_names(transform_output), most=SAMPLE)
    return images.batch(config.train.batch_size).with_options(UNTUNED)


def _find_base(path: str | None) -> BaseModel | None:
    """The model to start from; TFX looks for a model inside of an artifact, and a pushed version is one itself."""
    if path and not tf.io.gfile.exists(path) and os.path.basename(path) == path_constants.SERVING_MODEL_DIR:
        path = os.path.dirname(path)
    return BaseModel(path) if path else None


def _class_names(transform_output: tft.TFTransformOutput) -> list[str]:
    return [name.decode() for name in transform_output.vocabulary_by_name(features.LABEL_VOCABULARY)]


def with_hyperparameters(config: Settings, values: dict[str, Any]) -> Settings:
    """The settings with other values.

    Args:
      config: of a training.
      values: {"section.key": value}, as the Tuner names them: `train.learning_rate` is that of `config.train`.

    Raises:
      ValueError: there is no such key.
    """
    for name, value in values.items():
        section, _, key = name.partition(".")
        record: Any = getattr(config, section, None)
        if key not in ({item.name for item in fields(record)} if is_dataclass(record) else ()):
            raise ValueError(f"the hyperparameter {name} is no key of the configuration")
        config = replace(config, **{section: replace(record, **{key: value})})
    return config


def train_model(
    fn_args: FnArgs,
    config: TrainingSettings,
    log_dir: str,
    checkpoints: str | None = None,
    strategy: tf.distribute.Strategy | None = None,
    started: float | None = None,
    base: BaseModel | None = None,
    transform_output: tft.TFTransformOutput | None = None,
) -> tuple[keras.Model, tf.data.Dataset]:
    """Builds the classifier and trains it.

    Args:
      fn_args: names the decoded examples of both splits, and the transform graph.
      config: what is trained, on which pixels, and how.
      log_dir: for the curves, as in `fit`.
      checkpoints: folder of this training's checkpoint, as in `fit`.
      strategy: devices that train; those of this machine if not given.
      started: when the time of a budget began, by `time.monotonic`; now if not given.
      base: model whose weights training begins with.
      transform_output: of the transform graph that `fn_args` names, if it has been read already.

    Raises:
      WarmStartError: `base` does not fit the network.
      WorkersError: several workers can't train this.

    Returns:
      The trained model, and the batches of the `eval` split, as `fitting.ask` takes them.
    """
    started = started or time.monotonic()
    train_config = config.train
    transform_output = transform_output or tft.TFTransformOutput(fn_args.transform_graph_path)
    multi_label = is_multi_label(transform_output)
    keras.utils.set_random_seed(train_config.seed)

    statistics = read_statistics(transform_output)
    train_examples = int(statistics[features.TRAIN_EXAMPLES])
    batch_size = min(train_config.batch_size, train_examples)
    strategy = strategy or _strategy()
    workers.check(strategy, train_config, batch_size)
    counts, classes = read_class_counts(transform_output), _class_names(transform_output)
    train = build_batches(
        read_images(fn_args.train_files, config.image.shape, classes),
        examples=train_examples,
        batch_size=batch_size,
        seed=train_config.seed,
        cache_bytes=int(train_config.cache_gb * 2**30),
        augment=build_augmentation(config.augment, train_config.seed),
    )
    evaluation = read_images(fn_args.eval_files, config.image.shape, classes, with_groups=True).batch(batch_size).cache()
    evaluation = evaluation.prefetch(tf.data.AUTOTUNE).with_options(UNTUNED)

    policy = keras.config.dtype_policy()
    try:
        if train_config.mixed_precision:
            keras.config.set_dtype_policy("mixed_float16" if tf.config.list_physical_devices("GPU") else "mixed_bfloat16")
        with strategy.scope():
            moments = (statistics[name].tolist() for name in (features.CHANNEL_MEAN, features.CHANNEL_VARIANCE))
            model = build_network(config, len(counts), *moments)
            if base:
                base.give_weights(model, classes, multi_label)
            if train_config.teacher:
                teacher = Teacher(train_config.teacher, config.image, multi_label, train_config.xla)
                names = transform_output.vocabulary_by_name(features.LABEL_VOCABULARY)
                distil(model, teacher, names, train_config.teacher_temperature)
        class_weights = None
        if train_config.class_weights == "balanced":
            class_weights = positive_weights(counts, train_examples) if multi_label else balanced_weights(counts)
        steps = train_examples // batch_size
        measured = without_groups(evaluation)
        fit(model, strategy, train, measured, steps, train_config, log_dir, class_weights, checkpoints, multi_label, started)
    finally:
        keras.config.set_dtype_policy(policy)
    return model, evaluation


def build_network(
    config: TrainingSettings, num_classes: int, channel_mean: list[float], channel_variance: list[float]
) -> keras.Model:
    """The classifier, or that of tiles; see `models.fpn.build_classifier` and `models.tiles.tile_classifier`."""
    tiles, image_shape = config.tiles, config.image.shape
    model = build_classifier(
        config.model,
        image_shape=(tiles.size, tiles.size, config.image.channels) if tiles else image_shape,
        num_classes=num_classes,
        channel_mean=channel_mean,
        channel_variance=channel_variance,
    )
    return tile_classifier(model, image_shape, tiles.overlap) if tiles else model


def fit(
    model: keras.Model,
    strategy: tf.distribute.Strategy,
    train: Callable[[int], tf.data.Dataset],
    evaluation: tf.data.Dataset,
    steps_per_epoch: int,
    config: TrainSettings,
    log_dir: str,
    class_weights: list[float] | None = None,
    checkpoints: str | None = None,
    multi_label: bool = False,
    started: float | None = None,
) -> list[dict[str, float]]:
    """Trains in place: first with the backbone frozen (`frozen_epochs`), then all of it (`epochs`, `steps`, or until
    the `budget` is spent), of which a share may be on images of `half_size`. With a `layer_decay` of 0, the backbone stays
    frozen.

    Each phase has a learning rate of its own course. With `keep` best, or `early_stopping`, a phase ends with the weights of
    the best epoch so far, by the metric `monitor` of the eval split; with `ema`, what is measured, kept and left in the model
    are the averaged weights. The loss of the eval split is the one that training minimises; with a teacher it is that of the
    labels alone (see `models.distillation`).

    A training whose loss is no finite number any more ends in that epoch.

    After every epoch a checkpoint replaces the last one. Where one is found, training goes on after the epoch that it was
    written in, with the same steps, rates and order of examples as if it had never stopped.

    Args:
      model: from images to logits.
      strategy: under whose scope the model was built.
      train: gives, from an epoch on (the first is 0), endless batches of (uint8 images, float32 labels [N, classes]).
      evaluation: all batches of the eval split, likewise.
      steps_per_epoch: batches of `train`.
      config: how.
      log_dir: gets `history.csv`, which is the returned history, and the same curves for TensorBoard in `train` and
        `validation`, renewed after every epoch. An interrupted training's part is written again.
      class_weights: of the loss, one per class; see `build_loss`.
      checkpoints: folder of this training's checkpoint, on this machine or any that `tf.io.gfile` reaches; None: none is kept.
        Whoever calls removes it when the model is safe. Of several workers the chief alone uses it, and `log_dir`.
      multi_label: whether each class is a yes-or-no decision of its own.
      started: when the time of the budget began, by `time.monotonic`; now if not given.

    Raises:
      BudgetError: the budget is too short for a step and an evaluation.
      ValueError: gradients are to be accumulated on several devices, which Keras can't do.

    Returns:
      One row per epoch: `epoch` (from 1), `loss`, `accuracy`, `f1` over the training batches, `val_loss`, `val_accuracy`,
      `val_f1` over the eval split, and `learning_rate` as it was at the end.
    """
    tiles = find_tiles(model)
    network = tiles.layer if tiles else model
    if strategy.num_replicas_in_sync > 1:
        if config.accumulate_steps > 1:
            raise ValueError("train.accumulate_steps works on one device only; set it to 1, or CUDA_VISIBLE_DEVICES to one GPU")
        if not tiles:  # whose loop over chunks can't wait for other replicas
            _synchronise_batch_norm(model)
    is_chief = workers.is_chief(strategy)
    kept = checkpoints if is_chief else None
    state = load_checkpoint(kept, partial(workers.from_chief, strategy)) or Checkpoint()
    if state.history:
        log.info("going on after epoch %d", len(state.history))
    phases = _phases(config, steps_per_epoch)
    keeper = Keeper(state, config, kept)
    clock = None
    if config.budget:
        clock = Clock(config.budget, (started if started is not None else time.monotonic()) - state.seconds)
    progress = Progress([phase.steps for phase in phases], steps_per_epoch, clock)
    curves = [Curves(state.history, log_dir)] if is_chief else []
    for number, phase in enumerate(phases):
        if number < state.phase:
            continue
        if number > state.phase:
            state.phase, state.phase_start, state.stopped = number, len(state.history), False
        backbone = network.get_layer("backbone")
        _freeze(backbone, phase, config)
        rates = rate_factors(backbone, model.trainable_variables, config.layer_decay)
        with strategy.scope():  # compiling again is what makes a changed `trainable` count
            length = phase.steps or keras.Variable(state.progress, trainable=False, aggregation="only_first_replica")
            learner = share_at_half_size(model) if phase.has_half_size else model
            _compile(learner, phase, length, steps_per_epoch, config, class_weights, multi_label, rates)
        keeper.restore(learner)
        done = len(state.history)
        end = state.phase_start + math.ceil(phase.steps / steps_per_epoch) if phase.steps else sys.maxsize
        if done < end and not state.stopped:
            limits: list[keras.callbacks.Callback] = []
            if phase.steps:
                limits.append(StepLimit(phase.steps - (done - state.phase_start) * steps_per_epoch))
            if clock:
                limits.append(Budget(clock, None if phase.steps else length, evaluation, steps_per_epoch, state))
            batches, measured = train(done), evaluation
            if phase.has_half_size:
                batches, measured = (data.map(halve_images, tf.data.AUTOTUNE) for data in (batches, measured))
            learner.fit(
                batches.with_options(workers.BY_BATCHES),
                steps_per_epoch=steps_per_epoch,
                validation_data=measured.with_options(workers.BY_BATCHES),
                initial_epoch=done,
                epochs=end,
                callbacks=[*limits, keeper, progress, *curves],
                verbose=0,
            )
        keeper.finish(learner)
        if state.history and is_diverged(state.history[-1]):
            break
    return state.history


@dataclass(frozen=True)
class _Phase:
    """A part of the training with a learning rate of its own course; without steps, it ends with the budget."""

    steps: int | None
    learning_rate: float
    trains_backbone: bool
    has_half_size: bool = False  # of the images


def _phases(config: TrainSettings, steps_per_epoch: int) -> list[_Phase]:
    steps = None if config.budget else config.steps or config.epochs * steps_per_epoch
    trains_backbone = config.layer_decay > 0
    phases, rate = [], config.learning_rate
    if config.frozen_epochs:
        phases.append(_Phase(config.frozen_epochs * steps_per_epoch, rate, False))
        rate = config.fine_tune_learning_rate or rate
    if steps and (small := int(steps * config.half_size)):
        phases.append(_Phase(small, rate, trains_backbone, has_half_size=True))
        steps -= small
    return [*phases, _Phase(steps, rate, trains_backbone)]


def _freeze(backbone: keras.Model, phase: _Phase, config: TrainSettings) -> None:
    """Freezes what the phase does not train, and lets the rest be trained."""
    backbone.trainable = phase.trains_backbone
    if config.freeze_batch_norm:
        for layer in backbone._flatten_layers():  # also those of a network within it
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.trainable = False


def _compile(
    model: keras.Model,
    phase: _Phase,
    length: int | keras.Variable,
    steps_per_epoch: int,
    config: TrainSettings,
    class_weights: list[float] | None,
    multi_label: bool,
    rates: list[float],
) -> None:
    variables = model.trainable_variables
    model.compile(
        optimizer=build_optimizer(phase.learning_rate, length, steps_per_epoch, variables, config, rates),
        loss=build_loss(
            config.loss,
            focal_gamma=config.focal_gamma,
            label_smoothing=config.label_smoothing,
            class_weights=class_weights,
            multi_label=multi_label,
        ),
        metrics=build_metrics(model.output_shape[-1], multi_label),
        jit_compile=config.xla,
    )
    model.optimizer.build(variables)


def build_batches(
    examples_once: tf.data.Dataset,
    *,
    examples: int,
    batch_size: int,
    seed: int,
    cache_bytes: int,
    augment: Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]],
) -> Callable[[int], tf.data.Dataset]:
    """Shuffles, batches and augments the training split, epoch after epoch without a pause.

    The order within an epoch is a function of seed and epoch, so that an interrupted training can go on in it. All epochs
    share one cache, filled by the first.

    Args:
      examples_once: (uint8 image, float32 labels), the whole split, always in the same order.
      examples: how many.
      batch_size: up to `examples`; what does not fill a batch is left for another epoch.
      seed: of the order.
      cache_bytes: the split is kept in memory where its pixels take no more.
      augment: as `models.augmentation.build_augmentation` makes it.

    Returns:
      From the number of an epoch (the first is 0) to the endless batches from that epoch on.
    """
    image_bytes = int(np.prod(examples_once.element_spec[0].shape))
    if examples * image_bytes <= cache_bytes:
        examples_once = examples_once.cache()
    buffer = min(examples, max(batch_size, _SHUFFLE_BYTES // image_bytes))

    @tf.autograph.experimental.do_not_convert
    def one_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        tf.random.set_seed(seed + 1)  # of this function's graph; never 0, which `shuffle` would have to compare `epoch` with
        return examples_once.shuffle(buffer, seed=epoch).batch(batch_size, drop_remainder=True)

    def from_epoch(first: int) -> tf.data.Dataset:
        epochs = tf.data.Dataset.range(first, tf.int64.max)
        return epochs.flat_map(one_epoch).map(augment, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)

    return from_epoch


def without_groups(evaluation: tf.data.Dataset) -> tf.data.Dataset:
    """The eval split's batches as Keras measures them: (images, labels)."""
    return evaluation.map(lambda images, labels, groups: (images, labels))


def read_images(
    files: list[str],
    image_shape: tuple[int, int, int],
    classes: Sequence[str],
    with_groups: bool = False,
    most: int | None = None,
) -> tf.data.Dataset:
    """Reads decoded examples.

    Args:
      files: patterns of TFRecord files.
      image_shape: (height, width, channels).
      classes: the label vocabulary; a label that is not in it is all zeros.
      with_groups: whether an element has a number for its group as well, int64, -1 where the examples have none.
      most: number of examples that are read, the first of each file, in which their order is random; None: all.

    Returns:
      A data set of (uint8 [*image_shape], float32 [classes]), one element an example, decoded in parallel; labels are one-hot,
      those of multi-label data have a one for each class of the image.
    """
    vocabulary = tf.lookup.KeyValueTensorInitializer(tf.constant(classes), tf.range(len(classes), dtype=tf.int64))
    positions = tf.lookup.StaticHashTable(vocabulary, default_value=-1)

    @tf.autograph.experimental.do_not_convert
    def parse(examples: tf.Tensor) -> tuple[tf.Tensor, ...]:
        parsed = tf.io.parse_example(
            examples,
            {
                features.ENCODED: tf.io.FixedLenFeature([], tf.string, ""),
                features.PIXELS: tf.io.FixedLenFeature([], tf.string, ""),
                features.LABEL: tf.io.VarLenFeature(tf.string),
                features.GROUP: tf.io.FixedLenFeature([], tf.string, ""),
            },
        )
        labels = multi_hot(positions.lookup(parsed[features.LABEL]), len(classes))
        encoded, pixels = parsed[features.ENCODED], parsed[features.PIXELS]
        images = tf.cond(
            tf.reduce_any(pixels == ""),
            lambda: decode_images(encoded, image_shape),
            lambda: parse_images(pixels, image_shape),
        )
        pair = images, labels
        group = parsed[features.GROUP]
        number = tf.where(tf.equal(group, ""), tf.constant(-1, tf.int64), tf.strings.to_hash_bucket_fast(group, tf.int64.max))
        return (*pair, number) if with_groups else pair

    together = max(1, min(64, _PARSED_BYTES // int(np.prod(image_shape))))
    return _interleave_records(files, most).batch(together).map(parse, num_parallel_calls=tf.data.AUTOTUNE).unbatch()


def read_statistics(transform_output: tft.TFTransformOutput) -> dict[str, np.ndarray]:
    """What Transform's analyzers found over the training split: TRAIN_EXAMPLES, CHANNEL_MEAN, CHANNEL_VARIANCE."""
    any_image = tf.io.encode_png(tf.zeros([1, 1, 1], tf.uint8))[tf.newaxis]
    found = transform_files(transform_output.transform_features_layer(), transform_output.raw_feature_spec(), any_image)
    return {
        name: found[name][0].numpy() for name in (features.TRAIN_EXAMPLES, features.CHANNEL_MEAN, features.CHANNEL_VARIANCE)
    }


def _interleave_records(patterns: list[str], most: int | None = None) -> tf.data.Dataset:
    files = tf.data.Dataset.list_files(patterns, shuffle=False)
    each = -1 if most is None else -(-most // max(1, len(files)))  # -1: all
    read = files.interleave(lambda file: tf.data.TFRecordDataset(file).take(each), num_parallel_calls=tf.data.AUTOTUNE)
    return read if most is None else read.take(most)


def read_class_counts(transform_output: tft.TFTransformOutput) -> list[int]:
    """How many examples of the training split have each label, in the order of the label vocabulary."""
    lines = [line.split(b" ", 1) for line in transform_output.vocabulary_by_name(features.LABEL_COUNTS)]
    counts = {label: int(count) for count, label in lines}
    return [counts[label] for label in transform_output.vocabulary_by_name(features.LABEL_VOCABULARY)]


def _strategy(devices: list[str] | None = None) -> tf.distribute.Strategy:
    """Devices as mirrors of each other, or the one device that there is; all GPUs of this machine if not given."""
    if devices is None:
        gpus = tf.config.list_physical_devices("GPU")
        for gpu in gpus:
            try:
                tf.config.experimental.set_memory_growth(gpu, True)
            except RuntimeError:  # an earlier step of this process has started the device
                log.warning("the memory of %s is not shared with other processes", gpu.name)
        devices = [device.name for device in tf.config.list_logical_devices("GPU")]
    return tf.distribute.MirroredStrategy(devices) if len(devices) > 1 else tf.distribute.get_strategy()


def _synchronise_batch_norm(model: keras.Model) -> None:
    """Lets batch statistics be those of the whole batch, not of one replica's share."""
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = True
