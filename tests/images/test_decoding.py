"""What is kept, noted and refused around the pixels; those of every format are compared in test_corpus.py."""

import io
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from corpus import GREY, HOUNSFIELD, RGB, dicom, png, save, tiff
from PIL import Image

from images.file_settings import FileSettings, Pages
from images.files.decoding import RejectedImage, normalise, note_on_suffix
from images.files.pixels import apply_window

SIZE = RGB.shape[0] * RGB.shape[1]


def settings(max_pixels: int = SIZE, pages: Pages = "first") -> FileSettings:
    return FileSettings(max_pixels=max_pixels, pages=pages, intensity="type", window=None)


@pytest.mark.parametrize(
    "file",
    [save(RGB, name) for name in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "PPM")] + [tiff(RGB, photometric="rgb"), dicom(RGB)],
)
def test_the_largest_allowed_image_is_taken_and_one_more_pixel_is_not(file: bytes) -> None:
    assert normalise(file, "", settings())[0].width == RGB.shape[1]
    with pytest.raises(RejectedImage, match=f"^30x19 is more than {SIZE - 1} pixels$"):
        normalise(file, "", settings(SIZE - 1))


def test_nothing_that_tensorflow_reads_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(*_: Any) -> None:
        raise AssertionError("was decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decode)
    for file in (save(RGB, "PNG"), save(RGB, "JPEG"), save(GREY, "JPEG", progressive=True), png(16, 2, [bytes(180)] * 3)):
        assert normalise(file, "", settings())[0].encoded is file


@pytest.mark.parametrize(
    ("path", "found", "note"),
    [
        ("a/b.jpg", "jpeg", ""),
        ("a/b.JPEG", "jpeg", ""),
        ("a/b.jpg", "png", "a PNG file with the suffix .jpg"),
        ("b.tif", "dicom", "a DICOM file with the suffix .tif"),
        ("b", "png", ""),
        ("images.tfrecord:12", "png", ""),
        ("1.2.840.113", "dicom", ""),
    ],
)
def test_only_the_suffix_of_another_format_is_noted(path: str, found: str, note: str) -> None:
    assert note_on_suffix(path, found) == note


def test_a_reason_is_one_short_printable_line() -> None:
    reason = str(RejectedImage("at <_io.BytesIO object at 0x7fda2b424720>\n and 0x7fda2b424720,\t\x00" + "x" * 300))
    assert reason.startswith("at ... and ..., ?xxx")
    assert len(reason) == 200


def test_a_window_is_mapped_as_its_formula_says() -> None:
    values = np.array([-2000, -1000, -999, 0, 399, 400, 5000, np.nan, np.inf, -np.inf])
    expected = [0, 0, 0, 182, 255, 255, 255, 0, 255, 0]  # 255 (value + 1000) / 1400
    np.testing.assert_array_equal(apply_window(values, -1000, 400), expected)
    large = np.array([2**32 - 1, 2**32 - 3], np.uint32)
    np.testing.assert_array_equal(apply_window(large, 2**32 - 3, 2**32 - 1), [255, 0])


def test_windows_and_tables_of_frames_do_not_pass_to_the_next() -> None:
    from corpus import item
    from pydicom.sequence import Sequence

    groups = Sequence([item(FrameVOILUTSequence=Sequence([item(WindowCenter=c, WindowWidth=2)])) for c in (0, 500)])
    file = dicom(np.stack([HOUNSFIELD, HOUNSFIELD]), PerFrameFunctionalGroupsSequence=groups)
    images = normalise(file, "", settings(10 * SIZE, "all"))
    assert [image.page for image in images] == [0, 1]
    for image, threshold in zip(images, (0, 500), strict=True):
        pixels = np.asarray(Image.open(io.BytesIO(image.encoded)))
        beyond = HOUNSFIELD.astype(int) - threshold
        np.testing.assert_array_equal(pixels[beyond > 0], 255)
        np.testing.assert_array_equal(pixels[beyond < -1], 0)


def test_without_pydicom_the_reason_names_the_extra() -> None:
    program = (
        "import sys; sys.modules['pydicom'] = None\n"
        "from images.files.decoding import normalise, RejectedImage\n"
        "from images.file_settings import FileSettings\n"
        f"try: normalise(bytes(128) + b'DICM' + bytes(99), '', {settings()})\n"
        "except RejectedImage as reason: print(reason)\n"
        "print([name for name in ('tensorflow', 'tfx') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["DICOM needs the extra: pip install fpn-pipeline[dicom]", "[]"]
    assert done.stderr == ""
