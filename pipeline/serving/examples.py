"""Finds the image files in a serialised tf.Example, in few steps.

Protocol buffers would parse a message of millions of small fields for seconds, and nothing else could run meanwhile.
https://protobuf.dev/programming-guides/encoding/ and tensorflow/core/example/feature.proto.
"""

from collections.abc import Iterator
from typing import Final

_ENCODED: Final = b"image/encoded"  # the feature with the image file, named by models.features
_MOST_FIELDS: Final = 10_000
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types
_LONGEST_VARINT: Final = 10  # bytes


def encoded_images(example: bytes) -> list[bytes]:
    """The values of the feature `image/encoded`.

    Raises:
      ValueError: not a message of the type Example, or one of very many fields.
    """
    fields = _Fields()
    files: list[bytes] = []
    for features in fields.of(example, 1):  # Example.features
        for entry in fields.of(features, 1):  # Features.feature, a map
            if any(bytes(key) == _ENCODED for key in fields.of(entry, 1)):
                for feature in fields.of(entry, 2):
                    for values in fields.of(feature, 1):  # Feature.bytes_list
                        files += map(bytes, fields.of(values, 1))  # BytesList.value
    return files


class _Fields:
    """Walks over the fields of messages, up to a number for all of them together."""

    def __init__(self) -> None:
        self._left = _MOST_FIELDS

    def of(self, message: bytes | memoryview, wanted: int) -> Iterator[memoryview]:
        """The contents of those fields of a message that have a number and are bytes or messages."""
        view, position = memoryview(message), 0
        while position < len(view):
            self._left -= 1
            if self._left < 0:
                raise ValueError(f"more than {_MOST_FIELDS} fields")
            tag, position = _read_varint(view, position)
            number, kind = tag >> 3, tag & 7
            if kind == _VARINT:
                _, position = _read_varint(view, position)
            elif kind in (_FIXED64, _FIXED32):
                position += 8 if kind == _FIXED64 else 4
            elif kind == _BYTES:
                size, position = _read_varint(view, position)
                if number == wanted:
                    yield view[position : position + size]
                position += size
            else:
                raise ValueError(f"a field of the type {kind}")
            if position > len(view):
                raise ValueError("it ends too early")


def _read_varint(view: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(_LONGEST_VARINT):
        if position + shift >= len(view):
            raise ValueError("it ends too early")
        byte = view[position + shift]
        value |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:
            return value, position + shift + 1
    raise ValueError("a number that is too long")
