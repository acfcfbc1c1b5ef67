"""Turns pictures upright in a TensorFlow graph, as Pillow does: by Exif, or else by XMP.

Blocks are found by their marks, not by a walk over the file, which would take a loop: it costs microseconds, and about one
millisecond per megabyte.
"""

import re
from typing import Final

import tensorflow as tf

_EXIF: Final = b"Exif\0\0"  # begins the block in a JPEG; some programs write it into PNG files, too
_PNG_EXIF: Final = b"eXIf"
_XMP: Final = b"tiff:Orientation"
_ORIENTATION: Final = 0x0112
_LENGTHS: Final = [0, 0, 0, 2, 4, 0, 1, 0, 2, 4]  # bytes of an integer, by its TIFF type; 0 for what is none
_ENTRY: Final = 12  # bytes of a directory's entry: tag, type, count, value
# Texts of a PNG that may say how it is turned, and are compressed or written as digits. Ingestion writes such files again.
_HIDDEN: Final = (b"Raw profile type exif", b"XML:com.adobe.xmp\0\1")
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
    mark = _PNG_EXIF if is_png else _EXIF
    hidden = _HIDDEN if is_png else ()

    # A call in a branch that is not taken costs nothing; the operations of a branch cost time even so.
    @tf.function(autograph=False, experimental_attributes={"_noinline": True})
    def turn(pixels: tf.Tensor, encoded: tf.Tensor) -> tf.Tensor:
        refused = refuse_if(_contains(encoded, *hidden), _REFUSED) if hidden else tf.no_op()
        with tf.control_dependencies([refused]):
            orientation = _orientation(encoded, mark)
        turned = tf.cond(orientation > 4, lambda: tf.transpose(pixels, [1, 0, 2]), lambda: pixels)
        turned = tf.cond(_is_any(orientation, 2, 3, 6, 7), lambda: turned[:, ::-1], lambda: turned)
        return tf.cond(_is_any(orientation, 3, 4, 7, 8), lambda: turned[::-1], lambda: turned)

    return tf.cond(_contains(encoded, mark, _XMP, *hidden), lambda: turn(pixels, encoded), lambda: pixels)


def refuse_if(condition: tf.Tensor, reason: str | tf.Tensor) -> tf.Operation:
    """An operation that ends the graph with the reason if the condition, bool [], holds."""
    return tf.raw_ops.Assert(condition=tf.logical_not(condition), data=[reason])


def _contains(encoded: tf.Tensor, *texts: bytes) -> tf.Tensor:
    """Whether a file contains one of several texts of ASCII letters and control characters; bool []."""
    either = "|".join(re.escape(text.decode("ascii")).replace("\0", r"\x00").replace("\1", r"\x01") for text in texts)
    return tf.strings.regex_full_match(encoded, rf"\C*(?:{either})\C*")


def _is_any(value: tf.Tensor, *wanted: int) -> tf.Tensor:
    return tf.reduce_any(value == tf.constant(wanted))


def _orientation(encoded: tf.Tensor, mark: bytes) -> tf.Tensor:
    """1 to 8, int32; by XMP if Exif does not say it."""
    by_exif = _of_exif(_after(encoded, mark))
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

    directory = tf.maximum(integer(4, 4), 0)
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
