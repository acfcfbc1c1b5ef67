"""The segments and scans of JPEG files (ITU-T T.81, annex B)."""

import struct
from typing import Final

import numpy as np

from images.files.structure.budget import MOST_PARTS, MOST_SCANNED_PIXELS, MOST_SCANS, check_parts, too_costly
from images.files.structure.found import Structure
from images.files.structure.tags import check_exif

SIGNATURE: Final = b"\xff\xd8\xff"
_SCAN, _END, _APP1 = 0xDA, 0xD9, 0xE1
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15, which have the sizes
_PROGRESSIVE: Final = frozenset((0xC2, 0xC6, 0xCA, 0xCE))
_ALONE: Final = frozenset((0x01, 0xD8))  # without a length; restarts are none of the markers here
_EXIF: Final = b"Exif\0\0"


def read_jpeg(encoded: bytes) -> Structure:
    """Reads the sizes, and counts segments and scans up to the end of the first image.

    Raises:
      RejectedImage: too many segments or scans, or a description that would fill memory.
    """
    width = height = components = 0
    progressive = False
    exif: list[bytes] = []
    position = 2
    for count in range(MOST_PARTS):
        at = _next_marker(encoded, position)
        if at < 0 or encoded[at + 1] == _END:
            break
        code = encoded[at + 1]
        if code in _ALONE:
            position = at + 2
            continue
        length = int.from_bytes(encoded[at + 2 : at + 4], "big")
        if code in _FRAMES and len(encoded) >= at + 10:
            height, width, components = struct.unpack_from(">HHB", encoded, at + 5)
            progressive = code in _PROGRESSIVE
        elif code == _APP1 and encoded.startswith(_EXIF, at + 4):
            exif.append(encoded[at + 4 + len(_EXIF) : at + 2 + length])
        elif code == _SCAN:
            single = not progressive and encoded[at + 4 : at + 5] == bytes([components])
            scans = 1 if single else _count_scans(encoded, at, MOST_PARTS - count)
            _check_scans(scans, width * height)
            check_exif(b"".join(exif))
            return Structure("jpeg", width, height, scans)
        position = at + 2 + length
    else:
        raise too_costly(f"more than {MOST_PARTS:,} JPEG segments")
    check_exif(b"".join(exif))
    return Structure("jpeg", width, height)


def _check_scans(scans: int, pixels: int) -> None:
    if scans > MOST_SCANS:
        raise too_costly(f"JPEG of {scans:,} scans; at most {MOST_SCANS} are read")
    if scans > 1 and scans * pixels > MOST_SCANNED_PIXELS:
        raise too_costly(f"JPEG of {scans:,} scans of {pixels:,} pixels; save it again with fewer, or baseline")


def _next_marker(encoded: bytes, position: int) -> int:
    """Position of the marker at or after a position; -1 if there is none.

    Raises:
      RejectedImage: much stands between segments that is none.
    """
    last = position + MOST_PARTS
    at = encoded.find(b"\xff", position, last)
    while 0 <= at < len(encoded) - 1:
        if encoded[at + 1] not in (0x00, 0xFF) and not 0xD0 <= encoded[at + 1] <= 0xD7:
            return at
        at = encoded.find(b"\xff", at + 1, last)
    check_parts(len(encoded) - position, MOST_PARTS, "bytes between JPEG segments")
    return -1


def _count_scans(encoded: bytes, first: int, most_segments: int) -> int:
    """Number of scans from the first one, at position `first`, to the end mark."""
    data = np.frombuffer(encoded, np.uint8)[first:]
    codes = data[1:]
    is_marker = (data[:-1] == 0xFF) & (codes != 0x00) & (codes != 0xFF) & ((codes & 0xF8) != 0xD0)
    markers = np.flatnonzero(is_marker)
    position = scans = 0
    for _ in range(most_segments):
        index = int(np.searchsorted(markers, position))
        if index == len(markers):
            return scans
        at = int(markers[index])
        code = int(codes[at])
        if code == _END:
            return scans
        scans += code == _SCAN
        length = 0 if code in _ALONE else int.from_bytes(bytes(data[at + 2 : at + 4]), "big")
        position = at + 2 + length
    raise too_costly(f"more than {MOST_PARTS:,} JPEG segments")
