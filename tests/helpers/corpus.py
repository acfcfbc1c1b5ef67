"""One file a format and a defect: what a folder of images may hold, with the pixels or the reason that must come of it."""

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pydicom
import tifffile
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, JPEGBaseline8Bit, JPEGLosslessSV1, RLELossless

from images.file_settings import FileSettings

HEIGHT, WIDTH = 19, 30
MAX_PIXELS = 20_000


@dataclass(frozen=True)
class Case:
    """A file and what it must become.

    Attributes:
      encoded: the file.
      pages: pixels of each image in the file, float or integer [height, width, channels], 0..255 of the network's grey levels;
        none: it is set aside.
      reason: with which words it is set aside.
      kept: whether its bytes must be untouched; None: no matter.
      tolerance: greatest difference to `pages`.
      settings: differences to the settings of `settings_of`.
      name: of the file, for notes.
      note: what must be noted.
      lost: pages that must be set aside beside the others, by number, with the reason.
    """

    encoded: bytes
    pages: list[np.ndarray] = field(default_factory=list)
    reason: str = ""
    kept: bool | None = False
    tolerance: float = 0.0
    settings: dict[str, Any] = field(default_factory=dict)
    name: str = ""
    note: str = ""
    lost: tuple[tuple[int, str], ...] = ()


def settings_of(case: Case) -> FileSettings:
    """Settings of `normalise` for a case."""
    plain = {"max_pixels": MAX_PIXELS, "pages": "first", "intensity": "type", "window": None}
    return FileSettings(**plain | case.settings)


# Pictures without two equal rows or columns, so that every rotation and mix-up of channels shows.

ROWS, COLUMNS = np.mgrid[:HEIGHT, :WIDTH]
RGB = np.stack([ROWS * 13, COLUMNS * 8, (ROWS * COLUMNS) % 256], axis=-1).astype(np.uint8)
GREY = (ROWS * 13 + COLUMNS % 13).astype(np.uint8)
ALPHA = (COLUMNS * 5 + 40).astype(np.uint8)
RGBA = np.dstack([RGB, ALPHA])
GREY_ALPHA = np.dstack([GREY, ALPHA])
BILEVEL = (ROWS * 7 + COLUMNS) % 5 < 2
GREY_16 = (ROWS * 3400 + COLUMNS * 37).astype(np.uint16)
RGB_16 = np.stack([GREY_16, GREY_16.max() - GREY_16, COLUMNS * 2000], axis=-1).astype(np.uint16)
SHARES = (GREY_16 / 65535).astype(np.float32)
HOUNSFIELD = (ROWS * 90 + COLUMNS * 3 - 1000).astype(np.int16)


def image_of(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels)


def save(image: Image.Image | np.ndarray, file_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, file_format, **options)
    return buffer.getvalue()


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def seen(stored: np.ndarray, orientation: int) -> np.ndarray:
    """A stored picture as a viewer shows it, by the table of EXIF 2.32."""
    turned = stored.swapaxes(0, 1) if orientation > 4 else stored
    if orientation in (2, 3, 6, 7):
        turned = turned[:, ::-1]
    return turned[::-1] if orientation in (3, 4, 7, 8) else turned


def levels(pixels: np.ndarray) -> np.ndarray:
    """[height, width, channels] of 0..255."""
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    return pixels / 257 if pixels.dtype == np.uint16 else pixels.astype(float)


def by_pillow(encoded: bytes, mode: str) -> np.ndarray:
    with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(encoded)) as image:
        return levels(np.asarray(image.convert(mode)))


def by_window(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.round(255 * np.clip((values.astype(float) - low) / (high - low), 0, 1))[..., None]


_PERCENTILES = "DICOM without a window: its percentiles 1 and 99 are black and white"


def by_percentiles(values: np.ndarray) -> np.ndarray:
    return by_window(values, *np.percentile(values, (1, 99)))


# Files of kinds that the libraries do not write.


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(
    depth: int, colour_type: int, rows: list[bytes], width: int = WIDTH, height: int | None = None, extra: bytes = b""
) -> bytes:
    """A PNG of any depth and colour type, with chunks before the pixels, or claims of another height."""
    header = struct.pack(">IIBBBBB", width, len(rows) if height is None else height, depth, colour_type, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def packed(values: np.ndarray, depth: int) -> list[bytes]:
    """Rows of values of fewer than 8 bits."""
    bits = (values[..., np.newaxis] >> np.arange(depth - 1, -1, -1)) & 1
    return [np.packbits(row).tobytes() for row in bits.reshape(len(values), -1)]


def big_endian(values: np.ndarray) -> list[bytes]:
    return [row.astype(">u2").tobytes() for row in values]


ADAM7 = [(0, 8, 0, 8), (0, 8, 4, 8), (4, 8, 0, 4), (0, 4, 2, 4), (2, 4, 0, 2), (0, 2, 1, 2), (1, 2, 0, 1)]


def interlaced_png(pixels: np.ndarray) -> bytes:
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8, 2, 0, 0, 1)
    passes = (pixels[top::down, left::right] for top, down, left, right in ADAM7)
    body = b"".join(b"\0" + row.tobytes() for part in passes if part.size for row in part)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


def bmp(bits: int, rows: list[bytes], top_down: bool = False, os2: bool = False, colours: int = 0) -> bytes:
    """A BMP, with a palette of some colours if the rows have their numbers."""
    body = b"".join(row + bytes(-len(row) % 4) for row in rows)
    palette = b"".join(bytes([number * 16, 255 - number * 13, number * 7, 0]) for number in range(colours))
    if os2:
        header = struct.pack("<IHHHH", 12, WIDTH, len(rows), 1, bits)
    else:
        height = -len(rows) if top_down else len(rows)
        header = struct.pack("<IiiHHIIiiII", 40, WIDTH, height, 1, bits, 0, len(body), 1, 1, colours, 0)
    start = 14 + len(header) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + header + palette + body


def tiff(*pages: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer, bigtiff=options.pop("bigtiff", False), byteorder=options.pop("byteorder", "<")) as writer:
        for page in pages:
            writer.write(page, metadata=None, contiguous=False, **options)
    return buffer.getvalue()


def with_tag(file: bytes, tag: int, value: int, number: int = 0) -> bytes:
    """A TIFF with another value of a tag of one value, on one of its pages."""
    with tifffile.TiffFile(io.BytesIO(file)) as opened:
        found = opened.pages[number].tags[tag]
        kind = {3: "H", 4: "I", 16: "Q"}[int(found.dtype)]
        order, at = opened.byteorder, found.valueoffset
    size = struct.calcsize(kind)
    return file[:at] + struct.pack(order + kind, value) + file[at + size :]


def dicom(stored: np.ndarray, syntax: str = ExplicitVRLittleEndian, **elements: Any) -> bytes:
    """A secondary capture with the elements that a picture needs, and others by keyword; None leaves one out."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    data.SOPInstanceUID = "1.2.3"
    bits = stored.dtype.itemsize * 8
    coloured = stored.ndim == 3 and stored.shape[-1] == 3
    if stored.ndim == 3 and not coloured:
        data.NumberOfFrames = len(stored)
    data.Rows, data.Columns = stored.shape[:2] if coloured or stored.ndim == 2 else stored.shape[1:]
    data.SamplesPerPixel = 3 if coloured else 1
    if coloured:
        data.PlanarConfiguration = 0
    data.PhotometricInterpretation = "RGB" if coloured else "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit = bits, bits, bits - 1
    data.PixelRepresentation = int(stored.dtype.kind == "i")
    data.PixelData = stored.tobytes()
    data["PixelData"].VR = "OW" if bits > 8 else "OB"
    for name, value in elements.items():
        if value is None:
            del data[name]
        else:
            setattr(data, name, value)
    if syntax == RLELossless:
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.compress(RLELossless, generate_instance_uid=False)
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, data, enforce_file_format=True)
    return buffer.getvalue()


def data_set(file: bytes, implicit: bool) -> bytes:
    """A DICOM file without what tells how it is written."""
    data = Dataset()
    data.update({element.tag: element for element in pydicom.dcmread(io.BytesIO(file))})
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = implicit, True
    write_dataset(buffer, data)
    return buffer.getvalue()


def item(**elements: Any) -> Dataset:
    data = Dataset()
    for name, value in elements.items():
        setattr(data, name, value)
    return data


def kept() -> dict[str, Case]:
    """What TensorFlow reads as Pillow does."""
    palette = image_of(RGB).quantize(16)
    transparent = {"transparency": bytes(range(0, 256, 16))}
    jpeg_rgb, jpeg_grey = save(RGB, "JPEG", quality=90), save(GREY, "JPEG", quality=90)
    files: dict[str, tuple[bytes, str]] = {
        "png palette": (save(palette, "PNG"), "RGB"),
        "png palette of 1 bit": (save(image_of(RGB).quantize(2), "PNG", bits=1), "RGB"),
        "png palette of 4 bits": (save(palette, "PNG", bits=4), "RGB"),
        "png palette with a transparent colour": (save(palette, "PNG", transparency=3), "RGBA"),
        "png palette with alpha": (save(palette, "PNG", **transparent), "RGBA"),
        "jpeg": (jpeg_rgb, "RGB"),
        "jpeg grey": (jpeg_grey, "L"),
        "jpeg progressive": (save(RGB, "JPEG", progressive=True), "RGB"),
        "jpeg with subsampled colours": (save(RGB, "JPEG", subsampling=2), "RGB"),
        "jpeg without subsampled colours": (save(RGB, "JPEG", subsampling=0), "RGB"),
        "jpeg of RGB components": (save(RGB, "JPEG", keep_rgb=True), "RGB"),
        "jpeg upright by EXIF": (save(RGB, "JPEG", exif=exif(1)), "RGB"),
        "jpeg with restart markers": (save(RGB, "JPEG", restart_marker_blocks=2), "RGB"),
        "jpeg with bytes after its end": (jpeg_rgb + b"more", "RGB"),
        "jpeg with unreadable EXIF": (save(RGB, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"), "RGB"),
        "jpeg of two pictures": (save(image_of(RGB), "MPO", save_all=True, append_images=[image_of(RGB[::-1])]), "RGB"),
    }
    cases = {name: Case(file, [by_pillow(file, mode)], kept=True) for name, (file, mode) in files.items()}
    two_16 = np.dstack([GREY_16, GREY_16[::-1]])
    lossless: dict[str, tuple[bytes, np.ndarray]] = {
        "png of 1 bit": (save(image_of(BILEVEL), "PNG"), BILEVEL.astype(np.uint8) * 255),
        "png of 2 bits": (png(2, 0, packed(GREY % 4, 2)), GREY % 4 * 85),
        "png of 4 bits": (png(4, 0, packed(GREY % 16, 4)), GREY % 16 * 17),
        "png grey": (save(GREY, "PNG"), GREY),
        "png grey with a transparent level": (save(GREY, "PNG", transparency=3), GREY),
        "png grey with alpha": (save(GREY_ALPHA, "PNG"), GREY_ALPHA),
        "png RGB": (save(RGB, "PNG"), RGB),
        "png RGB with a transparent colour": (save(RGB, "PNG", transparency=(0, 0, 0)), RGB),
        "png RGBA": (save(RGBA, "PNG"), RGBA),
        "png interlaced": (interlaced_png(RGB), RGB),
        "png grey of 16 bits": (save(GREY_16, "PNG"), GREY_16),
        "png grey with alpha of 16 bits": (png(16, 4, big_endian(two_16)), two_16),
        "png RGB of 16 bits": (png(16, 2, big_endian(RGB_16)), RGB_16),
        "png RGBA of 16 bits": (png(16, 6, big_endian(np.dstack([RGB_16, GREY_16]))), np.dstack([RGB_16, GREY_16])),
        "png with a gamma": (png(8, 2, [row.tobytes() for row in RGB], extra=chunk(b"gAMA", struct.pack(">I", 99999))), RGB),
        "png with bytes after its end": (save(RGB, "PNG") + b"more", RGB),
    }
    cases |= {name: Case(file, [levels(pixels)], kept=True) for name, (file, pixels) in lossless.items()}
    noise = np.random.default_rng(5).integers(32, 127, 1_200_000, np.uint8).tobytes()
    rows = [row.tobytes() for row in RGB]
    long = {
        "a profile of 1.2 MB": chunk(b"iCCP", b"icc\0\0" + zlib.compress(noise)),
        "a text of 1.2 MB": chunk(b"iTXt", b"Comment\0\0\0\0\0" + noise),
        "a compressed text of 9 MB": chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(9_000_000))),
        "a compressed international text of 9 MB": chunk(b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(bytes(9_000_000))),
    }
    cases |= {f"png with {what}": Case(png(8, 2, rows, extra=extra), [levels(RGB)], kept=True) for what, extra in long.items()}
    cases["png animated"] = Case(
        save(image_of(RGB), "PNG", save_all=True, append_images=[image_of(RGB[::-1])]),
        [levels(RGB)],
        kept=True,
        note="the first frame of an animation",
    )
    cases["png called jpg"] = Case(
        save(RGB, "PNG"), [levels(RGB)], kept=True, name="a/B.JPG", note="a PNG file with the suffix .jpg"
    )
    return cases


def turned() -> dict[str, Case]:
    """Orientations, by EXIF and by the TIFF tag."""
    cases = {}
    upright = by_pillow(save(RGB, "JPEG", quality=90), "RGB")
    for value in range(2, 9):
        file = save(RGB, "JPEG", quality=90, exif=exif(value))
        cases[f"jpeg of orientation {value}"] = Case(file, [seen(upright, value)])
        cases[f"tiff of orientation {value}"] = Case(
            tiff(RGB, extratags=[(274, 3, 1, value, True)]), [levels(seen(RGB, value))]
        )
    cases["png of orientation 6"] = Case(save(RGB, "PNG", exif=exif(6)), [levels(seen(RGB, 6))])
    late = save(RGB, "PNG")
    late = late[:-12] + chunk(b"eXIf", exif(8).tobytes()[6:]) + late[-12:]
    cases["png of orientation 8 told after the pixels"] = Case(late, [levels(seen(RGB, 8))])
    cases["png of 16 bits of orientation 6"] = Case(save(GREY_16, "PNG", exif=exif(6)), [levels(seen(GREY_16, 6))])
    cases["webp of orientation 6"] = Case(save(RGB, "WEBP", lossless=True, exif=exif(6)), [levels(seen(RGB, 6))])
    turned_text = exif(6).tobytes().hex()
    hidden = {
        "by Exif in a text": chunk(
            b"tEXt", b"Raw profile type exif\0\nexif\n%d\n" % (len(turned_text) // 2) + turned_text.encode()
        ),
        "by compressed XMP": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b'<x tiff:Orientation="6"/>')),
    }
    rows = [row.tobytes() for row in RGB]
    for how, extra in hidden.items():
        cases[f"png of orientation 6 {how}"] = Case(png(8, 2, rows, extra=extra), [levels(seen(RGB, 6))])
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><x tiff:Orientation="3"/></x:xmpmeta>'
    cases["jpeg of orientation 3 by XMP"] = Case(save(RGB, "JPEG", quality=90, xmp=xmp), [seen(upright, 3)])
    cases["png of orientation 3 by XMP"] = Case(
        png(8, 2, rows, extra=chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)), [levels(seen(RGB, 3))]
    )
    return cases


def by_other_formats() -> dict[str, Case]:
    """JPEG that TensorFlow would read otherwise, GIF, BMP, WebP, PPM."""
    cmyk = save(image_of(RGB).convert("CMYK"), "JPEG", quality=90)
    palette = image_of(RGB).quantize(16)
    gif, grey_gif = save(palette, "GIF"), save(GREY, "GIF")
    pixels_16 = [bytes((row * 31 + column * 7) % 256 for column in range(WIDTH * 2)) for row in range(HEIGHT)]
    upside_down = [row[:, ::-1].tobytes() for row in RGB[:, None]]
    lossy = save(RGB, "WEBP", quality=80)
    avif, alpha_avif, turned_avif = save(RGB, "AVIF"), save(RGBA, "AVIF"), save(RGB, "AVIF", exif=exif(6))
    return {
        "jpeg CMYK": Case(cmyk, [by_pillow(cmyk, "RGB")]),
        "gif": Case(gif, [by_pillow(gif, "RGB")]),
        "gif grey": Case(grey_gif, [levels(np.dstack([GREY] * 3))]),
        "gif animated": Case(
            save(palette, "GIF", save_all=True, append_images=[palette.rotate(180)]),
            [by_pillow(gif, "RGB")],
            note="the first frame of an animation",
        ),
        "gif with a transparent colour": Case(
            save(palette, "GIF", transparency=3), [by_pillow(save(palette, "GIF", transparency=3), "RGBA")]
        ),
        "bmp palette of 4 bits": Case(
            bmp(4, packed(GREY % 16, 4), colours=16), [by_pillow(bmp(4, packed(GREY % 16, 4), colours=16), "RGB")]
        ),
        "bmp of 32 bits": Case(save(RGBA, "BMP"), [by_pillow(save(RGBA, "BMP"), "RGB")]),
        "bmp of 1 bit": Case(save(image_of(BILEVEL), "BMP"), [levels(BILEVEL.astype(np.uint8) * 255)]),
        "bmp palette": Case(save(palette, "BMP"), [by_pillow(save(palette, "BMP"), "RGB")]),
        "bmp grey": Case(save(GREY, "BMP"), [levels(GREY)]),
        "bmp RGB": Case(save(RGB, "BMP"), [levels(RGB)]),
        "bmp top down": Case(bmp(24, [row[:, ::-1].tobytes() for row in RGB], top_down=True), [levels(RGB)]),
        "bmp of 16 bits": Case(bmp(16, pixels_16), [by_pillow(bmp(16, pixels_16), "RGB")]),
        "bmp of OS/2": Case(bmp(24, upside_down, os2=True), [by_pillow(bmp(24, upside_down, os2=True), "RGB")]),
        "webp": Case(lossy, [by_pillow(lossy, "RGB")]),
        "webp lossless": Case(save(RGB, "WEBP", lossless=True), [levels(RGB)]),
        "webp with alpha": Case(save(RGBA, "WEBP", lossless=True, exact=True), [levels(RGBA)]),
        "webp animated": Case(
            save(image_of(RGB), "WEBP", lossless=True, save_all=True, append_images=[image_of(RGB[::-1])]),
            [levels(np.dstack([RGB, np.full_like(GREY, 255)]))],
            note="the first frame of an animation",
        ),
        "jpeg2000": Case(save(RGB, "JPEG2000"), [levels(RGB)]),
        "jpeg2000 grey": Case(save(GREY, "JPEG2000"), [levels(GREY)]),
        "jpeg2000 of 16 bits": Case(save(GREY_16, "JPEG2000"), [levels(GREY_16)], name="a.jp2"),
        "jpeg2000 with alpha": Case(save(RGBA, "JPEG2000"), [levels(RGBA)]),
        "jpeg2000 without boxes": Case(save(RGB, "JPEG2000", no_jp2=True), [levels(RGB)]),
        "avif": Case(avif, [by_pillow(avif, "RGB")], name="a.avif"),
        "avif of orientation 6": Case(turned_avif, [seen(by_pillow(turned_avif, "RGB"), 6)]),
        "avif with alpha": Case(alpha_avif, [by_pillow(alpha_avif, "RGBA")]),
        "avif animated": Case(
            save(image_of(RGB), "AVIF", save_all=True, append_images=[image_of(RGB[::-1])]),
            [by_pillow(avif, "RGB")],
            tolerance=30,
            note="the first frame of an animation",
        ),
        "ppm": Case(save(RGB, "PPM"), [levels(RGB)]),
        "pgm of 16 bits": Case(b"P5 30 19 65535\n" + b"".join(big_endian(GREY_16)), [levels(GREY_16)]),
    }


def tiffs() -> dict[str, Case]:
    """TIFF of all types and layouts."""
    shares = levels(np.round(SHARES * 65535).astype(np.uint16))
    large = np.tile(RGB, (5, 5, 1))
    palette = np.asarray(image_of(RGB).quantize(16))
    colours = np.arange(3 * 256).reshape(3, 256).astype(np.uint16) * 80
    jpeg = tiff(RGB, compression="jpeg", photometric="ycbcr", subsampling=(1, 1))
    window = {"intensity": "window", "window": [-500.0, 500.0]}
    cases = {
        "tiff grey": (tiff(GREY), GREY),
        "tiff of 1 bit": (tiff(BILEVEL, photometric="minisblack"), BILEVEL.astype(np.uint8) * 255),
        "tiff of 1 bit, fax": (save(image_of(BILEVEL), "TIFF", compression="group4"), BILEVEL.astype(np.uint8) * 255),
        "tiff RGB": (tiff(RGB, photometric="rgb"), RGB),
        "tiff RGBA": (tiff(RGBA, photometric="rgb", extrasamples=["unassalpha"]), RGBA),
        "tiff grey with alpha": (tiff(GREY_ALPHA, photometric="minisblack", extrasamples=["unassalpha"]), GREY_ALPHA),
        "tiff RGB in planes": (tiff(np.moveaxis(RGB, -1, 0).copy(), photometric="rgb", planarconfig="separate"), RGB),
        "tiff white is zero": (tiff(GREY, photometric="miniswhite"), 255 - GREY),
        "tiff white is zero of 16 bits": (tiff(GREY_16, photometric="miniswhite"), 65535 - GREY_16),
        "tiff palette": (tiff(palette, photometric="palette", colormap=colours), (colours.T[palette] >> 8).astype(np.uint8)),
        "tiff LZW": (tiff(RGB, photometric="rgb", compression="lzw"), RGB),
        "tiff LZW with a predictor": (tiff(RGB, photometric="rgb", compression="lzw", predictor=True), RGB),
        "tiff deflate": (tiff(RGB, photometric="rgb", compression="deflate"), RGB),
        "tiff packbits": (tiff(GREY, compression="packbits"), GREY),
        "tiff zstd": (tiff(GREY, compression="zstd"), GREY),
        "tiff in tiles": (tiff(large, photometric="rgb", tile=(16, 32), compression="lzw"), large),
        "tiff in strips": (tiff(large, photometric="rgb", rowsperstrip=7), large),
        "tiff big-endian of 16 bits": (tiff(GREY_16, byteorder=">"), GREY_16),
        "tiff of 64-bit offsets": (tiff(RGB, photometric="rgb", bigtiff=True), RGB),
        "tiff of 16 bits": (tiff(GREY_16), GREY_16),
        "tiff of 16 bits, LZW with a predictor": (tiff(GREY_16, compression="lzw", predictor=True), GREY_16),
        "tiff RGB of 16 bits": (tiff(RGB_16, photometric="rgb", compression="lzw"), np.round(RGB_16 / 257)),
        "tiff signed of 16 bits": (tiff(HOUNSFIELD), (HOUNSFIELD.astype(int) + 32768).astype(np.uint16)),
        "tiff signed of 8 bits": (tiff((GREY.astype(int) - 128).astype(np.int8)), GREY),
        "tiff float": (tiff(SHARES), shares),
        "tiff float, deflate with a predictor": (tiff(SHARES, compression="deflate", predictor=True), shares),
        "tiff of 64-bit floats": (tiff(SHARES.astype(np.float64)), shares),
        "tiff by Pillow": (save(RGB, "TIFF", compression="tiff_lzw"), RGB),
        "tiff CMYK": (save(image_of(RGB).convert("CMYK"), "TIFF"), RGB),
    }
    files = {name: Case(file, [levels(np.asarray(pixels))]) for name, (file, pixels) in cases.items()}
    two = tiff(GREY, GREY_16[:9])
    every = {"pages": "all"}
    pages = [np.roll(GREY, number, axis=1) for number in range(6)]
    six = tiff(*pages)
    with tifffile.TiffFile(io.BytesIO(six)) as opened:
        six_ends = [page.offset for page in opened.pages[1:]]
    files |= {
        "tiff of JPEG": Case(jpeg, [by_pillow(jpeg, "RGB")]),
        "tiff of two pages, the first": Case(two, [levels(GREY)]),
        "tiff of two pages, all": Case(two, [levels(GREY), levels(GREY_16[:9])], settings={"pages": "all"}),
        "tiff of one page, all": Case(tiff(GREY), [levels(GREY)], settings={"pages": "all"}),
        "tiff with a thumbnail": Case(
            with_tag(tiff(GREY, GREY[::2, ::2].copy(), subfiletype=1), 254, 0), [levels(GREY)], settings={"pages": "all"}
        ),
        "tiff signed through a window": Case(tiff(HOUNSFIELD), [by_window(HOUNSFIELD, -500, 500)], settings=window),
        "tiff float through a window": Case(
            tiff(HOUNSFIELD.astype(np.float32)), [by_window(HOUNSFIELD, -500, 500)], settings=window
        ),
        "tiff of 32 bits through a window": Case(
            tiff(GREY_16.astype(np.uint32) * 1000),
            [by_window(GREY_16 * 1000.0, 5e6, 6e7)],
            settings={"intensity": "window", "window": [5e6, 6e7]},
        ),
        "tiff of 16 bits kept for a window": Case(tiff(GREY_16), [levels(GREY_16)], settings=window),
        "tiff of 8 bits beside a window": Case(tiff(GREY), [levels(GREY)], settings=window),
        "tiff of two pages, the second cut": Case(
            tiff(GREY, GREY_16)[:-700],
            [levels(GREY)],
            settings=every,
            lost=((1, "damaged: the file ends before its pixels"),),
        ),
        "tiff of six pages, cut after the first": Case(
            six[: six_ends[0]], [levels(GREY)], settings=every, lost=((1, "damaged: page 2 and all after it are missing"),)
        ),
        "tiff of six pages, cut in the fourth": Case(
            six[: six_ends[2] + 60],
            [levels(page) for page in pages[:3]],
            settings=every,
            lost=((3, "damaged: page 4 and all after it are missing"),),
        ),
        "tiff of three pages, the second without pixels": Case(
            with_tag(tiff(*pages[:3], rowsperstrip=10, compression="lzw"), 279, 0, number=1),
            [levels(pages[0]), levels(pages[2])],
            settings=every,
            lost=((1, "damaged: strips or tiles are missing"),),
        ),
        "tiff called dcm": Case(tiff(GREY), [levels(GREY)], name="x.dcm", note="a TIFF file with the suffix .dcm"),
    }
    return files


def dicoms() -> dict[str, Case]:
    """DICOM of all kinds of range."""
    stored = (HOUNSFIELD + 1024).astype(np.uint16)
    ct = {"RescaleSlope": 1, "RescaleIntercept": -1024, "BitsStored": 12, "HighBit": 11}
    brain = {"WindowCenter": 40, "WindowWidth": 400}
    # PS3.3 C.11.2.1.2.1
    by_brain = np.round(255 * np.clip((HOUNSFIELD - 39.5) / 399 + 0.5, 0, 1))[..., None]
    exact = np.round(255 * np.clip((HOUNSFIELD - 40) / 400 + 0.5, 0, 1))[..., None]
    sigmoid = np.round(255 / (1 + np.exp(-4 * (HOUNSFIELD - 40.0) / 400)))[..., None]
    window = {"intensity": "window", "window": [-1000.0, 400.0]}
    windowed = dicom(stored, **ct, **brain)
    padded = np.where(COLUMNS < 8, 0, stored).astype(np.uint16)
    frames = np.stack([stored, stored[::-1], stored[:, ::-1]])
    lut = item(LUTDescriptor=[4096, 0, 16], LUTData=(np.arange(4096) * 16)[::-1].astype("<u2").tobytes())
    lut["LUTDescriptor"].VR = "US"
    lut["LUTData"].VR = "OW"
    palette = {
        f"{colour}PaletteColorLookupTable{part}": value
        for number, colour in enumerate(("Red", "Green", "Blue"))
        for part, value in (
            ("Descriptor", [256, 0, 16]),
            ("Data", (np.arange(256) * 257 * (number != 1)).astype("<u2").tobytes()),
        )
    }
    functional = {
        "PixelValueTransformationSequence": Sequence([item(RescaleSlope=1, RescaleIntercept=-1024, RescaleType="HU")]),
        "FrameVOILUTSequence": Sequence([item(**brain)]),
    }
    baseline = save(GREY, "JPEG", quality=90)
    encapsulated = {"syntax": JPEGBaseline8Bit, "PixelData": pydicom.encaps.encapsulate([baseline])}
    return {
        "dicom of 8 bits": Case(dicom(GREY), [levels(GREY)]),
        "dicom RGB": Case(dicom(RGB), [levels(RGB)]),
        "dicom of 12 bits without a window": Case(dicom(stored, **ct), [by_percentiles(HOUNSFIELD)], note=_PERCENTILES),
        "dicom signed of 16 bits without a window": Case(dicom(HOUNSFIELD), [by_percentiles(HOUNSFIELD)], note=_PERCENTILES),
        "dicom inverted without a window": Case(
            dicom(stored, **ct, PhotometricInterpretation="MONOCHROME1"), [255 - by_percentiles(HOUNSFIELD)], note=_PERCENTILES
        ),
        "dicom without a window, padded": Case(
            dicom(padded, **ct, PixelPaddingValue=0),
            [by_window(padded.astype(int) - 1024, *np.percentile(HOUNSFIELD[:, 8:], (1, 99)))],
            note=_PERCENTILES,
        ),
        "dicom of one value without a window": Case(dicom(np.full_like(stored, 1024)), [np.full((HEIGHT, WIDTH, 1), 4.0)]),
        "dicom without its preamble": Case(windowed[132:], [by_brain]),
        "dicom that begins with its prefix": Case(windowed[128:], [by_brain]),
        "dicom of a data set alone": Case(data_set(windowed, implicit=True), [by_brain]),
        "dicom of a data set alone, with its types": Case(data_set(windowed, implicit=False), [by_brain]),
        "dicom with a window": Case(dicom(stored, **ct, **brain), [by_brain]),
        "dicom with an exact window": Case(dicom(stored, **ct, **brain, VOILUTFunction="LINEAR_EXACT"), [exact]),
        "dicom with a sigmoid window": Case(dicom(stored, **ct, **brain, VOILUTFunction="SIGMOID"), [sigmoid]),
        "dicom with two windows": Case(dicom(stored, **ct, WindowCenter=[40, 500], WindowWidth=[400, 10]), [by_brain]),
        "dicom with a table of levels": Case(
            dicom(stored, BitsStored=12, HighBit=11, VOILUTSequence=Sequence([lut])),
            [by_window((4095.0 - stored) * 16, 0, 65535)],
        ),
        "dicom through the configured window": Case(
            dicom(stored, **ct, **brain), [by_window(HOUNSFIELD, -1000, 400)], settings=window
        ),
        "dicom inverted": Case(dicom(stored, **ct, **brain, PhotometricInterpretation="MONOCHROME1"), [255 - by_brain]),
        "dicom inverted through the configured window": Case(
            dicom(stored, **ct, PhotometricInterpretation="MONOCHROME1"),
            [255 - by_window(HOUNSFIELD, -1000, 400)],
            settings=window,
        ),
        "dicom for percentiles": Case(
            dicom(stored, **ct),
            [levels((HOUNSFIELD.astype(int) + 32768).astype(np.uint16))],
            settings={"intensity": "percentiles"},
        ),
        "dicom of three frames, the first": Case(dicom(frames, **ct, **brain), [by_brain]),
        "dicom of three frames, all": Case(
            dicom(frames, **ct, **brain), [by_brain, by_brain[::-1], by_brain[:, ::-1]], settings={"pages": "all"}
        ),
        "dicom with functional groups": Case(
            dicom(frames, BitsStored=12, HighBit=11, SharedFunctionalGroupsSequence=Sequence([item(**functional)])), [by_brain]
        ),
        "dicom palette": Case(
            dicom(GREY, PhotometricInterpretation="PALETTE COLOR", **palette), [levels(np.dstack([GREY, GREY * 0, GREY]))]
        ),
        "dicom RLE": Case(dicom(stored, syntax=RLELossless, **ct, **brain), [by_brain]),
        "dicom of JPEG": Case(dicom(GREY, **encapsulated), [by_pillow(baseline, "L")]),
    }


def _cut(file: bytes, share: float) -> bytes:
    return file[: int(len(file) * share)]


def _flipped(file: bytes, position: int) -> bytes:
    return file[:position] + bytes([file[position] ^ 0xFF]) + file[position + 1 :]


def rejected() -> dict[str, Case]:
    """What is set aside, each with the words of the reason."""
    grey_tiff = tiff(GREY)
    stored = (HOUNSFIELD + 1024).astype(np.uint16)
    too_large = "60000x60000 is more than 20000 pixels"
    bomb_webp = save(Image.new("RGB", (210, 100)), "WEBP")
    bomb_gif = bytearray(save(GREY, "GIF"))
    bomb_gif[6:10] = struct.pack("<HH", 60_000, 60_000)
    bomb_bmp = bytearray(save(RGB, "BMP"))
    bomb_bmp[18:26] = struct.pack("<ii", 60_000, 60_000)
    bomb_jpeg = bytearray(save(GREY, "JPEG"))
    start = bomb_jpeg.index(b"\xff\xc0")
    bomb_jpeg[start + 5 : start + 9] = struct.pack(">HH", 60_000, 60_000)
    first_header = save(RGB, "PNG")
    two_headers = first_header[:33] + first_header[8:]
    profile = chunk(b"iCCP", b"icc\0\0" + zlib.compress(bytes(100_000_000)))
    comment = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(100_000_000)))
    rows = [row.tobytes() for row in RGB]
    inner = pydicom.encaps.encapsulate([save(np.zeros((500, 500), np.uint8), "JPEG")])
    reasons: dict[str, tuple[bytes, str] | tuple[bytes, str, dict[str, Any]]] = {
        "empty file": (b"", "empty file"),
        "text": (b"just some text\n", "not an image"),
        "zeros": (bytes(1000), "not an image"),
        "web page": (b"<html><body>404</body></html>", "not an image"),
        "zip": (b"PK\x03\x04" + bytes(100), "not an image"),
        "half a webp": (_cut(save(RGB, "WEBP"), 0.5), "damaged: "),
        "half a gif": (_cut(save(image_of(RGB).quantize(16), "GIF"), 0.5), "damaged: "),
        "half a bmp": (_cut(save(RGB, "BMP"), 0.5), "damaged: "),
        "half a png": (_cut(save(RGB, "PNG"), 0.5), "damaged: "),
        "png without its end": (save(RGB, "PNG")[:-12], "damaged: "),
        "png with a wrong checksum": (_flipped(save(RGB, "PNG"), -14), "damaged: "),
        "png of two headers": (two_headers, "damaged: "),
        "png of a header alone": (save(RGB, "PNG")[:33], "damaged: "),
        "half a jpeg": (_cut(save(RGB, "JPEG"), 0.7), "damaged: "),
        "half a progressive jpeg": (_cut(save(RGB, "JPEG", progressive=True), 0.7), "damaged: "),
        "jpeg of a header alone": (save(RGB, "JPEG")[:20], "damaged: "),
        "half a cmyk jpeg": (_cut(save(image_of(RGB).convert("CMYK"), "JPEG"), 0.7), "damaged: "),
        "half a tiff": (_cut(tiff(np.tile(RGB, (5, 5, 1)), photometric="rgb"), 0.5), "damaged: "),
        "half a tiff, LZW": (_cut(save(RGB, "TIFF", compression="tiff_lzw"), 0.5), "damaged: "),
        "tiff with wrong LZW codes": (_flipped(tiff(RGB, photometric="rgb", compression="deflate"), -9), "damaged: "),
        "half a dicom": (_cut(dicom(stored), 0.7), "damaged: "),
        "half a dicom of RLE": (_cut(dicom(stored, syntax=RLELossless), 0.7), "damaged: "),
        "dicom without pixels": (dicom(stored, PixelData=None), "DICOM without pixels"),
        "dicom without a size": (dicom(stored, Rows=None), "damaged: "),
        "dicom of lossless JPEG": (
            dicom(stored, syntax=JPEGLosslessSV1, PixelData=pydicom.encaps.encapsulate([b"\xff\xd8\xff\xd9"])),
            "needs another decoder: pip install pylibjpeg[all]",
        ),
        "dicom with a deflated data set": (
            dicom(stored, syntax=DeflatedExplicitVRLittleEndian),
            "deflated data set is not read",
        ),
        "dicom of floats": (
            dicom(stored, BitsAllocated=32, PixelData=None, FloatPixelData=SHARES.tobytes()),
            "set image.intensity to window",
        ),
        "dicom of small steps for percentiles": (
            dicom(stored, RescaleSlope="0.25", RescaleIntercept=0),
            "steps of 0.25",
            {"intensity": "percentiles"},
        ),
        "dicom of large values for percentiles": (
            dicom(np.full_like(stored, 40_000), RescaleSlope=1, RescaleIntercept=0),
            "beyond -32768..32767",
            {"intensity": "percentiles"},
        ),
        "tiff of floats beyond 0..1": (tiff(SHARES * 2), "float32 outside 0..1, whose range is not known; set image.intensity"),
        "tiff of floats with what is no number": (
            tiff(np.where(SHARES > 0.5, np.nan, SHARES).astype(np.float32)),
            "outside 0..1",
        ),
        "tiff of floats for percentiles": (tiff(SHARES), "set image.intensity to window", {"intensity": "percentiles"}),
        "tiff of 32 bits": (tiff(GREY_16.astype(np.uint32)), "type uint32, whose range is not known"),
        "tiff of complex numbers": (tiff(SHARES.astype(np.complex64)), "type complex64"),
        "tiff of seven channels": (
            tiff(np.dstack([RGB, RGB, GREY]), planarconfig="contig", photometric="minisblack"),
            "7 channels",
        ),
        "png bomb": (png(8, 2, [b""], 60_000, 60_000), too_large),
        "jpeg bomb": (bytes(bomb_jpeg), too_large),
        "gif bomb": (bytes(bomb_gif), too_large),
        "bmp bomb": (bytes(bomb_bmp), too_large),
        "webp bomb": (bomb_webp, "210x100 is more than 20000 pixels"),
        "ppm bomb": (b"P5 60000 60000 255\n", too_large),
        "tiff bomb": (with_tag(with_tag(grey_tiff, 256, 60_000), 257, 60_000), too_large),
        "tiff bomb of tiles": (
            with_tag(with_tag(tiff(GREY, tile=(16, 16)), 322, 65_520), 323, 65_520),
            "damaged: tiles of 65520x65520 pixels",
        ),
        "tiff bomb of strips": (with_tag(grey_tiff, 279, 2**32 - 1), "damaged: the file ends before its pixels"),
        "tiff of pages that are too large together": (
            tiff(*[np.zeros((90, 90), np.uint8)] * 3),
            "3 pages have more than 20000 pixels",
            {"pages": "all"},
        ),
        "tiff without one of its strips": (
            with_tag(tiff(GREY, rowsperstrip=10, compression="lzw"), 279, 0),
            "damaged: strips or tiles are missing",
        ),
        "tiff of channels of different bits": (with_tag(tiff(RGB, photometric="rgb"), 258, 5), "bits, which are not read"),
        "tiff of too few data": (with_tag(grey_tiff, 256, 90), "damaged: too few data for the pixels"),
        "dicom bomb": (dicom(stored, Rows=60_000, Columns=60_000), too_large),
        "dicom bomb of frames": (
            dicom(stored, NumberOfFrames=20_000),
            "30x19 on 20000 pages is more than 20000 pixels",
            {"pages": "all"},
        ),
        "dicom bomb inside": (dicom(GREY, syntax=JPEGBaseline8Bit, PixelData=inner), "damaged: a frame of 500x500"),
        "png bomb of a colour profile": (png(8, 2, rows, extra=profile), "too costly to decode: texts and profiles"),
        "png bomb of a comment": (png(8, 2, rows, extra=comment), "too costly to decode: texts and profiles"),
    }
    cases = {}
    for name, (file, reason, *settings) in reasons.items():
        cases[name] = Case(file, reason=reason, settings=dict(*settings))
    cycle = tiff(GREY, GREY)
    with tifffile.TiffFile(io.BytesIO(cycle)) as opened:
        first, second = opened.pages[0].offset, opened.pages[1].offset
        (tags,) = struct.unpack("<H", cycle[second : second + 2])
    end = second + 2 + 12 * tags
    cases["tiff whose pages lead back to the first"] = Case(
        cycle[:end] + struct.pack("<I", first) + cycle[end + 4 :],
        reason="damaged: the pages lead back",
        settings={"pages": "all"},
    )
    return cases


BUILDERS: list[Callable[[], dict[str, Case]]] = [kept, turned, by_other_formats, tiffs, dicoms, rejected]
CASES: dict[str, Case] = {name: case for build in BUILDERS for name, case in build().items()}
