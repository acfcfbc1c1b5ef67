"""An exported model's answers to image files, batch by batch; files that can't be decoded are set aside."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import saved_model_pb2
from tfx.dsl.io import fileio

from images.files.decoding import RejectedImage
from images.loading import Decoder
from models import features
from models.image_settings import ImageSettings

_BATCH_BYTES: Final = 2**26  # of the files of a batch, about
_ANY_IMAGE: Final = ImageSettings(  # to see whether it decodes
    height=8,
    width=8,
    channels=3,
    resize="stretch",
    antialias=False,
    intensity="type",
    window=None,
    percentiles=(0.0, 100.0),
)


@dataclass(frozen=True, slots=True)
class Image:
    """An image to be answered.

    Attributes:
      path: as `row.Row.name` has it, with `#page` of a file of several.
      group: images that share it get one answer together; the path where there are no groups.
      labels: true ones, as far as the data has any.
      encoded: a PNG or JPEG file.
    """

    path: str
    group: str
    labels: tuple[str, ...]
    encoded: bytes


@dataclass(frozen=True)
class Answers:
    """What a model says of some images.

    Attributes:
      images: those that could be decoded.
      labels: of each the most probable; of multi-label data all from 0.5, as "cat|dog", or "".
      probabilities: float32 [images, classes], 0..1.
      rejected: the other images, with the reason.
    """

    images: list[Image]
    labels: list[str]
    probabilities: np.ndarray
    rejected: list[tuple[Image, str]]


def read_classes(folder: str) -> list[str]:
    """The names of a SavedModel's classes, in the order of its probabilities; loads no model."""
    with fileio.open(os.path.join(folder, "assets", features.LABEL_VOCABULARY)) as file:
        return file.read().splitlines()


def is_multi_label(folder: str) -> bool:
    """Whether an image can have any number of the SavedModel's classes; loads no model."""
    with fileio.open(os.path.join(folder, "saved_model.pb"), "rb") as file:
        saved = saved_model_pb2.SavedModel.FromString(file.read())
    signatures = saved.meta_graphs[0].signature_def
    return signatures["transform_labels"].outputs["label"].dtype == types_pb2.DT_FLOAT  # a float for each class, or a position


class Model:
    """A SavedModel as `models.export` writes it."""

    def __init__(self, folder: str) -> None:
        self._loaded = tf.saved_model.load(folder)
        self._predict = self._loaded.signatures["serving_default"]
        self.classes = read_classes(folder)

    def answer(self, images: Iterable[Image], batch_size: int) -> Iterator[Answers]:
        """Answers images, `batch_size` at a time, fewer where their files are large."""
        for batch in _batches(images, batch_size):
            try:
                yield self._answer(batch, [])
            except tf.errors.OpError:
                good, rejected = self._tell_apart(batch)
                if not rejected:
                    raise  # no file's fault
                yield self._answer(good, rejected)

    def _answer(self, images: list[Image], rejected: list[tuple[Image, str]]) -> Answers:
        if not images:
            return Answers([], [], np.zeros((0, len(self.classes)), np.float32), rejected)
        outputs = self._predict(image_bytes=tf.constant([image.encoded for image in images]))
        labels = [label.decode() for label in outputs["label"].numpy()]
        return Answers(images, labels, outputs["probabilities"].numpy(), rejected)

    def _tell_apart(self, images: list[Image]) -> tuple[list[Image], list[tuple[Image, str]]]:
        """The images that can be decoded, and the others with the reasons that ingestion gives."""
        decoded = zip(images, self._decoder.decode([image.encoded for image in images]), strict=True)
        good, rejected = [], []
        for image, found in decoded:
            if isinstance(found, RejectedImage):
                rejected.append((image, str(found)))
            else:
                good.append(image)
        return good, rejected

    @cached_property  # most data needs none
    def _decoder(self) -> Decoder:
        return Decoder(_ANY_IMAGE)


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
