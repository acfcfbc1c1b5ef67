"""Makes rows of captured requests from image files and a model's answers. What they tell of files is what ingestion tells."""

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import tensorflow as tf

from images.file_settings import FileSettings
from images.files.decoding import RejectedImage, normalise
from models.decoding import with_pixels
from models.summaries import summarize
from pipeline.captured.columns import OF_IMAGE, make_batch, make_schema


def describe_answers(
    files: Sequence[bytes],
    answers: Mapping[str, np.ndarray],
    settings: FileSettings,
    classes: Sequence[str],
    model: str,
    multi_label: bool,
    columns: Mapping[str, Any],
) -> pa.RecordBatch:
    """Makes rows of captured requests.

    Args:
      files: N image files in any format that ingestion takes; of several pages, the first counts. What can't be told of a file
        that can't be read is null.
      answers: outputs of a signature, N rows each: `probabilities`, `label`, and perhaps `embedding` and `unusual`.
      settings: how the files are read.
      classes: their names, in the order of the probabilities.
      model: name of the model.
      multi_label: whether an image can have any number of classes.
      columns: N values for each of the other columns that are known.
    """
    embedding = answers.get("embedding")
    described = [_describe(file, settings) for file in files]
    of_images = {name: [each.get(name) for each in described] for name in OF_IMAGE}
    of_answers = {
        "embedding": embedding,
        "probabilities": answers["probabilities"],
        "label": [label.decode() for label in answers["label"].tolist()],
        "unusual": answers.get("unusual"),
    }
    schema = make_schema(classes, 0 if embedding is None else embedding.shape[-1], model, multi_label)
    return make_batch({**columns, **of_images, **of_answers}, schema)


def warm_up() -> None:
    """Does what takes a second once, so that no later call does."""
    _summarizer()(tf.io.encode_png(tf.zeros([8, 8, 1], tf.uint8)).numpy())


def _describe(file: bytes, settings: FileSettings) -> dict[str, Any]:
    found: dict[str, Any] = {"content_hash": hashlib.sha256(file).hexdigest(), "bytes": len(file)}
    try:
        image = normalise(file, "", settings)[0]
        mean, std, saturated, sharpness = _summarizer()(image.encoded).tolist()
    except (RejectedImage, tf.errors.OpError):
        return found
    return found | {
        "format": image.original_format,
        "width": image.width,
        "height": image.height,
        "channels": image.channels,
        "mean": mean,
        "std": std,
        "saturated": saturated,
        "sharpness": sharpness,
    }


@functools.cache
def _summarizer() -> Callable[[bytes], np.ndarray]:
    """The summaries of a PNG or JPEG file, computed in the thread that asks for them."""
    function = tf.function(
        lambda file: with_pixels(file, summarize), input_signature=[tf.TensorSpec([], tf.string)], autograph=False
    ).get_concrete_function()
    with tf.Graph().as_default() as graph:
        file = tf.compat.v1.placeholder(tf.string, [])
        summaries = function(file)
    config = tf.compat.v1.ConfigProto(intra_op_parallelism_threads=1, inter_op_parallelism_threads=-1)
    return tf.compat.v1.Session(graph=graph, config=config).make_callable(summaries, feed_list=[file])
