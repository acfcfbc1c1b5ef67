"""Reads frames of DICOM files with pydicom."""

import io
import logging
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image, UnidentifiedImageError

from images.file_settings import FileSettings
from images.files.pixels import Page, RejectedImage, apply_window, as_png_pixels, check_size
from images.files.structure.reading import read_structure
from images.reason import Reason

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.uid import UID

_DEFLATED: Final = b"1.2.840.10008.1.2.1.99"
_GREY: Final = ("MONOCHROME1", "MONOCHROME2")
_PIXELS: Final = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_PIXEL_DATA_TAG: Final = b"\xe0\x7f\x10\0"
# In an enhanced multi-frame image these sequences hold the values that a plain image has at the top of its data set.
_PERCENTILES: Final = (1, 99)
_NOTE: Final = "DICOM without a window: its percentiles 1 and 99 are black and white"
_FRAME_GROUPS: Final = ("PixelValueTransformationSequence", "FrameVOILUTSequence")


# Warnings about odd files would fill the log.
logging.getLogger("pydicom").setLevel(logging.CRITICAL)
warnings.filterwarnings("ignore", module="pydicom")


def read_frames(encoded: bytes, settings: FileSettings) -> Iterator[Page]:
    """Decodes the first frame or all frames.

    Grey values are rescaled to their unit, such as Hounsfield units, and mapped by `settings.intensity`:
    - type: by the file's own VOI LUT or (first) window. Without one, pixels of more than 8 bits are mapped by percentiles of
      the frame, because scans use a small part of their type's range, and a note says so; others by their range. 8 bits.
    - window: by `settings.window`, in the rescaled unit; 8 bits.
    - percentiles: stored as value + 32768 in 16 bits, so that a value has the same level in all files; the graph of
      `models.preprocessing` maps the levels. Values in steps below 1, or outside -32768..32767, are refused.
    MONOCHROME1, where low values are bright, is inverted after that.

    Args:
      encoded: the file's bytes.
      settings: as in `decoding.normalise`.

    Yields:
      uint8 [height, width] or [height, width, 3], or uint16 [height, width]; and a note, or "".

    Raises:
      RejectedImage: no pixels, too large, a kind of file that is not read, or pydicom is not installed. A damaged file may
        raise any exception.
    """
    try:
        import pydicom
        from pydicom.pixels.utils import get_nr_frames, iter_pixels, pixel_array
    except ImportError as error:
        raise RejectedImage("DICOM needs the extra: pip install fpn-pipeline[dicom]") from error
    if _DEFLATED in encoded:  # pydicom would inflate it to any size
        raise RejectedImage("DICOM with a deflated data set is not read")
    # Some networks and archives leave the preamble away, or also what tells how the rest is written.
    header = pydicom.dcmread(io.BytesIO(encoded.removeprefix(b"DICM")), force=True)
    if "TransferSyntaxUID" not in header.file_meta:
        header.file_meta.TransferSyntaxUID = _guess_syntax(header)
    if not any(name in header for name in _PIXELS):
        # pydicom leaves out an element that ends too early.
        raise RejectedImage(
            Reason("damaged", "the pixels are cut short") if _PIXEL_DATA_TAG in encoded else "DICOM without pixels"
        )
    frames = get_nr_frames(header, warn=False) if settings.pages == "all" else 1
    check_size(header.Columns, header.Rows, settings.max_pixels, frames)
    if header.file_meta.TransferSyntaxUID.is_encapsulated:
        _check_frames(header)
    try:
        stored = iter_pixels(header) if frames > 1 else iter([pixel_array(header, index=0)])
        for index, values in enumerate(stored):
            yield _levels(values, _frame_header(header, index), settings)
    except RuntimeError as error:  # pydicom raises it if no decoder is installed, and in other cases
        syntax = header.file_meta.TransferSyntaxUID
        if "missing dependencies" in str(error):
            raise RejectedImage(f"DICOM in {syntax.name} needs another decoder: pip install pylibjpeg[all]") from error
        raise


def _guess_syntax(header: "Dataset") -> "UID":
    """How a data set is written that does not say so, by what pydicom has found while it read it."""
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    if "PixelData" in header and header["PixelData"].is_undefined_length:
        raise RejectedImage("DICOM that is compressed and does not say how; write it again with its file meta information")
    is_implicit, is_little_endian = header.original_encoding
    if is_implicit:
        return ImplicitVRLittleEndian
    return ExplicitVRLittleEndian if is_little_endian else ExplicitVRBigEndian


def _check_frames(header: "Dataset") -> None:
    """Refuses frames beyond a budget, and JPEG and JPEG 2000 frames of another size than the DICOM header says."""
    from pydicom.encaps import generate_frames
    from pydicom.pixels.utils import get_nr_frames

    for frame in generate_frames(header.PixelData, number_of_frames=get_nr_frames(header, warn=False)):
        read_structure(frame)
        try:
            size = Image.open(io.BytesIO(frame), formats=("JPEG", "JPEG2000")).size
        except UnidentifiedImageError:  # another compression; none of them stores a size of its own
            return
        if size != (header.Columns, header.Rows):
            raise RejectedImage(
                Reason("damaged", f"a frame of {size[0]}x{size[1]} in an image of {header.Columns}x{header.Rows}")
            )


def _frame_header(header: "Dataset", index: int) -> "Dataset":
    """Copies a frame's own rescaling and window to the top of the data set, where pydicom's functions look for them."""
    groups = [*header.get("SharedFunctionalGroupsSequence", [])[:1]]
    groups += [*header.get("PerFrameFunctionalGroupsSequence", [])[index : index + 1]]
    for group in groups:
        for name in _FRAME_GROUPS:
            for item in group.get(name, [])[:1]:
                header.update(item)
    return header


def _levels(values: np.ndarray, header: "Dataset", settings: FileSettings) -> tuple[np.ndarray, str]:
    from pydicom.pixels.processing import apply_color_lut

    kind = header.PhotometricInterpretation
    if kind in _GREY:
        levels, note = _grey_levels(values, header, settings)
        return np.iinfo(levels.dtype).max - levels if kind == "MONOCHROME1" else levels, note
    by_type = replace(settings, intensity="type", window=None)
    if kind == "PALETTE COLOR":
        table = apply_color_lut(values, header)
        return as_png_pixels(table, table.dtype.itemsize * 8, by_type), ""
    if values.ndim == 3 and values.shape[-1] == 3:
        return as_png_pixels(values, header.BitsStored, by_type), ""
    raise RejectedImage(f"DICOM with the photometric interpretation {kind}")


def _grey_levels(values: np.ndarray, header: "Dataset", settings: FileSettings) -> tuple[np.ndarray, str]:
    """The levels, and a note on them."""
    from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

    if values.dtype.kind == "f" and settings.intensity != "window":
        raise RejectedImage("pixels of type float, whose range is not known; set image.intensity to window and image.window")
    rescaled = apply_modality_lut(values, header)
    if settings.intensity == "window" and settings.window:
        return apply_window(rescaled, *settings.window), ""
    if settings.intensity == "percentiles":
        return _percentile_codes(rescaled, abs(float(header.get("RescaleSlope", None) or 1))), ""
    low, high = _stored_range(header)
    if header.get("VOILUTSequence"):
        table = header.VOILUTSequence[0]
        by_table = apply_voi_lut(np.rint(rescaled).astype(np.int32), header)
        return apply_window(by_table, 0, 2 ** table.LUTDescriptor[2] - 1), ""
    if header.get("WindowCenter") is not None and header.get("WindowWidth") is not None:
        return apply_window(apply_voi_lut(rescaled, header), low, high), ""  # stretches the window over the whole range
    if header.BitsStored > 8:
        darkest, brightest = np.percentile(_without_padding(values, rescaled, header), _PERCENTILES)
        if darkest < brightest:
            return apply_window(rescaled, darkest, brightest), _NOTE
    return apply_window(rescaled, low, high), ""


def _without_padding(values: np.ndarray, rescaled: np.ndarray, header: "Dataset") -> np.ndarray:
    """The values that are pixels, not the filling around them; all of them if nothing else is left."""
    padding = header.get("PixelPaddingValue")
    pixels = rescaled[values != padding] if padding is not None else rescaled
    return pixels if pixels.size else rescaled


def _percentile_codes(rescaled: np.ndarray, slope: float) -> np.ndarray:
    if slope < 1:
        raise RejectedImage(f"values in steps of {slope:g}; set image.intensity to window and image.window")
    codes = np.rint(rescaled).astype(np.int64) + 32768
    if codes.min() < 0 or codes.max() > 65535:
        raise RejectedImage("values beyond -32768..32767; set image.intensity to window and image.window")
    return codes.astype(np.uint16)


def _stored_range(header: "Dataset") -> tuple[float, float]:
    """Smallest and largest value that the stored bits can represent, rescaled."""
    if header.get("ModalityLUTSequence"):
        return 0, 2 ** header.ModalityLUTSequence[0].LUTDescriptor[2] - 1
    lowest = -(2 ** (header.BitsStored - 1)) if header.PixelRepresentation else 0
    ends = np.array([lowest, lowest + 2**header.BitsStored - 1], np.float64)
    if header.get("RescaleSlope") is not None and header.get("RescaleIntercept") is not None:
        ends = ends * float(header.RescaleSlope) + float(header.RescaleIntercept)
    return ends.min(), ends.max()
