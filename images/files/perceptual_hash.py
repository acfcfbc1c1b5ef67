"""Hashes of 64 bits that say what an image looks like, and the search for those that differ in a few bits."""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from PIL import Image
from scipy import fft

PLAIN: Final = 0  # the hash of all images that have too little in them to compare; no other image has it

_SIDE: Final = 32  # pixels, of what is transformed
_LOW: Final = 8  # frequencies in each direction
_BITS: Final = 64
_LEAST_RANGE: Final = 8  # grey levels of 256 between the darkest and the brightest pixel of an image that is not plain
_LEAST_BITS: Final = 8  # a flat image and a plain gradient set one bit or two, a picture about half of them
_COMPARISONS: Final = 2_000_000_000  # largest number in one search
_LEAST_WINDOW: Final = 50
_SORTING: Final = 30  # comparisons that take as long as one hash does in the sorting of a pass


def perceptual_hashes(images: np.ndarray | Sequence[np.ndarray]) -> list[int]:
    """The signs of the lowest frequencies against their median: 64 bits, of which half are set.

    The grey image of 32x32 pixels is transformed by a discrete cosine transform of type II; the 8x8 lowest frequencies that
    are above their median are ones, as `imagehash.phash` has them. Re-encoding, resizing and slight changes of brightness
    leave all but a few bits as they are. The number of bits in which two hashes differ is even in nearly all cases.

    Args:
      images: of any sizes, each uint8 [height, width] or [height, width, 1 to 4]: grey, grey with alpha, RGB or RGBA; alpha
        does not count.

    Returns:
      0 to 2^64 - 1 each; `PLAIN` for an image with too little in it to compare, such as one of a single colour.
    """
    if not len(images):
        return []
    grey = np.stack([_small_grey(pixels) for pixels in images])
    frequencies = fft.dctn(grey.astype(np.float64), axes=(1, 2))[:, :_LOW, :_LOW].reshape(len(images), _BITS)
    bits = frequencies > np.median(frequencies, axis=1, keepdims=True)
    hashes = np.packbits(bits, axis=1).view(">u8")[:, 0].astype(np.uint64)
    contrast = grey.max(axis=(1, 2)).astype(int) - grey.min(axis=(1, 2))
    plain = (contrast < _LEAST_RANGE) | (bits.sum(axis=1) < _LEAST_BITS)
    return np.where(plain, np.uint64(PLAIN), hashes).tolist()


def _small_grey(pixels: np.ndarray) -> np.ndarray:
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels).convert("L")
    # Not Lanczos, as the library has it, which of large images takes longer than all the rest and finds no more.
    return np.asarray(image.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR, reducing_gap=1.0))


def near_pairs(hashes: np.ndarray, near: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Finds the pairs of hashes that differ in a few bits, without comparing all with all.

    The bits are dealt to `near + s` bands. Two hashes that differ in `near` bits or fewer agree in `s` bands at least, so it
    is enough to compare those that do, for each choice of `s` bands. A larger s means more choices and fewer hashes that
    agree by chance; the one of least work is taken. (Multiple tables of permuted hashes: Manku, Jain and Das Sarma,
    "Detecting near-duplicates for web crawling", WWW 2007, section 3.)

    Where thousands of different hashes agree in the chosen bands, each is compared with the nearest in numerical order only,
    so that time and memory are bounded: then all of them are linked, but not every pair is found.

    Args:
      hashes: uint64 [N], each value once, in ascending order.
      near: largest number of different bits, 0 to 8.

    Yields:
      Parts of the result, each of three arrays of one length: positions of the two hashes, and in how many bits they
      differ (1 to `near`). No pair comes twice.
    """
    masks = _masks(hashes, near)
    if not masks:
        return
    window = max(_LEAST_WINDOW, _COMPARISONS // (len(hashes) * len(masks)))
    for number, mask in enumerate(masks):
        order = np.argsort(hashes & mask, kind="stable")
        ordered = hashes[order]
        first = np.arange(len(hashes))
        for offset in range(1, window + 1):
            first = first[: np.searchsorted(first, len(hashes) - offset)]
            different = ordered[first] ^ ordered[first + offset]
            agreeing = (different & mask) == 0
            first, different = first[agreeing], different[agreeing]
            if not first.size:
                break
            distance = np.bitwise_count(different)
            found = np.flatnonzero(distance <= near)
            for earlier in masks[:number]:  # which have found the pairs that agree in their bands too
                found = found[(different[found] & earlier) != 0]
            if found.size:
                yield order[first[found]], order[first[found] + offset], distance[found]


def _masks(hashes: np.ndarray, near: int) -> list[np.uint64]:
    """The choices of bands, each as the bits in them."""
    best: list[np.uint64] = []
    least = math.inf
    if near == 0 or len(hashes) < 2:
        return best
    for shared in range(1, _BITS - near):
        bands = near + shared
        if (passes := math.comb(bands, shared)) * len(hashes) * _SORTING >= least:
            break
        bits = [sum(1 << bit for bit in range(band, _BITS, bands)) for band in range(bands)]
        masks = [np.uint64(sum(choice)) for choice in itertools.combinations(bits, shared)]
        work = _SORTING * len(hashes) * passes + sum(_agreeing(hashes & mask) for mask in masks)
        if work < least:
            best, least = masks, work
    return best


def _agreeing(keys: np.ndarray) -> int:
    """Number of pairs of equal keys."""
    ordered = np.sort(keys)
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    counts = np.diff(ends, prepend=-1)
    return int((counts * (counts - 1) // 2).sum())
