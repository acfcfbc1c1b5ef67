"""Makes examples and index rows from the rows of a shard: reads, checks, decodes and measures each image once."""

import functools
import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final, NamedTuple, TypeVar

import numpy as np
import tensorflow as tf

from images.dataset.assignment import trained_splits
from images.dataset.source import Row
from images.file_settings import FileSettings
from images.files.decoding import ImageFile, RejectedImage, lacks_end, normalise
from images.files.perceptual_hash import perceptual_hashes
from images.files.reading import read_files
from images.index import IndexRow
from images.reason import Reason, kind_of
from images.settings import IngestionSettings
from models import features
from models.decoding import with_pixels
from models.image_settings import ImageSettings
from models.preprocessing import store_image, to_network_size
from models.records import decoded_example
from models.summaries import summarize

os.environ["TF_OVERRIDE_GLOBAL_THREADPOOL"] = "1"  # each session gets threads of its own; read when TensorFlow starts
_BATCH_FILES, _BATCH_BYTES = 32, 2**20  # work of a thread at a time, small so that all threads end at about the same time
_THREADS = (os.cpu_count() or 1) + 1  # one more than cores, as one thread may wait for the interpreter's lock
_ANY_IMAGE: Final = ImageSettings(  # to see whether a file can be decoded; the values do not matter
    height=8,
    width=8,
    channels=3,
    resize="stretch",
    antialias=False,
    intensity="type",
    window=None,
    percentiles=(0.0, 100.0),
)
_File = tuple[Row, bytes | RejectedImage]
_Loaded = tuple[IndexRow, "Examples | None"]  # None if the image is set aside
Checked = tuple[Row, IndexRow, ImageFile | None]  # None if the image is set aside
_In = TypeVar("_In")
_Out = TypeVar("_Out")


class Examples(NamedTuple):
    """One image as serialised tf.Examples.

    Attributes:
      whole: with all features, for every reader of examples, and with the image file, or in its place what `decoded` has of it.
      decoded: beside one with the file, as `models.records.decoded_example` makes it, so that Transform need not decode the
        file; None if the pixels are not known yet at ingestion, or the image is in no split that a Trainer reads.
    """

    whole: bytes
    decoded: bytes | None


@dataclass(frozen=True)
class Decoded:
    """A file as decoded by TensorFlow.

    Attributes:
      pixels: uint8 [height, width, channels], as the network sees them.
      summaries: float32 [4], in the order of features.SUMMARIES.
      perceptual_hash: hash of `pixels`.
    """

    pixels: np.ndarray
    summaries: np.ndarray
    perceptual_hash: int


class Decoder:
    """Decodes files with the same functions as Transform and the exported model."""

    def __init__(self, image: ImageSettings) -> None:
        specs = (tf.TensorSpec(image.shape, tf.uint8), tf.TensorSpec([len(features.SUMMARIES)], tf.float32))

        def measure(pixels: tf.Tensor, unit: float) -> tuple[tf.Tensor, tf.Tensor]:
            return to_network_size(pixels, unit, image), summarize(pixels, unit)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
        def decode(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            # One at a time: callers decode in several threads already, and each needs memory.
            return tf.map_fn(lambda file: with_pixels(file, measure), encoded, fn_output_signature=specs, parallel_iterations=1)

        function = decode.get_concrete_function()
        with tf.Graph().as_default() as graph:
            encoded = tf.compat.v1.placeholder(tf.string, [None])
            outputs = function(encoded)
        # Each image is decoded in its caller's thread: small operations take longer when they are split among threads.
        config = tf.compat.v1.ConfigProto(intra_op_parallelism_threads=1, inter_op_parallelism_threads=-1)
        # Decoding gets no faster by an optimized graph, and to optimize this one takes seconds.
        config.graph_options.rewrite_options.disable_meta_optimizer = True
        self._decode = tf.compat.v1.Session(graph=graph, config=config).make_callable(list(outputs), feed_list=[encoded])

    def decode(self, files: list[bytes]) -> list[Decoded | RejectedImage]:
        """Decodes whole files; a damaged file gives the reason in place of its pixels."""
        if not files:
            return []
        try:
            pixels, summaries = self._decode(np.array(files, object))
        except tf.errors.OpError as error:
            if len(files) > 1:  # one by one, to find out which files of the batch are damaged
                return [self.decode([file])[0] for file in files]
            return [RejectedImage(_damage_reason(files[0], error))]
        return [Decoded(*found) for found in zip(pixels, summaries, perceptual_hashes(pixels), strict=True)]


def find_damage(files: list[bytes]) -> list[RejectedImage | None]:
    """Why each file can't be decoded, in the words of ingestion; None if it can be."""
    return [found if isinstance(found, RejectedImage) else None for found in _plain_decoder().decode(files)]


@functools.cache  # it takes a second to build
def _plain_decoder() -> Decoder:
    return Decoder(_ANY_IMAGE)


def _damage_reason(file: bytes, error: tf.errors.OpError) -> Reason:
    """Why a file can't be decoded: the last line of TensorFlow's message that does not describe the graph."""
    if lacks_end(file):
        return Reason("truncated", "the end of the file is missing")
    lines = [line.strip() for line in error.message.splitlines() if line.strip() and "[[" not in line]
    return Reason("damaged", lines[-1][:200] if lines else "it can not be decoded")


class Loader:
    """Makes the examples of a worker's shards on all cores."""

    def __init__(self, folder: str, settings: IngestionSettings) -> None:
        """Builds the decoder's graph; `folder` is the data folder."""
        self._folder = folder
        self._files = settings.files
        image = settings.image
        self._trained_splits = trained_splits(settings)
        self._by_reference = settings.originals == "reference"
        self._store = settings.store
        self._range_is_known = image.intensity != "percentiles"  # percentiles are computed over all images, later
        self._decoder = Decoder(image if self._range_is_known else replace(image, intensity="type"))

    def load(self, rows: list[Row]) -> Iterator[_Loaded]:
        """Yields one result per image or unusable file; a file with several pages gives one result per page."""
        yield from _load_files(self._folder, rows, lambda row, found: (found, None), self._load_batch)

    def _load_batch(self, files: list[_File]) -> list[_Loaded]:
        checked = [item for row, content in files for item in _check(row, content, self._files)]
        decoded = iter(self._decoder.decode([image.encoded for _, _, image in checked if image]))
        return [self._finish(row, found, image, next(decoded)) if image else (found, None) for row, found, image in checked]

    def _finish(self, row: Row, found: IndexRow, image: ImageFile, decoded: Decoded | RejectedImage) -> _Loaded:
        if isinstance(decoded, RejectedImage):
            return found._replace(reason=str(decoded), kind=decoded.kind), None
        mean, std, saturated, sharpness = decoded.summaries.tolist()
        found = found._replace(
            split=row.split,
            mean=mean,
            std=std,
            saturated=saturated,
            sharpness=sharpness,
            perceptual_hash=decoded.perceptual_hash,
        )
        is_wanted = self._range_is_known and row.split in self._trained_splits
        seen = store_image(decoded.pixels, self._store) if is_wanted else None
        if seen and self._by_reference:
            return found, Examples(to_example(row, found, image, *seen).SerializeToString(), None)
        example = to_example(row, found, image, image.encoded, b"")
        return found, Examples(example.SerializeToString(), decoded_example(example, *seen) if seen else None)


def read_checked(folder: str, rows: list[Row], settings: FileSettings) -> Iterator[Checked]:
    """Reads and checks images as `Loader` does, without decoding them. Damage that only decoding finds is not found.

    Args:
      folder: the data folder.
      rows: rows of the images.
      settings: as in `decoding.normalise`.

    Yields:
      One result per image or unusable file, as `Loader.load`; rows that were already set aside come first.
    """

    def check_batch(files: list[_File]) -> list[Checked]:
        return [item for row, content in files for item in _check(row, content, settings)]

    yield from _load_files(folder, rows, lambda row, found: (row, found, None), check_batch)


def _load_files(
    folder: str, rows: list[Row], aside: Callable[[Row, IndexRow], _Out], load: Callable[[list[_File]], list[_Out]]
) -> Iterator[_Out]:
    for row in rows:
        if row.reason:
            yield aside(row, IndexRow(row.name, row.label, row.group, "", row.reason, kind_of(row.reason), bytes=row.size))
    wanted = [row for row in rows if not row.reason]
    files = zip(wanted, read_files(folder, wanted), strict=True)
    with ThreadPoolExecutor(_THREADS) as threads:  # decoding and hashing release the interpreter's lock
        for results in _map_ahead(threads, load, _batches(files)):
            yield from results


def _check(row: Row, content: bytes | RejectedImage, settings: FileSettings) -> list[Checked]:
    found = IndexRow(row.name, row.label, row.group, "", bytes=row.size)
    try:
        if isinstance(content, RejectedImage):
            raise content
        found = found._replace(bytes=len(content), content_hash=hashlib.sha256(content).hexdigest())
        images = normalise(content, row.path, settings)
    except RejectedImage as reason:
        return [(row, found._replace(reason=str(reason), kind=reason.kind), None)]
    checked: list[Checked] = [
        (
            row,
            found._replace(
                path=_page_name(row, image.page),
                note=image.note,
                format=image.original_format,
                height=image.height,
                width=image.width,
                channels=image.channels,
            ),
            image,
        )
        for image in images
    ]
    lost = [(number, reason) for image in images for number, reason in image.lost]
    return checked + [
        (row, found._replace(path=_page_name(row, number), reason=str(reason), kind=reason.kind), None)
        for number, reason in lost
    ]


def _page_name(row: Row, page: int) -> str:
    return f"{row.name}#{page}" if page else row.name


def to_example(row: Row, found: IndexRow, image: ImageFile, encoded: bytes, pixels: bytes) -> tf.train.Example:
    """An example with the raw features of `models.features`; `encoded` and `pixels` are those of the same names."""
    example = tf.train.Example()
    feature = example.features.feature
    texts: dict[str, str | bytes] = {
        features.ENCODED: encoded,
        features.PIXELS: pixels,
        features.FORMAT: image.format,
        features.FILENAME: found.path,
        features.GROUP: row.group,
    }
    numbers = {
        features.HEIGHT: image.height,
        features.WIDTH: image.width,
        features.CHANNELS: image.channels,
        features.BYTES: found.bytes,
        features.ASPECT: image.width / image.height,
        features.MEAN: found.mean,
        features.STD: found.std,
        features.SATURATED: found.saturated,
        features.SHARPNESS: found.sharpness,
    }
    meta = {features.META_PREFIX + column: value for column, value in row.meta.items()}
    for name, value in (texts | numbers | meta).items():
        if isinstance(value, int):
            feature[name].int64_list.value.append(value)
        elif isinstance(value, float):
            feature[name].float_list.value.append(value)
        else:
            feature[name].bytes_list.value.append(value if isinstance(value, bytes) else str(value).encode())
    feature[features.LABEL].bytes_list.value.extend(label.encode() for label in row.labels)
    return example


def _batches(files: Iterable[_File]) -> Iterator[list[_File]]:
    batch: list[_File] = []
    size = 0
    for row, content in files:
        batch.append((row, content))
        size += len(content) if isinstance(content, bytes) else 0
        if len(batch) >= _BATCH_FILES or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _map_ahead(threads: ThreadPoolExecutor, work: Callable[[_In], _Out], items: Iterable[_In]) -> Iterator[_Out]:
    """Like `threads.map`, but takes an item only when a thread is free for it, so that items don't fill memory."""
    running: deque[Future[_Out]] = deque()
    for item in items:
        running.append(threads.submit(work, item))
        if len(running) > _THREADS:
            yield running.popleft().result()
    while running:
        yield running.popleft().result()
