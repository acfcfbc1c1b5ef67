"""Every kind of file and defect: the right pixels, or the right reason, in bounded time."""

import io
import sys
import time
import tracemalloc

import numpy as np
import pytest
import tensorflow as tf
from corpus import CASES, GREY, Case, image_of, levels, settings_of

from images.files.decoding import ImageFile, RejectedImage, normalise
from models.decoding import decode_image

LONGEST = 10.0  # seconds of processor time a file; all take milliseconds
LARGEST = 40e6  # bytes that one of these small files may take in Python, buffers of NumPy and Pillow's encoder included


def ingest(case: Case) -> list[tuple[ImageFile, np.ndarray]]:
    """Images with their pixels, as ingestion takes them; RejectedImage as it sets them aside."""
    images = normalise(case.encoded, case.name, settings_of(case))
    try:
        return [(image, decode_image(tf.constant(image.encoded)).numpy()) for image in images]
    except tf.errors.InvalidArgumentError as error:
        raise RejectedImage(f"damaged: {error.message}") from error


@pytest.mark.case(14, 18, 23, 24, 25)
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.pages])
def test_good_files_have_the_pixels_of_the_reference_decoder(name: str) -> None:
    case = CASES[name]
    started = time.process_time()
    images = ingest(case)
    assert time.process_time() - started < LONGEST
    assert len(images) == len(case.pages)
    assert tuple((number, str(reason)) for number, reason in images[-1][0].lost) == case.lost
    numbers = [number for number in range(len(case.pages) + len(case.lost)) if number not in dict(case.lost)]
    for number, (image, pixels), expected in zip(numbers, images, case.pages, strict=True):
        assert (image.height, image.width, image.channels) == pixels.shape == expected.shape
        np.testing.assert_allclose(pixels, expected, atol=case.tolerance + 1e-3)
        assert (image.page, image.note) == (number, case.note)
        assert image.original_format == name.split()[0].replace("pgm", "ppm")
        if case.kept is not None:
            assert (image.encoded == case.encoded) == case.kept
        if not case.kept:
            assert image.format == "png"


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case.pages])
def test_other_files_are_set_aside_with_the_reason(name: str) -> None:
    case = CASES[name]
    started = time.process_time()
    tracemalloc.start()
    try:
        with pytest.raises(RejectedImage) as caught:
            ingest(case)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.process_time() - started < LONGEST
    assert peak < LARGEST
    reason = str(caught.value)
    assert case.reason in reason
    assert len(reason) <= 200
    assert reason.isprintable()
    assert " 0x" not in reason


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)


@pytest.mark.case(23)
@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (b"%PDF-1.7\n", "PDF is not read; convert it to PNG or JPEG"),
        (b"\xff\x0a" + bytes(50), "JPEG XL is not read; convert it to PNG or JPEG"),
        (b"8BPS\0\1" + bytes(50), "Photoshop is not read; convert it to PNG or JPEG"),
    ],
)
def test_what_nothing_here_reads_is_named_with_the_cure(file: bytes, reason: str) -> None:
    with pytest.raises(RejectedImage, match=reason):
        normalise(file, "", settings_of(Case(file)))


def test_heic_is_read_where_its_package_is_and_else_named(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(Case(b""))
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "pillow_heif", None)
        with pytest.raises(
            RejectedImage, match=r"^HEIC can't be read here; convert it to PNG or JPEG, or install pillow-heif$"
        ):
            normalise(HEIC, "a.heic", settings)
    pillow_heif = pytest.importorskip("pillow_heif")
    buffer = io.BytesIO()
    pillow_heif.from_pillow(image_of(GREY)).save(buffer, quality=-1)
    (image,) = normalise(buffer.getvalue(), "a.heic", settings)
    assert (image.original_format, image.note) == ("heic", "")
    np.testing.assert_array_equal(decode_image(tf.constant(image.encoded)), levels(GREY))


def test_the_corpus_covers_the_formats() -> None:
    assert len(CASES) >= 100
    formats = {"jpeg", "png", "tiff", "webp", "gif", "bmp", "dicom", "avif", "jpeg2000", "ppm"}
    assert formats <= {name.split()[0] for name, case in CASES.items() if case.pages}
