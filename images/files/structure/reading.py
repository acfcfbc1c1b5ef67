"""Reads the structure of a file of any format."""

import re
import struct
from typing import Final

from images.files.structure import gif, jpeg, png, tags
from images.files.structure.boxes import boxes_format, read_boxes
from images.files.structure.dicom import is_dicom, read_dicom
from images.files.structure.found import Structure

_BMP_RUNS: Final = (1, 2)  # compressions that Pillow decodes byte by byte
# Pillow reads the numbers of a header, and all pixels that are written as text, byte by byte.
_QUICK_PPM: Final = re.compile(rb"P[4-6](?:\s|#[^\r\n]{0,200}[\r\n]){1,50}\d")


def read_structure(encoded: bytes) -> Structure:
    """Reads what a file says about itself, in a number of steps that does not depend on it.

    Args:
      encoded: the file's bytes, of any format; damaged ones, too.

    Raises:
      RejectedImage: the file asks for more than the budgets of `budget` allow.
    """
    if encoded.startswith(jpeg.SIGNATURE):
        return jpeg.read_jpeg(encoded)
    if encoded.startswith(png.SIGNATURE):
        return png.read_png(encoded)
    if encoded.startswith(gif.SIGNATURE):
        return gif.read_gif(encoded)
    if encoded.startswith(tags.SIGNATURES):
        return tags.read_tiff(encoded)
    if is_dicom(encoded):
        return read_dicom(encoded)
    if found := boxes_format(encoded):
        return read_boxes(encoded, found)
    if encoded.startswith(b"BM"):
        return _read_bmp(encoded)
    if encoded[:1] == b"P":
        return Structure("ppm", is_slow=not _QUICK_PPM.match(encoded))
    return Structure("webp" if encoded[:4] == b"RIFF" and encoded[8:12] == b"WEBP" else "")


def _read_bmp(encoded: bytes) -> Structure:
    try:
        (header,) = struct.unpack_from("<I", encoded, 14)
        if header < 16:  # of OS/2
            width, height = struct.unpack_from("<HH", encoded, 18)
            return Structure("bmp", width, height)
        width, height, _, _, compression = struct.unpack_from("<iiHHI", encoded, 18)
        return Structure("bmp", abs(width), abs(height), is_slow=compression in _BMP_RUNS)
    except struct.error:  # it ends too early, which the decoder tells
        return Structure("bmp")
