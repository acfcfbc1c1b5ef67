"""What one file may cost. Real files stay far below; a file beyond is refused by name and never reaches a decoder."""

from typing import Final

from images.files.pixels import RejectedImage
from images.reason import Reason

MOST_PARTS: Final = 10_000  # PNG chunks, JPEG segments, GIF sub-blocks of comments, TIFF tags of a page: each costs a step
BYTES_PER_CHUNK: Final = 1024  # PNG pixels, and 64 for GIF: so large files may have more parts; encoders write 8192 and 255
BYTES_PER_BLOCK: Final = 64
MOST_SCANS: Final = 100  # of a JPEG; encoders write about 10
MOST_SCANNED_PIXELS: Final = 2_500_000_000  # of a JPEG, scans times pixels; each scan passes over all pixels again
MOST_EXPANDED: Final = 64_000_000  # bytes that compressed texts and profiles of a PNG become
MOST_EXIF: Final = 10_000_000  # bytes of the segments of a description, which Pillow joins one by one
MOST_STRIPS: Final = 100_000  # strips or tiles of a TIFF page
MOST_PAGES: Final = 10_000  # of a TIFF
SECONDS: Final = 10  # of processor time, for files that are decoded by steps in Python


def too_costly(detail: str) -> RejectedImage:
    """The error for a file that asks for more than a budget allows."""
    return RejectedImage(Reason("too costly to decode", detail))


def check_parts(count: int, most: int, what: str) -> None:
    """Refuses a file with too many parts.

    Raises:
      RejectedImage: `count` is above `most`.
    """
    if count > most:
        raise too_costly(f"more than {most:,} {what}")
