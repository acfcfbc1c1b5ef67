"""What the columns of captured requests tell of image files, computed as ingestion computes it."""

import functools
import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from images.file_settings import FileSettings
from images.files.decoding import RejectedImage, normalise
from models.decoding import with_pixels
from models.summaries import summarize
from pipeline.captured.columns import OF_IMAGE


def describe_images(files: Sequence[bytes], settings: FileSettings) -> dict[str, list[Any]]:
    """The columns `OF_IMAGE` by name; null where a file can't be read.

    Args:
      files: N image files in any format that ingestion takes; of several pages, the first counts.
      settings: how they are read.
    """
    described = [_describe(file, settings) for file in files]
    return {name: [each.get(name) for each in described] for name in OF_IMAGE}


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
