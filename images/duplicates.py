"""Images that are there twice: which they are, and whether they stand in two classes or splits.

Exact duplicates are files of the same bytes, near duplicates images whose perceptual hashes differ in a few bits. Each page of
a multi-page file is an image of its own.
"""

import csv
import io
import os
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from images.files.perceptual_hash import PLAIN, near_pairs
from models import features
from storage.files import replace_file

DUPLICATES_FILE: Final = "duplicates.csv"  # the columns are the fields of `Duplicate`
PROBLEMS: Final = ("", "classes", "splits", "classes, splits")  # from harmless to worst

_PAGE: Final = r"(?P<page>#\d+)$"  # at the end of a path
_LISTED_PROBLEMS: Final = 10_000
_LISTED_HARMLESS: Final = 1_000
_LISTED_OF_ONE_HASH: Final = 100  # images, beside an image of a near hash
_PAIRS_AT_ONCE: Final = 1_000_000
_LARGE_GROUP = 100  # images that are hardly all the same


class Duplicate(NamedTuple):
    """Two images that are the same, or nearly so.

    Attributes:
      kind: exact or near.
      distance: bits of 64 in which the perceptual hashes differ.
      path_a: one image; where several are the same, the first in the order of the splits (train first) and of the index.
      label_a: its label.
      split_a: its split.
      path_b: the other image.
      label_b: its label.
      split_b: its split.
      problem: one of `PROBLEMS`: in what the two differ and should not.
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
    """What a search has found.

    Attributes:
      listed: worst first; at most 10,000 with a problem and 1,000 without. Where n images are the same, n - 1 pairs.
      counts: of everything found, listed or not: `exact`, groups of files of the same bytes; `near`, pairs of other images;
        `across_classes` and `across_splits`, images with a duplicate in another class or split; `in_train`, of each other
        split, images with a duplicate in train.
    """

    listed: list[Duplicate]
    counts: dict[str, Any]


def find_duplicates(index: pa.Table, near: int) -> Duplicates:
    """Finds the duplicates among all images that were taken.

    Args:
      index: the columns `path`, `label`, `split` ("" where set aside), `content_hash` and `perceptual_hash`. Where the latter
        is `PLAIN`, an image has exact duplicates only.
      near: largest number of bits in which the hashes of near duplicates differ, 0 to 8.
    """
    taken = index.filter(pc.not_equal(index["split"], ""))
    names = sorted(taken["split"].unique().to_pylist(), key=lambda name: (name not in features.SPLITS, name != "train", name))
    splits = pc.index_in(taken["split"], pa.array(names, pa.string())).to_numpy()
    order = np.argsort(splits, kind="stable")
    taken, splits = taken.take(order), splits[order].astype(np.int64)
    labels = as_codes(taken["label"])
    files = as_codes(_contents(taken))
    hashes, looks = looks_of(taken["perceptual_hash"])

    listing = _Listing(labels, splits)
    first_file = _first(files)
    copies = np.flatnonzero(first_file[files] != np.arange(len(files)))
    listing.add(first_file[files[copies]], copies, 0, exact=True)
    first_look = _first(looks)
    alike = np.flatnonzero(files[first_look[looks]] != files)
    listing.add(first_look[looks[alike]], alike, 0)

    # The least and the greatest split and label among the images of each look, and then of those near to it.
    codes = np.stack([splits, -splits, labels, -labels], axis=1)
    own = _least(codes, looks)
    reached = own.copy()
    contents = np.bincount(looks[first_file], minlength=len(first_look))  # different files of each look
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

    reached = np.minimum(reached[looks], _least(codes, files)[files])
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
    """Writes `duplicates.csv` into a folder of any file system.

    Args:
      folder: where the index is.
      index: as for `find_duplicates`.
      near: likewise.

    Returns:
      `Duplicates.counts`.
    """
    found = find_duplicates(index, near)
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(Duplicate._fields)
    writer.writerows(found.listed)
    replace_file(os.path.join(folder, DUPLICATES_FILE), lambda file: file.write(table.getvalue().encode()))
    return found.counts


def as_codes(column: pa.ChunkedArray) -> np.ndarray:
    """int64 [N]: equal values as equal numbers, from 0 without gaps."""
    return column.combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)


def _contents(images: pa.Table) -> pa.ChunkedArray:
    """What is equal of exact duplicates: the file's bytes and the page."""
    page = pc.fill_null(pc.struct_field(pc.extract_regex(images["path"], _PAGE), "page"), "")
    return pc.binary_join_element_wise(images["content_hash"], page, "")


def looks_of(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """The hashes that can be compared, in ascending order, and of each image the position of its own.

    Each plain image has a position to itself, behind the hashes.
    """
    found = pc.fill_null(column, pa.scalar(PLAIN, pa.uint64())).to_numpy()
    plain = found == PLAIN
    looks = np.empty(len(found), np.int64)
    hashes, looks[~plain] = np.unique(found[~plain], return_inverse=True)
    looks[plain] = np.arange(len(hashes), len(hashes) + plain.sum())
    return hashes, looks


def _first(groups: np.ndarray) -> np.ndarray:
    """Position of the first image of each group."""
    return np.unique(groups, return_index=True)[1]


def _least(codes: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """int64 [N, columns] to [groups, columns]."""
    least = np.full((int(groups.max(initial=-1)) + 1, codes.shape[1]), np.iinfo(np.int64).max)
    np.minimum.at(least, groups, codes)
    return least


class _Members:
    """The images of each group."""

    def __init__(self, groups: np.ndarray) -> None:
        self._images = np.argsort(groups, kind="stable")
        sizes = np.bincount(groups)
        self._starts = np.cumsum(sizes) - sizes
        self._others = np.minimum(sizes - 1, _LISTED_OF_ONE_HASH)

    def beyond_first(self, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of each group all images but the first, each with the position in `groups`."""
        counts = self._others[groups]
        position = np.repeat(np.arange(len(groups)), counts)
        number = np.arange(len(position)) - np.repeat(np.cumsum(counts) - counts, counts)
        return position, self._images[self._starts[groups[position]] + 1 + number]


class _Listing:
    """The worst of all pairs that are added, of which there may be more than memory holds."""

    def __init__(self, labels: np.ndarray, splits: np.ndarray) -> None:
        self._labels = labels
        self._splits = splits
        self._pairs: list[np.ndarray] = []  # columns: -problem, 0 if exact, distance, first image, other image
        self._waiting = 0

    def add(self, one: np.ndarray, two: np.ndarray, distance: np.ndarray | int, exact: bool = False) -> None:
        """Pairs of images, by position."""
        first, other = np.minimum(one, two), np.maximum(one, two)
        problem = (self._labels[one] != self._labels[two]) + 2 * (self._splits[one] != self._splits[two])
        kind = np.full(len(one), 0 if exact else 1)
        added = np.stack([-problem, kind, np.broadcast_to(distance, len(one)), first, other])
        self._pairs.append(added)
        self._waiting += len(one)
        if self._waiting > _PAIRS_AT_ONCE:
            self._pairs, self._waiting = [self._sorted()], 0

    def _sorted(self) -> np.ndarray:
        """The worst first, without those beyond the limits."""
        pairs = np.concatenate(self._pairs, axis=1)
        pairs = pairs[:, np.lexsort(pairs[::-1])]
        problems = int((pairs[0] < 0).sum())
        worst, harmless = pairs[:, :problems], pairs[:, problems:]
        return np.concatenate([worst[:, :_LISTED_PROBLEMS], harmless[:, :_LISTED_HARMLESS]], axis=1)

    def worst_first(self, images: pa.Table) -> list[Duplicate]:
        problem, kind, distance, *sides = self._sorted()
        columns = [
            np.array(["exact", "near"], object)[kind],
            distance,
            *(images[name].take(side).to_pylist() for side in sides for name in ("path", "label", "split")),
            np.array(PROBLEMS, object)[-problem],
        ]
        return [Duplicate(*row) for row in zip(*columns, strict=True)]


def describe_duplicates(counts: dict[str, Any], table: str) -> list[str]:
    """What a person should know of an ingestion's duplicates, a line each; none if all are harmless.

    Args:
      counts: as `write_duplicates` gives them, with those of `group_duplicates` where these are grouped.
      table: where all of them are listed.
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
