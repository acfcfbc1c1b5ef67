"""Large images in tiles: the answer, its gradients and its explanation are those of the same network on each tile."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft

from models import tiles as module
from models.embedding import find_pooling
from models.export import export_model
from models.fpn import build_classifier
from models.gradcam import explain_maps, explain_tiles, split
from models.tiles import Tiles, tile_classifier
from models.training import fit
from pipeline.config.network import ModelConfig, TrainConfig
from pipeline.dag.component_settings import classifier_config, train_settings

RANDOM = np.random.default_rng(4)
SIZE, OVERLAP, CHUNK = 16, 3, 5
IMAGES = RANDOM.integers(0, 256, (3, 37, 52, 1), dtype=np.uint8)  # no side is a multiple of a tile's
ROWS, COLUMNS = (0, 10, 21), (0, 12, 24, 36)  # 10.5 is rounded to the even
LABELS = np.eye(3, dtype=np.float32)
SMALL = classifier_config(ModelConfig(backbone="small_resnet10", min_level=2, max_level=3, num_filters=6, norm="batch"))


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    monkeypatch.setattr(module, "_CHUNK_PIXELS", CHUNK * SIZE**2)


def classifier(shape=IMAGES.shape[1:], overlap=OVERLAP, **changes):
    """The network of a tile, and the classifier of images, with a sharpness other than that of the start."""
    keras.utils.set_random_seed(1)
    network = build_classifier(
        replace(SMALL, **changes),
        image_shape=(SIZE, SIZE, 1),
        num_classes=3,
        channel_mean=[127.0],
        channel_variance=[5000.0],
    )
    model = tile_classifier(network, shape, overlap)
    model.get_layer("tiles").pooling.log_sharpness.assign(0.7)
    return network, model


def cut(images=IMAGES):
    return np.concatenate(
        [[image[top : top + SIZE, left : left + SIZE] for top in ROWS for left in COLUMNS] for image in images]
    )


def numpy_answer(logits):
    logits = np.asarray(logits, np.float64).reshape(-1, len(ROWS) * len(COLUMNS), 3)
    return np.log(np.exp(np.exp(0.7) * logits).mean(1)) / np.exp(0.7)


def test_the_answer_equals_numpy_and_no_pixel_is_left_out():
    network, model = classifier()
    np.testing.assert_array_equal(model.get_layer("tiles").cut(IMAGES), cut())
    np.testing.assert_allclose(model(IMAGES), numpy_answer(network(cut(), training=False)), atol=1e-5)
    assert model.output.shape == (None, 3)
    assert ROWS[-1] + SIZE == IMAGES.shape[1]
    assert COLUMNS[-1] + SIZE == IMAGES.shape[2]


def test_an_image_of_one_tile_has_the_answer_of_the_network():
    network, model = classifier(shape=(SIZE, SIZE, 1), overlap=0)
    images = IMAGES[:, :SIZE, :SIZE]
    np.testing.assert_allclose(model(images), network(images, training=False), atol=1e-5)


def loss_of(logits):
    return -tf.reduce_sum(LABELS * tf.nn.log_softmax(logits))


def gradients(model, answer):
    variables = [variable.value for variable in model.trainable_variables]
    with tf.GradientTape() as tape:
        loss = loss_of(answer())
    return tape.gradient(loss, variables)


@pytest.mark.parametrize("how", ["eager", "graph", "xla"])
def test_gradients_over_chunks_are_those_of_all_tiles_at_once(how):
    network, model = classifier(norm="none", dropout=0.0)
    network.get_layer("backbone").trainable = False  # without batch statistics, chunks do not matter
    tiles = model.get_layer("tiles")
    expected = gradients(model, lambda: tiles.combine(tf.reshape(network(cut(), training=True), [3, -1, 3])))

    def step():
        return gradients(model, lambda: model(IMAGES, training=True))

    found = step() if how == "eager" else tf.function(step, jit_compile=how == "xla")()
    assert len(found) == len(model.trainable_variables) > 10
    for variable, value, wanted in zip(model.trainable_variables, found, expected, strict=True):
        np.testing.assert_allclose(value, wanted, atol=2e-5, err_msg=variable.path)


def test_moving_statistics_change_once_per_step_by_the_mean_over_chunks():
    network, model = classifier(dropout=0.0)
    name = "stage1_block1_1_bn"
    bn = next(layer for layer in network.get_layer("backbone")._flatten_layers() if layer.name == name)
    before = bn.moving_mean.numpy()
    seen = keras.Model(network.get_layer("backbone").input, bn.input)
    pixels = cut().astype(np.float32)
    chunks = [pixels[first::8] for first in range(8)]  # 36 tiles in 8 chunks of 5, 4 of them twice
    for first in range(4, 8):
        chunks[first] = np.concatenate([chunks[first], pixels[first - 4 : first - 3]])
    means = [np.asarray(seen(chunk)).mean((0, 1, 2)) for chunk in chunks]
    model(IMAGES, training=True)
    np.testing.assert_allclose(bn.moving_mean, 0.9 * before + 0.1 * np.mean(means, axis=0), rtol=1e-4, atol=1e-5)


def test_the_backward_pass_drops_what_the_forward_pass_dropped():
    network, model = classifier(dropout=0.5, norm="none")
    network.get_layer("backbone").trainable = False
    kernel = network.get_layer("head_P2").layers[-1].kernel
    seeds = [variable for variable in model.non_trainable_variables if "seed" in variable.path]
    start, direction = kernel.numpy(), RANDOM.normal(0, 1, kernel.shape).astype(np.float32)

    @tf.function
    def loss_and_gradient(step):
        for seed in seeds:
            seed.assign(tf.constant([7, 1], tf.uint32))
        kernel.assign(start + step * direction)
        with tf.GradientTape() as tape:
            loss = loss_of(model(IMAGES, training=True))
        return loss, tape.gradient(loss, kernel.value)

    gradient = loss_and_gradient(tf.constant(0.0))[1]
    higher, lower = (loss_and_gradient(tf.constant(step))[0] for step in (1e-2, -1e-2))
    assert len(seeds) == 2
    assert float(higher - lower) / 2e-2 == pytest.approx(float(tf.reduce_sum(gradient * direction)), rel=0.02)


def needles(count):
    """A bright square on noise in one of three places that the class does not depend on; its texture is the class."""
    images = RANDOM.integers(0, 100, (count, *IMAGES.shape[1:]), dtype=np.uint8)
    labels = np.arange(count) % 3
    for image, label in zip(images, labels, strict=True):
        top, left = RANDOM.integers(0, 28), RANDOM.integers(0, 43)
        square = np.full((9, 9, 1), 255, np.uint8)
        if label:
            square[::2] = 0
        image[top : top + 9, left : left + 9] = square.swapaxes(0, 1) if label == 2 else square
    return images, labels


def test_a_training_in_phases_lowers_the_loss(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK_PIXELS", 40 * SIZE**2)
    network, model = classifier()
    images, labels = needles(24)
    batches = tf.data.Dataset.from_tensor_slices((images, np.eye(3, dtype=np.float32)[labels])).batch(8, drop_remainder=True)
    snapshots = [weights(network)]
    fit_model = keras.Model.fit

    def fit_and_remember(self, *arguments, **keywords):
        fit_model(self, *arguments, **keywords)
        snapshots.append(weights(network))

    monkeypatch.setattr(keras.Model, "fit", fit_and_remember)
    config = train_settings(
        TrainConfig(frozen_epochs=1, epochs=8, batch_size=8, learning_rate=3e-3, warmup_epochs=0.0, clip_norm=1.0)
    )
    history = fit(model, tf.distribute.get_strategy(), lambda _: batches.repeat(), batches, 3, config, str(tmp_path))
    first, frozen, last = snapshots
    assert all((first[path] == value).all() for path, value in frozen.items())
    assert any((first[path] != value).any() for path, value in last.items())
    assert history[-1]["loss"] < 0.7 * history[0]["loss"]
    assert model.get_layer("tiles").pooling.log_sharpness.numpy() != np.float32(0.7)


def weights(network):
    return {variable.path: variable.numpy().copy() for variable in network.get_layer("backbone").weights}


def test_mixed_precision_trains_with_logits_in_float32():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        network, model = classifier()
        model.compile("adam", "mean_squared_error")
        assert np.isfinite(model.train_on_batch(IMAGES, LABELS))
    finally:
        keras.config.set_dtype_policy(policy)
    assert network.get_layer("pyramid").compute_dtype == "bfloat16"
    assert model.output.dtype == "float32"
    assert model(IMAGES).dtype == tf.float32


def test_a_saved_model_of_keras_gives_the_same_answers(tmp_path):
    _, model = classifier()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(loaded.get_layer("tiles"), Tiles)
    np.testing.assert_allclose(loaded(IMAGES), model(IMAGES), atol=1e-6)


@pytest.mark.parametrize("multi_label", [False, True])
def test_explanations_are_those_of_the_tiles_by_their_parts_in_the_answer(multi_label):
    network, model = classifier(pooling="average")
    chosen = np.array([2, 0, 1])
    found = explain_tiles(model.get_layer("tiles"), tf.constant(IMAGES), chosen, multi_label)
    levels, trunk, head = split(network)
    logits = np.asarray(network(cut(), training=False)).reshape(3, 12, 3)
    parts = np.exp(np.exp(0.7) * logits)
    parts = (parts / parts.sum(1, keepdims=True)).reshape(36, 3).astype(np.float32)
    tiles = explain_maps(
        trunk(cut(), training=False), levels, lambda maps, training: head(maps) * parts, np.repeat(chosen, 12), multi_label
    )
    assert found.levels == ("P2", "P3")
    np.testing.assert_allclose(found.contributions, np.asarray(tiles.contributions).reshape(3, 12, 2).sum(1), atol=1e-4)
    assert found.combined.shape == (3, 9, 13)
    # The cell of row 4 and column 12 has its centre at (18.5, 50): in the second row and the last column of tiles.
    tile = np.asarray(tiles.combined).reshape(3, 3, 4, 4, 4)[:, 1, 3]
    np.testing.assert_allclose(found.combined[:, 4, 12], 12 * tile[:, int(8.5 / 4), 3], atol=1e-4)


def test_maps_of_tiles_join_where_they_were_cut():
    layer = classifier()[1].get_layer("tiles")
    place = np.arange(37)[:, None] * 100.0 + np.arange(52)  # each pixel tells where it is
    joined = layer.join(layer.cut(place[np.newaxis, :, :, np.newaxis])[..., 0])
    np.testing.assert_array_equal(joined[0], place)


def test_the_exported_model_answers_and_explains_in_every_loader(exported, tmp_path):
    _, model = classifier(shape=(24, 20, 1))
    export_model(model, tft.TFTransformOutput(str(Path(exported.path).parent / "transform")), str(tmp_path))
    expected = tf.nn.softmax(model(exported.pictures[..., None])).numpy()
    loaded = tf.saved_model.load(str(tmp_path)).signatures
    answers = loaded["serving_default"](tf.constant(exported.files))
    np.testing.assert_allclose(answers["probabilities"], expected, atol=1e-5)
    explained = loaded["explain"](image_bytes=tf.constant(exported.files), label=tf.constant([""]))
    found = explain_tiles(model.get_layer("tiles"), tf.constant(exported.pictures[..., None]))
    np.testing.assert_allclose(explained["combined"], found.scaled_combined, atol=1e-4)
    np.testing.assert_allclose(explained["shares"], found.shares, atol=1e-4)
    embedded = loaded["embed"](tf.constant(exported.files))
    np.testing.assert_allclose(embedded["probabilities"], expected, atol=1e-5)
    tiles = model.get_layer("tiles")
    levels, trunk, _ = split(tiles.layer)
    pooled = find_pooling(tiles.layer, levels)(trunk(tiles.cut(exported.pictures[..., None]), training=False)).numpy()
    of_images = pooled.reshape(7, -1, pooled.shape[-1]).mean(axis=1)
    np.testing.assert_allclose(embedded["embedding"], of_images / np.linalg.norm(of_images, axis=-1, keepdims=True), atol=1e-5)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        signatures = tf.compat.v1.saved_model.loader.load(session, ["serve"], str(tmp_path)).signature_def
        for name, more in (("serving_default", {}), ("explain", {"label": [b""]})):
            signature = signatures[name]
            values = {signature.inputs[key].name: value for key, value in {"image_bytes": exported.files, **more}.items()}
            found = session.run(signature.outputs["probabilities"].name, values)
            np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.extra
def test_two_devices_train_tiles(tmp_path):
    program = f"""
import numpy as np, tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
from models import training
from pipeline.config.network import TrainConfig
from pipeline.dag.component_settings import train_settings
from tests.models.test_tiles import IMAGES, LABELS, classifier

strategy = training._strategy(["CPU:0", "CPU:1"])
with strategy.scope():
    _, model = classifier()
data = tf.data.Dataset.from_tensor_slices((IMAGES[:2], LABELS[:2])).batch(2, drop_remainder=True)
config = train_settings(TrainConfig(epochs=1, batch_size=2))
print(training.fit(model, strategy, lambda _: data.repeat(), data, 2, config, {str(tmp_path)!r})[0]["loss"])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert np.isfinite(float(done.stdout.splitlines()[-1]))
