"""Phases, checkpoints, input and devices of the training loop."""

import csv
import json
import logging
from dataclasses import asdict, replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from models import callbacks, features, training
from models.calibration import CALIBRATION_FILE, calibrate
from models.fitting import NOTHING, ask, fit_answers
from models.history import is_diverged
from models.preprocessing import serialize_images
from models.settings import CalibrationSettings
from pipeline.config.network import TrainConfig
from pipeline.config.whole import Config
from pipeline.dag.component_settings import train_settings, trainer_settings

CONFIG = train_settings(
    TrainConfig(epochs=1, batch_size=8, learning_rate=0.01, weight_decay=0.0, warmup_epochs=0.0, cache_gb=1.0)
)
RANDOM = np.random.default_rng(5)
IMAGES = RANDOM.integers(0, 256, (32, 16, 16, 1), dtype=np.uint8)
LABELS = RANDOM.integers(0, 2, 32)
CLASSES = [b"b", b"a"]
ONE_HOT = np.eye(2, dtype=np.float32)[LABELS]
DATA = tf.data.Dataset.from_tensor_slices((IMAGES, ONE_HOT))
GROUPED = tf.data.Dataset.from_tensor_slices((IMAGES, ONE_HOT, np.arange(32) // 4))
EVALUATION = DATA.batch(8).with_options(training.UNTUNED)


TEMPERATURE = CalibrationSettings(temperature=True, sets=None, abstain=None, unusual=None)


def tiny_model():
    """What `training.fit` needs of a classifier: a layer `backbone`. It has batch statistics and a dropout."""
    keras.utils.set_random_seed(0)
    image = keras.Input((16, 16, 1))
    x = keras.layers.Conv2D(4, 3, strides=2)(image)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.8, name="bn")(x))
    inputs = keras.Input((16, 16, 1), dtype="uint8")
    x = keras.Model(image, x, name="backbone")(keras.layers.Rescaling(1 / 255)(inputs))
    x = keras.layers.Dropout(0.2)(keras.layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, keras.layers.Dense(2, dtype="float32", name="head")(x))


def batches(data=DATA, batch_size=8, cache_bytes=2**30):
    return training.build_batches(
        data, examples=32, batch_size=batch_size, seed=7, cache_bytes=cache_bytes, augment=lambda *batch: batch
    )


def train(model, log_dir, checkpoints=None, evaluation=EVALUATION, **changes):
    strategy = tf.distribute.get_strategy()
    folder = str(checkpoints) if checkpoints else None
    return training.fit(model, strategy, batches(), evaluation, 4, replace(CONFIG, **changes), str(log_dir), None, folder)


def backbone_weights(model):
    return {weight.path: weight.numpy().copy() for weight in model.get_layer("backbone").weights}


def changed(before, after):
    return {path for path, value in after.items() if not np.array_equal(value, before[path])}


def read_history(folder):
    with open(f"{folder}/history.csv") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def test_the_first_phase_leaves_the_backbone_alone(tmp_path, monkeypatch):
    model = tiny_model()
    before = backbone_weights(model)
    snapshots = []
    fit = keras.Model.fit

    def fit_and_remember(self, *arguments, **keywords):
        result = fit(self, *arguments, **keywords)
        snapshots.append((backbone_weights(model), model.get_layer("head").get_weights()))
        return result

    monkeypatch.setattr(keras.Model, "fit", fit_and_remember)
    train(model, tmp_path, frozen_epochs=1, epochs=1)
    (frozen, head_after_first), (final, head_after_second) = snapshots
    assert not changed(before, frozen)
    assert changed(frozen, final)
    assert any((first != second).any() for first, second in zip(head_after_first, head_after_second, strict=True))


def test_frozen_batch_statistics_do_not_move(tmp_path):
    model = tiny_model()
    before = backbone_weights(model)
    train(model, tmp_path, freeze_batch_norm=True)
    moved = changed(before, backbone_weights(model))
    assert moved
    assert not any("bn" in path for path in moved)


@pytest.mark.parametrize(("monitor", "best"), [("loss", min), ("f1", max)])
def test_the_best_epoch_by_the_chosen_metric_is_kept(tmp_path, monitor, best):
    model = tiny_model()
    opposite = DATA.map(lambda image, label: (image, 1 - label)).batch(8)
    history = train(model, tmp_path, epochs=6, keep="best", monitor=monitor, learning_rate=0.1, evaluation=opposite)
    values = [row[f"val_{monitor}"] for row in history]
    assert best(values) != values[-1]
    measured = model.evaluate(opposite, return_dict=True, verbose=0)
    assert measured[monitor] == pytest.approx(best(values), abs=1e-5)


def test_early_stopping_ends_a_phase_and_keeps_the_best_epoch(tmp_path):
    model = tiny_model()
    history = train(model, tmp_path, frozen_epochs=40, epochs=40, early_stopping=2, learning_rate=0.5)
    losses = [row["val_loss"] for row in history]
    assert len(losses) < 80
    assert [row["epoch"] for row in history] == list(range(1, len(losses) + 1))
    assert min(losses[-2:]) >= min(losses[:-2])
    assert model.evaluate(EVALUATION, verbose=0)[0] == pytest.approx(min(losses), abs=1e-5)


@pytest.mark.case(10)
def test_a_diverged_training_ends_in_that_epoch_and_says_why(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "models.callbacks"):
        history = train(tiny_model(), tmp_path, frozen_epochs=3, epochs=3, optimizer="sgd", learning_rate=1e38)
    assert len(history) == 1
    (text,) = (record.getMessage() for record in caplog.records)
    assert text.startswith("Training diverged in epoch 1: loss ")
    assert "inf, learning rate 7.5e+37; set" in text
    assert text.endswith("set train.learning_rate lower, to a tenth for example, or train.clip_norm: 1")
    (row,) = read_history(tmp_path)
    assert is_diverged(row)


def test_the_weights_from_before_a_training_diverged_are_kept(tmp_path):
    def train_batches(first):
        good = batches()(first)
        bad = good.map(lambda images, labels: (images, labels * np.nan))
        return good.take(4).concatenate(bad)

    model, config = tiny_model(), replace(CONFIG, epochs=3, keep="best")
    history = training.fit(model, tf.distribute.get_strategy(), train_batches, EVALUATION, 4, config, str(tmp_path))
    assert [is_diverged(row) for row in history] == [False, True]
    assert model.evaluate(EVALUATION, verbose=0)[0] == pytest.approx(history[0]["val_loss"], abs=1e-5)


def test_averaged_weights_are_measured_and_left_in_the_model(tmp_path):
    plain = train(tiny_model(), tmp_path / "plain", epochs=3, learning_rate=0.1)
    model = tiny_model()
    averaged = train(model, tmp_path / "averaged", epochs=3, learning_rate=0.1, ema=0.9)
    # What is trained is the same; what is measured is not.
    assert [row["loss"] for row in averaged] == pytest.approx([row["loss"] for row in plain], abs=1e-5)
    assert all(abs(first["val_loss"] - second["val_loss"]) > 1e-4 for first, second in zip(plain, averaged, strict=True))
    assert model.evaluate(EVALUATION, verbose=0)[0] == pytest.approx(averaged[-1]["val_loss"], abs=1e-5)


def test_a_step_is_traced_once_for_a_phase(tmp_path, monkeypatch):
    model, traces = tiny_model(), []
    for name in ("train_step", "test_step"):
        step = getattr(model, name)
        monkeypatch.setattr(model, name, lambda data, name=name, step=step: (traces.append(name), step(data))[1])
    train(model, tmp_path, frozen_epochs=1, epochs=2, ema=0.9, clip_norm=1.0)
    assert traces == ["train_step", "test_step"] * 2


def progress_of(caplog):
    """What was told of the progress; TensorFlow has a log of its own."""
    return [record.progress for record in caplog.records if hasattr(record, "progress")]


def test_progress_counts_every_step_up_to_the_total(tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="models.callbacks"):
        train(tiny_model(), tmp_path, frozen_epochs=1, epochs=2)
    progress = progress_of(caplog)
    assert [item["done"] for item in progress] == [4, 8, 12]
    assert {item["total"] for item in progress} == {12}
    assert progress[-1]["text"].startswith("epoch 3/3")


def test_a_training_of_some_steps_ends_with_them_and_its_rate_at_0(tmp_path, caplog):
    model, settings = tiny_model(), {"frozen_epochs": 1, "steps": 6, "warmup_epochs": 1.0, "optimizer": "sgd"}
    with caplog.at_level(logging.INFO, logger="models.callbacks"):
        history = train(model, tmp_path, **settings)
    assert [row["epoch"] for row in history] == [1, 2, 3]  # four frozen steps, then four and two
    assert int(model.optimizer.iterations) == 6
    assert history[1]["learning_rate"] == pytest.approx(0.01 * 0.5 * (1 + np.cos(np.pi * 4 / 6)))
    assert history[2]["learning_rate"] == pytest.approx(0, abs=1e-9)
    assert [item["done"] for item in progress_of(caplog)] == [4, 8, 10]
    assert {item["total"] for item in progress_of(caplog)} == {10}


def test_steps_of_whole_epochs_train_as_the_epochs_do(tmp_path):
    epochs = train(tiny_model(), tmp_path / "epochs", epochs=3)
    assert train(tiny_model(), tmp_path / "steps", steps=12) == [pytest.approx(row, abs=1e-6) for row in epochs]


def test_a_training_of_fewer_steps_than_an_epoch_has_one_short_epoch(tmp_path):
    model = tiny_model()
    assert len(train(model, tmp_path, steps=3)) == 1
    assert int(model.optimizer.iterations) == 3


@pytest.mark.parametrize("length", [{"epochs": 2}, {"steps": 7}])
def test_a_training_that_was_cut_short_goes_on_as_if_it_had_not_been(length, tmp_path, monkeypatch):
    checkpoints = tmp_path / "checkpoints"
    settings = {**length, "frozen_epochs": 1, "keep": "best", "ema": 0.5, "accumulate_steps": 3, "warmup_epochs": 1.0}
    settings["layer_decay"] = 0.5
    model = tiny_model()
    whole = train(model, tmp_path / "whole", **settings)

    save = callbacks.save_checkpoint
    monkeypatch.setattr(callbacks, "save_checkpoint", lambda *arguments: (save(*arguments), 1 / 0))
    for _ in range(3):  # after every epoch, the last of a phase and of all among them
        with pytest.raises(ZeroDivisionError):
            train(tiny_model(), tmp_path / "killed", checkpoints, **settings)
    monkeypatch.undo()
    resumed = tiny_model()
    history = train(resumed, tmp_path / "last", checkpoints, **settings)
    for first, second in zip(whole, history, strict=True):
        assert second == pytest.approx(first, abs=1e-5)
    for first, second in zip(model.weights, resumed.weights, strict=True):
        np.testing.assert_allclose(first, second, atol=1e-5)


def looked_at(model):
    """Logits, and the mean grey level as embedding."""
    return lambda images: (model(images), tf.reduce_mean(tf.cast(images, tf.float32), axis=(1, 2)))


def test_the_temperature_is_fitted_on_the_models_answers_and_kept_with_the_run(tmp_path):
    model = tiny_model()
    answers = ask(looked_at(model), GROUPED.batch(5))
    temperature = fit_answers(answers, TEMPERATURE, str(tmp_path)).temperature
    expected = calibrate(model(IMAGES).numpy(), ONE_HOT)
    assert temperature == pytest.approx(expected.temperature, rel=1e-3)
    assert json.loads((tmp_path / CALIBRATION_FILE).read_text()) == pytest.approx(asdict(expected), rel=1e-3)


def test_images_without_a_group_are_groups_of_their_own():
    ungrouped = tf.data.Dataset.from_tensor_slices((IMAGES, ONE_HOT, np.where(np.arange(32) < 8, 3, -1)))
    assert ask(looked_at(tiny_model()), GROUPED.batch(5)).groups.tolist() == (np.arange(32) // 4).tolist()
    assert len(set(ask(looked_at(tiny_model()), ungrouped.batch(5)).groups.tolist())) == 1 + 24


def test_a_diverged_model_is_not_calibrated(tmp_path):
    model = tiny_model()
    model.get_layer("head").set_weights([np.full((4, 2), np.nan), np.zeros(2)])
    assert fit_answers(ask(looked_at(model), GROUPED.batch(8)), TEMPERATURE, str(tmp_path)) == NOTHING
    assert not (tmp_path / CALIBRATION_FILE).exists()


def events(folder):
    found = []
    for path in sorted(Path(folder).glob("events*")):
        for record in tf.compat.v1.train.summary_iterator(str(path)):
            found += [(value.tag, record.step, float(tf.make_ndarray(value.tensor))) for value in record.summary.value]
    return found


def test_curves_of_all_epochs_are_left_for_tensorboard(tmp_path):
    checkpoints = tmp_path / "checkpoints"
    train(tiny_model(), tmp_path / "first", checkpoints, epochs=2)
    history = train(tiny_model(), tmp_path / "second", checkpoints, epochs=2)
    for split, prefix in (("train", ""), ("validation", "val_")):
        losses = [(step, value) for tag, step, value in events(tmp_path / "second" / split) if tag == "epoch_loss"]
        assert losses == [(row["epoch"], pytest.approx(row[f"{prefix}loss"])) for row in history]
    assert read_history(tmp_path / "second") == history


def test_mixed_precision_trains_and_keeps_its_weights_and_logits_in_32_bit(tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = tiny_model()
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.get_layer("backbone").layers[1].compute_dtype == "bfloat16"
    history = train(model, tmp_path, epochs=20, learning_rate=0.05)
    assert history[-1]["loss"] < history[0]["loss"]
    assert {weight.dtype for weight in model.trainable_weights} == {"float32"}
    assert model(IMAGES).dtype == tf.float32


def orders(data, epochs, steps=4):
    """The labels of some epochs, which here number the examples."""
    found = np.stack([labels.numpy()[:, 0] for _, labels in data.take(epochs * steps)])
    return found.reshape(epochs, -1).astype(int).tolist()


NUMBERED = tf.data.Dataset.from_tensor_slices((IMAGES, np.arange(32, dtype=np.float32)[:, None]))


@pytest.mark.parametrize("cache_bytes", [0, 2**30])
def test_the_order_of_an_epoch_does_not_depend_on_where_training_starts(cache_bytes):
    data = batches(NUMBERED, cache_bytes=cache_bytes)
    first, second, third = orders(data(0), 3)
    assert all(sorted(order) == list(range(32)) for order in (first, second, third))
    assert first != second != third
    assert orders(batches(NUMBERED, cache_bytes=cache_bytes)(1), 2) == [second, third]


def test_no_batch_is_made_of_two_epochs():
    for order in orders(batches(NUMBERED, batch_size=10)(0), 3, steps=3):
        assert len(set(order)) == 30


def test_examples_are_read_once_for_all_epochs_and_phases():
    reads = []

    def read(image, label):
        tf.py_function(lambda: reads.append(0), [], [])
        return image, label

    data = batches(NUMBERED.map(read))
    for first in (0, 2):
        assert len(orders(data(first), 2)) == 2
    assert len(reads) == 32


@pytest.mark.parametrize("optimizer", ["sgd", "muon"])
def test_two_devices_train_to_the_same_loss_as_one(optimizer, starter, tmp_path):
    program = f"""
import json, sys
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_training as test
losses = []
for devices in (None, ["CPU:0", "CPU:1"]):
    strategy = test.training._strategy(devices)
    with strategy.scope():
        model = test.tiny_model()
        model.layers[-2].rate = 0.0  # each device draws its own random numbers
    config = test.replace(test.CONFIG, epochs=3, clip_norm=0.1, ema=0.5, weight_decay=0.1, optimizer={optimizer!r})
    config = test.replace(config, layer_decay=0.5)
    history = test.training.fit(model, strategy, test.batches(), test.EVALUATION, 4, config, {str(tmp_path)!r} + str(devices))
    losses.append([[row["loss"], row["val_loss"], row["val_f1"]] for row in history])
print(json.dumps([strategy.num_replicas_in_sync, *losses]))
"""
    done = starter.execute(program).end()
    assert done.status == 0, done.stderr[-2000:]
    replicas, one, two = json.loads(done.stdout.splitlines()[-1])
    assert replicas == 2
    # The gradient of a bias before a batch normalisation is rounding errors, of which Muon's Adam makes steps.
    np.testing.assert_allclose(one, two, rtol=3e-4)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records")
    serialized = serialize_images(tf.constant(IMAGES)).numpy()
    for shard in range(2):
        with tf.io.TFRecordWriter(str(folder / f"part-{shard}")) as writer:
            for index in range(shard, len(IMAGES), 2):
                values = {features.PIXELS: serialized[index], features.LABEL: CLASSES[LABELS[index]]}
                feature = {name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[text])) for name, text in values.items()}
                writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
    return [str(folder / "*")]


@pytest.mark.parametrize("parsed_bytes", [1, 700, 2**26])
def test_every_decoded_example_is_read_once_with_its_label(records, parsed_bytes, monkeypatch):
    monkeypatch.setattr(training, "_PARSED_BYTES", parsed_bytes)
    read = list(training.read_images(records, (16, 16, 1), CLASSES).as_numpy_iterator())
    expected = {image.tobytes(): label.tolist() for image, label in zip(IMAGES, ONE_HOT, strict=True)}
    assert len(read) == len(IMAGES)
    assert {image.tobytes(): label.tolist() for image, label in read} == expected


def test_labels_and_groups_of_any_number_are_read(tmp_path):
    examples = [([b"b", b"a"], [b"p1"]), ([], [b"p2"]), ([b"unknown", b"a"], [b"p1"]), ([b"b"], [])]
    with tf.io.TFRecordWriter(str(tmp_path / "records")) as writer:
        for labels, groups in examples:
            values = {features.PIXELS: [bytes(12)], features.LABEL: labels, **({features.GROUP: groups} if groups else {})}
            feature = {name: tf.train.Feature(bytes_list=tf.train.BytesList(value=texts)) for name, texts in values.items()}
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
    read = training.read_images([str(tmp_path / "*")], (2, 2, 3), CLASSES, with_groups=True)
    images, labels, (first, second, third, none) = zip(*read.as_numpy_iterator(), strict=True)
    assert np.shape(images) == (4, 2, 2, 3)
    assert np.stack(labels).tolist() == [[1, 1], [0, 0], [0, 1], [1, 0]]
    assert first == third != second
    assert min(first, second) >= 0
    assert none == -1


def test_hyperparameters_replace_what_the_sections_say():
    config = trainer_settings(Config(name="x", data={"path": "."}, train={"learning_rate": 0.1}), checkpoints="")
    changed = training.with_hyperparameters(config, {"train.learning_rate": 0.3, "model.dropout": 0.0})
    train, model = replace(config.train, learning_rate=0.3), replace(config.model, dropout=0.0)
    assert changed == replace(config, train=train, model=model)
    assert config.train.learning_rate == 0.1
    with pytest.raises(ValueError, match=r"train\.lr is no key"):
        training.with_hyperparameters(config, {"train.lr": 0.3})
