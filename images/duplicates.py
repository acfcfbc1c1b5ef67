"""Finds duplicate images, and those whose duplicate is in another class or split.

Exact duplicates are files with the same bytes. Near duplicates are images whose perceptual hashes differ in a few bits. Each
page of a multi-page file is an image of its own.

In this module a "look" is a group of images that have the same perceptual hash.
"""

import os
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from base.tables import write_table
from images.files.perceptual_hash import PLAIN, near_pairs
from models import features
from storage.files import replace_file

DUPLICATES_FILE: Final = "duplicates.csv"  # the columns are the fields of `Duplicate`
PROBLEMS: Final = ("", "classes", "splits", "classes, splits")  # from harmless to worst: in what two duplicates differ

_PAGE: Final = r"(?P<page>#\d+)$"  # at the end of a path
_MAX_PROBLEM_PAIRS: Final = 10_000  # listed pairs with a problem
_MAX_HARMLESS_PAIRS: Final = 1_000  # listed pairs without a problem
_MAX_OTHERS_PER_HASH: Final = 100  # further images with one hash that are paired with an image of a near hash
_MAX_PAIRS_IN_MEMORY: Final = 1_000_000
_LARGE_GROUP = 100  # a larger group of duplicates is probably a mistake


class Duplicate(NamedTuple):
    """Two images that are the same or nearly the same.

    Attributes:
      kind: exact or near.
      distance: number of bits, of 64, in which the perceptual hashes differ.
      path_a: path of the first image. Of several equal images it is the first by split (train first), then by index.
      label_a: label of the first image.
      split_a: split of the first image.
      path_b: path of the second image.
      label_b: label of the second image.
      split_b: split of the second image.
      problem: one of `PROBLEMS`: what differs between the two and should not.
    """

    kind: str
    distance: int
    path_a: str
    label_a: str
    split_a: str
    path_b: str
    label_b: str
    split_b: str
    problem: str


@dataclass(frozen=True)
class Duplicates:
    """The result of a search for duplicates.

    Attributes:
      listed: pairs, worst first; at most 10,000 with a problem and 1,000 without. n equal images give n - 1 pairs.
      counts: counts over all duplicates, listed or not:
        `exact`: groups of files with the same bytes.
        `near`: pairs of near duplicates that are not exact duplicates.
        `across_classes`, `across_splits`: images that have a duplicate in another class or split.
        `in_train`: for each split other than train, the number of its images that have a duplicate in train.
    """

    listed: list[Duplicate]
    counts: dict[str, Any]


def find_duplicates(index: pa.Table, near: int) -> Duplicates:
    """Finds the duplicates among all images that were not set aside.

    Args:
      index: the columns `path`, `label`, `split` ("" if set aside), `content_hash` and `perceptual_hash`. An image whose
        perceptual hash is `PLAIN` can have exact duplicates only.
      near: largest number of bits in which the hashes of near duplicates differ, 0 to 8.
    """
    taken = index.filter(pc.not_equal(index["split"], ""))
    names = sorted(taken["split"].unique().to_pylist(), key=lambda name: (name not in features.SPLITS, name != "train", name))
    splits = pc.index_in(taken["split"], pa.array(names, pa.string())).to_numpy()
    order = np.argsort(splits, kind="stable")
    taken, splits = taken.take(order), splits[order].astype(np.int64)
    labels = number_values(taken["label"])
    files = number_values(_content_keys(taken))
    hashes, looks = group_by_hash(taken["perceptual_hash"])

    listing = _Listing(labels, splits)
    first_file = _first_images(files)
    copies = np.flatnonzero(first_file[files] != np.arange(len(files)))
    listing.add(first_file[files[copies]], copies, 0, exact=True)
    first_look = _first_images(looks)
    alike = np.flatnonzero(files[first_look[looks]] != files)
    listing.add(first_look[looks[alike]], alike, 0)

    # Smallest and largest code of split and label among the images of each look; then also of the looks that are near.
    codes = np.stack([splits, -splits, labels, -labels], axis=1)
    own = _group_minima(codes, looks)
    reached = own.copy()
    contents = np.bincount(looks[first_file], minlength=len(first_look))  # number of different files in each look
    near_count = int((contents * (contents - 1) // 2).sum())
    members = _Members(looks)
    for one, two, distance in near_pairs(hashes, near):
        near_count += int((contents[one] * contents[two]).sum())
        np.minimum.at(reached, one, own[two])
        np.minimum.at(reached, two, own[one])
        listing.add(first_look[one], first_look[two], distance)
        for here, there in ((one, two), (two, one)):
            pair, other = members.beyond_first(there)
            listing.add(first_look[here[pair]], other, distance[pair])

    reached = np.minimum(reached[looks], _group_minima(codes, files)[files])
    across = reached != codes
    eval_and_test = [(code, name) for code, name in enumerate(names) if "train" in names and name != "train"]
    counts = {
        "exact": int((np.bincount(files) > 1).sum()),
        "near": near_count,
        "across_classes": int(across[:, 2:].any(1).sum()),
        "across_splits": int(across[:, :2].any(1).sum()),
        "in_train": {name: int((reached[splits == code, 0] == 0).sum()) for code, name in eval_and_test},
    }
    return Duplicates(listing.worst_first(taken), counts)


def write_duplicates(folder: str, index: pa.Table, near: int) -> dict[str, Any]:
    """Finds duplicates and writes `duplicates.csv`.

    Args:
      folder: folder of the index, on any file system.
      index: as in `find_duplicates`.
      near: as in `find_duplicates`.

    Returns:
      `Duplicates.counts`.
    """
    found = find_duplicates(index, near)
    path = os.path.join(folder, DUPLICATES_FILE)
    replace_file(path, lambda file: write_table(file, Duplicate._fields, found.listed))
    return found.counts


def number_values(column: pa.ChunkedArray) -> np.ndarray:
    """Numbers the distinct values of a column.

    Returns:
      int64 [N]; equal values have equal numbers, from 0 without gaps.
    """
    return column.combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)


def _content_keys(images: pa.Table) -> pa.ChunkedArray:
    """A key that is equal for exact duplicates: the hash of the file's bytes, and the page."""
    page = pc.fill_null(pc.struct_field(pc.extract_regex(images["path"], _PAGE), "page"), "")
    return pc.binary_join_element_wise(images["content_hash"], page, "")


def group_by_hash(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Groups images by their perceptual hash.

    Args:
      column: uint64 [N], perceptual hashes; null counts as `PLAIN`.

    Returns:
      hashes: uint64, the distinct hashes other than `PLAIN`, in ascending order.
      looks: int64 [N], each image's position in `hashes`. Each plain image has a number of its own from len(hashes) on.
    """
    found = pc.fill_null(column, pa.scalar(PLAIN, pa.uint64())).to_numpy()
    plain = found == PLAIN
    looks = np.empty(len(found), np.int64)
    hashes, looks[~plain] = np.unique(found[~plain], return_inverse=True)
    looks[plain] = np.arange(len(hashes), len(hashes) + plain.sum())
    return hashes, looks


def _first_images(groups: np.ndarray) -> np.ndarray:
    """Position of the first image in each group."""
    return np.unique(groups, return_index=True)[1]


def _group_minima(codes: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Minimum of each column within each group: int64 [N, columns] to [groups, columns]."""
    least = np.full((int(groups.max(initial=-1)) + 1, codes.shape[1]), np.iinfo(np.int64).max)
    np.minimum.at(least, groups, codes)
    return least


class _Members:
    """The images of each group."""

    def __init__(self, groups: np.ndarray) -> None:
        self._images = np.argsort(groups, kind="stable")
        sizes = np.bincount(groups)
        self._starts = np.cumsum(sizes) - sizes
        self._others = np.minimum(sizes - 1, _MAX_OTHERS_PER_HASH)

    def beyond_first(self, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The images of the given groups, without the first of each group.

        Args:
          groups: int64 [M], numbers of groups.

        Returns:
          Two arrays of one length: position in `groups`, and image. At most `_MAX_OTHERS_PER_HASH` images per group.
        """
        counts = self._others[groups]
        position = np.repeat(np.arange(len(groups)), counts)
        number = np.arange(len(position)) - np.repeat(np.cumsum(counts) - counts, counts)
        return position, self._images[self._starts[groups[position]] + 1 + number]


class _Listing:
    """Keeps the worst of all pairs that are added, which may be more than fit into memory."""

    def __init__(self, labels: np.ndarray, splits: np.ndarray) -> None:
        self._labels = labels
        self._splits = splits
        self._pairs: list[np.ndarray] = []  # columns: -problem, 0 if exact, distance, first image, other image
        self._num_pairs = 0

    def add(self, one: np.ndarray, two: np.ndarray, distance: np.ndarray | int, exact: bool = False) -> None:
        """Adds pairs of images, which are given by their positions."""
        first, other = np.minimum(one, two), np.maximum(one, two)
        problem = (self._labels[one] != self._labels[two]) + 2 * (self._splits[one] != self._splits[two])
        kind = np.full(len(one), 0 if exact else 1)
        added = np.stack([-problem, kind, np.broadcast_to(distance, len(one)), first, other])
        self._pairs.append(added)
        self._num_pairs += len(one)
        if self._num_pairs > _MAX_PAIRS_IN_MEMORY:
            self._pairs, self._num_pairs = [self._worst_pairs()], 0

    def _worst_pairs(self) -> np.ndarray:
        """The pairs, worst first, cut to the limits."""
        pairs = np.concatenate(self._pairs, axis=1)
        pairs = pairs[:, np.lexsort(pairs[::-1])]
        problems = int((pairs[0] < 0).sum())
        worst, harmless = pairs[:, :problems], pairs[:, problems:]
        return np.concatenate([worst[:, :_MAX_PROBLEM_PAIRS], harmless[:, :_MAX_HARMLESS_PAIRS]], axis=1)

    def worst_first(self, images: pa.Table) -> list[Duplicate]:
        problem, kind, distance, *sides = self._worst_pairs()
        columns = [
            np.array(["exact", "near"], object)[kind],
            distance,
            *(images[name].take(side).to_pylist() for side in sides for name in ("path", "label", "split")),
            np.array(PROBLEMS, object)[-problem],
        ]
        return [Duplicate(*row) for row in zip(*columns, strict=True)]


def describe_duplicates(counts: dict[str, Any], table: str) -> list[str]:
    """Warnings about the duplicates of an ingestion, one line each; an empty list if all are harmless.

    Args:
      counts: as returned by `write_duplicates`; with `data.duplicates: group` also those of `group_duplicates`.
      table: path of the table that lists the duplicates.
    """
    lines = []
    leaks = [f"{count} in {split}" for split, count in counts["in_train"].items() if count]
    if leaks:
        lines.append(
            "Leak: images with a duplicate or near duplicate in train: "
            f"{', '.join(leaks)}; data.duplicates: group keeps them together"
        )
    elif counts["across_splits"]:
        lines.append(f"Leak: {counts['across_splits']} images have a duplicate or near duplicate in another split")
    if counts["across_classes"]:
        lines.append(f"Contradiction: {counts['across_classes']} images have a duplicate or near duplicate in another class")
    if lines:
        lines[-1] += f"; table {table}"
    if counts.get("moved"):
        lines.append(f"{counts['moved']} images were moved to the split of a duplicate")
    if counts.get("largest", 0) > _LARGE_GROUP:
        lines.append(f"{counts['largest']} images count as one group of duplicates; lower data.near_duplicates if they are not")
    return lines
