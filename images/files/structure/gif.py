"""The blocks of GIF files (GIF89a specification, appendix A)."""

import struct
from typing import Final

from images.files.structure.budget import BYTES_PER_BLOCK, MOST_PARTS, check_parts
from images.files.structure.found import Structure

SIGNATURE: Final = b"GIF8"
_IMAGE, _EXTENSION = 0x2C, 0x21
_HEADER, _FRAME = 13, 10  # bytes


def read_gif(encoded: bytes) -> Structure:
    """Reads the largest sizes, and walks over the blocks to the second frame, or to the end.

    Raises:
      RejectedImage: too many blocks.
    """
    most = MOST_PARTS + len(encoded) // BYTES_PER_BLOCK
    width = height = frames = blocks = others = 0
    try:
        width, height, flags = struct.unpack_from("<HHB", encoded, 6)
        position = _HEADER + _table_size(flags)
        while frames < 2:
            kind = encoded[position]
            if kind == _IMAGE:
                frames += 1
                left, top, columns, rows, flags = struct.unpack_from("<HHHHB", encoded, position + 1)
                if frames == 1:
                    width, height = max(width, left + columns), max(height, top + rows)
                position += _FRAME + _table_size(flags) + 1  # and the least size of a code
                position, blocks = _skip(encoded, position, blocks, most, "blocks of pixels in a GIF")
            elif kind == _EXTENSION:
                position, others = _skip(encoded, position + 2, others, MOST_PARTS, "blocks of comments and the like in a GIF")
            else:
                break
    except (IndexError, struct.error):  # it ends too early, which the decoder tells
        pass
    return Structure("gif", width, height, is_animated=frames > 1)


def _table_size(flags: int) -> int:
    """Bytes of the table of colours."""
    return 3 * 2 ** (flags % 8 + 1) if flags & 0x80 else 0


def _skip(encoded: bytes, position: int, count: int, most: int, what: str) -> tuple[int, int]:
    """Walks over sub-blocks; returns the position after them, and the count with theirs."""
    count += 1  # those without any count, too
    while size := encoded[position]:
        position += size + 1
        count += 1
        if count > most:
            break
    check_parts(count, most, what)
    return position + 1, count
