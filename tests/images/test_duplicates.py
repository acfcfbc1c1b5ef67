"""Perceptual hashes, the search for near ones, and what is made of duplicates: the table, the counts, the groups."""

import csv
import io
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagehash
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance
from tfx.dsl.components.base import base_beam_executor
from tfx.types import standard_artifacts, standard_component_specs

from components.image_example_gen.component import ImageExampleGen
from components.image_example_gen.executor import Executor
from components.image_example_gen.grouping import check_groups, group_duplicates
from images.dataset.source import Row
from images.duplicates import DUPLICATES_FILE, Duplicate, find_duplicates, write_duplicates
from images.files.perceptual_hash import PLAIN, near_pairs, perceptual_hashes
from images.index import SUMMARY_FILE
from models import features
from pipeline.config.whole import Config
from pipeline.dag.component_settings import ingestion_settings


def picture(seed: int, side: int = 120) -> Image.Image:
    """A picture with something in it at all scales."""
    random = np.random.default_rng(seed)
    layers = [
        np.asarray(Image.fromarray(random.integers(0, 256, (n, n, 3), np.uint8)).resize((side, side), Image.Resampling.BICUBIC))
        for n in (3, 6, 12, 60)
    ]
    return Image.fromarray(np.average(layers, axis=0, weights=[4, 3, 2, 1]).astype(np.uint8))


def as_jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


def distance(one: Image.Image, two: Image.Image) -> int:
    first, second = perceptual_hashes([np.asarray(one), np.asarray(two)])
    return (first ^ second).bit_count()


# The hash


@pytest.mark.parametrize(
    "change",
    [
        lambda image: as_jpeg(image, 50),
        lambda image: image.resize((60, 60)),
        lambda image: image.resize((240, 240)),
        lambda image: ImageEnhance.Brightness(image).enhance(0.8),
        lambda image: image.convert("L"),
        lambda image: image.convert("RGBA"),
    ],
    ids=["re-encoded", "half the size", "twice the size", "darker", "grey", "with alpha"],
)
def test_a_changed_copy_is_near_and_other_pictures_are_far(change: Callable[[Image.Image], Image.Image]) -> None:
    pictures = [picture(seed) for seed in range(30)]
    near = [distance(image, change(image)) <= 2 for image in pictures]
    assert sum(near) >= 27
    assert min(distance(one, change(two)) for one, two in itertools.combinations(pictures, 2)) > 6


def test_hashes_are_those_of_the_library() -> None:
    images = [image.resize((32, 32)).convert("L") for image in map(picture, range(20))]
    expected = [int(str(imagehash.phash(image)), 16) for image in images]
    assert perceptual_hashes(np.stack(images)) == expected


def test_images_without_content_have_the_hash_that_says_so() -> None:
    flat = np.full((40, 30, 3), 200, np.uint8)
    noisy = flat - np.random.default_rng(3).integers(0, 4, flat.shape, np.uint8)
    ramp = np.broadcast_to(np.arange(0, 256, 4, dtype=np.uint8), (64, 64))
    padded = np.pad(flat, ((10, 10), (0, 0), (0, 0)))
    for plain in (flat, noisy, ramp, padded, np.zeros((1, 1, 1), np.uint8), np.full((5, 5, 4), 255, np.uint8)):
        assert perceptual_hashes([plain]) == [PLAIN]
    assert perceptual_hashes([np.asarray(picture(1))]) != [PLAIN]
    assert perceptual_hashes([]) == []


# The search


def with_bits_flipped(hashes: np.ndarray, bits: int, random: np.random.Generator) -> np.ndarray:
    flipped = hashes.copy()
    for number in range(len(hashes)):
        for bit in random.choice(64, bits, replace=False):
            flipped[number] ^= np.uint64(1) << np.uint64(bit)
    return flipped


@pytest.mark.parametrize("near", [0, 1, 2, 3, 4, 8])
def test_near_pairs_are_those_of_comparing_all_with_all(near: int) -> None:
    random = np.random.default_rng(near)
    drawn = random.integers(0, 2**64, 2000, np.uint64)
    crowd = np.bitwise_and(drawn[:200], np.uint64(0b111111)) | drawn[0] & ~np.uint64(0b111111)
    planted = [with_bits_flipped(drawn[40 * bits : 40 * bits + 40], bits, random) for bits in range(1, 11)]
    hashes = np.unique(np.concatenate([drawn, crowd, *planted]))
    apart = np.bitwise_count(hashes[:, None] ^ hashes)
    expected = {(one, two, apart[one, two]) for one, two in np.argwhere(np.triu(apart <= near, 1)).tolist()}
    found = [
        (min(one, two), max(one, two), bits)
        for part in near_pairs(hashes, near)
        for one, two, bits in zip(*(column.tolist() for column in part), strict=True)
    ]
    assert len(found) == len(set(found))
    assert set(found) == expected
    assert len(expected) >= 40 * near


def test_a_crowd_of_images_that_are_alike_takes_no_square_of_time() -> None:
    random = np.random.default_rng(5)
    middle = random.integers(0, 2**64, dtype=np.uint64)
    hashes = np.full(30_000, middle)
    for _ in range(3):
        hashes ^= np.uint64(1) << random.integers(0, 64, len(hashes), np.uint64)
    hashes[:6_000] = middle
    found = find_duplicates(index([("", "cat", "train", f"{number}", value) for number, value in enumerate(hashes)]), 2)
    assert found.counts["near"] > 6_000 * 5_999 / 2
    assert len(found.listed) == 1000


# The table


def index(rows: list[tuple[str, str, str, str, int]]) -> pa.Table:
    names = ["path", "label", "split", "content_hash", "perceptual_hash"]
    table = {name: list(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}
    return pa.table(table | {"perceptual_hash": pa.array(table["perceptual_hash"], pa.uint64())})


A, B, C, D = (int(value) for value in np.random.default_rng(1).integers(2**60, 2**64, 4, np.uint64))


def test_duplicates_are_listed_with_the_worst_first() -> None:
    found = find_duplicates(
        index(
            [
                ("cat/1.png", "cat", "test", "one", A),
                ("cat/2.png", "cat", "train", "one", A),
                ("dog/3.png", "dog", "train", "three", A ^ 1),
                ("cat/4.png", "cat", "train", "four", B),
                ("cat/5.png", "cat", "train", "five", B),
                ("cat/6.png", "cat", "eval", "six", C),
                ("cat/7.png", "cat", "", "six", C),
                ("cat/8.png", "cat", "train", "eight", D),
            ]
        ),
        near=2,
    )
    assert found.listed == [
        Duplicate("near", 1, "dog/3.png", "dog", "train", "cat/1.png", "cat", "test", "classes, splits"),
        Duplicate("exact", 0, "cat/2.png", "cat", "train", "cat/1.png", "cat", "test", "splits"),
        Duplicate("near", 1, "cat/2.png", "cat", "train", "dog/3.png", "dog", "train", "classes"),
        Duplicate("near", 0, "cat/4.png", "cat", "train", "cat/5.png", "cat", "train", ""),
    ]
    assert found.counts == {
        "exact": 1,
        "near": 2,
        "across_classes": 3,
        "across_splits": 3,
        "in_train": {"eval": 0, "test": 1},
    }


def test_images_further_apart_than_allowed_are_no_duplicates() -> None:
    images = index([("1", "a", "train", "one", A), ("2", "b", "test", "two", A ^ 0b111)])
    assert find_duplicates(images, 2).listed == []
    assert [item.distance for item in find_duplicates(images, 3).listed] == [3]


def test_plain_images_are_duplicates_only_if_their_bytes_are_the_same() -> None:
    images = [("1", "a", "train", "x", PLAIN), ("2", "b", "train", "y", PLAIN), ("3", "b", "test", "x", PLAIN)]
    found = find_duplicates(index(images), 2)
    assert [(item.path_a, item.path_b, item.kind) for item in found.listed] == [("1", "3", "exact")]
    assert (found.counts["near"], found.counts["across_classes"], found.counts["across_splits"]) == (0, 2, 2)


def test_pages_of_one_file_are_no_copies_but_those_of_a_copied_file_are() -> None:
    images = [(f"{name}.tif{page}", "a", split, "x", value)
              for name, split in (("1", "train"), ("2", "test")) for page, value in (("", A), ("#1", B))]  # fmt: skip
    found = find_duplicates(index(images), 2)
    assert [(item.path_a, item.path_b) for item in found.listed] == [("1.tif", "2.tif"), ("1.tif#1", "2.tif#1")]
    assert (found.counts["exact"], found.counts["near"]) == (2, 0)


def test_counts_are_those_of_comparing_all_images() -> None:
    random = np.random.default_rng(8)
    drawn = random.integers(2**60, 2**64, 40, np.uint64)
    rows = []
    for number in range(300):
        value = with_bits_flipped(random.choice(drawn, 1), int(random.integers(0, 3)), random)[0]
        content = f"{value}-{random.integers(2)}"
        rows.append((f"{number}", random.choice(["a", "b"]), random.choice(["train", "eval", "test"]), content, int(value)))
    counts = find_duplicates(index(rows), 2).counts

    across: dict[str, set[str]] = {"classes": set(), "splits": set(), "eval": set(), "test": set()}
    near = set()
    for one, two in itertools.permutations(rows, 2):
        if one[3] != two[3] and (one[4] ^ two[4]).bit_count() > 2:
            continue
        if one[3] != two[3]:
            near.add(frozenset((one[3], two[3])))
        if one[1] != two[1]:
            across["classes"].add(one[0])
        if one[2] != two[2]:
            across["splits"].add(one[0])
            if two[2] == "train":
                across[one[2]].add(one[0])
    contents = [row[3] for row in rows]
    assert counts == {
        "exact": len({content for content in contents if contents.count(content) > 1}),
        "near": len(near),
        "across_classes": len(across["classes"]),
        "across_splits": len(across["splits"]),
        "in_train": {"eval": len(across["eval"]), "test": len(across["test"])},
    }


def test_every_image_that_leaks_is_listed() -> None:
    rows = [("t", "a", "train", "t", A)] + [(f"{number}", "a", "test", f"{number}", A ^ 1) for number in range(5)]
    listed = find_duplicates(index(rows), 2).listed
    assert {item.path_b for item in listed if item.problem == "splits" and item.path_a == "t"} == set("01234")


def test_the_table_is_written_beside_the_index(tmp_path: Path) -> None:
    images = index([("1, 2.png", "a", "train", "x", A), ("3.png", "b", "test", "x", A)])
    counts = write_duplicates(str(tmp_path), images, 2)
    assert counts["exact"] == 1
    with (tmp_path / DUPLICATES_FILE).open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row == {
        "kind": "exact",
        "distance": "0",
        "path_a": "1, 2.png",
        "label_a": "a",
        "split_a": "train",
        "path_b": "3.png",
        "label_b": "b",
        "split_b": "test",
        "problem": "classes, splits",
    }


# Groups


def grouped(rows: list[Row], hashes: list[tuple[int, str, int]]) -> tuple[list[Row], dict[str, int]]:
    """`hashes` has positions in `rows`."""
    hashes = [(rows[position].group, content, value) for position, content, value in hashes]
    names = ["group", "content_hash", "perceptual_hash"]
    table = {name: list(column) for name, column in zip(names, zip(*hashes, strict=True), strict=True)}
    found = group_duplicates(rows, pa.table(table | {"perceptual_hash": pa.array(table["perceptual_hash"], pa.uint64())}), 2)
    return found.rows, found.counts


def row(path: str, group: str = "", split: str = "", reason: str = "") -> Row:
    return Row(path, ("cat",), group or path, split, reason=reason)


def test_duplicates_and_the_groups_that_they_link_become_one_group() -> None:
    rows = [row("a"), row("b", "p"), row("c", "p"), row("d"), row("e"), row("f"), row("x", "p", reason="no label")]
    hashes = [(0, "1", A), (1, "1", A), (2, "2", B), (3, "3", B ^ 1), (4, "4", C), (5, "5", PLAIN)]
    found, counts = grouped(rows, hashes)
    assert [item.group for item in found] == ["a", "a", "a", "a", "e", "f", "p"]
    assert counts == {"grouped": 4, "largest": 4, "moved": 0}


def test_a_page_in_common_links_two_files() -> None:
    found, _ = grouped([row("a"), row("b")], [(0, "1", A), (0, "1", B), (1, "2", C), (1, "2", B)])
    assert [item.group for item in found] == ["a", "a"]


def test_duplicates_leave_train_for_the_test_split_that_the_data_gives() -> None:
    rows = [row("a", split="train"), row("b", split="test"), row("c", split="eval"), row("d", split="train")]
    found, counts = grouped(rows, [(0, "1", A), (1, "1", A), (2, "2", A), (3, "4", B)])
    assert [item.split for item in found] == ["test", "test", "test", "train"]
    assert counts == {"grouped": 3, "largest": 3, "moved": 2}


def test_a_group_in_two_splits_is_an_error_that_names_it() -> None:
    written = pa.table({"group": ["p", "q", "p", "q"], "split": ["train", "test", "", "test"]})
    check_groups(written)
    with pytest.raises(RuntimeError, match=r"1 groups .* q \(test and train\)"):
        check_groups(pa.table({"group": ["p", "q", "q"], "split": ["train", "test", "train"]}))


# Ingestion


def write_data(folder: Path) -> None:
    """16 pictures a class, a copy of one in the other class, a re-encoded one in another split, and two that are white."""
    for number in range(32):
        label = ("cat", "dog")[number % 2]
        split = "train" if number < 24 else "eval" if number < 28 else "test"
        (folder / split / label).mkdir(parents=True, exist_ok=True)
        picture(number).save(folder / split / label / f"{number:02d}.png")
    (folder / "train/dog/copy.png").write_bytes((folder / "train/cat/00.png").read_bytes())
    as_jpeg(picture(3), 60).save(folder / "test/dog/smaller.jpg", quality=60)
    Image.new("RGB", (40, 40), "white").save(folder / "train/cat/white.png")
    Image.new("RGB", (40, 50), "white").save(folder / "test/dog/white.png")


def ingest(data: Path, output: Path, duplicates: str) -> tuple[Path, dict[str, Any]]:
    """The folder of the written examples, and the duplicates' counts."""
    config = Config.model_validate(
        {"name": "x", "data": {"path": str(data), "duplicates": duplicates}, "image": {"height": 64, "width": 64}}
    )
    component = ImageExampleGen(str(data), ingestion_settings(config))
    examples = standard_artifacts.Examples()
    examples.uri = str(output / "examples")
    context = base_beam_executor.BaseBeamExecutor.Context(
        beam_pipeline_args=["--runner=FnApiRunner"], tmp_dir=str(output / "tmp"), unique_id="7"
    )
    Executor(context).Do({}, {standard_component_specs.EXAMPLES_KEY: [examples]}, dict(component.exec_properties))
    return Path(examples.uri), json.loads((Path(examples.uri) / SUMMARY_FILE).read_text())["duplicates"]


def read_duplicates(examples: Path) -> list[tuple[str, ...]]:
    with (examples / DUPLICATES_FILE).open(newline="") as file:
        return [(line["kind"], line["path_a"], line["path_b"], line["problem"]) for line in csv.DictReader(file)]


def test_ingestion_tells_of_a_copy_in_another_class_and_of_a_changed_one_in_another_split(tmp_path: Path) -> None:
    write_data(tmp_path / "data")
    examples, counts = ingest(tmp_path / "data", tmp_path, "report")
    found = {(kind, frozenset((one, two)), problem) for kind, one, two, problem in read_duplicates(examples)}
    assert found == {
        ("exact", frozenset(("train/cat/00.png", "train/dog/copy.png")), "classes"),
        ("near", frozenset(("train/dog/03.png", "test/dog/smaller.jpg")), "splits"),
    }
    assert counts == {
        "exact": 1,
        "near": 1,
        "across_classes": 2,
        "across_splits": 2,
        "in_train": {"eval": 0, "test": 1},
    }


def test_grouped_duplicates_are_written_to_one_split(tmp_path: Path) -> None:
    write_data(tmp_path / "data")
    examples, counts = ingest(tmp_path / "data", tmp_path, "group")
    assert counts["across_splits"] == 0
    assert (counts["grouped"], counts["largest"], counts["moved"]) == (4, 2, 1)
    written: dict[str, set[tuple[str, str]]] = {}
    for split in features.SPLITS:
        files = [str(path) for path in (examples / f"Split-{split}").iterdir()]
        for record in tf.data.TFRecordDataset(files).as_numpy_iterator():
            feature = tf.train.Example.FromString(record).features.feature
            group, path = (feature[name].bytes_list.value[0].decode() for name in (features.GROUP, features.FILENAME))
            written.setdefault(group, set()).add((split, path))
    assert sum(len(found) for found in written.values()) == 36
    assert all(len({split for split, _ in found}) == 1 for found in written.values())
    assert {("test", "train/dog/03.png"), ("test", "test/dog/smaller.jpg")} in written.values()
    assert {("train", "train/cat/00.png"), ("train", "train/dog/copy.png")} in written.values()
    assert not list(examples.glob(".*"))
