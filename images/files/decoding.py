"""Converts an image file of any format to images that TensorFlow reads. Files that it reads already stay unchanged."""

import io
import os
import struct
import sys
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from PIL import Image, JpegImagePlugin, PngImagePlugin, UnidentifiedImageError

from images.file_settings import FileSettings
from images.files import dicom, tiff
from images.files.pixels import Page, RejectedImage, as_png_pixels, check_size, damaged
from images.files.separate_process import call_apart
from images.files.structure.boxes import boxes_format
from images.files.structure.dicom import is_dicom
from images.files.structure.reading import read_structure
from images.files.structure.tags import check_exif
from images.reason import Reason
from models.image_settings import HIDDEN_TURNS

__all__ = ["ImageFile", "RejectedImage", "lacks_end", "normalise", "note_on_suffix"]

_PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_JPEG_SIGNATURE: Final = b"\xff\xd8\xff"
_BY_PILLOW: Final = ("GIF", "BMP", "WEBP", "PPM", "AVIF", "JPEG2000")
# Formats that nothing here reads, by their first bytes.
_NOT_READ: Final = {
    b"%PDF": "PDF",
    b"8BPS": "Photoshop",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"<svg": "SVG",
    b"\0\0\1\0": "ICO",
    b"FUJIFILM": "a camera's raw format",
}
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
_CONVERT: Final = "convert it to PNG or JPEG"
_ANIMATED: Final = "the first frame of an animation"
_SUFFIXES: Final = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), "jpeg"),
    **dict.fromkeys((".tif", ".tiff"), "tiff"),
    **dict.fromkeys((".dcm", ".dicom"), "dicom"),
    **dict.fromkeys((".ppm", ".pgm", ".pbm", ".pnm"), "ppm"),
    **dict.fromkeys((".jp2", ".j2k", ".jpx", ".jpf", ".j2c"), "jpeg2000"),
    **dict.fromkeys((".heic", ".heif"), "heic"),
    **{f".{name}": name for name in ("png", "gif", "bmp", "webp", "avif")},
}

warnings.filterwarnings("ignore", module="PIL")  # warnings about odd metadata would fill the log
Image.MAX_IMAGE_PIXELS = None  # `check_size` applies the configured limit instead
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = sys.maxsize  # `structure.png` has a budget for them


@dataclass(frozen=True)
class ImageFile:
    """An image as TensorFlow will read it.

    Attributes:
      encoded: a PNG or JPEG file: the bytes of the original, or a PNG made from it.
      format: format of `encoded`, png or jpeg.
      height: pixels.
      width: pixels.
      channels: 1 to 4, as TensorFlow decodes: grey, grey with alpha, RGB, RGBA.
      original_format: jpeg, png, tiff, webp, gif, bmp, ppm, avif, jpeg2000, heic or dicom.
      page: number of the page or frame in the file, from 0.
      note: something unusual about the file, such as a wrong suffix; mostly empty.
      lost: pages of the file that can't be used, by number, with the reason; the file's last image has them.
    """

    encoded: bytes
    format: str
    height: int
    width: int
    channels: int
    original_format: str
    page: int = 0
    note: str = ""
    lost: tuple[tuple[int, RejectedImage], ...] = ()


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
      One image, or one image per page that can be used.

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
        images = _read(encoded, settings)
    except RejectedImage:
        raise
    except UnidentifiedImageError as error:
        raise RejectedImage("not an image") from error
    except Exception as error:  # decoders raise many types on damaged files; none may stop the run
        raise damaged(error) from error
    note = note_on_suffix(path, images[0].original_format)
    return [replace(image, note="; ".join(filter(None, (image.note, note)))) for image in images] if note else images


def _read(encoded: bytes, settings: FileSettings) -> list[ImageFile]:
    if encoded.startswith(_JPEG_SIGNATURE):
        return _from_jpeg(encoded, settings)
    if encoded.startswith(_PNG_SIGNATURE):
        return _from_png(encoded, settings)
    if encoded.startswith(tiff.SIGNATURES):
        return _to_png(tiff.read_pages(encoded, settings), "tiff")
    if is_dicom(encoded):
        return _to_png(dicom.read_frames(encoded, settings), "dicom")
    if boxes_format(encoded) == "heic":
        return _from_heic(encoded, settings)
    if name := next((name for start, name in _NOT_READ.items() if encoded.startswith(start)), ""):
        raise RejectedImage(f"{name} is not read; {_CONVERT}")
    return _from_others(encoded, settings, _BY_PILLOW)


def _from_heic(encoded: bytes, settings: FileSettings) -> list[ImageFile]:
    """Reads a file of telephones, where the package that teaches Pillow this is installed."""
    try:
        import pillow_heif
    except ImportError:
        raise RejectedImage(f"HEIC can't be read here; {_CONVERT}, or install pillow-heif") from None
    pillow_heif.register_heif_opener(thumbnails=False)
    return _from_others(encoded, settings, ("HEIF",))


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
    plain = plain and not any(text in encoded for text in HIDDEN_TURNS)
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


def _from_others(encoded: bytes, settings: FileSettings, formats: tuple[str, ...]) -> list[ImageFile]:
    with Image.open(io.BytesIO(encoded), formats=formats) as image:
        check_size(image.width, image.height, settings.max_pixels)
        note = _ANIMATED if getattr(image, "is_animated", False) else ""
        found = (image.format or "").lower().replace("heif", "heic")
        return _to_png([_pixels(image, settings)], found, note)


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


def _to_png(pages: Iterable[Page], original_format: str, note: str = "") -> list[ImageFile]:
    """Encodes the pixels of each page: uint8 [height, width] or [height, width, 2 to 4], or uint16 [height, width].

    Raises:
      RejectedImage: no page can be used; the reason is that of the first one.
    """
    images: list[ImageFile] = []
    lost: list[tuple[int, RejectedImage]] = []
    for number, page in enumerate(pages):
        if isinstance(page, RejectedImage):
            lost.append((number, page))
            continue
        pixels, its_note = page if isinstance(page, tuple) else (page, "")
        buffer = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", compress_level=1)
        channels = 1 if pixels.ndim == 2 else pixels.shape[-1]
        height, width = pixels.shape[:2]
        images.append(ImageFile(buffer.getvalue(), "png", height, width, channels, original_format, number, its_note or note))
    if not images:
        raise lost[0][1]
    return [*images[:-1], replace(images[-1], lost=tuple(lost))]
