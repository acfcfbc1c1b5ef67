"""A file that asks for much work is refused before a decoder sees it, or its decoder is ended; real files are taken."""

import contextlib
import io
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import bombs
import numpy as np
import pytest
from corpus import chunk, dicom, save, tiff
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit

from images.file_settings import FileSettings
from images.files.decoding import RejectedImage, normalise
from images.files.separate_process import call_apart
from images.files.structure.budget import MOST_SCANS
from images.files.structure.reading import read_structure

SETTINGS = FileSettings(max_pixels=100_000_000, pages="all", intensity="type", window=None)
NOISE = np.random.default_rng(3).integers(0, 256, (700, 900, 3), np.uint8)


@pytest.mark.parametrize(
    ("bomb", "reason"),
    [
        (lambda: bombs.gif_of_comments(4_000_000), "more than 10,000 blocks of comments and the like in a GIF"),
        (lambda: bombs.jpeg_of_scans(5000, 5000, 2000), "JPEG of 2,000 scans; at most 100 are read"),
        (lambda: bombs.jpeg_of_scans(9000, 9000, 50), "JPEG of 50 scans of 81,000,000 pixels"),
        (lambda: bombs.png_of_chunks(950_000), "more than 21,132 PNG chunks"),
        (lambda: bombs.png_of_texts(900, 8_000_000), "texts and profiles of more than 64,000,000 bytes in a PNG"),
        (lambda: bombs.jpeg_of_segments(2_000_000), "more than 10,000 JPEG segments"),
        (lambda: b"\xff\xd8\xff\xe5\0\2" + bytes(8_000_000), "more than 10,000 bytes between JPEG segments"),
        (lambda: b"\xff\xd8" + b"\xff" * 8_000_000, "more than 10,000 bytes between JPEG segments"),
        (
            lambda: bombs.jpeg_of_scans(16, 16, 3, between=bombs.segment(0xE5, b"") * 20_000),
            "more than 10,000 JPEG segments",
        ),
        (lambda: bombs.jpeg_of_exif(9000, 8_000_000), "Exif tags with 72,000,000,000 bytes of values in 8,108,014 bytes"),
        (lambda: bombs.tags_that_share(9000, 8_000_000), "TIFF tags with 72,000,000,000 bytes of values"),
        (lambda: bombs.tiff_of_strips(1_000_000), "more than 100,000 strips or tiles in a page of a TIFF"),
    ],
)
def test_a_bomb_is_refused_by_name_in_no_time(bomb: Callable[[], bytes], reason: str) -> None:
    file = bomb()
    started = time.process_time()
    with pytest.raises(RejectedImage) as refused:
        normalise(file, "", SETTINGS)
    assert time.process_time() - started < 1
    assert str(refused.value).startswith(f"too costly to decode: {reason}")
    assert refused.value.kind == "too costly to decode"


@pytest.mark.parametrize(
    "bomb",
    [
        lambda: bombs.gif_of_frames(100_000),
        lambda: bombs.png_of_exif(9000, 8_000_000),
        lambda: bombs.webp_of_frames(300),
        lambda: bombs.jpeg_of_scans(600, 600, MOST_SCANS, refine=True),
    ],
)
def test_what_looks_like_a_bomb_and_costs_little_is_taken(bomb: Callable[[], bytes]) -> None:
    file = bomb()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    (image,) = normalise(file, "", SETTINGS)
    assert time.process_time() - started < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kilobytes
    assert image.width * image.height > 0


@pytest.mark.parametrize(
    "bomb",
    [lambda: bombs.bmp_of_runs(100_000, side=20), lambda: bombs.ppm_as_text(20), lambda: bombs.ppm_of_blanks(100_000)],
)
def test_what_takes_steps_in_python_is_decoded_in_another_process(bomb: Callable[[], bytes]) -> None:
    file = bomb()
    assert read_structure(file).is_slow
    started = time.process_time()
    with contextlib.suppress(RejectedImage):  # Pillow finds damage in some
        assert normalise(file, "", SETTINGS)[0].height <= 20
    assert time.process_time() - started < 0.1


def test_a_bomb_inside_of_a_dicom_file_is_refused() -> None:
    file = dicom(np.zeros((64, 64), np.uint8), JPEGBaseline8Bit, PixelData=encapsulate([bombs.jpeg_of_scans(64, 64, 2000)]))
    with pytest.raises(RejectedImage, match=r"JPEG of 2,000 scans; at most 100 are read"):
        normalise(file, "", SETTINGS)


def test_pages_in_a_circle_end() -> None:
    with pytest.raises(RejectedImage, match="the pages lead back to an earlier one"):
        normalise(bombs.tiff_of_pages_in_a_circle(), "", SETTINGS)


def test_a_decoder_without_end_is_ended_and_the_next_file_is_read() -> None:
    for _ in range(2):
        with pytest.raises(RejectedImage, match=r"^too costly to decode: it takes more than 0.5 s$"):
            call_apart(bombs.never_end, seconds=0.5)
    with pytest.raises(RejectedImage, match="the decoder does not survive it"):
        call_apart(os._exit, 3)
    with pytest.raises(RejectedImage, match=r"^not an image$"):
        call_apart(bombs.reject, "not an image")
    assert call_apart(sum, [1, 2]) == 3


def test_the_other_process_ends_with_the_first() -> None:
    program = (
        "import sys\nfrom images.files import separate_process as apart\n"
        "assert apart.call_apart(sum, [1]) == 1\nprint(apart._process.pid, 'tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    process, loaded = done.stdout.split()
    until = time.monotonic() + 10
    while os.path.exists(f"/proc/{process}") and time.monotonic() < until:
        time.sleep(0.05)
    assert not os.path.exists(f"/proc/{process}")
    assert loaded == "False"


# Real files.


def real_files() -> dict[str, bytes]:
    """Files that have much of what is counted, as encoders write them."""
    photo = Image.fromarray(NOISE)
    profile = np.random.default_rng(1).bytes(50_000) * 10
    tags = Image.Exif()
    for number in range(200):
        tags[40_000 + number] = "x" * 200
    return {
        "progressive JPEG": save(photo, "JPEG", progressive=True, quality=95),
        "progressive JPEG in grey": save(photo.convert("L"), "JPEG", progressive=True),
        "JPEG with restarts": save(photo, "JPEG", restart_marker_blocks=1),
        "JPEG with a profile and Exif": save(photo, "JPEG", icc_profile=profile, exif=tags),
        "JPEG with another after it": save(photo, "JPEG") + save(photo, "JPEG", progressive=True) * 30,
        "PNG with chunks of 300 bytes": bombs.png_in_chunks(save(photo, "PNG"), 300),
        "PNG with a profile": save(photo, "PNG", icc_profile=profile),
        "GIF": save(photo.quantize(), "GIF", comment=b"x" * 20_000),
        "TIFF of a strip for each row": tiff(np.tile(NOISE[..., 0], (20, 1)), rowsperstrip=1),
        "TIFF of 300 pages": tiff(*[NOISE[:30, :30, 0]] * 300),
        "TIFF in tiles, deflated": tiff(NOISE, tile=(16, 16), compression="zlib"),
        "PGM with a remark": b"P5 # a remark\n# and another\n30 30\n255\n" + NOISE[:30, :30, 0].tobytes(),
        "WebP": save(photo, "WEBP"),
        "BMP": save(photo, "BMP"),
    }


@pytest.mark.parametrize(("name", "file"), real_files().items(), ids=real_files())
def test_a_real_file_is_within_the_budget(name: str, file: bytes) -> None:
    read_structure(file)
    assert normalise(file, "", SETTINGS)
    assert read_structure(file).is_slow == (name == "TIFF of a strip for each row")


def test_scans_and_sizes_are_those_of_the_first_image() -> None:
    first, second = Image.fromarray(NOISE), Image.fromarray(NOISE[:100])
    found = read_structure(save(first, "JPEG", progressive=True) + save(second, "JPEG", progressive=True))
    assert (found.format, found.width, found.height) == ("jpeg", 900, 700)
    assert 6 <= found.scans <= 10
    assert read_structure(save(first, "JPEG")).scans == 1
    for kind in ("PNG", "GIF", "BMP"):
        image = first.quantize() if kind == "GIF" else first
        assert read_structure(save(image, kind)).pixels == 900 * 700


def test_a_picture_within_a_text_of_a_png_is_not_counted_as_its_chunks() -> None:
    good = save(Image.fromarray(NOISE), "PNG")
    file = good[:33] + chunk(b"tEXt", b"a\0" + bombs.png_of_chunks(50_000)) + good[33:]
    assert normalise(file, "", SETTINGS)[0].encoded == file
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(file))), NOISE)
