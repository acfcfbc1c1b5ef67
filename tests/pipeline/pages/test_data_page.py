"""The page about the data, from an index and a few records."""

import base64
import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import tensorflow as tf
from pages import Page
from PIL import Image
from pyarrow import parquet
from tensorflow_metadata.proto.v0 import anomalies_pb2

from images.file_settings import FileSettings
from images.index import SCHEMA, IndexRow
from images.reason import Reason, kind_of
from models import features
from pipeline.config.whole import Config
from pipeline.pages.data_page import ClassCount, count_classes, describe_balance, write_data_page
from pipeline.pages.histograms import bin_edges, draw_histogram
from pipeline.pages.page import format_size
from pipeline.pages.thumbnails import original, sample_classes, thumbnail


def picture(level: int = 100, size: tuple[int, int] = (12, 8)) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", size, level).save(buffer, "PNG")
    return buffer.getvalue()


def row(path: str, label: str, split: str = "train", **changes: Any) -> IndexRow:
    random = np.random.default_rng(len(path) + sum(path.encode()))
    measured = dict(zip(("mean", "std", "saturated", "sharpness"), random.random(4), strict=True))
    size = {"height": int(random.integers(8, 64)), "width": 12, "channels": 1, "bytes": int(random.lognormal(9, 2))}
    return IndexRow(path, label, path, split, **{"format": "png", **size, **measured, **changes})


def rejected(path: str, label: str, reason: str) -> IndexRow:
    return IndexRow(path, label, path, "", reason, kind_of(reason))


def write_examples(folder: Path, rows: list[IndexRow], duplicates: list[dict[str, Any]] | None = None) -> Path:
    """What ingestion leaves, with one grey picture for all images of the train split."""
    (folder / "Split-train").mkdir(parents=True)
    parquet.write_table(pa.Table.from_pylist([item._asdict() for item in rows], SCHEMA), folder / "images.parquet")
    with (folder / "rejected.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("path", "label", "reason"))
        table.writerows((item.path, item.label, item.reason) for item in rows if item.reason)
    with tf.io.TFRecordWriter(str(folder / "Split-train" / "data_tfrecord-00000-of-00001")) as writer:
        for item in rows:
            if item.split == "train":
                values = {
                    features.ENCODED: [picture()],
                    features.FILENAME: [item.path.encode()],
                    features.LABEL: [label.encode() for label in item.label.split("|") if label],
                }
                feature = {name: tf.train.Feature(bytes_list=tf.train.BytesList(value=value)) for name, value in values.items()}
                writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
    counts: dict[str, Any] = {"exact": 0, "near": 0, "across_classes": 0, "across_splits": 0, "in_train": {}}
    if duplicates is not None:
        with (folder / "duplicates.csv").open("w", newline="") as file:
            columns = ("kind", "distance", "path_a", "label_a", "split_a", "path_b", "label_b", "split_b", "problem")
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(duplicates)
        counts = {"exact": 1, "near": len(duplicates) - 1, "across_classes": 2, "across_splits": 2, "in_train": {"test": 1}}
    (folder / "ingestion.json").write_text(json.dumps({"duplicates": counts}))
    return folder


def write_anomalies(folder: Path) -> str:
    """A drift that is too large and a skew that is not."""
    found = anomalies_pb2.Anomalies()
    found.anomaly_info["image/mean"].description = "too dark: by far"
    compared = found.drift_skew_info.add()
    compared.path.step.append("image/mean")
    for measurements, value in ((compared.drift_measurements, 0.42), (compared.skew_measurements, 0.12)):
        measurements.add(type=anomalies_pb2.DriftSkewInfo.Measurement.JENSEN_SHANNON_DIVERGENCE, value=value, threshold=0.3)
    (folder / "Split-eval").mkdir(parents=True)
    (folder / "Split-eval" / "SchemaDiff.pb").write_bytes(found.SerializeToString())
    return str(folder)


def page_of(
    folder: Path, rows: list[IndexRow], duplicates: list[dict[str, Any]] | None = None, **data: Any
) -> tuple[Page, str]:
    examples = write_examples(folder / "examples", rows, duplicates)
    config = Config.model_validate({"name": "trial", "data": {"path": str(folder / "data"), **data}})
    write_data_page(config, examples, write_anomalies(folder / "anomalies"), folder / "page.html")
    html = (folder / "page.html").read_text()
    return Page(html), html


HOSTILE = '<script>alert("x")</script>'


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    for name in ("a", "b"):
        (folder / "data").mkdir(exist_ok=True)
        (folder / "data" / f"{name}.png").write_bytes(picture())
    return folder


@pytest.fixture(scope="module")
def rows() -> list[IndexRow]:
    cats = [row(f"cat/{number}.png", "cat", "train" if number < 15 else "eval") for number in range(20)]
    dogs = [row(f"dog/{number}.png", "dog", ("train", "train", "eval", "test")[number % 4]) for number in range(8)]
    odd = [row(f"{HOSTILE}/1.png", HOSTILE, "train", note="a JPEG file with the suffix .png", format="jpeg")]
    bad = [rejected(f"cat/bad{number}.png", "cat", Reason("damaged", f"at byte {number}")) for number in range(250)]
    return [*cats, *dogs, *odd, *bad, rejected("none.png", "", "empty file")]


@pytest.fixture(scope="module")
def made(place: Path, rows: list[IndexRow]) -> tuple[Page, str]:
    sides = {f"{key}_{side}": value for side in "ab" for key, value in {"label": "cat", "split": "train"}.items()}
    harmless = [
        {"kind": "near", "distance": 1, "path_a": f"x{n}", "path_b": f"y{n}", **sides, "problem": ""} for n in range(20)
    ]
    bad = {"kind": "exact", "distance": 0, "path_a": "a.png", "path_b": "b.png", **sides, "label_b": "dog", "split_b": "test"}
    return page_of(place, rows, [{**bad, "problem": "classes, splits"}, *harmless])


def test_what_was_found_taken_and_set_aside_adds_up(made: tuple[Page, str], rows: list[IndexRow]) -> None:
    text = re.sub(r"\s+", " ", made[0].text)
    assert f"Found{len(rows)} Taken29 Set aside251" in text.replace(",", "")
    splits = made[0].tables["Splits of the images that were taken"][1:]
    assert splits == [["train", "20", "69.0 %", "20"], ["eval", "7", "24.1 %", "7"], ["test", "2", "6.9 %", "2"]]


def test_classes_are_counted_by_split_and_the_imbalance_is_named(made: tuple[Page, str]) -> None:
    assert made[0].tables["Images by class and split"][1:] == [
        ["cat", "15", "5", "0", "20"],
        ["dog", "4", "2", "2", "8"],
        [HOSTILE, "1", "0", "0", "1"],
    ]
    assert f"The largest class, cat, has 20 times as many images as the smallest, {HOSTILE}: 20 and 1." in made[0].text
    assert f"The test split has no image of cat, {HOSTILE}." in made[0].text


def test_rejects_are_counted_by_reason_and_listed_up_to_a_limit(made: tuple[Page, str]) -> None:
    assert made[0].tables["Why files were set aside"][1:] == [["damaged", "250"], ["empty file", "1"]]
    assert len(made[0].tables["Files that were set aside"]) == 1 + 200
    assert "The first 200 files" in made[0].text
    assert "examples/rejected.csv" in made[0].text


def test_notes_and_formats_are_counted(made: tuple[Page, str]) -> None:
    assert made[0].tables["What was noticed about files"][1:] == [["a JPEG file with the suffix .png", "1"]]
    assert "png 28" in made[0].text
    assert "jpeg 1" in made[0].text


def test_each_class_has_a_contact_sheet_of_the_train_split(made: tuple[Page, str]) -> None:
    alternatives = [alternative for alternative, _ in made[0].images if alternative]
    assert [sum(item.startswith(f"{label}: ") for item in alternatives) for label in ("cat", "dog", HOSTILE)] == [12, 4, 1]
    assert all(source.startswith("data:image/jpeg;base64,") for _, source in made[0].images)


def test_the_first_duplicates_are_shown_side_by_side(made: tuple[Page, str]) -> None:
    text = re.sub(r"\s+", " ", made[0].text)
    assert "1 groups of identical files, 20 pairs of nearly identical images." in text
    assert "Leak: images with a duplicate or near duplicate in train: 1 in test" in text
    assert "Contradiction: 2 images have a duplicate or near duplicate in another class" in text
    assert "Identical files; different classes and splits a.png cat, train b.png dog, test" in text
    assert text.count("of 64 bits differ") == 11  # a dozen pairs in all
    assert sum(alternative == "" for alternative, _ in made[0].images) == 2


def test_anomalies_and_distances_stand_with_their_thresholds(made: tuple[Page, str]) -> None:
    assert made[0].tables["What the ExampleValidator has found"][1:] == [["eval", "image/mean", "too dark: by far"]]
    assert made[0].tables["Distances between distributions"][1:] == [
        ["image/mean", "drift", "eval", "0.420 (too far)", "0.3", "Jensen-Shannon divergence"],
        ["image/mean", "skew", "eval", "0.120", "0.3", "Jensen-Shannon divergence"],
    ]


def test_figures_of_every_property_agree_with_the_index(made: tuple[Page, str], rows: list[IndexRow]) -> None:
    table = made[0].tables["Least, median and largest value by split"][1:]
    assert [item[0].split()[0] for item in table if len(item) == 5][:2] == ["Height", "Width"]
    heights = sorted(item.height for item in rows if item.split == "train" and item.height)
    assert table[0][1:] == ["train", str(heights[0]), f"{np.median(heights):.0f}", str(heights[-1])]


def test_the_page_needs_nothing_else_and_names_stay_names(made: tuple[Page, str]) -> None:
    page, html = made
    assert not re.search(r"https?://|<script|@import|url\((?!#)", html)
    assert all(link.startswith(("data:", "#")) for link in page.links)
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))


def test_many_classes_and_images_keep_the_page_small(tmp_path: Path) -> None:
    many = [row(f"{label}/{number}.png", f"class {label}") for label in range(150) for number in range(1 + label % 20)]
    page, html = page_of(tmp_path, [*many, row("eval.png", "class 0", "eval")])
    assert len(page.tables["Images by class and split"]) == 1 + 100
    assert "50 between them are left out" in page.text
    assert "The 30 largest of 150 classes are shown" in page.text
    assert len({alternative.partition(":")[0] for alternative, _ in page.images}) == 30
    assert len(html) < 5e6


def test_an_image_of_several_classes_counts_for_each(tmp_path: Path) -> None:
    found = [row("1.png", "cat|dog"), row("2.png", "dog"), row("3.png", ""), row("4.png", "dog", "eval")]
    page, _ = page_of(tmp_path, found, multi_label=True)
    assert page.tables["Images by class and split"][1:] == [
        ["dog", "2", "1", "3"],
        ["(no class)", "1", "0", "1"],
        ["cat", "1", "0", "1"],
    ]
    assert [alternative for alternative, _ in page.images] == ["dog: 1.png", "dog: 2.png", "(no class): 3.png", "cat: 1.png"]
    assert "Nothing: every file that was found was taken." in page.text
    assert "None: no two files show the same image." in page.text


def test_balance_is_told_in_words() -> None:
    even = [ClassCount("a", [3, 1]), ClassCount("b", [4, 0])]
    assert describe_balance(even, ["train", "eval"]) == [
        "All 2 classes have 4 images each.",
        "The eval split has no image of b.",
    ]


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1234, "1.23 kB"),
        (999_499, "999 kB"),
        (5_520_000, "5.52 MB"),
        (2 * 10**15, "2000 TB"),
    ],
)
def test_sizes_are_told_in_decimal_units(size: int, text: str) -> None:
    assert format_size(size) == text


def test_bins_follow_the_values() -> None:
    few, is_logarithmic = bin_edges(np.array([8.0, 12.0, 16.0, 16.0]))
    assert (few.tolist(), is_logarithmic) == ([6.0, 10.0, 14.0, 18.0], False)
    even, is_logarithmic = bin_edges(np.linspace(0, 1, 500))
    assert (len(even), even[0], even[-1], is_logarithmic) == (41, 0.0, 1.0, False)
    long, is_logarithmic = bin_edges(np.array([0.0, *np.geomspace(10, 1e6, 500)]))
    assert is_logarithmic
    np.testing.assert_allclose([long[0], long[-1], long[1] / long[0]], [10, 1e6, 1e5 ** (1 / 40)])


def test_a_histogram_takes_the_colours_of_its_page() -> None:
    svg = draw_histogram({"train": np.arange(99.0), "eval": np.arange(50.0)}, "pixels", "Height")
    assert svg.startswith("<svg ")
    assert 'aria-label="Height: ' in svg
    assert "var(--series-0)" in svg
    assert "var(--series-1)" in svg
    assert "#0102" not in svg


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(np.linspace(500, 900, 64 * 48, dtype=np.uint16).reshape(48, 64)),
        Image.new("RGBA", (640, 480), (255, 0, 0, 128)),
        Image.new("P", (5, 5)),
        Image.new("LA", (300, 20), (7, 70)),
    ],
    ids=["16 bit", "alpha", "palette", "grey with alpha"],
)
def test_thumbnails_are_small_pictures_of_any_pixel_type(image: Image.Image) -> None:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    small = Image.open(io.BytesIO(base64.b64decode(thumbnail(buffer.getvalue()).partition(",")[2])))
    assert small.mode == "RGB"
    assert 48 < max(small.size) <= 96
    if image.mode == "I;16":
        assert small.getextrema()[0][0] < 10
        assert small.getextrema()[0][1] > 245


def test_originals_are_shown_by_the_names_that_the_index_gives_them(tmp_path: Path) -> None:
    black, white = (Image.new("L", (100, 100), level) for level in (0, 255))
    black.save(tmp_path / "scan.tif", save_all=True, append_images=[white])
    white.save(tmp_path / "odd:7.png")
    features_of = {"image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[picture(255)]))}
    record = tf.train.Example(features=tf.train.Features(feature=features_of)).SerializeToString()
    with tf.io.TFRecordWriter(str(tmp_path / "a.tfrecord")) as writer:
        for _ in range(3):
            writer.write(record)
    settings = FileSettings(max_pixels=10**6, pages="first", intensity="type", window=None)

    def level(name: str) -> int | None:
        uri = original(str(tmp_path), name, settings)
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))[40, 40, 0] if uri else None

    names = ("scan.tif", "scan.tif#1", "odd:7.png", "a.tfrecord:2", "a.tfrecord:3", "scan.tif#2", "gone.png")
    assert [level(name) for name in names] == [0, 255, 255, 255, None, None, None]


def test_reading_ends_when_all_classes_are_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = write_examples(tmp_path, [row(f"{number}.png", "cat") for number in range(50)])
    split = examples / "Split-train"
    sheets, stopped = sample_classes(split, ["cat"], 3)
    assert ([name for name, _ in sheets["cat"]], stopped) == (["0.png", "1.png", "2.png"], False)
    monkeypatch.setattr("pipeline.pages.thumbnails._MOST_BYTES", 10 * len(picture()))
    sheets, stopped = sample_classes(split, ["cat", "owl"], 30)
    assert (len(sheets["cat"]), sheets["owl"], stopped) == (11, [], True)


def test_images_whose_files_are_not_in_the_records_are_read_elsewhere_together(tmp_path: Path) -> None:
    with tf.io.TFRecordWriter(str(tmp_path / "data_tfrecord-00000-of-00001")) as writer:
        for name in ("7.png", "gone.png", "8.png", "9.png"):
            values = {features.ENCODED: b"small", features.FILENAME: name.encode(), features.LABEL: b"cat"}
            feature = {key: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value])) for key, value in values.items()}
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
    asked = []

    def originals(names: list[str]) -> list[tuple[str, bytes]]:
        asked.append(names)
        return [(name, picture()) for name in names if name != "gone.png"]

    sheets, stopped = sample_classes(tmp_path, ["cat"], 3, originals)
    assert asked == [["7.png", "8.png", "gone.png"]]
    assert sheets == {"cat": [("7.png", thumbnail(picture())), ("gone.png", ""), ("8.png", thumbnail(picture()))]}
    assert not stopped


def test_classes_are_sorted_by_size_and_name() -> None:
    table = pd.DataFrame({"label": ["b", "a", "c", "c"], "split": ["train", "eval", "train", "eval"]})
    found = [(item.name, item.counts, item.total) for item in count_classes(table, ["train", "eval"], multi_label=False)]
    assert found == [("c", [1, 1], 2), ("a", [0, 1], 1), ("b", [1, 0], 1)]


@pytest.mark.parametrize(
    ("multi_label", "counted"), [(True, {"a": 2, "b": 2, "": 1}), (False, {"a|b": 1, "b": 1, "a": 1, "": 1})]
)
def test_only_multi_label_classes_are_separated(multi_label: bool, counted: dict[str, int]) -> None:
    table = pd.DataFrame({"label": ["a|b", "b", "a", ""], "split": ["train"] * 4})
    assert {item.name: item.total for item in count_classes(table, ["train"], multi_label)} == counted
