"""Answers image files with an exported model, in batches; files that can't be decoded are set aside."""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import saved_model_pb2
from tfx.dsl.io import fileio

from base.errors import UserError
from images.loading import find_damage
from models import features

_BATCH_BYTES: Final = 2**26  # approximate limit of the files in a batch


@dataclass(frozen=True, slots=True)
class Image:
    """An image to be answered.

    Attributes:
      path: as `row.Row.name`, with `#page` for a page of a multi-page file.
      group: images of one group get one answer together; the path if there are no groups.
      labels: the true labels, if the data has them.
      encoded: a PNG or JPEG file.
    """

    path: str
    group: str
    labels: tuple[str, ...]
    encoded: bytes


@dataclass(frozen=True)
class Answers:
    """A model's answers to some images.

    Attributes:
      images: the images that could be decoded.
      labels: for each image the most probable class, or features.UNKNOWN; for multi-label models all classes with a
        probability of at least 0.5, as "cat|dog", or "".
      probabilities: float32 [images, classes], 0..1.
      rejected: the other images, with the reason.
      embeddings: float32 [images, d], as `models.embedding` describes them; None where they were not asked for.
      sets: bool [images, classes], which classes are in each image's set; None if the model gives none.
      unusual: float32 [images], 0..100, see `models.unusual`; None if the model does not tell.
    """

    images: list[Image]
    labels: list[str]
    probabilities: np.ndarray
    rejected: list[tuple[Image, str]]
    embeddings: np.ndarray | None = None
    sets: np.ndarray | None = None
    unusual: np.ndarray | None = None


def read_classes(folder: str) -> list[str]:
    """The names of a SavedModel's classes, in the order of its probabilities; does not load the model."""
    with fileio.open(os.path.join(folder, "assets", features.LABEL_VOCABULARY)) as file:
        return file.read().splitlines()


def is_multi_label(folder: str) -> bool:
    """Whether an image can have any number of the SavedModel's classes; does not load the model."""
    # A label is one float per class if the model is multi-label, else an integer position.
    return _outputs(folder, "transform_labels")["label"].dtype == types_pb2.DT_FLOAT


def gives(folder: str, output: str) -> bool:
    """Whether the SavedModel answers with an output, such as `label_set` or `unusual`; does not load the model."""
    return output in _outputs(folder, "serving_default")


def _outputs(folder: str, signature: str) -> Mapping[str, Any]:
    with fileio.open(os.path.join(folder, "saved_model.pb"), "rb") as file:
        saved = saved_model_pb2.SavedModel.FromString(file.read())
    return saved.meta_graphs[0].signature_def[signature].outputs


class Model:
    """A SavedModel that was written by `models.export`.

    Raises:
      UserError: embeddings are asked of a model that gives none.
    """

    def __init__(self, folder: str, embeddings: bool = False) -> None:
        self._loaded = tf.saved_model.load(folder)
        signatures = self._loaded.signatures
        if embeddings and "embed" not in signatures:
            raise UserError(f"{folder}: an earlier version made this model, which gives no embeddings; train it again")
        self._predict = signatures["embed" if embeddings else "serving_default"]
        self.classes = read_classes(folder)
        self._width = signatures["embed"].structured_outputs["embedding"].shape[-1] if embeddings else None

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(height, width, channels) of what the network sees."""
        return tuple(self._loaded.signatures["decode"].structured_outputs["images"].shape[1:])

    def answer(self, images: Iterable[Image], batch_size: int) -> Iterator[Answers]:
        """Answers images, `batch_size` at a time, or fewer if their files are large."""
        for batch in _batches(images, batch_size):
            try:
                yield self._answer(batch, [])
            except tf.errors.OpError:
                good, rejected = self._separate_rejected(batch)
                if not rejected:
                    raise  # no file has caused it
                yield self._answer(good, rejected)

    def _answer(self, images: list[Image], rejected: list[tuple[Image, str]]) -> Answers:
        if not images:
            none = np.zeros((0, self._width), np.float32) if self._width else None
            empty = np.zeros((0, len(self.classes)), np.float32)
            return Answers([], [], empty, rejected, none, empty > 0, np.zeros(0, np.float32))
        outputs = self._predict(image_bytes=tf.constant([image.encoded for image in images]))
        labels = [label.decode() for label in outputs["label"].numpy()]
        embeddings = outputs["embedding"].numpy() if self._width else None
        told = (outputs[name].numpy() if name in outputs else None for name in ("label_set", "unusual"))
        return Answers(images, labels, outputs["probabilities"].numpy(), rejected, embeddings, *told)

    def _separate_rejected(self, images: list[Image]) -> tuple[list[Image], list[tuple[Image, str]]]:
        """The images that can be decoded, and the others with the same reasons as in ingestion."""
        found = list(zip(images, find_damage([image.encoded for image in images]), strict=True))
        rejected = [(image, str(reason)) for image, reason in found if reason]
        return [image for image, reason in found if not reason], rejected


def _batches(images: Iterable[Image], batch_size: int) -> Iterator[list[Image]]:
    batch: list[Image] = []
    size = 0
    for image in images:
        batch.append(image)
        size += len(image.encoded)
        if len(batch) >= batch_size or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
