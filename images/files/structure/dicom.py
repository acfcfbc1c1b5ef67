"""How DICOM files begin, and how many elements they have (DICOM PS3.5, section 7; PS3.10, section 7.1)."""

import re
from typing import Final

from images.files.structure.found import Structure

_PREFIX: Final = b"DICM"
_PREAMBLE: Final = 128  # bytes before the prefix
# A file without a preamble begins with an element of the group 2 or 8. Its type or, if types are left out, its length follows.
_BARE: Final = re.compile(
    rb"(?:DICM)?[\x02\x08]\0.\0(?:AE|CS|DA|DT|IS|LO|LT|OB|OW|PN|SH|SQ|ST|TM|UI|UL|UN|US|UT|[\x01-\x80]\0\0\0)", re.DOTALL
)
_PIXEL_DATA: Final = b"\xe0\x7f\x10\0"
_ITEM: Final = b"\xfe\xff\0\xe0"
_LONG_HEADER: Final = 2**20  # bytes before the pixels
_MOST_ITEMS: Final = 10_000


def is_dicom(encoded: bytes) -> bool:
    """Whether a file begins as DICOM does, with its preamble or without it, as some archives and networks leave files."""
    return encoded.startswith(_PREFIX, _PREAMBLE) or _BARE.match(encoded) is not None


def read_dicom(encoded: bytes) -> Structure:
    """Sees whether there is so much before the pixels, or in so many items, that reading it may take long."""
    start = encoded.find(_PIXEL_DATA)
    header = start if start >= 0 else len(encoded)
    return Structure("dicom", is_slow=header > _LONG_HEADER or encoded.count(_ITEM) > _MOST_ITEMS)
