"""What is done to an image file before TensorFlow reads it, and which files are refused."""

import io
import struct
import zlib
from typing import Any, NamedTuple

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from components.image_example_gen.decoding import ImageFile, RejectedImage, check_image

HEIGHT, WIDTH = 19, 30
MAX_PIXELS = 10_000


def gradient() -> Image.Image:
    """An RGB picture without two equal rows or columns, so that every rotation and mix-up of channels shows."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return Image.fromarray(np.stack([rows * 13, columns * 8, (rows * columns) % 256], axis=-1).astype(np.uint8))


def with_alpha(mode: str) -> Image.Image:
    image = gradient().convert(mode)
    image.putalpha(Image.fromarray((np.mgrid[:HEIGHT, :WIDTH][1] * 5 + 40).astype(np.uint8)))
    return image


def grey_16_bit() -> np.ndarray:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return (rows * 3400 + columns * 37).astype(np.uint16)


def save(image: Image.Image, file_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def png(depth: int, colour_type: int, rows: list[bytes], width: int) -> bytes:
    """A PNG of a kind that Pillow does not write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, len(rows), depth, colour_type, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def bmp(bits: int, rows: list[bytes], width: int, top_down: bool = False, os2: bool = False) -> bytes:
    """A BMP of a kind that Pillow does not write."""
    height = len(rows)
    body = b"".join(row + bytes(-len(row) % 4) for row in rows)
    if os2:
        header = struct.pack("<IHHHH", 12, width, height, 1, bits)
    else:
        header = struct.pack("<IiiHHIIiiII", 40, width, -height if top_down else height, 1, bits, 0, len(body), 1, 1, 0, 0)
    return b"BM" + struct.pack("<IHHI", 14 + len(header) + len(body), 0, 0, 14 + len(header)) + header + body


def packed_grey(depth: int) -> bytes:
    pixels = np.mgrid[:HEIGHT, :WIDTH].sum(axis=0) % 2**depth
    bits = (pixels[..., np.newaxis] >> np.arange(depth - 1, -1, -1)) & 1
    return png(depth, 0, [np.packbits(row).tobytes() for row in bits.reshape(HEIGHT, -1)], WIDTH)


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def bmp_rows(bits: int) -> list[bytes]:
    return [bytes((row * 31 + column * 7) % 256 for column in range(WIDTH * bits // 8)) for row in range(HEIGHT)]


class Case(NamedTuple):
    encoded: bytes
    kept: bool | None  # None: as it may be
    channels: int
    lossless: bool = True
    shape: tuple[int, int] = (HEIGHT, WIDTH)


RGB = gradient()
CASES = {
    "png 1": Case(save(RGB.convert("1"), "PNG"), True, 1),
    "png L": Case(save(RGB.convert("L"), "PNG"), True, 1),
    "png L with a transparent value": Case(save(RGB.convert("L"), "PNG", transparency=3), True, 1),
    "png LA": Case(save(with_alpha("L"), "PNG"), True, 2),
    "png P": Case(save(RGB.quantize(200), "PNG"), True, 3),
    "png P of 1 bit": Case(save(RGB.quantize(2), "PNG", bits=1), True, 3),
    "png P of 4 bits": Case(save(RGB.quantize(16), "PNG", bits=4), True, 3),
    "png P with a transparent colour": Case(save(RGB.quantize(16), "PNG", transparency=3), True, 4),
    "png P with alpha": Case(save(RGB.quantize(16), "PNG", transparency=bytes(range(0, 256, 16))), True, 4),
    "png RGB": Case(save(RGB, "PNG"), True, 3),
    "png RGB with a transparent colour": Case(save(RGB, "PNG", transparency=(0, 0, 0)), True, 3),
    "png RGBA": Case(save(with_alpha("RGB"), "PNG"), True, 4),
    "png grey 2 bit": Case(packed_grey(2), True, 1),
    "png grey 4 bit": Case(packed_grey(4), True, 1),
    "png grey 16 bit": Case(save(Image.fromarray(grey_16_bit()), "PNG"), True, 1),
    "png RGB 16 bit": Case(png(16, 2, bmp_rows(48), WIDTH), True, 3),
    "png RGB rotated": Case(save(RGB, "PNG", exif=exif(6)), False, 3, shape=(WIDTH, HEIGHT)),
    "png animated": Case(save(RGB, "PNG", save_all=True, append_images=[RGB.rotate(180)]), True, 3),
    "jpeg L": Case(save(RGB.convert("L"), "JPEG"), True, 1, lossless=False),
    "jpeg RGB": Case(save(RGB, "JPEG"), True, 3, lossless=False),
    "jpeg RGB progressive": Case(save(RGB, "JPEG", progressive=True), True, 3, lossless=False),
    "jpeg RGB upright": Case(save(RGB, "JPEG", exif=exif(1)), True, 3, lossless=False),
    "jpeg CMYK": Case(save(RGB.convert("CMYK"), "JPEG"), False, 3),
    **{
        f"jpeg orientation {value}": Case(
            save(RGB, "JPEG", exif=exif(value)), False, 3, shape=(WIDTH, HEIGHT) if value > 4 else (HEIGHT, WIDTH)
        )
        for value in range(2, 9)
    },
    "jpeg L rotated": Case(save(RGB.convert("L"), "JPEG", exif=exif(6)), False, 1, shape=(WIDTH, HEIGHT)),
    "mpo": Case(save(RGB, "MPO", save_all=True, append_images=[RGB.rotate(180)]), False, 3),
    "bmp 1": Case(save(RGB.convert("1"), "BMP"), False, 1),
    "bmp P": Case(save(RGB.quantize(16), "BMP"), False, 3),
    "bmp L": Case(save(RGB.convert("L"), "BMP"), False, 1),
    "bmp RGB": Case(save(RGB, "BMP"), None, 3),
    "bmp RGB top down": Case(bmp(24, bmp_rows(24), WIDTH, top_down=True), None, 3),
    "bmp 32 bit": Case(save(with_alpha("RGB"), "BMP"), False, 3),
    "bmp 16 bit": Case(bmp(16, bmp_rows(16), WIDTH), False, 3),
    "bmp of OS/2": Case(bmp(24, bmp_rows(24), WIDTH, os2=True), False, 3),
    "gif P": Case(save(RGB.quantize(16), "GIF"), None, 3),
    "gif L": Case(save(RGB.convert("L"), "GIF"), None, 3),
    "gif animated": Case(save(RGB.quantize(16), "GIF", save_all=True, append_images=[RGB.rotate(180)]), None, 3),
    "tiff L": Case(save(RGB.convert("L"), "TIFF"), False, 1),
    "tiff RGB": Case(save(RGB, "TIFF"), False, 3),
    "tiff RGBA": Case(save(with_alpha("RGB"), "TIFF"), False, 4),
    "tiff CMYK": Case(save(RGB.convert("CMYK"), "TIFF"), False, 3),
    "tiff 16 bit": Case(save(Image.fromarray(grey_16_bit()), "TIFF"), False, 1),
    "tiff rotated": Case(save(RGB, "TIFF", tiffinfo={0x0112: 6}), False, 3, shape=(WIDTH, HEIGHT)),
    "webp": Case(save(RGB, "WEBP", lossless=True), False, 3),
    "webp with alpha": Case(save(with_alpha("RGB"), "WEBP", lossless=True, exact=True), False, 4),
    "ppm": Case(save(RGB, "PPM"), False, 3),
}
GREY_16_BIT = [name for name in CASES if name.endswith(("png grey 16 bit", "tiff 16 bit"))]


def by_tensorflow(image: ImageFile, dtype: tf.DType = tf.uint8) -> np.ndarray:
    return tf.io.decode_image(image.encoded, dtype=dtype, expand_animations=False).numpy()


def by_pillow(encoded: bytes, channels: int) -> np.ndarray:
    """Pixels of the upright picture, [height, width, channels]."""
    with Image.open(io.BytesIO(encoded)) as image:
        image.load()  # turns a TIFF upright
        orientation = image.getexif().get(0x0112, 1)
        mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels]
        pixels = np.asarray(image.convert(mode)).reshape(image.height, image.width, channels)
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.kept is not None])
def test_bytes_are_kept_where_tensorflow_reads_them_as_pillow_does_and_are_png_elsewhere(name: str) -> None:
    case = CASES[name]
    image = check_image(case.encoded, MAX_PIXELS)
    assert (image.encoded == case.encoded) == case.kept
    assert image.format == (name.split()[0] if case.kept else "png")


@pytest.mark.parametrize("name", CASES)
def test_the_format_is_that_of_the_bytes(name: str) -> None:
    image = check_image(CASES[name].encoded, MAX_PIXELS)
    assert image.format in ("png", "jpeg", "bmp", "gif")
    with Image.open(io.BytesIO(image.encoded)) as written:
        assert written.format == image.format.upper()


@pytest.mark.parametrize("name", CASES)
def test_tensorflow_reads_the_shape_that_is_reported(name: str) -> None:
    case = CASES[name]
    image = check_image(case.encoded, MAX_PIXELS)
    assert (image.height, image.width, image.channels) == (*case.shape, case.channels)
    assert by_tensorflow(image).shape == (*case.shape, case.channels)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.lossless and name not in GREY_16_BIT])
def test_tensorflow_reads_the_pixels_that_pillow_reads(name: str) -> None:
    case = CASES[name]
    pixels = by_tensorflow(check_image(case.encoded, MAX_PIXELS))
    # The 16 bits of a channel are cut by Pillow and rounded by TensorFlow.
    tolerance = 1 if "16 bit" in name else 0
    np.testing.assert_allclose(pixels.astype(int), by_pillow(case.encoded, case.channels).astype(int), atol=tolerance)


@pytest.mark.parametrize("name", GREY_16_BIT)
def test_grey_of_16_bit_keeps_every_bit(name: str) -> None:
    image = check_image(CASES[name].encoded, MAX_PIXELS)
    np.testing.assert_array_equal(by_tensorflow(image, tf.uint16)[..., 0], grey_16_bit())


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case.lossless])
def test_tensorflow_reads_jpeg_nearly_as_pillow_does(name: str) -> None:
    case = CASES[name]
    difference = by_tensorflow(check_image(case.encoded, MAX_PIXELS)) - by_pillow(case.encoded, case.channels).astype(float)
    assert np.abs(difference).mean() < 3


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if name not in GREY_16_BIT])
def test_mean_and_std_are_those_of_the_grey_level(name: str) -> None:
    case = CASES[name]
    image = check_image(case.encoded, MAX_PIXELS)
    pixels = by_pillow(case.encoded, case.channels)
    colours = pixels[..., : 1 if case.channels < 3 else 3].astype(float)
    grey = colours[..., 0] if case.channels < 3 else colours @ [0.299, 0.587, 0.114]
    assert image.mean == pytest.approx(grey.mean() / 255, abs=1 / 255)
    assert image.std == pytest.approx(grey.std() / 255, abs=1 / 255)


@pytest.mark.parametrize("name", GREY_16_BIT)
def test_mean_and_std_of_16_bit_are_exact(name: str) -> None:
    image = check_image(CASES[name].encoded, MAX_PIXELS)
    assert image.mean == pytest.approx(grey_16_bit().mean() / 65535)
    assert image.std == pytest.approx(grey_16_bit().std() / 65535)


@pytest.mark.parametrize(("value", "mean"), [(0, 0.0), (255, 1.0)])
def test_mean_reaches_from_nought_to_one_and_an_even_picture_has_no_deviation(value: int, mean: float) -> None:
    image = check_image(save(Image.new("L", (5, 4), value), "PNG"), MAX_PIXELS)
    assert image.mean == pytest.approx(mean)
    assert image.std == pytest.approx(0)


def test_std_reaches_a_half() -> None:
    image = check_image(save(Image.fromarray(np.tile([0, 255], (4, 4)).astype(np.uint8)), "PNG"), MAX_PIXELS)
    assert (image.mean, image.std) == (pytest.approx(0.5), pytest.approx(0.5))


# Refusals


def reason(encoded: bytes, max_pixels: int = MAX_PIXELS) -> str:
    with pytest.raises(RejectedImage) as caught:
        check_image(encoded, max_pixels)
    return str(caught.value)


def test_an_empty_file_is_refused() -> None:
    assert reason(b"") == "empty file"


@pytest.mark.parametrize("encoded", [b"just some text\n", b"\0" * 100, b"<html><body>404</body></html>"])
def test_a_file_that_is_no_image_is_refused(encoded: bytes) -> None:
    assert reason(encoded) == "not an image"


@pytest.mark.parametrize(
    "name", ["png RGB", "png P", "png grey 16 bit", "jpeg RGB", "jpeg RGB progressive", "gif P", "bmp RGB"]
)
def test_half_a_file_is_refused(name: str) -> None:
    encoded = CASES[name].encoded
    assert reason(encoded[: len(encoded) // 2]).startswith("damaged: ")


@pytest.mark.parametrize("cut", [1, 4, 8, 12, 16, 20])
@pytest.mark.parametrize("name", ["png RGB", "png P", "jpeg RGB", "jpeg RGB progressive", "gif P", "gif animated", "bmp RGB"])
def test_a_file_that_lacks_its_last_bytes_is_refused_or_readable(name: str, cut: int) -> None:
    try:
        image = check_image(CASES[name].encoded[:-cut], MAX_PIXELS)
    except RejectedImage:
        return
    assert by_tensorflow(image).shape == (image.height, image.width, image.channels)


@pytest.mark.parametrize("name", ["png RGB", "png P", "jpeg RGB", "gif P", "bmp RGB"])
def test_a_file_with_a_wrong_byte_is_refused_or_readable(name: str) -> None:
    encoded = CASES[name].encoded
    random = np.random.default_rng(0)
    for position in random.integers(len(encoded), size=200):
        damaged = bytearray(encoded)
        damaged[position] ^= int(random.integers(1, 256))
        try:
            image = check_image(bytes(damaged), MAX_PIXELS)
        except RejectedImage:
            continue
        assert by_tensorflow(image).shape == (image.height, image.width, image.channels), f"byte {position}"


@pytest.mark.parametrize("max_pixels", [MAX_PIXELS, 100_000_000])
def test_a_bomb_is_refused_by_its_header_alone(max_pixels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = png(8, 2, [b""], 60_000)
    bomb = bomb[:16] + struct.pack(">II", 60_000, 60_000) + bomb[24:]
    bomb = bomb[:29] + struct.pack(">I", zlib.crc32(bomb[12:29])) + bomb[33:]

    def decode(*_: Any) -> None:
        raise AssertionError("was decoded")

    monkeypatch.setattr(Image.Image, "load", decode)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decode)
    assert f"more than {max_pixels} pixels" in reason(bomb, max_pixels)


def test_the_largest_allowed_image_is_taken_and_one_more_pixel_is_not() -> None:
    assert check_image(CASES["png RGB"].encoded, HEIGHT * WIDTH).width == WIDTH
    assert reason(CASES["png RGB"].encoded, HEIGHT * WIDTH - 1) == f"{WIDTH}x{HEIGHT} is more than {HEIGHT * WIDTH - 1} pixels"


@pytest.mark.parametrize(("dtype", "mode"), [(np.float32, "F"), (np.int32, "I")])
def test_pixels_of_32_bit_are_refused(dtype: type, mode: str) -> None:
    encoded = save(Image.fromarray(np.full((HEIGHT, WIDTH), 0.5, dtype)), "TIFF")
    assert f"pixels of type {mode} (32 bit)" in reason(encoded)
