"""Reads pages of TIFF files with tifffile."""

import io
import itertools
import logging
import math
import struct
from collections.abc import Iterator
from typing import Final

import numpy as np
import tifffile
from PIL import Image

from images.file_settings import FileSettings
from images.files.pixels import Page, RejectedImage, as_png_pixels, check_size, damaged
from images.reason import Reason

SIGNATURES: Final = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

# None, LZW, deflate (two numbers), PackBits, Zstandard: these codecs get the decoded size as an argument, so they can't exceed
# it. Pillow decodes the other compressions (JPEG, fax), because its libtiff compares their content with the page's header.
# Pillow also decodes pages that are neither grey, RGB nor palette.
_COMPRESSIONS: Final = {1, 5, 8, 32946, 32773, 50000}
_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB, _PALETTE = 0, 1, 2, 3
_ASSOCIATED_ALPHA, _ALPHA = 1, 2
_ORIENTATION: Final = 274
_MOST_PAGES: Final = 10_000
_LARGEST_RATIO: Final = 4096  # bytes of pixels to compressed bytes; LZW has the highest ratio of the codecs
_LARGEST_PADDING: Final = 2**24  # pixels that a tile may have beyond max_pixels

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # its warnings about damaged files would fill the log


def read_pages(encoded: bytes, settings: FileSettings) -> Iterator[Page]:
    """Decodes the first page, or all pages except reduced versions and masks.

    Args:
      encoded: the file's bytes.
      settings: as in `decoding.normalise`.

    Yields:
      Pixels as returned by `pixels.as_png_pixels`, with the orientation applied, or the reason why a page has none. If the
      file ends too early, one reason stands for all pages that are missing.

    Raises:
      RejectedImage: too large, or too many pages. A file that is damaged before its first page may raise any exception.
    """
    # Vendor formats are read like any other TIFF; tifffile's detection of some of them takes long.
    with tifffile.TiffFile(io.BytesIO(encoded), is_lsm=False, is_scanimage=False, is_ndpi=False) as file:
        chosen, missing = ({0: _page(file, 0)}, None) if settings.pages == "first" else _find_pages(file)
        total = 0
        for page in chosen.values():
            check_size(page.imagewidth, page.imagelength, settings.max_pixels)
            total += page.imagewidth * page.imagelength
        if total > settings.max_pixels:
            raise RejectedImage(f"{len(chosen)} pages have more than {settings.max_pixels} pixels")
        for number, page in chosen.items():
            try:
                yield _decode(page, number, encoded, settings)
            except RejectedImage as reason:
                yield reason
            except Exception as error:  # each codec raises exceptions of its own
                yield damaged(error)
        if missing:
            yield missing


def _page(file: tifffile.TiffFile, number: int) -> tifffile.TiffPage:
    page = file.pages[number]
    assert isinstance(page, tifffile.TiffPage)
    return page


def _find_pages(file: tifffile.TiffFile) -> tuple[dict[int, tifffile.TiffPage], RejectedImage | None]:
    """All pages that are neither a reduced version of another page nor a mask, by number; and why more are missing."""
    pages: dict[int, tifffile.TiffPage] = {0: _page(file, 0)}
    offsets = {pages[0].offset}
    for number in itertools.count(1):
        if number == _MOST_PAGES:
            raise RejectedImage(f"more than {_MOST_PAGES} pages")
        try:
            if not _next_page_offset(file, file.pages[number - 1].offset):
                return pages, None
            page = _page(file, number)
        except Exception:  # tifffile raises many types where a file is cut
            return pages, RejectedImage(Reason("damaged", f"page {number + 1} and all after it are missing"))
        if page.offset in offsets:
            raise RejectedImage(Reason("damaged", "the pages lead back to an earlier one"))
        offsets.add(page.offset)
        if not (page.is_reduced or page.is_mask):
            pages[number] = page
    raise AssertionError


def _next_page_offset(file: tifffile.TiffFile, offset: int) -> int:
    """Offset of the page that follows the page at `offset`, as the file states it; 0 if there is none."""
    file.filehandle.seek(offset)
    (tags,) = struct.unpack(file.tiff.tagnoformat, file.filehandle.read(file.tiff.tagnosize))
    file.filehandle.seek(offset + file.tiff.tagnosize + tags * file.tiff.tagsize)
    return struct.unpack(file.tiff.offsetformat, file.filehandle.read(file.tiff.offsetsize))[0]


def _decode(page: tifffile.TiffPage, number: int, encoded: bytes, settings: FileSettings) -> np.ndarray:
    alpha = page.extrasamples[:1]
    if (
        page.compression not in _COMPRESSIONS
        or page.photometric not in (_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB, _PALETTE)
        or alpha == (_ASSOCIATED_ALPHA,)
    ):
        return _decode_by_pillow(encoded, number)
    colours = 3 if page.photometric == _RGB else 1
    unknown = page.samplesperpixel - colours - (alpha == (_ALPHA,))
    if unknown < 0 or unknown > (colours == 3):  # one more channel than RGB is padding
        raise RejectedImage(f"{page.samplesperpixel} channels of unknown meaning")
    if page.dtype is None or page.imagedepth != 1 or isinstance(page.bitspersample, tuple):  # a tuple: channels differ in bits
        raise RejectedImage(f"pixels of {page.bitspersample} bits, which are not read")
    _check_data(page, len(encoded), settings.max_pixels)
    stored = page.asarray(squeeze=False, maxworkers=1)  # [planes, 1, height, width, samples]
    values = np.moveaxis(stored[:, 0], 0, -1).reshape(page.imagelength, page.imagewidth, page.samplesperpixel)
    values = values[..., : colours + (alpha == (_ALPHA,))]
    if page.photometric == _PALETTE:
        if page.colormap is None:
            raise RejectedImage(Reason("damaged", "the palette is missing"))
        pixels = (page.colormap.T[values[..., 0]] >> 8).astype(np.uint8)
    else:
        values = values[..., 0] if values.shape[-1] == 1 else values
        pixels = as_png_pixels(values, page.bitspersample, settings, inverted=page.photometric == _MIN_IS_WHITE)
    return _turn_upright(pixels, int(page.tags.valueof(_ORIENTATION, default=1)))


def _check_data(page: tifffile.TiffPage, size: int, max_pixels: int) -> None:
    """Compares the sizes in the header with the data in the file, before memory is allocated for the pixels."""
    if page.is_tiled and page.tilewidth * page.tilelength > max_pixels + _LARGEST_PADDING:
        raise RejectedImage(Reason("damaged", f"tiles of {page.tilewidth}x{page.tilelength} pixels"))
    ends = [offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)]
    if len(ends) < math.prod(page.chunked) or not all(page.databytecounts):  # tifffile leaves their pixels black
        raise RejectedImage(Reason("damaged", "strips or tiles are missing"))
    if max(ends) > size:
        raise RejectedImage(Reason("damaged", "the file ends before its pixels"))
    promised = page.imagewidth * page.imagelength * page.samplesperpixel * page.bitspersample // 8
    if promised > sum(page.databytecounts) * (1 if page.compression == 1 else _LARGEST_RATIO):
        raise RejectedImage(Reason("damaged", "too few data for the pixels"))


def _decode_by_pillow(encoded: bytes, number: int) -> np.ndarray:
    with Image.open(io.BytesIO(encoded), formats=["TIFF"]) as image:
        image.seek(number)
        image.load()  # turns it upright
        if image.mode in ("I", "F") or image.mode.startswith("I;16"):
            raise RejectedImage(f"pixels of type {image.mode} in a compression that is not read")
        if image.mode not in ("L", "LA", "RGB", "RGBA"):
            grey = image.mode == "1"
            return np.asarray(image.convert("L" if grey else "RGBA" if image.has_transparency_data else "RGB"))
        return np.asarray(image)


def _turn_upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turns pixels upright by the orientation tag, 1 to 8 (TIFF 6.0, section 8)."""
    if orientation in (5, 6, 7, 8):
        pixels = np.swapaxes(pixels, 0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels
