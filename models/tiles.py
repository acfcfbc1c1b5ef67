"""Large images: one network looks at each tile of an image, and the tiles' logits together give the image's answer."""

import math
from collections.abc import Callable
from typing import Any, Final

import keras
import numpy as np
import tensorflow as tf

from models.fpn import LogSumExpPooling

_CHUNK_PIXELS: Final = 2**20  # of the tiles that the network sees together: the memory of its activations


@keras.saving.register_keras_serializable(package="fpn")
class Tiles(keras.layers.Wrapper):
    """Answers images by a network that sees tiles of them: uint8 [N, H, W, channels] to logits float32 [N, classes].

    Tiles lie on a grid from edge to edge, at equal distances. They overlap more than `overlap` where the image's side asks for
    it, so that no pixel is invented. The logits of an image are the smooth maximum of its tiles' (`LogSumExpPooling`).

    The network sees some tiles at a time, from all over the batch. So memory grows with the pixels, but not with activations.
    In training, the backward pass computes each chunk's activations anew (arXiv:1604.06174). Batch statistics are those of a
    chunk. The moving ones change once per step, by the mean over all chunks.

    Args:
      layer: a network from uint8 [N, size, size, channels] to logits float32 [N, classes].
      overlap: least number of pixels that neighbours share.

    Attributes:
      number: of the tiles of an image.
    """

    def __init__(self, layer: keras.Model, overlap: int = 0, **kwargs: Any) -> None:
        super().__init__(layer, **{"dtype": "float32", **kwargs})
        self.overlap = overlap
        self.size: int = layer.input_shape[1]

    def build(self, input_shape: tuple[Any, ...]) -> None:
        self._sides = input_shape[1:3]
        self._starts = [self._tile_starts(side) for side in self._sides]
        self.number = math.prod(map(len, self._starts))
        self.pooling = LogSumExpPooling(dtype="float32", name="pooling")
        self.pooling.build((None, self.number, self.layer.output_shape[-1]))
        self.built = True

    def _tile_starts(self, side: int) -> np.ndarray:
        count = 1 + math.ceil((side - self.size) / (self.size - self.overlap))
        return np.linspace(0, side - self.size, count).round().astype(np.int32)

    def call(self, images: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        return self.combine(self.tile_logits(images, bool(training)))

    def combine(self, logits: tf.Tensor) -> tf.Tensor:
        """The tiles' logits [N, tiles, classes] to those of the images [N, classes]."""
        return self.pooling(logits)

    def tile_logits(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """The logits of each tile, row by row: float32 [N, tiles, classes]."""
        tiles = self.cut(images)
        if training:
            logits = self._train(tiles)
        else:
            logits = in_chunks(lambda part: self.layer(part, training=False), tf.float32, self.size, tiles)
        return tf.reshape(logits, [-1, self.number, self.layer.output_shape[-1]])

    def cut(self, images: tf.Tensor) -> tf.Tensor:
        """The tiles of all images, uint8 [N * tiles, size, size, channels]."""
        rows, columns = ((starts[:, np.newaxis] + np.arange(self.size)).ravel() for starts in self._starts)
        grid = tf.gather(tf.gather(images, rows, axis=1), columns, axis=2)
        down, across = map(len, self._starts)
        grid = tf.reshape(grid, [-1, down, self.size, across, self.size, images.shape[-1]])
        return tf.reshape(tf.transpose(grid, [0, 1, 3, 2, 4, 5]), [-1, self.size, self.size, images.shape[-1]])

    def join(self, maps: tf.Tensor) -> tf.Tensor:
        """One map per image [N, h, w] of the maps of its tiles [N * tiles, cells, cells]; the nearest tile gives each cell."""
        down, across = map(len, self._starts)
        cells = maps.shape[1:]
        grid = tf.reshape(maps, [-1, down, across, *cells])
        grid = tf.reshape(tf.transpose(grid, [0, 1, 3, 2, 4]), [-1, down * cells[0], across * cells[1]])
        for axis, (side, starts, count) in enumerate(zip(self._sides, self._starts, cells, strict=True), start=1):
            total = max(1, round(side * count / self.size))
            centres = (np.arange(total) + 0.5) * side / total
            nearest = np.abs(centres[:, np.newaxis] - starts - self.size / 2).argmin(axis=1)
            inside = ((centres - starts[nearest]) * count / self.size).astype(int).clip(0, count - 1)
            grid = tf.gather(grid, nearest * count + inside, axis=axis)
        return grid

    def _train(self, tiles: tf.Tensor) -> tf.Tensor:
        """The logits of tiles [N, classes], in training: with batch statistics, and gradients that keep no activations."""
        trained, state = self.layer.trainable_variables, self.layer.non_trainable_variables
        before = [tf.convert_to_tensor(variable.value) for variable in state]
        chunks = _chunks(tf.shape(tiles)[0], self.size)

        def answer(values: tuple[tf.Tensor, ...], number: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
            """Logits of a chunk, and the state after it. Whole numbers are the seeds of dropout: each chunk has its own."""
            start = [value + tf.cast(number, value.dtype) if value.dtype.is_integer else value for value in before]
            return self.layer.stateless_call(values, start, tf.gather(tiles, chunks[number]), training=True)

        @tf.custom_gradient
        def answers(*values: tf.Tensor) -> tuple[Any, Callable[..., Any]]:
            count = tf.shape(chunks)[0]
            logits, after = tf.map_fn(
                lambda number: answer(values, number),
                tf.range(count),
                fn_output_signature=(tf.float32, [value.dtype for value in before]),
                parallel_iterations=1,
            )

            def gradient(upstream: tf.Tensor, *_: tf.Tensor) -> list[tf.Tensor]:
                def add(number: tf.Tensor, sums: list[tf.Tensor]) -> tuple[tf.Tensor, list[tf.Tensor]]:
                    with tf.GradientTape() as tape:
                        tape.watch(values)
                        part, _ = answer(values, number)
                    found = tape.gradient(part, values, upstream[number], tf.UnconnectedGradients.ZERO)
                    return number + 1, [a + b for a, b in zip(sums, found, strict=True)]

                zeros = [tf.zeros_like(value) for value in values]
                return tf.while_loop(lambda number, _: number < count, add, (0, zeros), parallel_iterations=1)[1]

            return (logits, *after), gradient

        logits, *after = answers(*(tf.convert_to_tensor(variable.value) for variable in trained))
        for variable, start, values in zip(state, before, after, strict=True):
            # The mean of the changes: it is 0, without rounding, for what is frozen.
            variable.assign(values[0] if start.dtype.is_integer else start + tf.reduce_mean(values - start, axis=0))
        return _in_order(logits, tf.shape(tiles)[0])

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (input_shape[0], self.layer.output_shape[-1])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "overlap": self.overlap}


def in_chunks(function: Callable[..., Any], types: Any, size: int, *tensors: tf.Tensor) -> Any:
    """Applies a function of tiles to all of them, one chunk after the other.

    Args:
      function: takes some rows of each of `tensors`; gives one row for each, in tensors of `types`.
      types: as `fn_output_signature` of `tf.map_fn`.
      size: side of the tiles.
      *tensors: the first has the tiles; all have a row for each.
    """
    rows = tf.shape(tensors[0])[0]
    found = tf.map_fn(
        lambda chunk: function(*(tf.gather(tensor, chunk) for tensor in tensors)),
        _chunks(rows, size),
        fn_output_signature=types,
        parallel_iterations=1,
    )
    return tf.nest.map_structure(lambda values: _in_order(values, rows), found)


def _chunks(rows: tf.Tensor, size: int) -> tf.Tensor:
    """Deals row numbers into chunks of equal size, int32 [chunks, rows of a chunk]; the last begin anew where some are left."""
    count = tf.maximum(1, -(-rows // max(1, _CHUNK_PIXELS // size**2)))
    length = -(-rows // count)
    return tf.transpose(tf.reshape(tf.range(length * count) % tf.maximum(1, rows), [length, count]))


def _in_order(values: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """Puts the results of `_chunks`, [chunks, rows of a chunk, ...], in the order of the rows, [rows, ...]."""
    shape = tf.shape(values)
    turned = tf.transpose(values, [1, 0, *range(2, values.shape.rank)])
    return tf.reshape(turned, tf.concat([[-1], shape[2:]], axis=0))[:rows]


def tile_classifier(network: keras.Model, image_shape: tuple[int, int, int], overlap: int) -> keras.Model:
    """A classifier of large images, from uint8 [N, *image_shape] to logits float32 [N, classes].

    Args:
      network: of tiles, as `models.fpn.build_classifier` makes it.
      image_shape: (height, width, channels); no side is smaller than a tile's.
      overlap: as in `Tiles`.
    """
    images = keras.Input(image_shape, dtype="uint8", name="image")
    return keras.Model(images, Tiles(network, overlap, name="tiles")(images), name="classifier")


def find_tiles(model: keras.Model) -> Tiles | None:
    """The layer by which a classifier sees tiles; None if it sees whole images."""
    return next((layer for layer in model.layers if isinstance(layer, Tiles)), None)
