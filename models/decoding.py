"""Decodes image files inside a graph: that of ingestion, of Transform and of the exported model."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from models.orientation import turn_upright, zero_unless

_JPEG_SIGNATURE = b"\xff\xd8\xff"
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_BIT_DEPTH = 24  # offset of the bit depth, the 9th byte of the IHDR chunk's data
_CURE = ": the model reads PNG and JPEG; convert it to PNG, or give it to fpn predict, fpn score or fpn serve"
_OTHER_FORMATS = {  # as regular expressions
    "GIF": "GIF8",
    "BMP": "BM",
    "TIFF": r"(?:II|MM)\C\C",
    "WebP": r"RIFF\C{4}WEBP",
    "DICOM": r"(?:(?:\C{128})?DICM|[\x02\x08]\x00\C\x00)",
    "JPEG 2000": r"(?:\x00\x00\x00\x0cjP|\CO\CQ\x00)",
    "AVIF": r"\C{4}ftypavi",
    "HEIC": r"\C{4}ftyp(?:he|mif|msf)",
    "PNM": r"P[1-7]\s",
}


def decode_image(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes one image file.

    Args:
      encoded: scalar string, a PNG or JPEG file; see `with_pixels`.

    Returns:
      float32 [height, width, 1 to 4], 0..255. The precision of 16-bit PNG is kept as fractions.
    """
    return with_pixels(encoded, lambda pixels, unit: tf.cast(pixels, tf.float32) / unit)


def with_pixels(encoded: tf.Tensor, use: Callable[[tf.Tensor, float], Any]) -> Any:
    """Decodes one PNG or JPEG file for a function of its pixels, with the pixels that ingestion makes of it.

    Other files are refused: TensorFlow reads some BMP and GIF files, but not as ingestion does, and CMYK in its own way. An
    error names the format, and says what to do. Ingestion, `fpn predict`, `fpn score` and `fpn serve` turn them into PNG first.

    Args:
      encoded: as for `decode_image`.
      use: takes the pixels, uint8 or uint16 [height, width, 1 to 4], and the unit, the pixel value that means 1 of 255 (1 or
        257); must return the same shapes and types for both. As it takes integers, no copy of the image as floats is made.

    Returns:
      The result of `use`.
    """
    header = tf.io.decode_raw(tf.strings.substr(encoded, 0, 32), tf.uint8, fixed_length=32)

    def begins_with(signature: bytes) -> tf.Tensor:
        return tf.reduce_all(header[: len(signature)] == tf.constant(list(signature), tf.uint8))

    def use_jpeg() -> Any:
        # decode_image uses a coarse inverse DCT: wrong by 3 levels in photographs, by more in sharp ones, and no faster.
        pixels = tf.io.decode_jpeg(encoded, dct_method="INTEGER_ACCURATE")
        # TensorFlow's own way with CMYK is not Pillow's.
        zero = zero_unless(tf.io.extract_jpeg_shape(encoded)[2] == 4, f"CMYK JPEG{_CURE}")
        pixels = tf.reshape(pixels, tf.shape(pixels) + zero)
        return use(turn_upright(pixels, encoded, is_png=False), 1.0)

    def use_png(dtype: tf.DType, unit: float) -> Any:
        return use(turn_upright(tf.io.decode_png(encoded, dtype=dtype), encoded, is_png=True), unit)

    def refuse() -> Any:
        zero = zero_unless(tf.constant(True), tf.strings.join([_format_name(encoded), _CURE]))
        return use(tf.zeros(tf.fill([3], zero), tf.uint8), 1.0)

    is_png = begins_with(_PNG_SIGNATURE)
    return tf.case(
        [
            (begins_with(_JPEG_SIGNATURE), use_jpeg),
            (is_png & (header[_PNG_BIT_DEPTH] == 16), lambda: use_png(tf.uint16, 257.0)),
            (is_png, lambda: use_png(tf.uint8, 1.0)),
        ],
        default=refuse,
    )


def _format_name(encoded: tf.Tensor) -> tf.Tensor:
    """The name of a file's format, by its first bytes."""
    name = tf.constant("not an image, or of an unknown format")
    for found, start in _OTHER_FORMATS.items():
        name = tf.where(tf.strings.regex_full_match(encoded, f"(?s){start}\\C*"), found, name)
    return name
