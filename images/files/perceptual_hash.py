"""Perceptual hashes: 64 bits that describe how an image looks, and a search for hashes that differ in a few bits."""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from PIL import Image
from scipy import fft

PLAIN: Final = 0  # the hash of all images that have too little content to compare; no other image has it

_SIDE: Final = 32  # pixels, height and width of the image that is transformed
_LOW: Final = 8  # frequencies in each direction
_BITS: Final = 64
_LEAST_RANGE: Final = 8  # grey levels of 256 between the darkest and the brightest pixel of an image that is not plain
_LEAST_BITS: Final = 8  # a flat image or a plain gradient sets one or two bits, a photo about half of the 64
_MAX_COMPARISONS: Final = 2_000_000_000  # largest number of comparisons in one search
_LEAST_WINDOW: Final = 50
_SORT_COST: Final = 30  # cost of sorting one hash in one pass, in comparisons that take the same time


def perceptual_hashes(images: np.ndarray | Sequence[np.ndarray]) -> list[int]:
    """Computes a hash per image: for each of the 64 lowest frequencies, whether it is above their median.

    The image is made grey, resized to 32x32 pixels and transformed by a discrete cosine transform of type II. Each of the 8x8
    lowest frequencies gives one bit, as in `imagehash.phash`, and half of the bits are set. Re-encoding, resizing and slight
    changes of brightness change only a few bits. The number of bits in which two hashes differ is nearly always even.

    Args:
      images: of any sizes, each uint8 [height, width] or [height, width, 1 to 4]: grey, grey with alpha, RGB or RGBA; alpha
        is ignored.

    Returns:
      For each image a hash, 0 to 2^64 - 1; `PLAIN` if it has too little content to compare, such as a single colour.
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
    # Not Lanczos as in imagehash: on large images it takes longer than everything else and finds no more duplicates.
    return np.asarray(image.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR, reducing_gap=1.0))


def near_pairs(hashes: np.ndarray, near: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Finds the pairs of hashes that differ in a few bits, without comparing every hash with every other.

    The bits are divided into `near + s` bands. Two hashes that differ in at most `near` bits are equal in at least `s` bands.
    So for each choice of `s` bands it is enough to compare the hashes that are equal in them. A larger s gives more choices
    but fewer hashes that are equal by chance; the s with the least work is used. (Multiple tables of permuted hashes: Manku,
    Jain and Das Sarma, "Detecting near-duplicates for web crawling", WWW 2007, section 3.)

    If thousands of different hashes are equal in the chosen bands, each is compared only with its neighbours in numerical
    order, which limits time and memory. Then all of them are linked to each other through pairs, but not every pair is found.

    Args:
      hashes: uint64 [N], distinct values in ascending order.
      near: largest number of different bits, 0 to 8.

    Yields:
      Parts of the result, each three arrays of one length: the positions of the two hashes, and the number of bits in which
      they differ (1 to `near`). Each pair comes once.
    """
    masks = _masks(hashes, near)
    if not masks:
        return
    window = max(_LEAST_WINDOW, _MAX_COMPARISONS // (len(hashes) * len(masks)))
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
            for earlier in masks[:number]:  # drop the pairs that an earlier choice of bands has found
                found = found[(different[found] & earlier) != 0]
            if found.size:
                yield order[first[found]], order[first[found] + offset], distance[found]


def _masks(hashes: np.ndarray, near: int) -> list[np.uint64]:
    """The choices of bands for `near_pairs`, each as a mask of its bits."""
    best: list[np.uint64] = []
    least = math.inf
    if near == 0 or len(hashes) < 2:
        return best
    for shared in range(1, _BITS - near):
        bands = near + shared
        if (passes := math.comb(bands, shared)) * len(hashes) * _SORT_COST >= least:
            break
        bits = [sum(1 << bit for bit in range(band, _BITS, bands)) for band in range(bands)]
        masks = [np.uint64(sum(choice)) for choice in itertools.combinations(bits, shared)]
        work = _SORT_COST * len(hashes) * passes + sum(_count_equal_pairs(hashes & mask) for mask in masks)
        if work < least:
            best, least = masks, work
    return best


def _count_equal_pairs(keys: np.ndarray) -> int:
    """Number of pairs of equal keys."""
    ordered = np.sort(keys)
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    counts = np.diff(ends, prepend=-1)
    return int((counts * (counts - 1) // 2).sum())
