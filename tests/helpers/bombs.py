"""Small files that ask for much work or memory, each valid enough that a decoder begins with it."""

import io
import json
import struct
import zlib

import numpy as np
from corpus import chunk, save
from PIL import Image

from images.files.pixels import RejectedImage

_PNG = b"\x89PNG\r\n\x1a\n"
_RUN = 32767  # blocks that one code ends


def png_of_chunks(count: int, name: bytes = b"tEXt", pixels: bytes = b"") -> bytes:
    """A good PNG of 8x8 pixels, with empty chunks before its pixels."""
    good = pixels or save(Image.new("L", (8, 8)), "PNG")
    start = len(_PNG) + 25  # after the header
    return good[:start] + chunk(name, b"") * count + good[start:]


def png_of_texts(count: int, size: int) -> bytes:
    """A good PNG, with compressed texts after its pixels that each become `size` bytes."""
    good = save(Image.new("L", (8, 8)), "PNG")
    text = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(size), 9))
    return good[:-12] + text * count + good[-12:]


def png_of_one_colour(width: int, height: int, bits: int = 8, colour_type: int = 0) -> bytes:
    """A PNG whose pixels are all 0: few bytes for many pixels."""
    samples = {0: 1, 2: 3, 4: 2, 6: 4}[colour_type]
    row = bytes(1 + width * samples * bits // 8)
    packer = zlib.compressobj(1)
    packed = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    return _PNG + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def gif_of_comments(count: int) -> bytes:
    """A good GIF of one pixel, after a comment of so many blocks of one byte."""
    good = save(Image.new("P", (1, 1)), "GIF")
    start = good.index(b"\x2c")
    return good[:start] + b"\x21\xfe" + b"\1A" * count + b"\0" + good[start:]


def gif_of_frames(count: int) -> bytes:
    """A GIF of so many frames of one pixel."""
    good = save(Image.new("P", (1, 1)), "GIF")
    start = good.index(b"\x2c")
    return good[:start] + good[start:-1] * count + good[-1:]


def segment(code: int, data: bytes) -> bytes:
    return bytes([0xFF, code]) + struct.pack(">H", len(data) + 2) + data


def jpeg_of_scans(width: int, height: int, scans: int, refine: bool = False, between: bytes = b"") -> bytes:
    """A grey progressive JPEG: its first scan has all that there is to see, the others pass over all blocks for nothing."""
    blocks = -(-width // 8) * -(-height // 8)
    parts = [
        b"\xff\xd8",
        segment(0xDB, b"\0" + b"\1" * 64),
        segment(0xC2, struct.pack(">BHHB", 8, height, width, 1) + b"\1\x11\0"),
        segment(0xC4, b"\x00" + b"\1" + bytes(15) + b"\0"),  # one code, for "as the block before"
        segment(0xDA, b"\1\1\0\0\0\0") + bytes(-(-blocks // 8)),
        segment(0xC4, b"\x10" + b"\1" + bytes(15) + b"\xe0"),  # one code, for "and 2^14 + 14 bits more blocks end here"
    ]
    bits = ("0" + "1" * 14) * -(-blocks // _RUN)
    bits += "1" * (-len(bits) % 8)
    data = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    scan = between + segment(0xDA, b"\1\1\0\1\x3f" + (b"\x10" if refine else b"\0")) + data
    return b"".join(parts) + scan * (scans - 1) + b"\xff\xd9"


def jpeg_of_segments(count: int) -> bytes:
    """A good JPEG, after so many empty segments."""
    good = save(Image.new("L", (8, 8)), "JPEG")
    return good[:2] + segment(0xE5, b"") * count + good[2:]


def tags_that_share(count: int, size: int) -> bytes:
    """A TIFF structure whose tags all have the same `size` bytes as their value."""
    end = 8 + 2 + 12 * count + 4
    entries = b"".join(struct.pack("<HHII", number + 1000, 7, size, end) for number in range(count))
    return b"II*\0" + struct.pack("<IH", 8, count) + entries + bytes(4) + bytes(size)


def jpeg_of_exif(count: int, size: int) -> bytes:
    """A good JPEG with an Exif block as above, in as many segments as it takes."""
    good = save(Image.new("L", (8, 8)), "JPEG")
    block = tags_that_share(count, size)
    parts = (block[start : start + 60_000] for start in range(0, len(block), 60_000))
    return good[:2] + b"".join(segment(0xE1, b"Exif\0\0" + part) for part in parts) + good[20:]


def png_of_exif(count: int, size: int) -> bytes:
    good = save(Image.new("L", (8, 8)), "PNG")
    return good[:33] + chunk(b"eXIf", tags_that_share(count, size)) + good[33:]


def tiff_of_strips(count: int) -> bytes:
    """A grey TIFF of one pixel in a row, with a strip for each row."""
    tags = [(256, 3, 1, 1), (257, 4, 1, count), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
    end = 8 + 2 + 12 * 9 + 4
    tags += [(273, 4, count, end), (277, 3, 1, 1), (278, 4, 1, 1), (279, 4, count, end + 4 * count)]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    offsets = np.full(count, end, "<u4").tobytes()
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + offsets + np.ones(count, "<u4").tobytes()


def tiff_of_pages_in_a_circle() -> bytes:
    """A TIFF whose only page is followed by itself."""
    file = bytearray(tiff_of_strips(1))
    file[8 + 2 + 12 * 9 : 8 + 2 + 12 * 9 + 4] = struct.pack("<I", 8)
    return bytes(file)


def bmp_of_runs(count: int, side: int = 5000) -> bytes:
    """A BMP of `side` x `side` pixels in runs, with so many ends of rows before any pixel: Pillow takes a step for each."""
    header = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, 2 * count, 1, 1, 256, 0) + bytes(1024)
    return b"BM" + struct.pack("<IHHI", 14 + len(header) + 2 * count, 0, 0, 14 + len(header)) + header + bytes(2 * count)


def ppm_as_text(side: int) -> bytes:
    """A grey picture whose pixels are numbers in decimals: Pillow takes steps in Python for each."""
    return b"P2\n%d %d\n255\n" % (side, side) + b"0 " * (side * side)


def ppm_of_blanks(count: int) -> bytes:
    """A grey picture with so many blanks before its size: Pillow reads them one by one."""
    return b"P5" + b" " * count + b"1 1 255 \0"


def webp_of_frames(count: int) -> bytes:
    frames = [Image.new("L", (8, 8), shade % 256) for shade in range(count)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    return buffer.getvalue()


def nested_json(depth: int) -> bytes:
    return b'{"instances": ' + b"[" * depth + b"]" * depth + b"}"


def long_number(digits: int) -> bytes:
    return b'{"instances": [' + b"9" * digits + b"]}"


def many_instances(count: int) -> bytes:
    return json.dumps({"instances": [{"b64": "YQ=="}] * count}).encode()


def example_of_features(count: int) -> bytes:
    """A serialised tf.Example of so many empty features of the same name."""
    features = b"\x0a\x03\x0a\x01a" * count
    size = len(features)
    varint = b""
    while size > 0x7F:
        varint += bytes([size & 0x7F | 0x80])
        size >>= 7
    return b"\x0a" + varint + bytes([size]) + features


def gzip_of_zeros(megabytes: int) -> bytes:
    """Zeros that gzip makes about a thousand times smaller."""
    packer = zlib.compressobj(9, wbits=31)
    return (packer.compress(bytes(50_000_000)) + packer.flush()) * (megabytes // 50)


def png_in_chunks(file: bytes, size: int) -> bytes:
    """A PNG of Pillow's with its pixels in chunks of `size` bytes."""
    start, end = file.index(b"IDAT") - 4, file.index(b"IEND") - 4
    position, packed = start, b""
    while position < end:
        (length,) = struct.unpack_from(">I", file, position)
        packed += file[position + 8 : position + 8 + length]
        position += 12 + length
    chunks = [chunk(b"IDAT", packed[at : at + size]) for at in range(0, len(packed), size)]
    return file[:start] + b"".join(chunks) + file[end:]


def never_end() -> None:
    """A decoder that a file has brought into a circle."""
    while True:
        pass


def reject(reason: str) -> None:
    raise RejectedImage(reason)
