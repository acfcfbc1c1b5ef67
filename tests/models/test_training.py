"""Rates, losses, phases and input of the training loop."""

import json
import logging
from dataclasses import asdict

import keras
import numpy as np
import pytest
import tensorflow as tf

from models import features, training
from models.calibration import CALIBRATION_FILE, calibrate
from models.fpn import build_classifier
from models.preprocessing import serialize_images

CONFIG = {
    "epochs": 1,
    "frozen_epochs": 0,
    "batch_size": 8,
    "learning_rate": 0.01,
    "fine_tune_learning_rate": None,
    "freeze_batch_norm": False,
    "weight_decay": 0.0,
    "warmup_epochs": 0.0,
    "label_smoothing": 0.0,
    "early_stopping": 0,
    "xla": False,
}
RANDOM = np.random.default_rng(5)
IMAGES = RANDOM.integers(0, 256, (32, 16, 16, 1), dtype=np.uint8)
LABELS = RANDOM.integers(0, 2, 32)
ONE_HOT = np.eye(2, dtype=np.float32)[LABELS]


def small_model():
    keras.utils.set_random_seed(0)
    return build_classifier(
        image_shape=(16, 16, 1),
        num_classes=2,
        channel_mean=[127.0],
        channel_variance=[5000.0],
        backbone="small_resnet10",
        weights="none",
        min_level=2,
        max_level=3,
        num_filters=4,
        fusion_type="sum",
        dropout=0.0,
    )


def train(model, log_dir, **changes):
    data = tf.data.Dataset.from_tensor_slices((IMAGES, ONE_HOT)).batch(8)
    training.fit(model, tf.distribute.get_strategy(), data, data, 4, {**CONFIG, **changes}, str(log_dir))
    return model


def backbone_weights(model):
    return {weight.path: weight.numpy().copy() for weight in model.get_layer("backbone").weights}


def changed(before, after):
    return {path for path, value in after.items() if not np.array_equal(value, before[path])}


def test_the_rate_warms_up_linearly_and_falls_along_a_cosine():
    optimizer = training._optimizer(0.1, steps=100, steps_per_epoch=10, config={**CONFIG, "warmup_epochs": 2})
    rates = np.array([optimizer._learning_rate(step) for step in range(101)])
    np.testing.assert_allclose(rates[:21], np.linspace(0, 0.1, 21), atol=1e-7)
    decay = 0.05 * (1 + np.cos(np.pi * np.arange(81) / 80))
    np.testing.assert_allclose(rates[20:], decay, atol=1e-7)


def test_one_single_step_can_be_trained():
    optimizer = training._optimizer(0.1, steps=1, steps_per_epoch=1, config={**CONFIG, "warmup_epochs": 5})
    assert float(optimizer._learning_rate(0)) == pytest.approx(0.1)


def test_the_first_phase_leaves_the_backbone_alone(tmp_path, monkeypatch):
    model = small_model()
    before = backbone_weights(model)
    snapshots = []
    fit = keras.Model.fit

    def fit_and_remember(self, *arguments, **keywords):
        result = fit(self, *arguments, **keywords)
        snapshots.append((backbone_weights(model), model.get_layer("pyramid").get_weights()))
        return result

    monkeypatch.setattr(keras.Model, "fit", fit_and_remember)
    train(model, tmp_path, frozen_epochs=1, epochs=1)
    (frozen, pyramid_after_first), (final, pyramid_after_second) = snapshots
    assert not changed(before, frozen)
    assert changed(frozen, final)
    assert any((first != second).any() for first, second in zip(pyramid_after_first, pyramid_after_second, strict=True))


def test_frozen_batch_statistics_do_not_move(tmp_path):
    model = small_model()
    before = backbone_weights(model)
    moved = changed(before, backbone_weights(train(model, tmp_path, freeze_batch_norm=True)))
    assert moved
    assert not any("bn" in path for path in moved)


def test_early_stopping_ends_training_and_keeps_the_best_weights(tmp_path, caplog):
    model = small_model()
    with caplog.at_level(logging.INFO, logger="models.training"):
        train(model, tmp_path, epochs=30, early_stopping=1, learning_rate=0.5)
    losses = [float(record.getMessage().split("eval loss ")[1].split()[0]) for record in caplog.records]
    assert len(losses) < 30
    assert model.evaluate(IMAGES, ONE_HOT, verbose=0)[0] == pytest.approx(min(losses), abs=1e-3)


def test_progress_counts_every_step_up_to_the_total(tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="models.training"):
        train(small_model(), tmp_path, frozen_epochs=1, epochs=2)
    progress = [record.progress for record in caplog.records]
    assert [item["done"] for item in progress] == [4, 8, 12]
    assert {item["total"] for item in progress} == {12}
    assert progress[-1]["text"].startswith("epoch 3/3")


def test_training_leaves_curves_for_tensorboard(tmp_path):
    train(small_model(), tmp_path)
    assert list(tmp_path.glob("train/events*"))
    assert list(tmp_path.glob("validation/events*"))


def test_the_temperature_is_fitted_on_the_models_answers_and_kept_with_the_run(tmp_path):
    model = small_model()
    data = tf.data.Dataset.from_tensor_slices((IMAGES, ONE_HOT)).batch(5)
    temperature = training.find_temperature(model, data, str(tmp_path))
    expected = calibrate(model(IMAGES).numpy(), ONE_HOT)
    assert temperature == pytest.approx(expected.temperature, rel=1e-3)
    assert json.loads((tmp_path / CALIBRATION_FILE).read_text()) == pytest.approx(asdict(expected), rel=1e-3)


def test_a_diverged_model_is_not_calibrated(tmp_path):
    model = small_model()
    model.get_layer("head_P2").set_weights([np.full((4, 2), np.nan), np.zeros(2)])
    data = tf.data.Dataset.from_tensor_slices((IMAGES, ONE_HOT)).batch(8)
    assert training.find_temperature(model, data, str(tmp_path)) == 1.0
    assert not (tmp_path / CALIBRATION_FILE).exists()


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records")
    serialized = serialize_images(tf.constant(IMAGES)).numpy()
    for shard in range(2):
        with tf.io.TFRecordWriter(str(folder / f"part-{shard}.gz"), "GZIP") as writer:
            for index in range(shard, len(IMAGES), 2):
                feature = {
                    features.IMAGE: tf.train.Feature(bytes_list=tf.train.BytesList(value=[serialized[index]])),
                    features.LABEL_INDEX: tf.train.Feature(int64_list=tf.train.Int64List(value=[LABELS[index]])),
                    features.TRAIN_EXAMPLES: tf.train.Feature(int64_list=tf.train.Int64List(value=[32])),
                    features.CHANNEL_MEAN: tf.train.Feature(float_list=tf.train.FloatList(value=[127.5])),
                    features.CHANNEL_VARIANCE: tf.train.Feature(float_list=tf.train.FloatList(value=[5000.25])),
                }
                example = tf.train.Example(features=tf.train.Features(feature=feature))
                writer.write(example.SerializeToString())
    return [str(folder / "*")]


def test_every_transformed_example_is_read_once_with_its_label(records):
    read = list(training.read_images(records, (16, 16, 1), 2).as_numpy_iterator())
    expected = {image.tobytes(): label.tolist() for image, label in zip(IMAGES, ONE_HOT, strict=True)}
    assert len(read) == len(IMAGES)
    assert {image.tobytes(): label.tolist() for image, label in read} == expected


def test_the_statistics_of_the_training_split_come_with_the_examples(records):
    statistics = training.read_statistics(records)
    assert statistics[features.TRAIN_EXAMPLES] == 32
    assert statistics[features.CHANNEL_MEAN].tolist() == [127.5]
    assert statistics[features.CHANNEL_VARIANCE].tolist() == [5000.25]


def test_hyperparameters_replace_what_the_sections_say():
    config = {"train": {"learning_rate": 0.1, "epochs": 2}, "model": {"dropout": 0.2}, "code": "digest"}
    changed = training.with_hyperparameters(config, {"train.learning_rate": 0.3, "model.dropout": 0.0})
    assert changed == {"train": {"learning_rate": 0.3, "epochs": 2}, "model": {"dropout": 0.0}, "code": "digest"}
    assert config["train"]["learning_rate"] == 0.1
    with pytest.raises(ValueError, match=r"train\.lr is no key"):
        training.with_hyperparameters(config, {"train.lr": 0.3})
