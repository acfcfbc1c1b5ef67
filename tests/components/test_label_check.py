"""LabelCheck on real examples of all splits, some of which have the label of the other class."""

import csv
import io
import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from executors import SETTINGS, context, ingest, make_artifact
from object_stores import Store
from PIL import Image
from tfx.dsl.io import fileio
from tfx.types import channel_utils, standard_artifacts

from components.bulk_inferrer import reading
from components.label_check.component import LabelCheck
from components.label_check.executor import Executor
from components.label_check.results import OUTPUT_KEY, LabelCheckResult, read_result
from components.label_check.settings import LabelCheckSettings
from components.label_check.tables import CORRECTIONS, TABLE
from images.settings import SourceSettings
from models import features
from models.packing import unpack

SOURCE = unpack(SourceSettings, asdict(SETTINGS))
BRIGHTNESS = {"cat": 20, "dog": 190}
# In the folder of the other class. How many of them are found depends on the random weights of the exported network: the fewer
# there are, the less sure it is.
SWAPPED = {f"{folder}/{kind}_{number}.png" for kind, folder in (("cat", "dog"), ("dog", "cat")) for number in range(1, 9)}


def picture(seed: int, brightness: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 40, (24, 20)) + brightness
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def write_folders(data: Path, images: int = 40) -> None:
    """Dark cats and bright dogs, of which some are in the wrong folder."""
    for shift, (kind, other) in enumerate((("cat", "dog"), ("dog", "cat"))):
        for number in range(images):
            name = f"{kind}_{number}.png"
            folder = other if f"{other}/{name}" in SWAPPED else kind
            (data / folder).mkdir(parents=True, exist_ok=True)
            (data / folder / name).write_bytes(picture(1000 * shift + number, BRIGHTNESS[kind]))


def write_manifest(data: Path, rows: list[tuple[str, int]]) -> None:
    """An image for each label and brightness."""
    data.mkdir()
    with (data / "manifest.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("path", "label"))
        for number, (label, brightness) in enumerate(rows):
            table.writerow((f"{number}.png", label))
            (data / f"{number}.png").write_bytes(picture(number, brightness))


def write_examples(place: Path, splits: dict[str, list[tuple[str, int]]]):
    """Examples as another ExampleGen writes them, without groups: for each split, labels and brightnesses."""
    examples = make_artifact(standard_artifacts.Examples, place, "Other", "examples", 1)
    examples.split_names = json.dumps(list(splits))
    number = 0
    for split, rows in splits.items():
        (Path(examples.uri) / f"Split-{split}").mkdir()
        with tf.io.TFRecordWriter(f"{examples.uri}/Split-{split}/data-00000-of-00001.gz", "GZIP") as writer:
            for label, brightness in rows:
                values = {features.ENCODED: picture(number, brightness), features.FILENAME: f"{number}.png".encode()}
                if label:
                    values[features.LABEL] = label.encode()
                example = tf.train.Example()
                for name, value in values.items():
                    example.features.feature[name].bytes_list.value.append(value)
                writer.write(example.SerializeToString())
                number += 1
    return examples


def look(exported, place: Path, examples, folds: int = 5, output: str = "", **source) -> tuple[LabelCheckResult, Any]:
    """Runs the executor; the counts, and the folder of the tables."""
    model = make_artifact(standard_artifacts.Model, place, "Trainer", "model", 1)
    (Path(model.uri) / "Format-Serving").symlink_to(exported.path)
    inputs = {"examples": [examples], "model": [model]}
    component = LabelCheck(
        **{name: channel_utils.as_channel(found) for name, found in inputs.items()},
        data=str(place / "data"),
        settings=LabelCheckSettings(folds=folds, batch_size=16, source=replace(SOURCE, **source)),
        code="",
    )
    issues = make_artifact(standard_artifacts.ExampleAnomalies, place, "LabelCheck", OUTPUT_KEY, 1)
    issues.uri = output or issues.uri
    Executor(context(place, 1)).Do(inputs, {OUTPUT_KEY: [issues]}, dict(component.exec_properties))
    return read_result(issues.uri), output or Path(issues.uri)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("labels")
    write_folders(folder / "data")
    return folder


@pytest.fixture(scope="module")
def examples(place):
    return ingest(place / "data", place)


def test_wrong_labels_are_found_in_all_splits(exported, place, examples):
    result, folder = look(exported, place, examples)
    table = pd.read_csv(folder / TABLE)
    assert list(table.columns) == ["path", "label", "suggested", "quality", "split"]
    found = SWAPPED & set(table["path"])
    assert len(found) > len(SWAPPED) / 2
    assert result == LabelCheckResult(80, len(table), 0)
    assert len(table) <= len(SWAPPED) + 4
    assert table["quality"].is_monotonic_increasing
    index = pd.read_parquet(Path(examples.uri) / "images.parquet").set_index("path")
    assert list(table["split"]) == list(index.loc[table["path"], "split"])
    assert set(index["split"]) == {"train", "eval", "test"}
    corrections = pd.read_csv(folder / CORRECTIONS).set_index("path")
    assert set(corrections.index) == set(table["path"])
    assert all(corrections.loc[path, "label"] == path.split("/")[1].split("_")[0] for path in found)
    assert sorted(path.name for path in folder.iterdir()) == [CORRECTIONS, "label_check.json", TABLE]


def test_pixels_in_place_of_the_files_give_the_same_table(exported, place, tmp_path):
    image = replace(SETTINGS.image, height=24, width=20, channels=1)  # those of the exported model
    tables = []
    for originals in ("copy", "reference"):
        examples = ingest(place / "data", tmp_path / originals, originals=originals, image=image)
        _, folder = look(exported, tmp_path / originals, examples)
        tables.append(pd.read_csv(folder / TABLE))
    pd.testing.assert_frame_equal(*tables)


def test_no_more_pixels_are_in_memory_than_a_limit(tmp_path, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), np.uint8)
    with tf.io.TFRecordWriter(str(tmp_path / "data")) as writer:
        for number, image in enumerate(pixels):
            values = {features.FILENAME: str(number).encode(), features.ENCODED: b"", features.PIXELS: image.tobytes()}
            example = tf.train.Example()
            for name, value in values.items():
                example.features.feature[name].bytes_list.value.append(value)
            writer.write(example.SerializeToString())
    rows = []

    class Decoder(reading.example_coder.ExamplesToRecordBatchDecoder):
        def DecodeBatch(self, examples):  # noqa: N802 - the library's name
            rows.append(len(examples))
            return super().DecodeBatch(examples)

    monkeypatch.setattr(reading.example_coder, "ExamplesToRecordBatchDecoder", Decoder)
    monkeypatch.setattr(reading, "_PIXEL_BYTES", 2 * 48)
    found = list(reading.read_images(str(tmp_path / "data"), 256, (4, 4, 3)))
    assert rows == [2, 2, 1]
    for image, expected in zip(found, pixels, strict=True):
        np.testing.assert_array_equal(Image.open(io.BytesIO(image.encoded)), expected)


def test_corrections_in_use_stay_in_the_new_file(exported, place, tmp_path):
    shutil.copytree(place / "data", tmp_path / "data")
    (tmp_path / "data" / "fixed.csv").write_text("path,label\ndog/cat_5.png,cat\ncat/cat_0.png,\n")
    examples = ingest(tmp_path / "data", tmp_path, corrections="fixed.csv")
    result, folder = look(exported, tmp_path, examples, corrections="fixed.csv")
    assert result.images == 79
    assert "dog/cat_5.png" not in set(pd.read_csv(folder / TABLE)["path"])
    corrections = pd.read_csv(folder / CORRECTIONS, keep_default_na=False).set_index("path")
    assert len(SWAPPED & set(corrections.index)) > len(SWAPPED) / 2
    assert list(corrections.loc["dog/cat_5.png"]) == ["cat", "dog", ""]
    assert list(corrections.loc["cat/cat_0.png"]) == ["", "cat", ""]


def test_images_of_a_class_that_is_too_rare_are_left_out_and_counted(exported, tmp_path):
    rows = [(kind, BRIGHTNESS[kind]) for kind in ("cat", "dog") for _ in range(20)]
    write_manifest(tmp_path / "data", [*rows, *[("owl", 100)] * 4])
    result, folder = look(exported, tmp_path, ingest(tmp_path / "data", tmp_path))
    assert (result.images, result.left_out, result.reason) == (40, 4, "")
    assert "owl" not in (folder / TABLE).read_text()


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([("cat", 20), ("dog", 190), ("cat", 20), ("dog", 190)], id="fewer images than folds"),
        pytest.param([("cat", 20)] * 20 + [("dog", 190)] * 4, id="one class that is frequent enough"),
    ],
)
def test_data_that_is_too_small_gives_a_reason_and_empty_tables(exported, tmp_path, rows):
    result, folder = look(exported, tmp_path, write_examples(tmp_path, {"train": rows}))
    assert (result.images, result.issues, result.left_out) == (0, 0, len(rows))
    assert result.reason == "too few classes have images of 5 groups or more; give more images, or a smaller labels.folds"
    assert (folder / TABLE).read_text() == "path,label,suggested,quality,split\n"
    assert (folder / CORRECTIONS).read_text() == "path,label,given,quality\n"


def test_images_with_several_labels_or_none_are_looked_at(exported, tmp_path):
    """There are more folds than images of each set of classes in the second case; all images have a class in the third."""
    kinds = {"": 10, "dark": 80, "dark|red": 150, "red": 210}
    for number, (folds, everywhere) in enumerate(((5, ""), (16, ""), (5, "all|"))):
        place = tmp_path / str(number)
        place.mkdir()
        rows = [(f"{everywhere}{label}".strip("|"), grey) for label, grey in kinds.items() for _ in range(15)]
        write_manifest(place / "data", rows)
        examples = ingest(place / "data", place, multi_label=True)
        result, folder = look(exported, place, examples, folds=folds, multi_label=True)
        assert (result.images, result.left_out, result.reason) == (60, 0, "")
        table = pd.read_csv(folder / TABLE, keep_default_na=False)
        assert result.issues == len(table)


def test_examples_of_another_example_gen_are_looked_at_without_the_data_folder(exported, tmp_path):
    """They have other split names and no groups, and one of them has no label."""
    swapped = [("dog", BRIGHTNESS["cat"])] * 4
    pairs = [((kind := ("cat", "dog")[number % 2]), BRIGHTNESS[kind]) for number in range(41)]
    examples = write_examples(tmp_path, {"a": [*swapped, *pairs[:29], ("", 10)], "b": pairs[30:]})
    result, folder = look(exported, tmp_path, examples, corrections="there/is/none.csv")
    assert (result.images, result.left_out) == (44, 1)
    table = pd.read_csv(folder / TABLE).set_index("path")
    found = table.loc[table.index.isin([f"{number}.png" for number in range(len(swapped))])]
    assert set(zip(found["suggested"], found["split"], strict=True)) == {("cat", "a")}


def test_the_tables_may_go_to_a_bucket(exported, place, examples, store: Store, bucket, tmp_path):
    _, folder = look(exported, tmp_path, examples, output=f"{store.scheme}://{bucket}/labels")
    assert read_result(folder).images == 80
    for name, columns in ((TABLE, "path,label,suggested,quality,split"), (CORRECTIONS, "path,label,given,quality")):
        with fileio.open(f"{folder}/{name}") as file:
            assert file.read().splitlines()[0] == columns
