"""The directories of tags of TIFF files and of Exif descriptions (TIFF 6.0, section 2; BigTIFF)."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from images.files.structure.budget import MOST_EXIF, MOST_PAGES, MOST_PARTS, MOST_STRIPS, check_parts, too_costly
from images.files.structure.found import Structure

SIGNATURES: Final = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_SIZES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_EXIF: Final = b"Exif\0\0"
_OFFSETS: Final = (273, 324)  # tags with one value for each strip or tile
_MOST_STRIPS_AT_ONCE: Final = 10_000  # beyond, tifffile's steps add up


@dataclass(frozen=True)
class _Directory:
    tags: list[tuple[int, int, int]]  # number, number of values, bytes


def read_tiff(encoded: bytes) -> Structure:
    """Counts tags, strips and tiles of the pages.

    Raises:
      RejectedImage: too many of them, or values that would fill memory, because many tags share them.
    """
    is_slow = False
    for directory in _directories(encoded):
        strips = max((values for number, values, _ in directory.tags if number in _OFFSETS), default=0)
        check_parts(strips, MOST_STRIPS, "strips or tiles in a page of a TIFF")
        is_slow |= strips > _MOST_STRIPS_AT_ONCE
        _check_values(directory, len(encoded), "TIFF")
    return Structure("tiff", is_slow=is_slow)


def check_exif(block: bytes) -> None:
    """Refuses an Exif block whose tags share their values so often that Pillow, which copies them, would fill memory.

    Raises:
      RejectedImage: the tags' values have many times the block's bytes.
    """
    check_parts(len(block), MOST_EXIF, "bytes of Exif")
    while block.startswith(_EXIF):  # as Pillow does
        block = block.removeprefix(_EXIF)
    if block.startswith(SIGNATURES):
        for directory in _directories(block, most=1):
            _check_values(directory, len(block), "Exif")


def _check_values(directory: _Directory, size: int, what: str) -> None:
    claimed = sum(bytes_ for _, _, bytes_ in directory.tags if bytes_ <= size)  # more than there is can't be copied
    if claimed > 4 * size + 2**20:
        raise too_costly(f"{what} tags with {claimed:,} bytes of values in {size:,} bytes")


def _directories(encoded: bytes, most: int = MOST_PAGES) -> Iterator[_Directory]:
    """The chain of directories, to its end or to the place where it is damaged or leads back."""
    order = "<" if encoded[:1] == b"I" else ">"
    big = encoded[2:4] in (b"+\0", b"\0+")
    head, entry, offset = ("Q", "HHQQ", "Q") if big else ("H", "HHII", "I")
    seen: set[int] = set()
    try:
        (position,) = struct.unpack_from(order + offset, encoded, 8 if big else 4)
        while position and position not in seen and len(seen) < most:
            seen.add(position)
            (count,) = struct.unpack_from(order + head, encoded, position)
            check_parts(count, MOST_PARTS, "tags in a TIFF or Exif directory")
            start = position + struct.calcsize(order + head)
            size = struct.calcsize(order + entry)
            there = min(count, (len(encoded) - start) // size)  # Pillow takes the tags that there are
            entries = struct.iter_unpack(order + entry, encoded[start : start + there * size])
            yield _Directory([(number, values, values * _SIZES.get(kind, 0)) for number, kind, values, _ in entries])
            (position,) = struct.unpack_from(order + offset, encoded, start + count * size)
    except struct.error:  # it ends too early, which the decoder tells
        return
