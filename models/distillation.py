"""Learning from a teacher (arXiv:1503.02531): a pushed model's answers to the images of training stand in for the labels."""

import os
from collections.abc import Sequence
from typing import Any, Final

import keras
import tensorflow as tf

from models import features
from models.image_settings import ImageSettings
from models.packing import as_dict, unpack

_LABELS: Final = f"assets/{features.LABEL_VOCABULARY}"  # of a SavedModel, one a line
_MOST_NAMED: Final = 5
_LEAST: Final = 1e-30  # probability, whose logarithm is a number


class TeacherError(ValueError):
    """The teacher does not fit the training."""


class Teacher:
    """A pushed model, asked about the images of a training: uint8 [N, height, width, channels] to float32 [N, classes].

    Its variables are in no list of Keras, so nothing trains them, keeps them in a checkpoint or exports them. Made under the
    scope of a strategy, it has a copy for each replica.
    """

    def __init__(self, path: str, image: ImageSettings, multi_label: bool, xla: bool = False) -> None:
        """Loads it.

        Args:
          path: folder of its SavedModel.
          image: what the network that learns sees.
          multi_label: whether its classes are yes-or-no decisions of their own.
          xla: whether XLA compiles the training's step.

        Raises:
          TeacherError: it is no model of this pipeline, sees other images, has the other kind of classes, or can't be compiled.
        """
        self._path, self.multi_label = path, multi_label
        try:
            self._model = tf.saved_model.load(path)  # which must live as long as its signatures are used
            self._predict = self._model.signatures["predict_images"]
            label = self._model.signatures["transform_labels"].structured_outputs["label"]
            seen = unpack(ImageSettings, _read(path, features.IMAGE_SETTINGS).decode())
            self.classes = _read(path, _LABELS).splitlines()
        except Exception as error:  # whatever TensorFlow raises for a model that it can't load
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise TeacherError(
                f"train.teacher: {path}: can't be used ({reason}); give the folder of a version that this release has pushed, "
                f"such as output/digits/pushed/1767225600"
            ) from error
        if xla and any(value.dtype == tf.string for value in self._predict.captured_inputs):
            raise TeacherError(
                f"train.teacher: {path}: was pushed by an earlier release, which XLA can't compile; set train.xla: false, or "
                f"train and push it again"
            )
        own, others = _pixels(image), _pixels(seen)
        if name := next((name for name in own if own[name] != others.get(name)), None):
            raise TeacherError(
                f"train.teacher: {path}: sees other images, its image.{name} is {others.get(name)} and not {own[name]}; give a "
                f"teacher with the same section image"
            )
        if label.dtype.is_floating != multi_label:
            kind = "any number of classes" if multi_label else "one class"
            raise TeacherError(
                f"train.teacher: {path}: was not trained for {kind} an image, as data.multi_label says; give a teacher of such "
                f"data"
            )

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        """The logits up to a constant, for whose gradient nothing is kept."""
        answers = tf.stop_gradient(self._predict(images=images)["probabilities"])
        log_p = tf.math.log(tf.maximum(answers, _LEAST))
        return log_p - tf.math.log(tf.maximum(1.0 - answers, _LEAST)) if self.multi_label else log_p

    def order(self, classes: Sequence[bytes]) -> list[int]:
        """Where the teacher has each of these classes.

        Raises:
          TeacherError: it has others.
        """
        if differing := set(classes) ^ set(self.classes):
            names = b", ".join(sorted(differing)[:_MOST_NAMED]).decode()
            raise TeacherError(
                f"train.teacher: {self._path}: its classes and those of the training split differ in {names}; give a teacher "
                f"of the same classes"
            )
        return [self.classes.index(name) for name in classes]


def distil(model: keras.Model, teacher: Teacher, classes: Sequence[bytes], temperature: float) -> None:
    """Lets a model learn from a teacher (arXiv:1503.02531, section 2): the loss of training becomes

    temperature^2 D(teacher's logits / temperature, logits / temperature)

    with D the Kullback-Leibler divergence: the loss that the model was compiled with, of the teacher's probabilities, less the
    value that it has if the model gives the same. The teacher sees the very pixels that the model sees, augmented and mixed
    (arXiv:2106.05237). Metrics, and the loss of an evaluation, stay those of the true labels.

    Args:
      model: from images to logits.
      teacher: for the same images.
      classes: names, in the order of the model's logits.
      temperature: above 0; 1 takes the probabilities as they are, a higher one brings out the small ones.

    Raises:
      TeacherError: the teacher has other classes.
    """
    order, measure = teacher.order(classes), model.compute_loss
    activation = tf.sigmoid if teacher.multi_label else tf.nn.softmax

    def compute_loss(x: Any, y: tf.Tensor, y_pred: tf.Tensor, sample_weight: Any = None, training: bool = True) -> tf.Tensor:
        if not training:
            return measure(x, y, y_pred, sample_weight, training)
        logits = tf.gather(tf.ensure_shape(teacher(x), y.shape), order, axis=-1) / temperature
        answers = activation(logits)
        divergence = measure(x, answers, y_pred / temperature, sample_weight) - measure(x, answers, logits, sample_weight)
        return temperature**2 * divergence

    model.compute_loss = compute_loss


def _read(path: str, name: str) -> bytes:
    with tf.io.gfile.GFile(os.path.join(path, name), "rb") as file:
        return file.read()


def _pixels(image: ImageSettings) -> dict[str, Any]:
    """The settings that the pixels depend on."""
    unused = {"window", "percentiles"} - {image.intensity}
    return {name: value for name, value in as_dict(image).items() if name not in unused}
