"""A training begins with the weights of an earlier model, also of one with other classes or from another process."""

import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from tfx.components.trainer.fn_args_utils import FnArgs
from tiny_training import CONFIG, arguments, write_transformed

from models import features, training
from models.checkpoints import checkpoint_folder
from models.fpn import build_classifier
from models.tiles import tile_classifier
from models.training import run_fn
from models.warm_start import BaseModel, WarmStart, WarmStartError
from pipeline.config.network import ModelConfig
from pipeline.config.whole import Config
from pipeline.dag.component_settings import classifier_config

NETWORK = {"backbone": "small_resnet10", "min_level": 2, "max_level": 4, "num_filters": 8, "fusion_type": "concat"}
NAMES = ["cat", "dog", "owl"]  # of the exported model


def build(classes: int, channels: int = 1, **keys: object) -> keras.Model:
    """A network with new weights; the numbers in its layers' names are always others."""
    network = ModelConfig.model_validate(NETWORK | keys)
    moments = {"channel_mean": [127.0] * channels, "channel_variance": [5000.0] * channels}
    return build_classifier(classifier_config(network), image_shape=(24, 20, channels), num_classes=classes, **moments)


def export(folder: Path, model: keras.Model) -> BaseModel:
    """An export of the classes NAMES that has only as much as a start needs; no weight is as it was made."""
    for variable in model.trainable_variables:
        variable.assign(keras.random.normal(variable.shape, stddev=0.1) + 1.0)
    labels = tf.function(lambda examples: {"label": tf.zeros(tf.shape(examples), tf.int64)}, autograph=False)
    archive = keras.export.ExportArchive()
    spec = [tf.TensorSpec(model.input_shape, tf.uint8)]
    archive.add_endpoint("predict_images", lambda images: model(images, training=False), input_signature=spec)
    archive.add_endpoint("transform_labels", labels, input_signature=[tf.TensorSpec([None], tf.string)])
    archive.write_out(str(folder), verbose=False)
    (folder / "assets" / features.LABEL_VOCABULARY).write_text("\n".join(NAMES))
    return BaseModel(str(folder))


def logits(model: keras.Model, exported) -> np.ndarray:
    return model(exported.pictures[..., None], training=False).numpy()


def test_the_same_network_gives_the_same_answers(exported):
    model = build(3)
    assert not np.allclose(logits(model, exported), logits(exported.classifier, exported), atol=1e-3)
    BaseModel(exported.path).give_weights(model, NAMES, multi_label=False)
    assert np.allclose(logits(model, exported), logits(exported.classifier, exported), atol=1e-5)


def test_classes_are_matched_by_name_and_new_ones_begin_at_random(exported):
    base, model = BaseModel(exported.path), build(3)
    before = model.get_layer("head_P3").layers[-1].kernel.numpy()
    base.give_weights(model, ["owl", "cow", "cat"], multi_label=False)
    assert np.allclose(logits(model, exported)[:, [2, 0]], logits(exported.classifier, exported)[:, [0, 2]], atol=1e-5)
    assert np.array_equal(model.get_layer("head_P3").layers[-1].kernel.numpy()[:, 1], before[:, 1])
    assert base.compare(["owl", "cow", "cat"]) == WarmStart(exported.path, 2, ["cow"], ["dog"])


@pytest.mark.parametrize(
    "keys",
    [
        {"combine": "concat", "shared_head": True},
        {"combine": "learned", "pooling": "log_sum_exp", "activation": "relu", "fusion_type": "bifpn", "separable": True},
    ],
    ids=lambda keys: keys["combine"],
)
def test_classes_are_matched_in_every_kind_of_head(exported, tmp_path, keys):
    old, model = build(3, **keys), build(4, **keys)
    export(tmp_path / "model", old).give_weights(model, ["owl", "cow", "dog", "cat"], multi_label=False)
    if keys["combine"] == "concat":
        joined, before = (network.get_layer("logits").kernel.numpy() for network in (model, old))
        joined, before = joined.reshape(3, 4, 4), before.reshape(3, 3, 3)  # levels, their classes, classes
        here, there = [0, 2, 3], [2, 1, 0]
        assert np.array_equal(joined[np.ix_(range(3), here, here)], before[np.ix_(range(3), there, there)])
    else:
        assert np.allclose(logits(model, exported)[:, [3, 2, 0]], logits(old, exported), atol=1e-5)


def test_a_network_of_tiles_begins_with_the_weights_of_one(exported, tmp_path):
    old, model = (tile_classifier(build_tile(), (24, 20, 1), 4) for _ in range(2))
    export(tmp_path / "model", old).give_weights(model, NAMES, multi_label=False)
    assert np.allclose(logits(model, exported), logits(old, exported), atol=1e-5)


def build_tile() -> keras.Model:
    config = classifier_config(ModelConfig.model_validate(NETWORK))
    return build_classifier(config, image_shape=(16, 16, 1), num_classes=3, channel_mean=[127.0], channel_variance=[5000.0])


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"max_level": 3}, r"other levels, pyramid or heads \(it also has head_P4/"),
        ({"min_level": 3}, r"other levels, pyramid or heads \(it also has head_P2/"),
        ({"max_level": 5}, r"other levels, pyramid or heads \(it has no head_P5/dense, "),
        ({"num_filters": 16}, r"other levels, .* has the shape \[8, 3\] there and \[16, 3\] here\)"),
        ({"backbone": "small_resnet18"}, r"another backbone \(it has no stage1_block2_1_bn, "),
        (
            {"channels": 3},
            r"another backbone \(stem_conv/kernel has the shape \[3, 3, 1, 16\] there and \[3, 3, 3, 16\] here\)",
        ),
    ],
)
def test_another_network_is_refused_and_keeps_its_weights(exported, keys, told):
    model = build(3, **keys)
    before = [variable.numpy() for variable in model.variables]
    with pytest.raises(WarmStartError, match=f"train.warm_start: .*{told}.*; give the sections model and image"):
        BaseModel(exported.path).give_weights(model, NAMES, multi_label=False)
    assert all(np.array_equal(variable.numpy(), value) for variable, value in zip(model.variables, before, strict=True))


def test_a_model_of_the_other_kind_of_classes_is_refused(exported):
    with pytest.raises(WarmStartError, match=r"was not trained for any number of classes an image, as data\.multi"):
        BaseModel(exported.path).give_weights(build(3), NAMES, multi_label=True)


def test_what_is_no_export_is_refused(exported, tmp_path):
    with pytest.raises(WarmStartError, match=r"train.warm_start: .* can't be used \(.*\); give the folder of a version"):
        BaseModel(str(tmp_path))
    shutil.copytree(exported.path, tmp_path / "model")
    (tmp_path / "model" / "saved_model.pb").write_bytes(b"damaged")
    with pytest.raises(WarmStartError, match="can't be used"):
        BaseModel(str(tmp_path / "model"))


class Unused(keras.layers.Layer):
    """A layer with a weight that its output does not depend on, as some of keras-hub have."""

    def build(self, input_shape):
        self.mask = self.add_weight(name="mask", shape=(3,))

    def call(self, x):
        return x


def test_weights_that_no_answer_depends_on_need_not_be_there(exported):
    model = build(3)
    extended = keras.Model(model.input, Unused(name="unused")(model.output))
    BaseModel(exported.path).give_weights(extended, NAMES, multi_label=False)
    assert np.allclose(logits(extended, exported), logits(exported.classifier, exported), atol=1e-5)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with transformed examples, and the model of a first training in `base/model`."""
    folder = tmp_path_factory.mktemp("warm")
    write_transformed(folder)
    run_fn(FnArgs(**arguments(folder, folder / "base", folder / "checkpoints")))
    return folder


def config(**train: object) -> Config:
    sections = CONFIG.model_dump(exclude_unset=True)
    return Config.model_validate({**sections, "train": {"batch_size": 8, "epochs": 1, "warm_start": "blessed"} | train})


def test_the_trainer_goes_on_from_a_pushed_version(trained, tmp_path):
    slow = config(learning_rate=1e-9)  # which changes no weight that can be seen, but for the moving statistics
    shutil.copytree(trained / "base" / "model", tmp_path / "pushed" / "17")
    given = {"base_model": str(tmp_path / "pushed" / "17" / "Format-Serving")}  # as TFX names it
    run_fn(FnArgs(**arguments(trained, tmp_path / "run", tmp_path / "checkpoints", slow), **given))
    values = [
        tf.saved_model.load(str(path)).signatures["predict_images"](images=tf.fill([1, 16, 16, 1], tf.cast(90, tf.uint8)))
        for path in (trained / "base" / "model", tmp_path / "run" / "model")
    ]
    first, second = (value["probabilities"].numpy() for value in values)
    assert np.allclose(first, second, atol=0.1)
    record = json.loads((tmp_path / "run" / "log" / "warm_start.json").read_text())
    assert record == {"model": str(tmp_path / "pushed" / "17"), "kept": 2, "added": [], "removed": []}
    assert not (trained / "base" / "log" / "warm_start.json").exists()


def test_an_interrupted_training_does_not_go_on_from_another_model(trained, tmp_path, monkeypatch):
    class Killed(Exception):
        pass

    folders = []

    def kill(root: str, **key: object) -> str:
        folders.append(checkpoint_folder(root, **key))
        raise Killed

    monkeypatch.setattr(training, "checkpoint_folder", kill)
    shutil.copytree(trained / "base" / "model", tmp_path / "same")
    other = export(tmp_path / "other", build(3)).path
    for base in (str(trained / "base" / "model"), str(tmp_path / "same"), other, None):
        with pytest.raises(Killed):
            run_fn(FnArgs(**arguments(trained, tmp_path / "run", tmp_path / "checkpoints", config()), base_model=base))
    assert folders[0] == folders[1]
    assert len(set(folders)) == 3
