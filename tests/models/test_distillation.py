"""A network learns what a pushed model answers."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from models import callbacks, training
from models.checkpoints import load_checkpoint
from models.distillation import Teacher, TeacherError, distil
from models.export import export_image_settings
from models.optimization import build_loss
from models.tiles import tile_classifier
from pipeline.config.data import ImageConfig
from pipeline.config.network import TrainConfig
from pipeline.dag.component_settings import image_settings, train_settings

IMAGE = image_settings(ImageConfig(height=24, width=20, channels=1))
CLASSES = [b"owl", b"cat", b"dog"]  # not in the order of the teacher
CONFIG = train_settings(
    TrainConfig(epochs=2, batch_size=7, optimizer="adam", learning_rate=0.01, weight_decay=0.0, warmup_epochs=0.0)
)
LABELS = np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 1, 2, 0]]


@pytest.fixture(scope="module")
def pushed(exported, tmp_path_factory):
    """The folder of a pushed model; it answers over mirrored views, with a temperature."""
    folder = tmp_path_factory.mktemp("pushed") / "1"
    shutil.copytree(exported.path, folder)
    export_image_settings(IMAGE, str(folder))
    return str(folder)


@pytest.fixture
def images(exported):
    return exported.pictures[..., None]


@pytest.fixture
def answers(exported):
    """What the teacher must answer, computed without it, in the order of CLASSES."""
    return exported.probabilities[:, [exported.names.index(name) for name in CLASSES]]


def student(shape=(24, 20, 1), dropout=0.2):
    keras.utils.set_random_seed(0)
    image = keras.Input(shape)
    x = keras.layers.Conv2D(8, 3, strides=2)(image)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.8)(x))
    inputs = keras.Input(shape, dtype="uint8")
    x = keras.Model(image, x, name="backbone")(keras.layers.Rescaling(1 / 255)(inputs))
    x = keras.layers.Dropout(dropout)(keras.layers.Flatten()(x))
    return keras.Model(inputs, keras.layers.Dense(3, dtype="float32", name="head")(x))


def taught(pushed, temperature=1.0, **settings):
    model = student(**settings)
    distil(model, Teacher(pushed, IMAGE, False), CLASSES, temperature)
    return model


def train(model, log_dir, images, labels=LABELS, checkpoints=None, class_weights=None, **changes):
    data = tf.data.Dataset.from_tensors((images, labels))
    folder = str(checkpoints) if checkpoints else None
    return training.fit(
        model,
        tf.distribute.get_strategy(),
        lambda first: data.repeat(),
        data,
        changes.pop("steps_per_epoch", 2),
        replace(CONFIG, **changes),
        str(log_dir),
        class_weights,
        folder,
    )


def cross_entropy(targets, logits):
    """Of each image, by NumPy alone."""
    logits = logits.astype(np.float64)
    return -(targets * (logits - np.log(np.exp(logits).sum(-1, keepdims=True)))).sum(-1)


def softened(answers, temperature):
    powers = answers.astype(np.float64) ** (1 / temperature)
    return powers / powers.sum(-1, keepdims=True)


@pytest.mark.parametrize(("class_weights", "temperature"), [(None, 1.0), ([0.5, 1.0, 2.0], 1.0), (None, 3.0)])
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_the_loss_is_the_divergence_from_the_teacher(policy, class_weights, temperature, pushed, images, answers, tmp_path):
    keras.config.set_dtype_policy(policy)
    try:
        model = taught(pushed, temperature, dropout=0.0)
    finally:
        keras.config.set_dtype_policy("float32")

    def loss(targets, logits):
        return (cross_entropy(targets, logits) * (targets @ (class_weights or [1.0, 1.0, 1.0]))).mean()

    logits = model(images, training=True).numpy()
    targets = softened(answers, temperature)
    learned = temperature**2 * (loss(targets, logits / temperature) - loss(targets, np.log(targets)))
    (row,) = train(model, tmp_path, images, epochs=1, steps_per_epoch=1, learning_rate=1e-12, class_weights=class_weights)
    tolerance = 1e-4 if policy == "float32" else 1e-2
    assert row["loss"] == pytest.approx(learned, rel=tolerance)
    # What is measured on the eval split has nothing of the teacher.
    assert row["val_loss"] == pytest.approx(loss(LABELS, model(images, training=False).numpy()), rel=1e-2)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_loss_of_many_classes_takes_the_teachers_odds(temperature, pushed, images, answers):
    model, logits = student(), np.linspace(-2, 2, 21, dtype=np.float32).reshape(7, 3)
    teacher = Teacher(pushed, IMAGE, False)
    teacher.multi_label = True  # the answers of one class an image stand for those of many
    distil(model, teacher, CLASSES, temperature)
    model.compile(loss=build_loss("cross_entropy", multi_label=True))

    def loss(targets, logits):
        p = 1 / (1 + np.exp(-logits.astype(np.float64)))
        return -(targets * np.log(p) + (1 - targets) * np.log(1 - p)).mean()

    odds = (answers / (1 - answers.astype(np.float64))) ** (1 / temperature)
    targets = odds / (1 + odds)
    learned = temperature**2 * (loss(targets, logits / temperature) - loss(targets, np.log(odds)))
    assert float(model.compute_loss(images, tf.constant(LABELS), tf.constant(logits))) == pytest.approx(learned, rel=1e-5)


@pytest.mark.parametrize("changes", [{}, {"xla": True}, {"accumulate_steps": 2, "frozen_epochs": 1}])
def test_the_student_comes_nearer_to_the_teacher_and_not_to_wrong_labels(changes, pushed, images, answers, tmp_path):
    model = taught(pushed)
    train(model, tmp_path, images, epochs=2, steps_per_epoch=40, **changes)
    found = keras.ops.convert_to_numpy(keras.ops.softmax(model(images)))
    assert np.abs(found - answers).mean() < 0.05
    assert np.abs(answers - LABELS).mean() > 0.3


def test_the_teacher_is_not_changed_and_is_in_no_checkpoint(pushed, images, tmp_path):
    model, teacher = student(), Teacher(pushed, IMAGE, False)
    distil(model, teacher, CLASSES, 1.0)
    weights = teacher._predict.variables
    before = [weight.numpy() for weight in weights]
    assert len(before) > 20
    train(model, tmp_path, images, checkpoints=tmp_path / "checkpoints", epochs=1)
    for weight, value in zip(weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)
    kept = load_checkpoint(str(tmp_path / "checkpoints"))
    assert [array.shape for array in kept.model] == [variable.shape for variable in student().variables]
    assert sum(array.size for array in kept.optimizer) < 3 * model.count_params()


def test_a_training_that_was_cut_short_goes_on_with_its_teacher(pushed, images, tmp_path, monkeypatch):
    settings = {"epochs": 2, "frozen_epochs": 1, "accumulate_steps": 3, "ema": 0.5}
    whole = train(taught(pushed, 2.0), tmp_path / "whole", images, **settings)
    save = callbacks.save_checkpoint
    monkeypatch.setattr(callbacks, "save_checkpoint", lambda *arguments: (save(*arguments), 1 / 0))
    with pytest.raises(ZeroDivisionError):
        train(taught(pushed, 2.0), tmp_path / "killed", images, checkpoints=tmp_path / "checkpoints", **settings)
    monkeypatch.undo()
    resumed = train(taught(pushed, 2.0), tmp_path / "last", images, checkpoints=tmp_path / "checkpoints", **settings)
    assert len(resumed) == 3
    for first, second in zip(whole, resumed, strict=True):
        assert second == pytest.approx(first, abs=1e-5)


def test_tiles_learn_from_a_teacher_of_whole_images(pushed, images, answers, tmp_path):
    model = tile_classifier(student((16, 16, 1), dropout=0.0), (24, 20, 1), overlap=4)
    distil(model, Teacher(pushed, IMAGE, False), CLASSES, 1.0)
    expected = (cross_entropy(answers, model(images, training=True).numpy()) - cross_entropy(answers, np.log(answers))).mean()
    (row,) = train(model, tmp_path, images, epochs=1, steps_per_epoch=1, learning_rate=1e-12)
    assert row["loss"] == pytest.approx(expected, rel=1e-4)


def test_two_devices_learn_as_one(pushed, images, starter, tmp_path):
    np.save(tmp_path / "images.npy", images)
    program = f"""
import json, sys
import numpy as np
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_distillation as test
losses, images = [], np.load({str(tmp_path / "images.npy")!r})[:6]
data = tf.data.Dataset.from_tensors((images, test.LABELS[:6]))
for devices in (None, ["CPU:0", "CPU:1"]):
    strategy = test.training._strategy(devices)
    with strategy.scope():
        model = test.taught({pushed!r}, dropout=0.0)
    config = test.replace(test.CONFIG, optimizer="sgd")
    history = test.training.fit(model, strategy, lambda first: data.repeat(), data, 2, config, {str(tmp_path)!r} + str(devices))
    losses.append([[row["loss"], row["val_loss"]] for row in history])
print(json.dumps([strategy.num_replicas_in_sync, *losses]))
"""
    done = starter.execute(program).end()
    assert done.status == 0, done.stderr[-2000:]
    replicas, one, two = json.loads(done.stdout.splitlines()[-1])
    assert replicas == 2
    np.testing.assert_allclose(one, two, rtol=3e-4)


@pytest.mark.parametrize(
    ("image", "multi_label", "told"),
    [
        (replace(IMAGE, height=32), False, r"sees other images, its image\.height is 24 and not 32; give a teacher"),
        (replace(IMAGE, resize="crop"), False, r"sees other images, its image\.resize is stretch and not crop"),
        (
            replace(IMAGE, intensity="window", window=(0.0, 9.0)),
            False,
            r"sees other images, its image\.intensity is type and not window",
        ),
        (IMAGE, True, r"was not trained for any number of classes an image, as data\.multi_label says"),
    ],
)
def test_a_teacher_of_other_images_or_answers_is_refused(image, multi_label, told, pushed):
    with pytest.raises(TeacherError, match=rf"^train\.teacher: {pushed}: {told}"):
        Teacher(pushed, image, multi_label)


def test_settings_that_change_no_pixel_may_differ(pushed):
    Teacher(pushed, replace(IMAGE, percentiles=(3.0, 97.0), window=(0.0, 9.0)), False)


def test_what_is_no_pushed_model_is_refused(pushed, exported, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(pushed, broken)
    (broken / "saved_model.pb").write_bytes(b"damaged")
    for folder in (tmp_path / "absent", Path(pushed).parent, broken, exported.path):  # the last has no settings of images
        with pytest.raises(TeacherError, match=rf"^train\.teacher: {folder}: can't be used .*; give the folder of a version"):
            Teacher(str(folder), IMAGE, False)


def test_a_teacher_with_text_in_its_network_is_refused_where_xla_compiles(pushed, monkeypatch):
    loaded = tf.saved_model.load(pushed)
    old = SimpleNamespace(captured_inputs=[tf.constant("cat")])
    signatures = {"predict_images": old, "transform_labels": loaded.signatures["transform_labels"]}
    monkeypatch.setattr(tf.saved_model, "load", lambda path: SimpleNamespace(signatures=signatures))
    Teacher(pushed, IMAGE, False, xla=False)
    with pytest.raises(TeacherError, match="was pushed by an earlier release, which XLA can't compile; set"):
        Teacher(pushed, IMAGE, False, xla=True)


def test_a_teacher_of_other_classes_is_refused(pushed):
    with pytest.raises(TeacherError, match="its classes and those of the training split differ in dog, yak; give a teacher of"):
        distil(student(), Teacher(pushed, IMAGE, False), [b"owl", b"cat", b"yak"], 1.0)
