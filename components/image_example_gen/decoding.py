"""Checks one image file by decoding it, and normalises what TensorFlow would not read, or would read differently."""

import io
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

# Format -> the pixel modes that tf.io.decode_image reads as Pillow does. Not BMP and GIF: of some files TensorFlow makes
# other channels than Pillow, others it refuses.
_READ_BY_TENSORFLOW: Final = {
    "PNG": {"1", "L", "LA", "P", "RGB", "RGBA", "I;16"},
    "JPEG": {"L", "RGB"},
}
_PNG_END: Final = b"\0\0\0\0IEND\xaeB`\x82"
_EXIF_ORIENTATION: Final = 0x0112


class RejectedImage(Exception):
    """The file can't be used; the text is the reason, for a table of rejects."""


@dataclass(frozen=True)
class ImageFile:
    """A checked image file.

    Attributes:
      encoded: a file that tf.io.decode_image reads: the original bytes, or a PNG made of the first frame.
      format: png or jpeg.
      height: pixels.
      width: pixels.
      channels: 1 to 4.
      mean: mean grey level, 0..1.
      std: standard deviation of the grey level, 0..0.5.
    """

    encoded: bytes
    format: str
    height: int
    width: int
    channels: int
    page: int = 0
    note: str = ""
    original_format: str = ""


def normalise(encoded: bytes, path: str, settings: dict) -> list[ImageFile]:
    return [check_image(encoded, settings["max_pixels"])]


def check_image(encoded: bytes, max_pixels: int) -> ImageFile:
    """Decodes a file completely.

    Bytes that TensorFlow reads as Pillow does are kept as they are. The rest (CMYK or rotated JPEG, BMP, GIF, TIFF, WebP)
    becomes PNG; 16-bit grey stays 16-bit.

    Args:
      encoded: the file's bytes.
      max_pixels: larger images are rejected by their header alone.

    Raises:
      RejectedImage: no image, damaged, too large, or of a pixel type without a defined brightness.
    """
    if not encoded:
        raise RejectedImage("empty file")
    try:
        image = Image.open(io.BytesIO(encoded))
        if image.width * image.height > max_pixels:
            raise RejectedImage(f"{image.width}x{image.height} is more than {max_pixels} pixels")
        file_format = image.format or ""
        original = file_format.lower()
        rotated = image.getexif().get(_EXIF_ORIENTATION, 1) != 1
        if rotated or image.mode not in _READ_BY_TENSORFLOW.get(file_format, ()):
            pixels = _as_png_pixels(ImageOps.exif_transpose(image))
            encoded = _encode_png(pixels)
            file_format, channels = "PNG", len(pixels.getbands())
        else:
            pixels, channels = image, _channels(image)
    except RejectedImage:
        raise
    except Image.DecompressionBombError as error:
        raise RejectedImage(f"more than {max_pixels} pixels") from error
    except UnidentifiedImageError as error:
        raise RejectedImage("not an image") from error
    except Exception as error:  # Pillow's decoders raise many types on damaged files; none may stop the run
        raise RejectedImage(f"damaged: {error}") from error
    return ImageFile(encoded, file_format.lower(), pixels.height, pixels.width, channels, 0, "", original)


def _as_png_pixels(image: Image.Image) -> Image.Image:
    """Converts to one of the pixel types that a PNG file holds: grey of 8 or 16 bit, RGB, with or without alpha."""
    if image.mode in ("I", "F"):
        raise RejectedImage(f"pixels of type {image.mode} (32 bit), whose brightness range is not known")
    if image.mode.startswith("I;16"):
        return image.convert("I;16")
    if image.mode in ("L", "LA", "RGB", "RGBA"):
        return image
    if image.mode == "1":
        return image.convert("L")
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def _check_png(encoded: bytes) -> None:
    """Checksums and the end of the file, on which TensorFlow insists and Pillow does not."""
    Image.open(io.BytesIO(encoded)).verify()
    if _PNG_END not in encoded:
        raise RejectedImage("damaged: the end is missing")


def _encode_png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _channels(image: Image.Image) -> int:
    """Channels that TensorFlow decodes the file to."""
    if image.mode == "P":
        return 4 if "transparency" in image.info else 3
    return len(image.getbands())


def _grey_level(image: Image.Image) -> tuple[float, float]:
    """Mean and standard deviation of the grey level, 0..1."""
    if image.mode == "I;16":
        pixels = np.asarray(image)
        return float(pixels.mean() / 65535), float(pixels.std() / 65535)
    counts = np.asarray(image.convert("L").histogram(), np.float64)
    levels = np.arange(256) / 255
    mean = counts @ levels / counts.sum()
    return float(mean), float(np.sqrt(counts @ np.square(levels - mean) / counts.sum()))
