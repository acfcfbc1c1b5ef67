"""The components around the data, run for real: ingestion, the anomaly gate, the choice of a baseline."""

import csv
import io
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import bombs
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tfx.dsl.components.base import base_beam_executor
from tfx.types import artifact_utils, standard_artifacts, standard_component_specs

from base.errors import UserError
from components.image_example_gen.component import ImageExampleGen
from components.image_example_gen.executor import Executor
from images.dataset import source
from images.index import REJECTED_FILE, SUMMARY_FILE
from images.layout import find_layout
from images.loading import read_checked
from models import features
from pipeline.config.data import DataConfig, ImageConfig, SplitsConfig
from pipeline.config.whole import Config
from pipeline.dag.component_settings import ingestion_settings

DATA = DataConfig(path="", splits=SplitsConfig(train=2, eval=1, test=1, stratify=True), max_pixels=1_000_000)
SETTINGS = ingestion_settings(Config(name="ingestion", data=DATA, image=ImageConfig(height=8, width=8)))
LABELS = ("cat", "dog", "eel")
BROKEN = "dog/04.png"
TRUNCATED = "truncated: the end of the file is missing"


def write_images(folder: Path, broken: tuple[str, ...] = ()) -> None:
    """30 images of three classes and two sizes, with a manifest that has groups of two and one extra column."""
    lines = []
    for number in range(30):
        label = LABELS[number % 3]
        path = f"{label}/{number:02d}.{'jpg' if label == 'eel' else 'png'}"
        (folder / label).mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (8 + number % 2, 10, 3), np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG" if label == "eel" else "PNG")
        (folder / path).write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2 if path in broken else None])
        lines.append(f"{path},{label},{number // 6}-{label},{'day' if number % 2 else 'night'}")
    (folder / "manifest.csv").write_text("\n".join(["path,label,group,light", *lines]) + "\n")


def ingest(data: Path, output: Path, **changes: Any) -> standard_artifacts.Examples:
    component = ImageExampleGen(str(data), replace(SETTINGS, **changes))
    examples = standard_artifacts.Examples()
    examples.uri = str(output / "ImageExampleGen/examples/7")
    context = base_beam_executor.BaseBeamExecutor.Context(
        beam_pipeline_args=["--runner=FnApiRunner"], tmp_dir=str(output / "tmp"), unique_id="7"
    )
    Executor(context).Do({}, {standard_component_specs.EXAMPLES_KEY: [examples]}, dict(component.exec_properties))
    return examples


def read_split(examples: standard_artifacts.Examples, split: str) -> list[dict[str, Any]]:
    """Feature -> its only value, for each example."""
    paths = list(Path(artifact_utils.get_split_uri([examples], split)).iterdir())
    rows = []
    for record in tf.data.TFRecordDataset([str(path) for path in paths]):
        found = tf.train.Example.FromString(record.numpy()).features.feature
        row = {}
        for name, feature in found.items():
            (row[name],) = getattr(feature, feature.WhichOneof("kind")).value
        rows.append(row)
    return rows


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_images(folder, broken=(BROKEN,))
    return folder


@pytest.fixture(scope="module")
def examples(data: Path, tmp_path_factory: pytest.TempPathFactory) -> standard_artifacts.Examples:
    return ingest(data, tmp_path_factory.mktemp("output"))


@pytest.fixture(scope="module")
def rows(examples: standard_artifacts.Examples) -> dict[str, list[dict[str, Any]]]:
    return {split: read_split(examples, split) for split in features.SPLITS}


# Ingestion


def test_every_good_image_is_written_once_in_its_split(data: Path, rows: dict[str, list[dict[str, Any]]]) -> None:
    expected = {(row.split, row.path) for row in source.read_rows(str(data), SETTINGS) if row.path != BROKEN}
    written = [(split, row[features.FILENAME].decode()) for split in rows for row in rows[split]]
    assert len(written) == 29
    assert set(written) == expected
    assert {split for split, _ in written} == {"train", "eval", "test"}


def test_the_artifact_names_its_splits(examples: standard_artifacts.Examples) -> None:
    assert artifact_utils.decode_split_names(examples.split_names) == ["train", "eval", "test"]


def test_groups_do_not_straddle_the_written_splits(rows: dict[str, list[dict[str, Any]]]) -> None:
    groups = {split: {row[features.GROUP] for row in rows[split]} for split in rows}
    assert not groups["train"] & groups["test"]
    assert not groups["train"] & groups["eval"]
    assert not groups["eval"] & groups["test"]


def test_features_are_those_of_the_contract(data: Path, rows: dict[str, list[dict[str, Any]]]) -> None:
    types = {
        features.ENCODED: bytes,
        features.PIXELS: bytes,
        features.FORMAT: bytes,
        features.HEIGHT: int,
        features.WIDTH: int,
        features.CHANNELS: int,
        features.ASPECT: float,
        features.BYTES: int,
        features.FILENAME: bytes,
        features.LABEL: bytes,
        features.GROUP: bytes,
        features.MEAN: float,
        features.STD: float,
        features.SATURATED: float,
        features.SHARPNESS: float,
        f"{features.META_PREFIX}light": bytes,
    }
    for row in [row for split in rows.values() for row in split]:
        assert {name: type(value) for name, value in row.items()} == types
        path = row[features.FILENAME].decode()
        number = int(path[4:6])
        assert row[features.ENCODED] == (data / path).read_bytes()
        assert row[features.FORMAT] == (b"jpeg" if path.endswith("jpg") else b"png")
        assert row[features.PIXELS] == b""
        assert (row[features.HEIGHT], row[features.WIDTH], row[features.CHANNELS]) == (8 + number % 2, 10, 3)
        assert row[features.ASPECT] == pytest.approx(10 / (8 + number % 2))
        assert row[features.BYTES] == (data / path).stat().st_size
        assert row[features.LABEL].decode() == path[:3]
        assert row[features.GROUP].decode() == f"{number // 6}-{path[:3]}"
        assert row["meta/light"] == (b"day" if number % 2 else b"night")
        with Image.open(data / path) as image:
            grey = np.asarray(image) @ [0.2989, 0.587, 0.114] / 255
        assert row[features.MEAN] == pytest.approx(grey.mean(), rel=1e-5)
        assert row[features.STD] == pytest.approx(grey.std(), rel=1e-5)


def pixels_of(records: list[dict[str, Any]]) -> dict[tuple[bytes, bytes], bytes]:
    """Label, group -> pixels, with as many as there are images of both."""
    found: dict[tuple[bytes, bytes], bytes] = {}
    for row in sorted(records, key=lambda row: row[features.PIXELS]):
        key = row[features.LABEL], row[features.GROUP]
        found[key] = found.get(key, b"") + row[features.PIXELS]
    return found


def test_by_reference_the_trainers_splits_have_pixels_in_place_of_the_files(
    data: Path, examples: standard_artifacts.Examples, rows: dict[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    by_reference = ingest(data, tmp_path, originals="reference")
    assert not (Path(by_reference.uri) / "decoded").exists()
    assert read_split(by_reference, "test") == rows["test"]
    layout = find_layout(examples)
    assert layout
    for split in ("train", "eval"):
        found = read_split(by_reference, split)
        expected = [row | {features.ENCODED: b"", features.PIXELS: b""} for row in rows[split]]
        assert [row | {features.PIXELS: b""} for row in found] == expected
        decoded = standard_artifacts.Examples()
        decoded.uri, decoded.split_names = layout.decoded, examples.split_names
        assert pixels_of(found) == pixels_of(read_split(decoded, split))


@pytest.mark.parametrize(
    ("changes", "is_copied"),
    [
        ({}, False),
        ({"originals": "copy"}, True),
        ({"folds": 3}, True),
        ({"image": replace(SETTINGS.image, intensity="percentiles")}, True),
        ({"labelled": False}, True),
    ],
)
def test_many_bytes_are_not_copied_unless_a_later_component_needs_them(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], is_copied: bool
) -> None:
    monkeypatch.setattr("components.image_example_gen.executor._LARGE", sum(path.stat().st_size for path in data.glob("*/*")))
    examples = ingest(data, tmp_path, **changes)
    splits = artifact_utils.decode_split_names(examples.split_names)
    assert all(row[features.ENCODED] for row in read_split(examples, splits[0])) == is_copied


def test_the_summary_adds_up_to_the_files_found(
    examples: standard_artifacts.Examples, rows: dict[str, list[dict[str, Any]]]
) -> None:
    summary = json.loads((Path(examples.uri) / SUMMARY_FILE).read_text())
    assert list(summary["splits"]) == ["train", "eval", "test"]
    for split, counts in summary["splits"].items():
        assert counts == {
            label: sum(row[features.LABEL].decode() == label for row in rows[split])
            for label in LABELS
            if any(row[features.LABEL].decode() == label for row in rows[split])
        }
    assert summary["rejected"] == 1
    assert summary["images"] == {split: len(rows[split]) for split in features.SPLITS}
    assert sum(sum(counts.values()) for counts in summary["splits"].values()) + summary["rejected"] == 30


def test_a_multi_label_image_has_one_value_a_class_and_counts_once_for_each(tmp_path: Path) -> None:
    write_images(tmp_path / "data")
    manifest = tmp_path / "data" / "manifest.csv"
    texts = ["eel | cat", "", "dog"]
    lines = [f"{line.split(',')[0]},{texts[number % 3]}" for number, line in enumerate(manifest.read_text().split()[1:])]
    manifest.write_text("\n".join(["path,label", *lines]) + "\n")
    examples = ingest(tmp_path / "data", tmp_path, multi_label=True)
    summary = json.loads((Path(examples.uri) / SUMMARY_FILE).read_text())
    assert sum(summary["images"].values()) == 30
    assert {label: sum(counts.get(label, 0) for counts in summary["splits"].values()) for label in LABELS} == dict.fromkeys(
        LABELS, 10
    )
    files = [str(path) for path in Path(examples.uri).glob("Split-*/*")]
    records = tf.data.TFRecordDataset(files).as_numpy_iterator()
    written = {
        feature[features.FILENAME].bytes_list.value[0].decode(): list(feature[features.LABEL].bytes_list.value)
        for feature in (tf.train.Example.FromString(record).features.feature for record in records)
    }
    expected = [[b"cat", b"eel"], [], [b"dog"]]
    assert written == {line.split(",")[0]: expected[number % 3] for number, line in enumerate(lines)}


def test_the_broken_file_is_listed_with_its_reason(examples: standard_artifacts.Examples) -> None:
    with (Path(examples.uri) / REJECTED_FILE).open(newline="") as file:
        (rejected,) = csv.DictReader(file)
    assert (rejected["path"], rejected["label"]) == (BROKEN, "dog")
    assert rejected["reason"] == TRUNCATED


def test_more_bad_files_than_allowed_stop_the_run_and_their_list_is_kept(tmp_path: Path) -> None:
    broken = ("cat/00.png", "cat/03.png", "eel/02.jpg")
    write_images(tmp_path / "data", broken)
    (tmp_path / "data" / broken[2]).write_bytes(b"")
    with pytest.raises(UserError) as caught:
        ingest(tmp_path / "data", tmp_path / "output", max_rejected=0.09)
    kept = tmp_path / "output/ImageExampleGen" / REJECTED_FILE
    first, cure = str(caught.value).splitlines()
    assert first.startswith(f"3 of 30 files (10.0%) can't be used, the first cat/00.png ({TRUNCATED}); ")
    assert first.endswith(f"all are listed in {kept}")
    assert cure == "Mend or remove them, or raise data.max_rejected (0.09)"
    with kept.open(newline="") as file:
        listed = list(csv.DictReader(file))
    assert [row["path"] for row in listed] == list(broken)
    assert listed[2]["reason"] == "empty file"


def test_as_many_bad_files_as_allowed_do_not_stop_the_run(tmp_path: Path) -> None:
    write_images(tmp_path / "data", ("cat/00.png", "cat/03.png", "eel/02.jpg"))
    examples = ingest(tmp_path / "data", tmp_path / "output", max_rejected=0.1)
    assert json.loads((Path(examples.uri) / SUMMARY_FILE).read_text())["rejected"] == 3


def test_a_mistake_in_the_data_reaches_the_user_as_such(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        ingest(tmp_path / "absent", tmp_path / "output")


def test_changed_settings_change_what_the_cache_looks_at(tmp_path: Path) -> None:
    first, same, other = (
        ImageExampleGen(str(tmp_path), replace(SETTINGS, code=code)).exec_properties for code in ("digest", "digest", "another")
    )
    assert first == same
    assert first != other


def test_bombs_cost_their_budget_and_are_set_aside_by_name(tmp_path: Path) -> None:
    write_images(tmp_path / "data")
    files = {
        "comments.gif": bombs.gif_of_comments(4_000_000),
        "scans.jpg": bombs.jpeg_of_scans(900, 900, 2000),
        "chunks.png": bombs.png_of_chunks(950_000),
        "exif.jpg": bombs.jpeg_of_exif(9000, 8_000_000),
        "rows.bmp": bombs.bmp_of_runs(100_000, side=30),
    }
    with (tmp_path / "data/manifest.csv").open("a") as manifest:
        for name, content in files.items():
            (tmp_path / "data" / name).write_bytes(content)
            manifest.write(f"{name},cat,{name},day\n")
    started = time.process_time()
    examples = ingest(tmp_path / "data", tmp_path, max_rejected=0.5)
    assert time.process_time() - started < 20
    rejected = csv.DictReader(io.StringIO((Path(examples.uri) / REJECTED_FILE).read_text()))
    assert {row["path"]: row["reason"].removeprefix("too costly to decode: ") for row in rejected} == {
        "chunks.png": "more than 21,132 PNG chunks",
        "comments.gif": "more than 10,000 blocks of comments and the like in a GIF",
        "exif.jpg": "Exif tags with 72,000,000,000 bytes of values in 8,108,014 bytes",
        "rows.bmp": "damaged: not enough image data",
        "scans.jpg": "JPEG of 2,000 scans; at most 100 are read",
    }
    assert json.loads((Path(examples.uri) / SUMMARY_FILE).read_text())["found"] == 35
    again = source.Row("scans.jpg", ("cat",), "scans.jpg", "")
    ((_, found, image),) = read_checked(str(tmp_path / "data"), [again], SETTINGS.files)  # as fpn score reads it
    assert (found.kind, image) == ("too costly to decode", None)
