"""Makes of one file of any format images that TensorFlow reads, touching nothing that it reads as it is."""

import io
import os
import struct
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from PIL import Image, ImageOps, JpegImagePlugin, PngImagePlugin, UnidentifiedImageError

from images.file_settings import FileSettings
from images.files import dicom, tiff
from images.files.pixels import RejectedImage, as_png_pixels, check_size
from images.reason import Reason

__all__ = ["ImageFile", "RejectedImage", "lacks_end", "normalise", "note_on_suffix"]

_PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_JPEG_SIGNATURE: Final = b"\xff\xd8\xff"
_BY_PILLOW: Final = ("GIF", "BMP", "WEBP", "PPM")
_PNG_END: Final = b"IEND\xaeB`\x82"
_JPEG_END: Final = b"\xff\xd9"
_JPEG_TAIL: Final = 2**16  # bytes at the end that may hold the mark and what programs append; before it, it may be a preview's
_PNG_HEADER: Final = 16  # offset of width, height, bits and colour type
_PNG_TAIL: Final = 2**17  # bytes at the end that are searched for EXIF
_PALETTE: Final = 3
_PNG_CHANNELS: Final = {0: 1, 2: 3, _PALETTE: 3, 4: 2, 6: 4}  # by the header's colour type, as TensorFlow decodes
_ORIENTATION: Final = 0x0112
_ANIMATED: Final = "the first frame of an animation"
_SUFFIXES: Final = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), "jpeg"),
    **dict.fromkeys((".tif", ".tiff"), "tiff"),
    **dict.fromkeys((".dcm", ".dicom"), "dicom"),
    **dict.fromkeys((".ppm", ".pgm", ".pbm", ".pnm"), "ppm"),
    **{f".{name}": name for name in ("png", "gif", "bmp", "webp")},
}

warnings.filterwarnings("ignore", module="PIL")  # remarks on odd metadata would fill the log
Image.MAX_IMAGE_PIXELS = None  # the configuration says how many, and `check_size` looks at every header


@dataclass(frozen=True)
class ImageFile:
    """An image as TensorFlow will read it.

    Attributes:
      encoded: a PNG or JPEG file: the original's bytes, or a PNG made of it.
      format: png or jpeg, of `encoded`.
      height: pixels.
      width: pixels.
      channels: 1 to 4, as TensorFlow decodes: grey, grey with alpha, RGB, RGBA.
      original_format: jpeg, png, tiff, webp, gif, bmp, ppm or dicom.
      page: number in a file of several pages or frames, from 0.
      note: what a person may want to know about it, such as a wrong suffix; mostly empty.
    """

    encoded: bytes
    format: str
    height: int
    width: int
    channels: int
    original_format: str
    page: int = 0
    note: str = ""


def normalise(encoded: bytes, path: str, settings: FileSettings) -> list[ImageFile]:
    """Checks a file by its header and makes it readable to TensorFlow.

    JPEG (grey and RGB) and PNG (any) that are not to be turned stay as they are and are not decoded here: whoever decodes them
    finds what is damaged in them. Everything else is decoded here and becomes PNG: of 16 bits if it was grey of more than 8,
    otherwise of 8; see `pixels.as_png_pixels` and `dicom.read_frames` for what becomes black and white.

    Args:
      encoded: the file's bytes.
      path: for a note where the suffix is another format's.
      settings: how it is read.

    Returns:
      One image, or one a page.

    Raises:
      RejectedImage: no image, too large, of a pixel type without a defined range, or damaged, as far as it was decoded.
    """
    if not encoded:
        raise RejectedImage("empty file")
    try:
        if encoded.startswith(_JPEG_SIGNATURE):
            images = _from_jpeg(encoded, settings)
        elif encoded.startswith(_PNG_SIGNATURE):
            images = _from_png(encoded, settings)
        elif encoded.startswith(dicom.SIGNATURE, dicom.SIGNATURE_OFFSET):
            images = _to_png(dicom.read_frames(encoded, settings), "dicom")
        elif encoded.startswith(tiff.SIGNATURES):
            images = _to_png(tiff.read_pages(encoded, settings), "tiff")
        else:
            images = _from_others(encoded, settings)
    except RejectedImage:
        raise
    except UnidentifiedImageError as error:
        raise RejectedImage("not an image") from error
    except (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, struct.error) as error:
        raise RejectedImage(Reason("damaged", "the header contradicts itself or the rest")) from error
    except Exception as error:  # decoders raise many types on damaged files; none may stop the run
        raise RejectedImage(Reason("damaged", str(error) or type(error).__name__)) from error
    note = note_on_suffix(path, images[0].original_format)
    return [replace(image, note="; ".join(filter(None, (image.note, note)))) for image in images] if note else images


def lacks_end(encoded: bytes) -> bool:
    """Whether a JPEG or PNG file ends before its end mark, as one that was not written or copied to the end."""
    if encoded.startswith(_PNG_SIGNATURE):
        return _PNG_END not in encoded
    return encoded.startswith(_JPEG_SIGNATURE) and _JPEG_END not in encoded[-_JPEG_TAIL:]


def note_on_suffix(path: str, original_format: str) -> str:
    """What is to be said where the suffix is that of another format."""
    suffix = os.path.splitext(path)[1].lower()
    if _SUFFIXES.get(suffix, original_format) == original_format:
        return ""
    return f"a {original_format.upper()} file with the suffix {suffix}"


def _from_jpeg(encoded: bytes, settings: FileSettings) -> list[ImageFile]:
    image = JpegImagePlugin.JpegImageFile(io.BytesIO(encoded))
    check_size(image.width, image.height, settings.max_pixels)
    to_be_turned = ("exif" in image.info or "xmp" in image.info) and _is_turned(image)
    if to_be_turned or image.mode not in ("L", "RGB"):
        return _to_png([_pixels(image, settings)], "jpeg")
    return [ImageFile(encoded, "jpeg", image.height, image.width, len(image.mode), "jpeg")]


def _from_png(encoded: bytes, settings: FileSettings) -> list[ImageFile]:
    image = PngImagePlugin.PngImageFile(io.BytesIO(encoded))
    width, height, bits, colour_type = struct.unpack_from(">IIBB", encoded, _PNG_HEADER)
    if image.size != (width, height):  # TensorFlow takes the first header, Pillow the last
        raise RejectedImage(Reason("damaged", "two headers"))
    check_size(width, height, settings.max_pixels)
    note = _ANIMATED if image.is_animated else ""
    channels = _PNG_CHANNELS[colour_type]
    plain = True
    if colour_type == _PALETTE and "transparency" in image.info:
        channels, plain = 4, _has_transparent_colours(image, bits)
    if not plain or (_may_be_turned(image, encoded) and _is_turned(image)):
        return _to_png([_pixels(image, settings)], "png", note)
    return [ImageFile(encoded, "png", height, width, channels, "png", note=note)]


def _has_transparent_colours(image: PngImagePlugin.PngImageFile, bits: int) -> bool:
    """Whether the palette's transparency is of a length that TensorFlow does not ignore."""
    transparency = image.info["transparency"]  # of each colour, or the position of the only one
    colours = min(len(image.palette.palette) // 3, 2**bits) if image.palette else 0
    return 0 < (transparency + 1 if isinstance(transparency, int) else len(transparency)) <= colours


def _may_be_turned(image: PngImagePlugin.PngImageFile, encoded: bytes) -> bool:
    return (
        "exif" in image.info
        or "Raw profile type exif" in image.info
        or b"tiff:Orientation" in image.info.get("xmp", b"")
        or b"eXIf" in encoded[-_PNG_TAIL:]  # it may follow the pixels, where Pillow's lazy reading has not been
    )


def _is_turned(image: Image.Image) -> bool:
    try:
        return image.getexif().get(_ORIENTATION) in range(2, 9)
    except Exception:  # EXIF that can't be read names no orientation, and does not make the picture unusable
        return False


def _from_others(encoded: bytes, settings: FileSettings) -> list[ImageFile]:
    with Image.open(io.BytesIO(encoded), formats=_BY_PILLOW) as image:
        check_size(image.width, image.height, settings.max_pixels)
        note = _ANIMATED if getattr(image, "is_animated", False) else ""
        return _to_png([_pixels(image, settings)], (image.format or "").lower(), note)


def _pixels(image: Image.Image, settings: FileSettings) -> np.ndarray:
    """Decodes to pixels that a PNG holds, upright."""
    image.load()
    image = ImageOps.exif_transpose(image) if _is_turned(image) else image
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        # I is how Pillow has PGM and PPM of 16 bits, spread over all of them.
        values = np.asarray(image)
        values = values.astype(np.uint16) if values.dtype.kind in "iu" else values
        return as_png_pixels(values, values.dtype.itemsize * 8, settings)
    if image.mode not in ("L", "LA", "RGB", "RGBA"):
        image = image.convert("L" if image.mode == "1" else "RGBA" if image.has_transparency_data else "RGB")
    return np.asarray(image)


def _to_png(pages: Iterable[np.ndarray], original_format: str, note: str = "") -> list[ImageFile]:
    """Encodes pixels, uint8 [height, width] or [height, width, 2 to 4], or uint16 [height, width]."""
    images = []
    for page, pixels in enumerate(pages):
        buffer = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", compress_level=1)
        channels = 1 if pixels.ndim == 2 else pixels.shape[-1]
        height, width = pixels.shape[:2]
        images.append(ImageFile(buffer.getvalue(), "png", height, width, channels, original_format, page, note))
    return images
