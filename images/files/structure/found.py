"""The result of reading a file's structure."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Structure:
    """What a file says about itself.

    Attributes:
      format: png, jpeg, gif, bmp, tiff, dicom, ppm, webp, avif, heic or jpeg2000; "" if it is none of these.
      width: pixels; 0 if it is not known, as in formats that only ingestion reads.
      height: pixels.
      scans: passes over all pixels that the file asks for.
      is_animated: whether a GIF has more than one frame.
      is_slow: whether it is decoded by steps in Python, of which it may need very many.
    """

    format: str = ""
    width: int = 0
    height: int = 0
    scans: int = 1
    is_animated: bool = False
    is_slow: bool = False

    @property
    def pixels(self) -> int:
        return self.width * self.height
