"""Damaged image files, as many as wanted, the same ones each time."""

import struct
from collections.abc import Iterator

import numpy as np
from corpus import CASES

# Tiny files of all formats; those that are already large in their headers are as good a start as the others.
SEEDS = [
    "jpeg", "jpeg grey", "jpeg progressive", "jpeg CMYK", "jpeg of orientation 6", "png RGB", "png palette with alpha",
    "png grey of 16 bits", "png interlaced", "png of 1 bit", "gif", "gif animated", "bmp palette", "bmp RGB", "webp",
    "webp lossless", "webp animated", "tiff LZW with a predictor", "tiff RGB in planes", "tiff in tiles", "tiff of JPEG",
    "tiff of 1 bit, fax", "tiff palette", "tiff float, deflate with a predictor", "tiff of two pages, all", "tiff zstd",
    "dicom with a window", "dicom RLE", "dicom of JPEG", "dicom of three frames, all", "dicom with a table of levels",
    "dicom palette", "pgm of 16 bits",
]  # fmt: skip
_EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def mutate(random: np.random.Generator, seeds: list[bytes]) -> bytes:
    """Cuts, flips, splices, repeats, or writes a number from the ends of the ranges where a header may have one."""
    file = bytearray(seeds[random.integers(len(seeds))])
    for _ in range(random.integers(1, 4)):
        if not file:
            break
        at = int(random.integers(len(file)))
        kind = random.integers(6)
        if kind == 0:
            del file[at:]
        elif kind == 1:
            for position in random.integers(len(file), size=random.integers(1, 9)):
                file[position] ^= 1 << int(random.integers(8))
        elif kind == 2:
            other = seeds[random.integers(len(seeds))]
            file[at:] = other[int(random.integers(len(other))) :]
        elif kind == 3:
            file[at:at] = file[at : at + int(random.integers(1, 64))]
        elif kind == 4:
            del file[at : at + int(random.integers(1, 16))]
        else:
            at = int(random.integers(min(len(file), 400)))
            number = struct.pack(">I" if random.integers(2) else "<I", _EXTREMES[random.integers(len(_EXTREMES))])
            file[at : at + 4] = number if random.integers(2) else number[:2]
    return bytes(file)


def mutated_files(count: int) -> Iterator[bytes]:
    """Damaged files in an order that does not depend on their number."""
    random = np.random.default_rng(4)
    seeds = [CASES[name].encoded for name in SEEDS]
    for _ in range(count):
        yield mutate(random, seeds)
