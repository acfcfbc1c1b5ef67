"""Files of boxes (ISO/IEC 14496-12): AVIF and HEIC; and JPEG 2000, whose files begin with such a box."""

import struct
from typing import Final

from images.files.structure.found import Structure

_JPEG_2000: Final = (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")  # a file, and its code alone
_AVIF: Final = (b"avif", b"avis")
_HEIC: Final = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_MOST_BRANDS: Final = 64
_MOST_BOXES: Final = 64
_LONG_DESCRIPTION: Final = 2**16  # bytes that describe the picture and its tiles; telephones write about 4,000


def boxes_format(encoded: bytes) -> str:
    """The format, avif, heic or jpeg2000; "" if it is none of these."""
    if encoded.startswith(_JPEG_2000):
        return "jpeg2000"
    if encoded[4:8] != b"ftyp":
        return ""
    size = min(int.from_bytes(encoded[:4], "big"), 4 * _MOST_BRANDS)
    brands = [encoded[8:12], *(encoded[start : start + 4] for start in range(16, size, 4))]
    return next((name for name, known in (("avif", _AVIF), ("heic", _HEIC)) if any(brand in known for brand in brands)), "")


def read_boxes(encoded: bytes, found: str) -> Structure:
    """Sees whether the decoder, which can't be stopped, may take long.

    Nothing in a JPEG 2000 file says so in few steps. In the others a long description can ask for one tile very often.
    """
    return Structure(found, is_slow=found == "jpeg2000" or _description_size(encoded) > _LONG_DESCRIPTION)


def _description_size(encoded: bytes) -> int:
    """Bytes of the largest box that describes pictures; of the whole file if there are very many boxes."""
    position = largest = 0
    try:
        for _ in range(_MOST_BOXES):
            size, name = struct.unpack_from(">I4s", encoded, position)
            if size == 1:
                (size,) = struct.unpack_from(">Q", encoded, position + 8)
            if name in (b"meta", b"moov"):
                largest = max(largest, size or len(encoded))
            if size < 8:  # the last one, to the end of the file
                return largest
            position += size
    except struct.error:  # the end
        return largest
    return len(encoded)
