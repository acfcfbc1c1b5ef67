"""The chunks of PNG files (https://www.w3.org/TR/png-3/#5Chunk-layout)."""

import struct
import zlib
from typing import Final

from images.files.structure.budget import BYTES_PER_CHUNK, MOST_EXPANDED, MOST_PARTS, check_parts, too_costly
from images.files.structure.found import Structure

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_CHUNK: Final = struct.Struct(">I4s")
_AROUND: Final = 12  # bytes of a chunk beside its data: length, name, checksum
_COMPRESSED: Final = (b"zTXt", b"iTXt", b"iCCP")
_LARGEST_RATIO: Final = 1032  # of deflate


def read_png(encoded: bytes) -> Structure:
    """Reads the sizes and counts the chunks.

    Raises:
      RejectedImage: too many chunks, or compressed texts or profiles that become too large.
    """
    most = MOST_PARTS + len(encoded) // BYTES_PER_CHUNK
    position, count = len(SIGNATURE), 0
    compressed: list[tuple[bytes, int, int]] = []
    while position + _CHUNK.size <= len(encoded):
        length, name = _CHUNK.unpack_from(encoded, position)
        count += 1
        if name == b"IEND":
            break
        check_parts(count, most, "PNG chunks")
        if name in _COMPRESSED:
            compressed.append((name, position + _CHUNK.size, length))
        position += _AROUND + length
    _check_expanded(encoded, compressed)
    header = encoded[8:24]
    if len(header) < 16 or header[4:8] != b"IHDR":
        return Structure("png")
    return Structure("png", *struct.unpack(">II", header[8:]))


def _check_expanded(encoded: bytes, compressed: list[tuple[bytes, int, int]]) -> None:
    """Expands texts and profiles, in memory of a fixed size, if they could become too large."""
    if sum(length for _, _, length in compressed) * _LARGEST_RATIO <= MOST_EXPANDED:
        return
    left = MOST_EXPANDED
    for name, start, length in compressed:
        packed = _packed(name, memoryview(encoded)[start : start + length])
        inflater = zlib.decompressobj()
        while packed and left >= 0:
            try:
                left -= len(inflater.decompress(packed, 2**20))
            except zlib.error:  # damage is for the decoder to tell
                break
            if inflater.eof:
                break
            packed = memoryview(inflater.unconsumed_tail)
        if left < 0:
            raise too_costly(f"texts and profiles of more than {MOST_EXPANDED:,} bytes in a PNG")


def _packed(name: bytes, data: memoryview) -> memoryview:
    """The compressed part of a chunk; empty if its text is not compressed."""
    keyword, _, rest = bytes(data[:100]).partition(b"\0")  # at most 79 bytes, then its end
    start = len(keyword) + 2  # the method follows
    if name != b"iTXt":
        return data[start:]
    if rest[:1] != b"\1":
        return data[:0]
    names = bytes(data[start + 1 :]).split(b"\0", 2)  # the language and the translated keyword stand before the text
    return data[len(data) - len(names[2]) :] if len(names) == 3 else data[:0]
