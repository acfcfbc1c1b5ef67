"""`preprocessing_fn` of the Transform component: encoded files in, uint8 pixels and label indices out.

The same graph is part of the exported model, so that training and serving always agree.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft

from models import features
from models.decoding import with_pixels
from models.image_settings import ImageSettings, Resize, Store, TransformSettings
from models.packing import unpack

_GRID = 64  # rows and columns of an image, at most, that percentiles are computed from
_QUANTILES = 1000  # number of quantiles of the pixels that percentiles are interpolated from

# Channels to produce -> index: channels of the image minus one -> matrix [4, channels to produce]. It applies to the image's
# channels, padded to four with zeros, or with an opaque alpha if one is produced. Luma is ITU-R BT.601, as in
# tf.image.rgb_to_grayscale.
_NONE3, _NONE4 = [0.0] * 3, [0.0] * 4
_FIRST = [[1.0], [0.0], [0.0], [0.0]]
_LUMA = [[0.2989], [0.587], [0.114], [0.0]]
_GREY_TO_RGB = [[1.0] * 3, _NONE3, _NONE3, _NONE3]
_DROP_ALPHA = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], _NONE3]
_GREY_TO_RGBA = [[1.0, 1.0, 1.0, 0.0], _NONE4, _NONE4, [0.0, 0.0, 0.0, 1.0]]
_GREY_ALPHA_TO_RGBA = [[1.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0], _NONE4, _NONE4]
_KEEP = [[float(i == j) for j in range(4)] for i in range(4)]
_CHANNEL_MATRICES = {
    1: [_FIRST, _FIRST, _LUMA, _LUMA],
    3: [_GREY_TO_RGB, _GREY_TO_RGB, _DROP_ALPHA, _DROP_ALPHA],
    4: [_GREY_TO_RGBA, _GREY_ALPHA_TO_RGBA, _KEEP, _KEEP],
}


def to_channels(image: tf.Tensor, channels: int) -> tf.Tensor:
    """Converts between grey, grey with alpha, RGB and RGBA by one matrix product.

    Args:
      image: float32 [height, width, 1 to 4], 0..255.
      channels: 1 (grey), 3 (RGB) or 4 (RGBA). If only one of image and result has alpha, it is dropped or added as opaque.

    Returns:
      float32 [height, width, channels], 0..255.
    """
    found = tf.shape(image)[-1]

    def converted() -> tf.Tensor:
        opaque = 255.0 if channels == 4 else 0.0
        padding = [[0, 0], [0, 0], [0, 4 - found]]
        padded = tf.ensure_shape(tf.pad(image, padding, constant_values=opaque), [None, None, 4])
        return tf.einsum("hwi,io->hwo", padded, tf.gather(tf.constant(_CHANNEL_MATRICES[channels]), found - 1))

    # The shape is set outside: inside the branch, TensorFlow's optimizer would assume it for the images of all branches.
    return tf.ensure_shape(tf.cond(found == channels, lambda: image, converted), [None, None, channels])


def resize_image(image: tf.Tensor, height: int, width: int, resize: Resize, antialias: bool) -> tf.Tensor:
    """Brings an image to the network's size by bilinear interpolation.

    Args:
      image: any type [any height, any width, channels].
      height: rows of the result.
      width: columns of the result.
      resize: "stretch" ignores the aspect ratio, "letterbox" keeps it and pads with black, "crop" keeps it and cuts the
        longer side around the centre.
      antialias: whether to filter before making the image smaller.

    Returns:
      float32 [height, width, channels].
    """
    if resize == "letterbox":
        return _letterbox(image, height, width, antialias)
    if resize == "crop":
        size = tf.cast(tf.shape(image)[:2], tf.float32)
        scale = tf.reduce_max(tf.constant([height, width], tf.float32) / size)
        cut = tf.cast(tf.round(tf.constant([height, width], tf.float32) / scale), tf.int32)
        cut = tf.clip_by_value(cut, 1, tf.shape(image)[:2])
        top, left = tf.unstack((tf.shape(image)[:2] - cut) // 2)
        image = image[top : top + cut[0], left : left + cut[1]]
    return tf.cast(tf.image.resize(image, [height, width], antialias=antialias), tf.float32)


def _letterbox(image: tf.Tensor, height: int, width: int, antialias: bool) -> tf.Tensor:
    """Does what `tf.image.resize_with_pad` does, and leaves a thin image one row or column where that fails."""
    size, wanted = tf.cast(tf.shape(image)[:2], tf.float32), tf.constant([height, width], tf.float32)
    exact = size / tf.reduce_max(size / wanted)
    inner = tf.maximum(tf.cast(tf.floor(exact), tf.int32), 1)
    top, left = tf.unstack(tf.maximum(tf.cast(tf.floor((wanted - exact) / 2), tf.int32), 0))
    resized = tf.cast(tf.image.resize(image, inner, antialias=antialias), tf.float32)
    return tf.image.pad_to_bounding_box(resized, top, left, height, width)


def stretch(pixels: tf.Tensor, unit: float, low: tf.Tensor, high: tf.Tensor) -> tf.Tensor:
    """Maps low..high to 0..255: 255 (pixel - low) / (high - low), clipped; for alpha, low..high is the pixel type's range.

    Args:
      pixels: uint8 or uint16 [height, width, 1 to 4].
      unit: pixel value that means 1 of 255.
      low: pixel value that becomes 0.
      high: pixel value that becomes 255, above `low`.

    Returns:
      float32 [height, width, 1 to 4], 0..255.
    """
    found = tf.shape(pixels)[-1]
    is_alpha = (tf.range(found) == found - 1) & (found % 2 == 0)
    low, high = tf.where(is_alpha, 0.0, low), tf.where(is_alpha, 255.0 * unit, high)
    return tf.clip_by_value((tf.cast(pixels, tf.float32) - low) * (255.0 / (high - low)), 0.0, 255.0)


def intensity_limits(encoded: tf.Tensor, percentiles: tuple[float, float]) -> tf.Tensor:
    """Percentiles of the pixels of a whole split (a full pass), which become the ends of the network's range of grey levels.

    They are computed from a regular grid of at most 64x64 pixels per image, so that large images do not outweigh small ones by
    more than that; all colour channels count, alpha does not. The error in rank is at most 0.01 percent of all pixels.

    Args:
      encoded: string [N], image files.
      percentiles: two numbers, 0..100, the smaller one first.

    Returns:
      float32 [2], 0..255; the second is at least one step of 16 bits above the first.
    """
    shape = [_GRID, _GRID, 3]

    def positions(size: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        count = tf.minimum(size, _GRID)
        return (2 * tf.range(count) + 1) * size // (2 * count), count

    def sample(pixels: tf.Tensor, unit: float) -> tf.Tensor:
        height, width, channels = tf.unstack(tf.shape(pixels))
        colours = channels - tf.cast(channels % 2 == 0, tf.int32)
        rows, height = positions(height)
        columns, width = positions(width)
        values = tf.gather(tf.gather(pixels, rows), columns, axis=1)[..., :colours]
        padding = [[0, _GRID - height], [0, _GRID - width], [0, 3 - colours]]
        return tf.ensure_shape(tf.pad(tf.cast(values, tf.float32) / unit, padding, constant_values=-1.0), shape)

    samples = tf.map_fn(lambda file: with_pixels(file, sample), encoded, fn_output_signature=tf.TensorSpec(shape, tf.float32))
    values = tf.boolean_mask(samples, samples >= 0.0)
    inner = tft.quantiles(values, _QUANTILES, epsilon=1e-4)
    edges = tf.concat([[tft.min(values)], tf.reshape(inner, [-1]), [tft.max(values)]], axis=0)
    low, high = (_interpolate(edges, percentile / 100 * _QUANTILES) for percentile in percentiles)
    return tf.stack([low, tf.maximum(high, low + 1 / 257)])


def _interpolate(values: tf.Tensor, position: float) -> tf.Tensor:
    below = min(int(position), _QUANTILES - 1)
    return values[below] + (position - below) * (values[below + 1] - values[below])


def images_from_files(encoded: tf.Tensor, image: ImageSettings, limits: tf.Tensor | None = None) -> tf.Tensor:
    """Decodes, resizes and converts a batch of image files.

    Args:
      encoded: string [N].
      image: as for `to_network_size`.
      limits: as for `to_network_size`.

    Returns:
      uint8 [N, height, width, channels].
    """
    return _decoder(image, limits is not None)(encoded, *([] if limits is None else [limits]))


@functools.cache  # Transform traces `preprocessing_fn` ten times, and this is most of it
def _decoder(image: ImageSettings, limited: bool) -> Callable[..., tf.Tensor]:
    """The function of `images_from_files`, of (encoded) or (encoded, limits)."""

    def decode(encoded: tf.Tensor, limits: tf.Tensor | None = None) -> tf.Tensor:
        return tf.map_fn(
            lambda file: with_pixels(file, lambda pixels, unit: to_network_size(pixels, unit, image, limits)),
            encoded,
            fn_output_signature=tf.TensorSpec(image.shape, tf.uint8),
        )

    signature = [tf.TensorSpec([None], tf.string), *([tf.TensorSpec([2], tf.float32)] if limited else [])]
    return tf.function(decode, input_signature=signature, autograph=False)


def to_network_size(pixels: tf.Tensor, unit: float, image: ImageSettings, limits: tf.Tensor | None = None) -> tf.Tensor:
    """Turns a decoded image into what the network sees.

    Before the image is resized, two pixel values become black and white, and values beyond them are clipped. They depend on
    `image.intensity`:
    - type: the ends of the pixel type's range.
    - window: the pixel values `image.window` in 16-bit images; in other images as for type.
    - percentiles: `limits`, in all images; as for type if these are not given.
    Alpha always has the range of its type.

    Args:
      pixels: uint8 or uint16 [any height, any width, 1 to 4].
      unit: pixel value that means 1 of 255.
      image: settings of the result.
      limits: float32 [2], low and high, 0..255, as `intensity_limits` gives them.

    Returns:
      uint8 [height, width, channels].
    """
    if image.intensity == "window" and unit != 1.0:
        pixels, unit = stretch(pixels, unit, *tf.unstack(tf.constant(image.window, tf.float32))), 1.0
    elif image.intensity == "percentiles" and limits is not None:
        pixels, unit = stretch(pixels, unit, *tf.unstack(limits * unit)), 1.0
    # The steps from here on are linear, so their order does not change the result; resizing first is less work.
    resized = resize_image(pixels, image.height, image.width, image.resize, image.antialias)
    converted = to_channels(resized if unit == 1.0 else resized / unit, image.channels)
    # All values are within 0..255, because interpolation and luma are weighted means.
    return tf.ensure_shape(tf.cast(tf.round(converted), tf.uint8), image.shape)


def serialize_images(images: tf.Tensor) -> tf.Tensor:
    """Turns uint8 [N, height, width, channels] into string [N], pixels row by row, with one byte per value."""
    size = int(np.prod(images.shape[1:]))
    # The content is the last field of the message, after a header of the tensor's type and shape.
    return tf.strings.substr(tf.map_fn(tf.io.serialize_tensor, images, fn_output_signature=tf.string), -size, size)


def parse_images(serialized: tf.Tensor, shape: tuple[int, int, int]) -> tf.Tensor:
    """Turns string [N] from `serialize_images` into uint8 [N, *shape]."""
    return tf.reshape(tf.io.decode_raw(serialized, tf.uint8), [-1, *shape])


def store_image(pixels: np.ndarray, store: Store) -> tuple[bytes, bytes]:
    """What an example has of an image as the network sees it: the values of ENCODED and of PIXELS, of which one is empty.

    Args:
      pixels: uint8 [height, width, channels].
      store: uint8: as `serialize_images` makes it. png: a file that decodes to the same pixels. jpeg: one of quality 95, with
        colours of full resolution and without alpha, which changes pixels a little.
    """
    if store == "uint8":
        return b"", pixels.tobytes()
    if store == "jpeg":
        return bytes(tf.io.encode_jpeg(pixels, quality=95, chroma_downsampling=False).numpy()), b""
    return bytes(tf.io.encode_png(pixels, compression=1).numpy()), b""


def decode_images(files: tf.Tensor, shape: tuple[int, int, int]) -> tf.Tensor:
    """Turns files [N] from `store_image` into uint8 [N, *shape]; a tenth of the operations of `images_from_files`."""

    def decode(file: tf.Tensor) -> tf.Tensor:
        if shape[-1] == 4:
            return tf.io.decode_png(file, channels=4)
        return tf.io.decode_jpeg(file, channels=shape[-1], dct_method="INTEGER_ACCURATE")  # PNG, too

    return tf.map_fn(decode, files, fn_output_signature=tf.TensorSpec(shape, tf.uint8))


def channel_moments(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Mean and variance of every channel over a whole split (a full pass).

    All images have the same size, so the mean of the images' means is the mean over all pixels; only [N, channels] floats
    reach the analyzer.

    Args:
      images: uint8 [N, height, width, channels].

    Returns:
      Two tensors float32 [channels]: the mean, 0..255, and the variance.
    """

    def first_two_moments(image: tf.Tensor) -> tf.Tensor:
        pixels = tf.cast(image, tf.float32)
        return tf.stack([tf.reduce_mean(pixels, [0, 1]), tf.reduce_mean(tf.square(pixels), [0, 1])])

    shape = tf.TensorSpec([2, images.shape[-1]], tf.float32)
    moments = tft.mean(
        tf.map_fn(first_two_moments, images, fn_output_signature=shape), reduce_instance_dims=False, output_dtype=tf.float32
    )
    return moments[0], tf.maximum(moments[1] - tf.square(moments[0]), 0.0)


def multi_hot(positions: tf.SparseTensor, num_classes: int) -> tf.Tensor:
    """Turns positions of labels in the vocabulary into vectors that have a one at each position.

    Args:
      positions: int64 [N, any number], -1 for a label that is not in the vocabulary.
      num_classes: size of the vocabulary.

    Returns:
      float32 [N, num_classes]; a row is all zeros if it has no label, or no known one.
    """
    dense = tf.sparse.to_dense(positions, default_value=-1)
    return tf.cast(tf.reduce_any(tf.one_hot(dense, num_classes, on_value=True, off_value=False), axis=1), tf.float32)


def is_multi_label(transform_output: tft.TFTransformOutput) -> bool:
    """Whether the transformed label can have any number of values, according to the schema that Transform has written."""
    return isinstance(transform_output.transformed_feature_spec()[features.LABEL_INDEX], tf.io.VarLenFeature)


def transform_files(
    layer: Callable[[dict[str, tf.Tensor]], dict[str, tf.Tensor]], raw_spec: Mapping[str, Any], encoded: tf.Tensor
) -> dict[str, tf.Tensor]:
    """What the graph of `preprocessing_fn` makes of image files alone.

    Args:
      layer: of the graph, from `TFTransformOutput.transform_features_layer`.
      raw_spec: of the graph; it has no pixels where another ExampleGen has written the examples.
      encoded: string [N], image files.

    Returns:
      The transformed features that need no label, a row for each file.
    """
    files = encoded[:, tf.newaxis]
    raw = {features.ENCODED: files, features.PIXELS: tf.fill(tf.shape(files), "")}
    return layer({name: raw[name] for name in raw if name in raw_spec})


def preprocessing_fn(inputs: dict[str, tf.Tensor], custom_config: dict[str, Any]) -> dict[str, tf.Tensor]:
    """Transforms raw features; see `models.features` for both. Its analyzers run over the training split.

    Args:
      inputs: the raw features, each [N, 1]; for multi-label data the label is sparse, unless all images have equally many
        labels. Without `image/pixels`, which only ImageExampleGen writes, all images are decoded.
      custom_config: `TransformSettings`, in the form of `packing.as_dict`.

    Returns:
      The transformed features.
    """
    settings = unpack(TransformSettings, custom_config)
    image = settings.image
    files = tf.reshape(inputs[features.ENCODED], [-1])
    limits = intensity_limits(files, image.percentiles) if image.intensity == "percentiles" else None
    if features.PIXELS in inputs:
        # Ingestion has already decoded the images of a run, with the same functions, but not the images that a server gets.
        pixels = tf.reshape(inputs[features.PIXELS], [-1])
        serialized = tf.cond(
            tf.reduce_any(tf.equal(pixels, "")),
            lambda: serialize_images(images_from_files(files, image, limits)),
            lambda: pixels,
        )
    else:
        serialized = serialize_images(images_from_files(files, image, limits))
    images = parse_images(serialized, image.shape)
    mean, variance = channel_moments(images)
    labels = inputs[features.LABEL]
    if not settings.multi_label:
        labels = tf.reshape(labels, [-1])
    elif not isinstance(labels, tf.SparseTensor):
        labels = tf.sparse.from_dense(labels)
    tft.vocabulary(labels, vocab_filename=features.LABEL_COUNTS, store_frequency=True)
    rows = tf.shape(images)[:1]

    def on_every_row(value: tf.Tensor) -> tf.Tensor:
        return tf.broadcast_to(value, tf.concat([rows, tf.shape(value)], axis=0))

    return {
        features.IMAGE: serialized,
        features.LABEL_INDEX: tft.compute_and_apply_vocabulary(labels, vocab_filename=features.LABEL_VOCABULARY),
        features.CHANNEL_MEAN: on_every_row(mean),
        features.CHANNEL_VARIANCE: on_every_row(variance),
        features.TRAIN_EXAMPLES: on_every_row(tft.size(inputs[features.ENCODED])),
    }
