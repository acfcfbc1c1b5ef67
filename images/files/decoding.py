"""Converts an image file of any format to images that TensorFlow reads. Files that it reads already stay unchanged."""

import io
import os
import struct
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from PIL import Image, JpegImagePlugin, PngImagePlugin, UnidentifiedImageError

from images.file_settings import FileSettings
from images.files import dicom, tiff
from images.files.pixels import RejectedImage, as_png_pixels, check_size
from images.files.separate_process import call_apart
from images.files.structure.reading import read_structure
from images.files.structure.tags import check_exif
from images.reason import Reason

__all__ = ["ImageFile", "RejectedImage", "lacks_end", "normalise", "note_on_suffix"]

_PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_JPEG_SIGNATURE: Final = b"\xff\xd8\xff"
_BY_PILLOW: Final = ("GIF", "BMP", "WEBP", "PPM")
_PNG_END: Final = b"IEND\xaeB`\x82"
_JPEG_END: Final = b"\xff\xd9"
# Bytes at the end in which the end mark is searched: programs append data, and an earlier mark may be that of a preview.
_JPEG_TAIL: Final = 2**16
_PNG_HEADER: Final = 16  # offset of width, height, bits and colour type
_PNG_TAIL: Final = 2**17  # bytes at the end that are searched for EXIF
_PALETTE: Final = 3
_PNG_CHANNELS: Final = {0: 1, 2: 3, _PALETTE: 3, 4: 2, 6: 4}  # by the header's colour type, as TensorFlow decodes
_ORIENTATION: Final = 0x0112
_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ANIMATED: Final = "the first frame of an animation"
_SUFFIXES: Final = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), "jpeg"),
    **dict.fromkeys((".tif", ".tiff"), "tiff"),
    **dict.fromkeys((".dcm", ".dicom"), "dicom"),
    **dict.fromkeys((".ppm", ".pgm", ".pbm", ".pnm"), "ppm"),
    **{f".{name}": name for name in ("png", "gif", "bmp", "webp")},
}

warnings.filterwarnings("ignore", module="PIL")  # warnings about odd metadata would fill the log
Image.MAX_IMAGE_PIXELS = None  # `check_size` applies the configured limit instead


@dataclass(frozen=True)
class ImageFile:
    """An image as TensorFlow will read it.

    Attributes:
      encoded: a PNG or JPEG file: the bytes of the original, or a PNG made from it.
      format: format of `encoded`, png or jpeg.
      height: pixels.
      width: pixels.
      channels: 1 to 4, as TensorFlow decodes: grey, grey with alpha, RGB, RGBA.
      original_format: jpeg, png, tiff, webp, gif, bmp, ppm or dicom.
      page: number of the page or frame in the file, from 0.
      note: something unusual about the file, such as a wrong suffix; mostly empty.
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

    JPEG files (grey or RGB) and PNG files (any) without an EXIF orientation stay as they are. They are not decoded here, so
    damage in them is found later, by the code that decodes them. All other files are decoded here and become PNG: of 16 bits
    if they were grey with more than 8 bits, else of 8 bits. See `pixels.as_png_pixels` and `dicom.read_frames` for the values
    that become black and white.

    What a file may cost is in `structure.budget`. A file whose structure asks for more is refused before anything decodes it,
    and one that may take very long is decoded in a process that ends when its time is up.

    Args:
      encoded: the file's bytes.
      path: path of the file; a suffix of another format gives a note.
      settings: how the file is read.

    Returns:
      One image, or one image per page.

    Raises:
      RejectedImage: not an image, too large, beyond a budget, a pixel type without a defined range, or damage in the part that
        was decoded.
    """
    if not encoded:
        raise RejectedImage("empty file")
    if read_structure(encoded).is_slow:
        return call_apart(normalise_here, encoded, path, settings)
    return normalise_here(encoded, path, settings)


def normalise_here(encoded: bytes, path: str, settings: FileSettings) -> list[ImageFile]:
    """Does what `normalise` does, without a look at what it costs."""
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
    """Whether the end mark of a JPEG or PNG file is missing, as in a file that was not written or copied to the end."""
    if encoded.startswith(_PNG_SIGNATURE):
        return _PNG_END not in encoded
    return encoded.startswith(_JPEG_SIGNATURE) and _JPEG_END not in encoded[-_JPEG_TAIL:]


def note_on_suffix(path: str, original_format: str) -> str:
    """A note if the suffix belongs to another format; else an empty string."""
    suffix = os.path.splitext(path)[1].lower()
    if _SUFFIXES.get(suffix, original_format) == original_format:
        return ""
    return f"a {original_format.upper()} file with the suffix {suffix}"


def _from_jpeg(encoded: bytes, settings: FileSettings) -> list[ImageFile]:
    image = JpegImagePlugin.JpegImageFile(io.BytesIO(encoded))
    check_size(image.width, image.height, settings.max_pixels)
    has_orientation = ("exif" in image.info or "xmp" in image.info) and _has_orientation(image)
    if has_orientation or image.mode not in ("L", "RGB"):
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
    if not plain or (_may_have_orientation(image, encoded) and _has_orientation(image)):
        return _to_png([_pixels(image, settings)], "png", note)
    return [ImageFile(encoded, "png", height, width, channels, "png", note=note)]


def _has_transparent_colours(image: PngImagePlugin.PngImageFile, bits: int) -> bool:
    """Whether TensorFlow applies the palette's transparency, which it ignores if it has the wrong length."""
    transparency = image.info["transparency"]  # one value per colour, or the position of the only transparent colour
    colours = min(len(image.palette.palette) // 3, 2**bits) if image.palette else 0
    return 0 < (transparency + 1 if isinstance(transparency, int) else len(transparency)) <= colours


def _may_have_orientation(image: PngImagePlugin.PngImageFile, encoded: bytes) -> bool:
    return (
        "exif" in image.info
        or "Raw profile type exif" in image.info
        or b"tiff:Orientation" in image.info.get("xmp", b"")
        or b"eXIf" in encoded[-_PNG_TAIL:]  # it may follow the pixels, which Pillow has not read yet
    )


def _has_orientation(image: Image.Image) -> bool:
    return _orientation(image) in _UPRIGHT


def _orientation(image: Image.Image) -> int | None:
    try:
        exif = image.info.get("exif")
        if exif is None and (text := image.info.get("Raw profile type exif")):
            exif = bytes.fromhex("".join(text.split("\n")[3:]))  # as Pillow reads it
        check_exif(exif or b"")
        return image.getexif().get(_ORIENTATION)
    except Exception:  # unreadable EXIF has no orientation, and does not make the image unusable
        return None


def _from_others(encoded: bytes, settings: FileSettings) -> list[ImageFile]:
    with Image.open(io.BytesIO(encoded), formats=_BY_PILLOW) as image:
        check_size(image.width, image.height, settings.max_pixels)
        note = _ANIMATED if getattr(image, "is_animated", False) else ""
        return _to_png([_pixels(image, settings)], (image.format or "").lower(), note)


def _pixels(image: Image.Image, settings: FileSettings) -> np.ndarray:
    """Decodes an image to pixels that a PNG can hold, with the EXIF orientation applied."""
    image.load()
    if (turn := _UPRIGHT.get(_orientation(image) or 0)) is not None:
        image = image.transpose(turn)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        # Pillow reads PGM and PPM of more than 8 bits as mode I, scaled to 16 bits.
        values = np.asarray(image)
        values = values.astype(np.uint16) if values.dtype.kind in "iu" else values
        return as_png_pixels(values, values.dtype.itemsize * 8, settings)
    if image.mode not in ("L", "LA", "RGB", "RGBA"):
        image = image.convert("L" if image.mode == "1" else "RGBA" if image.has_transparency_data else "RGB")
    return np.asarray(image)


def _to_png(pages: Iterable[np.ndarray], original_format: str, note: str = "") -> list[ImageFile]:
    """Encodes the pixels of each page: uint8 [height, width] or [height, width, 2 to 4], or uint16 [height, width]."""
    images = []
    for page, pixels in enumerate(pages):
        buffer = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", compress_level=1)
        channels = 1 if pixels.ndim == 2 else pixels.shape[-1]
        height, width = pixels.shape[:2]
        images.append(ImageFile(buffer.getvalue(), "png", height, width, channels, original_format, page, note))
    return images
