"""Turns pictures upright in a TensorFlow graph, as Pillow does: by Exif, or else by XMP.

Blocks are found by their marks, not by a walk over the file, which would take a loop: it costs microseconds, and about one
millisecond per megabyte.
"""

import functools
import re
from typing import Final

import tensorflow as tf

from models.image_settings import HIDDEN_TURNS

_EXIF: Final = b"Exif\0\0"  # begins the block in a JPEG; some programs write it into PNG files, too
_PNG_EXIF: Final = b"eXIf"
_XMP: Final = b"tiff:Orientation"
_ORIENTATION: Final = 0x0112
_LENGTHS: Final = [0, 0, 0, 2, 4, 0, 1, 0, 2, 4]  # bytes of an integer, by its TIFF type; 0 for what is none
_ENTRY: Final = 12  # bytes of a directory's entry: tag, type, count, value
_PNG_MARKS: Final = (_PNG_EXIF, _XMP, *HIDDEN_TURNS)
_JPEG_MARKS: Final = (_EXIF, _XMP)
_REFUSED: Final = "PNG with metadata as compressed text: the model does not look into it; save the file without its metadata"


def turn_upright(pixels: tf.Tensor, encoded: tf.Tensor, is_png: bool) -> tf.Tensor:
    """Turns a decoded picture as its file says.

    Args:
      pixels: any type [height, width, channels].
      encoded: scalar string, the PNG or JPEG file.
      is_png: which of them.

    Returns:
      The pixels, with height and width exchanged if it lies on its side.
    """
    read = _orientation_of_png if is_png else _orientation_of_jpeg
    told = _contains(encoded, *(_PNG_MARKS if is_png else _JPEG_MARKS))
    return tf.cond(told, lambda: _turn(pixels, read(encoded)), lambda: pixels)


# Functions of their own are in a graph once, however often they are called.
_function: Final = functools.partial(tf.function, autograph=False)


@_function
def _turn(pixels: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    turned = tf.cond(orientation > 4, lambda: tf.transpose(pixels, [1, 0, 2]), lambda: pixels)
    turned = tf.cond(_is_any(orientation, 2, 3, 6, 7), lambda: turned[:, ::-1], lambda: turned)
    return tf.cond(_is_any(orientation, 3, 4, 7, 8), lambda: turned[::-1], lambda: turned)


@_function
def _orientation_of_jpeg(encoded: tf.Tensor) -> tf.Tensor:
    return _orientation(encoded, _of_exif(_after(encoded, _EXIF)))


@_function
def _orientation_of_png(encoded: tf.Tensor) -> tf.Tensor:
    zero = zero_unless(_contains(encoded, *HIDDEN_TURNS), _REFUSED)
    return zero + _orientation(encoded, _of_exif(_after(encoded, _PNG_EXIF)))


def zero_unless(condition: tf.Tensor, reason: str | tf.Tensor) -> tf.Tensor:
    """0, int32 []; if the condition holds, computing it fails, with the reason in the error.

    An assertion would be an effect, which is computed even where no output needs the image: of examples without one.
    """
    return tf.strings.to_number(tf.where(condition, reason, "0"), tf.int32)


def _contains(encoded: tf.Tensor, *texts: bytes) -> tf.Tensor:
    """Whether a file contains one of several texts of ASCII letters and control characters; bool []."""
    either = "|".join(re.escape(text.decode("ascii")).replace("\0", r"\x00").replace("\1", r"\x01") for text in texts)
    return tf.strings.regex_full_match(encoded, rf"\C*(?:{either})\C*")


def _is_any(value: tf.Tensor, *wanted: int) -> tf.Tensor:
    return tf.reduce_any(value == tf.constant(wanted))


def _orientation(encoded: tf.Tensor, by_exif: tf.Tensor) -> tf.Tensor:
    """1 to 8, int32; by XMP if Exif does not say it."""
    # As an attribute (tiff:Orientation="6") or an element (tiff:Orientation>6<).
    by_xmp = tf.io.decode_raw(_part(_after(encoded, _XMP), 0, 3), tf.uint8, fixed_length=3)
    by_xmp = tf.cast(tf.where(by_xmp[0] == ord("="), by_xmp[2], by_xmp[1]), tf.int32) - ord("0")
    found = tf.where(by_exif >= 0, by_exif, by_xmp)
    return tf.where((found >= 1) & (found <= 8), found, 1)


def _after(encoded: tf.Tensor, mark: bytes) -> tf.Tensor:
    """What follows the first occurrence of a mark; "" if there is none."""
    parts = tf.raw_ops.StringSplitV2(input=[encoded], sep=mark, maxsplit=1).values
    return tf.concat([parts, [""]], axis=0)[1]


def _part(text: tf.Tensor, start: tf.Tensor | int, length: tf.Tensor | int) -> tf.Tensor:
    """A part of a text; shorter, or "", where the text ends before."""
    return tf.strings.substr(text, tf.minimum(start, tf.strings.length(text)), length)


@_function
def _of_exif(block: tf.Tensor) -> tf.Tensor:
    """The orientation in the first directory of an Exif block, which is a TIFF file without pictures; -1 if it has none."""
    twice = _part(block, 0, len(_EXIF)) == _EXIF
    block = tf.where(twice, _part(block, len(_EXIF), tf.strings.length(block)), block)
    little = _part(block, 0, 1) == "I"

    def number(columns: tf.Tensor) -> tf.Tensor:
        """Integers [N] of bytes [N, 1 to 4]; large ones are negative."""
        values = tf.cast(tf.where(little, columns[:, ::-1], columns), tf.int32)
        return tf.reduce_sum(values * [256**power for power in reversed(range(columns.shape[1]))], axis=1)

    def integer(start: tf.Tensor | int, length: int) -> tf.Tensor:
        found = tf.io.decode_raw(_part(block, start, length), tf.uint8, fixed_length=length)
        return number(found[tf.newaxis])[0]

    directory = tf.clip_by_value(integer(4, 4), 0, 2**30)
    entries = _part(block, directory + 2, _ENTRY * integer(directory, 2))
    whole = _part(entries, 0, tf.strings.length(entries) // _ENTRY * _ENTRY)
    table = tf.reshape(tf.io.decode_raw(whole, tf.uint8), [-1, _ENTRY])
    kinds = number(table[:, 2:4])
    lengths = tf.where(kinds < len(_LENGTHS), tf.gather(_LENGTHS, tf.minimum(kinds, len(_LENGTHS) - 1)), 0)
    values = tf.where(
        lengths == 1, number(table[:, 8:9]), tf.where(lengths == 2, number(table[:, 8:10]), number(table[:, 8:12]))
    )
    counts = number(table[:, 4:8])  # of several values, the first counts; many do not stand in the entry
    usable = (number(table[:, :2]) == _ORIENTATION) & (lengths > 0) & (counts > 0) & (counts <= 4 // tf.maximum(lengths, 1))
    return tf.concat([[-1], tf.boolean_mask(values, usable)], axis=0)[-1]
