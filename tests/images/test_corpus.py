"""Every kind of file and defect: the right pixels, or the right reason, in bounded time."""

import time
import tracemalloc

import numpy as np
import pytest
import tensorflow as tf
from corpus import CASES, Case, settings_of

from images.files.decoding import ImageFile, RejectedImage, normalise
from models.preprocessing import decode_image

LONGEST = 10.0  # seconds of processor time a file; all take milliseconds
LARGEST = 40e6  # bytes that one of these small files may take in Python, buffers of NumPy and Pillow's encoder included


def ingest(case: Case) -> list[tuple[ImageFile, np.ndarray]]:
    """Images with their pixels, as ingestion takes them; RejectedImage as it sets them aside."""
    images = normalise(case.encoded, case.name, settings_of(case))
    try:
        return [(image, decode_image(tf.constant(image.encoded)).numpy()) for image in images]
    except tf.errors.InvalidArgumentError as error:
        raise RejectedImage(f"damaged: {error.message}") from error


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.pages])
def test_good_files_have_the_pixels_of_the_reference_decoder(name: str) -> None:
    case = CASES[name]
    started = time.process_time()
    images = ingest(case)
    assert time.process_time() - started < LONGEST
    assert len(images) == len(case.pages)
    for number, ((image, pixels), expected) in enumerate(zip(images, case.pages, strict=True)):
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


def test_the_corpus_covers_the_formats() -> None:
    assert len(CASES) >= 100
    formats = {"jpeg", "png", "tiff", "webp", "gif", "bmp", "dicom"}
    assert formats <= {name.split()[0] for name, case in CASES.items() if case.pages}
