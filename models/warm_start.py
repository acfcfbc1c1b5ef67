"""Starting from the weights of an earlier export, whose classes may be others."""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import keras
import numpy as np
import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import saved_model_pb2, trackable_object_graph_pb2

from models import features

WARM_START_FILE: Final = "warm_start.json"  # in the Trainer's `model_run`: a `WarmStart`
_INDEX: Final = "variables/variables.index"  # has checksums of all weights
_MOST_NAMED: Final = 5
# As `models.fpn` and `models.tiles` name layers, and variables with a row for each class.
_BEHIND_BACKBONE: Final = re.compile(r"(pyramid|head(_[CP]\d)?|logits|pooling|C\d_\w+)(/|$)")
_OF_CLASSES: Final = re.compile(r"(head(_[CP]\d)?|logits)/(.+/)?(kernel|bias)")


class WarmStartError(ValueError):
    """The model to start from can't be read, or does not fit the network; the text says what to do."""


@dataclass(frozen=True)
class WarmStart:
    """What a training has started from.

    Attributes:
      model: folder of the SavedModel.
      kept: number of classes that both have.
      added: classes that the model did not have; their rows of the heads begin at random.
      removed: classes of the model that the training does not have.
    """

    model: str
    kept: int
    added: list[str]
    removed: list[str]


class BaseModel:
    """The weights and classes of a SavedModel that `models.export` has written; its graph is not loaded.

    Its checkpoint has each variable under the path that Keras gave it, such as `pyramid/lateral_2/conv2d_7/kernel`.
    """

    def __init__(self, path: str) -> None:
        """Opens it.

        Args:
          path: its folder, on any file system of `tf.io.gfile`.

        Raises:
          WarmStartError: it can't be read.
        """
        self.path = path
        try:
            self._reader = tf.train.load_checkpoint(os.path.join(path, "variables", "variables"))
            graph = self._reader.get_tensor("_CHECKPOINTABLE_OBJECT_GRAPH")
            saved = saved_model_pb2.SavedModel.FromString(_read(path, "saved_model.pb"))
            label = saved.meta_graphs[0].signature_def["transform_labels"].outputs["label"]
            self.classes = _read(path, f"assets/{features.LABEL_VOCABULARY}").decode().splitlines()
            self.digest = hashlib.sha256(_read(path, _INDEX)).hexdigest()
        except Exception as error:  # whatever TensorFlow raises for files that it can't read
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise WarmStartError(
                f"train.warm_start: {path}: can't be used ({reason}); give the folder of a version that was pushed here"
            ) from error
        self._multi_label = label.dtype == types_pb2.DT_FLOAT
        nodes = trackable_object_graph_pb2.TrackableObjectGraph.FromString(graph).nodes
        stored = (attribute for node in nodes for attribute in node.attributes)
        self._stored = {item.full_name: item.checkpoint_key for item in stored if item.full_name}

    def compare(self, classes: Sequence[str]) -> WarmStart:
        """How these classes differ from the model's."""
        added, removed = sorted(set(classes) - set(self.classes)), sorted(set(self.classes) - set(classes))
        return WarmStart(self.path, len(classes) - len(added), added, removed)

    def give_weights(self, model: keras.Model, classes: Sequence[str], multi_label: bool) -> None:
        """Gives a network these weights.

        The rows of the heads are matched by the names of their classes. Those of new classes, and what an export does not
        hold, such as the states of random numbers, stay as they are.

        Args:
          model: from images to logits, as `models.training.build_network` makes it.
          classes: names, in the order of its logits.
          multi_label: whether they are yes-or-no decisions of their own.

        Raises:
          WarmStartError: it is another network, or has the other kind of classes; no weight has changed.
        """
        if multi_label != self._multi_label:
            kind = "any number of classes" if multi_label else "one class"
            raise WarmStartError(
                f"train.warm_start: {self.path}: was not trained for {kind} an image, as data.multi_label says; give a model "
                f"of such data"
            )
        common = [name for name in classes if name in self.classes]
        here, there = ([names.index(name) for name in common] for names in (list(classes), self.classes))
        values = []
        for name, variable, stored in self._matches(model):
            axes = _class_axes(name)
            old = _by_class(name, self._reader.get_tensor(stored), len(self.classes))
            new = _by_class(name, np.array(keras.ops.convert_to_numpy(variable)), len(classes))
            if old.shape[: old.ndim - axes] != new.shape[: new.ndim - axes]:
                raise self._other([name], f"{name} has the shape {list(old.shape)} there and {list(new.shape)} here")
            new[_rows(new.ndim, axes, here)] = old[_rows(old.ndim, axes, there)]
            values.append((variable, new.reshape(variable.shape)))
        for variable, value in values:
            variable.assign(value)

    def _matches(self, model: keras.Model) -> list[tuple[str, keras.Variable, str]]:
        """The path of each variable, the variable, and the key of its value in the checkpoint."""
        kinds = _automatic_names(model)
        own = {variable.path: variable for variable in model.variables if "float" in variable.dtype}
        mine, theirs = _without_counts(own, kinds), _without_counts(self._stored, kinds)
        missing, surplus = mine.keys() - theirs.keys(), theirs.keys() - mine.keys()
        if missing:
            used = _used_in_answers(model)  # an export holds no others
            missing = {key for key in missing if mine[key] in used}
        for keys, text in ((missing, "it has no"), (surplus, "it also has")):
            if keys:
                layers = sorted({"/".join(name.split("/")[:-1]) for name, _ in keys})
                raise self._other(layers, f"{text} {', '.join(layers[:_MOST_NAMED])}")
        return [(mine[key], own[mine[key]], self._stored[theirs[key]]) for key in sorted(mine.keys() & theirs.keys())]

    def _other(self, layers: Iterable[str], difference: str) -> WarmStartError:
        part = "other levels, pyramid or heads" if any(map(_BEHIND_BACKBONE.match, layers)) else "another backbone"
        return WarmStartError(
            f"train.warm_start: {self.path}: has {part} ({difference}); give the sections model and image that it was trained "
            f"with, or leave out train.warm_start"
        )


def _read(path: str, name: str) -> bytes:
    with tf.io.gfile.GFile(os.path.join(path, name), "rb") as file:
        return file.read()


def _class_axes(name: str) -> int:
    """How many of the last axes of a variable, in the form that `_by_class` gives it, have a row for each class."""
    if not _OF_CLASSES.fullmatch(name):
        return 0
    return 2 if name == "logits/kernel" else 1


def _by_class(name: str, value: np.ndarray, classes: int) -> np.ndarray:
    """The value; the kernel that joins the levels' logits [levels * classes, classes] as [levels, classes, classes]."""
    return value.reshape(-1, classes, classes) if name == "logits/kernel" else value


def _rows(dimensions: int, axes: int, positions: list[int]) -> tuple[Any, ...]:
    """An index that takes these positions of each of the last axes."""
    return (*[slice(None)] * (dimensions - axes), *np.ix_(*[positions] * axes))


def _automatic_names(model: keras.Model) -> set[str]:
    """The names, without their numbers, that Keras has given layers by their class, such as `batch_normalization`."""
    found = ((re.sub(r"_\d+$", "", layer.name), type(layer).__name__) for layer in model._flatten_layers())
    return {name for name, kind in found if name.replace("_", "") == kind.lower()}


def _without_counts(paths: Iterable[str], kinds: set[str]) -> dict[tuple[str, int], str]:
    """Paths by a key that is the same in every process.

    The number in an automatic name, such as `conv2d_7`, counts the layers that the process has made before. The key has the
    path without such numbers, and which of the paths that are then equal it is.
    """

    def split(path: str) -> tuple[str, list[int]]:
        parts = [re.fullmatch(r"(.*?)(?:_(\d+))?", part, re.DOTALL) for part in path.split("/")]
        known = [(part[1], int(part[2] or 0)) if part[1] in kinds else (part[0], 0) for part in parts if part]
        return "/".join(name for name, _ in known), [number for _, number in known]

    seen: Counter[str] = Counter()
    keys = {}
    for (plain, _), path in sorted((split(path), path) for path in paths):
        keys[plain, seen[plain]] = path
        seen[plain] += 1
    return keys


def _used_in_answers(model: keras.Model) -> set[str]:
    """Paths of the variables that an answer depends on."""
    images = tf.TensorSpec(model.input_shape, tf.uint8)
    answer = tf.function(partial(model, training=False), autograph=False).get_concrete_function(images)
    return {variable.name.partition(":")[0] for variable in answer.graph.variables}
