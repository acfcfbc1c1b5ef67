"""What holds for manifests and class folders holds for each layout: the first look, limits, names of classes, losses."""

import io
import json
import os
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import process_time
from typing import Any

import pyarrow as pa
import pytest
from data_folders import image_paths, reasons, settings, touch, user_error
from pyarrow import parquet
from test_losses import write as write_records
from test_records import example, prepare
from test_records import write as write_examples

from base.errors import UserError
from images.dataset import source
from images.files.decoding import RejectedImage
from images.files.reading import read_files
from images.settings import IngestionSettings, Reading

LABELS = ("cat", "dog")


def pack(path: Path, contents: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in contents.items():
                archive.writestr(name, content)
        return
    with tarfile.open(path, "w") as tar:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def write_parquet(path: Path, labels: list[Any], names: list[str] | None = None) -> None:
    table = pa.table({"image": [b"%d" % number for number in range(len(labels))], "label": labels})
    if names:
        info = {"info": {"features": {"label": {"names": names}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, path)


# The reading


def split_folders(data: Path) -> None:
    touch(data, *image_paths(5, "archive/Training/"), *image_paths(5, "archive/Testing/"))


def wrapped(data: Path) -> None:
    touch(data, *image_paths(5, "archive/"))


def unlabelled_beside(data: Path) -> None:
    touch(data, *image_paths(5, "train/"), "test/0.png")


def table_beside(data: Path) -> None:
    touch(data, *image_paths(5, "pictures/"))
    (data / "labels.csv").write_text("id,label\n" + "".join(f"pictures/{path},{path[:3]}\n" for path in image_paths(5)))


def table_with_paths(data: Path) -> None:
    touch(data, *image_paths(5))
    (data / "metadata.jsonl").write_text(
        "".join(json.dumps({"file_name": path, "label": path[:3]}) + "\n" for path in image_paths(5))
    )


def tables_of_splits(data: Path) -> None:
    touch(data, *image_paths(5, "train/"), *image_paths(5, "test/"))
    for split in ("train", "test"):
        lines = [f"{path},{path.split('/')[1]}\n" for path in image_paths(5, f"{split}/")]
        (data / f"{split}.csv").write_text("path,label\n" + "".join(lines))


def parquet_shards(data: Path) -> None:
    write_parquet(data / "train-00000-of-00001.parquet", [*LABELS] * 5)


def web_dataset(data: Path) -> None:
    contents = {f"{number}.{kind}": LABELS[number % 2].encode() for number in range(10) for kind in ("jpg", "cls")}
    pack(data / "train-0.tar", contents)


def zip_archives(data: Path) -> None:
    for label in LABELS:
        pack(data / f"{label}.zip", {f"{number}.png": b"x" for number in range(5)})


def records_in_zip(data: Path) -> None:
    write_records(data / "a.tfrecord", 10)
    pack(data / "archive.zip", {"a.tfrecord": (data / "a.tfrecord").read_bytes()})
    (data / "a.tfrecord").unlink()


def prepared_below(data: Path) -> None:
    prepare(data / "pets/1.0.0", {"train": 9})


Maker = Callable[[Path], None]
SOURCES: list[tuple[Maker, dict[str, Any], str]] = [
    (
        split_folders,
        {},
        "class folders in folders of splits: archive/Testing (test), archive/Training (train)",
    ),
    (wrapped, {}, "class folders in archive"),
    (unlabelled_beside, {}, "class folders in folders of splits: train (all)"),
    (lambda data: touch(data, *image_paths(5, "a/"), *image_paths(5, "b/")), {"layout": "folder/class"}, "other folders"),
    (
        lambda data: touch(data, *(f"{label}/{split}/1.png" for label in LABELS for split in ("train", "test"))),
        {"layout": "class/split"},
        "around",
    ),
    (table_beside, {}, "the manifest labels.csv"),
    (table_with_paths, {}, "the manifest metadata.jsonl"),
    (tables_of_splits, {}, "the tables test.csv and train.csv"),
    (parquet_shards, {}, "Parquet files with images"),
    (web_dataset, {}, "WebDataset files, in archives"),
    (zip_archives, {}, "class folders, in archives"),
    (records_in_zip, {}, "TFRecord files, in archives"),
    (prepared_below, {}, "a TensorFlow Datasets directory, pets/1.0.0"),
]


def reading(data: Path, how: IngestionSettings) -> Reading:
    return source.find_rows(str(data), how).reading


@pytest.mark.parametrize(("make", "changes", "told"), SOURCES)
def test_the_reading_knows_each_layout_and_is_the_same_while_the_data_is(
    make: Maker, changes: dict[str, Any], told: str, tmp_path: Path
) -> None:
    make(tmp_path)
    how = settings(**changes)
    before = reading(tmp_path, how)
    assert told in before.sources[""]
    assert reading(tmp_path, replace(how, reading=before)) == before
    assert reading(tmp_path, replace(how, labelled=False)).classes == ()
    touch(tmp_path, "Thumbs.db")
    assert reading(tmp_path, replace(how, reading=before)) == before


def lose_folder(data: Path, name: str) -> None:
    for file in sorted((data / name).rglob("*.*")):
        file.unlink()


CHANGES: list[tuple[Maker, Maker, str]] = [
    (split_folders, lambda data: lose_folder(data, "archive/Testing"), "would be read from class folders in archive/Training"),
    (wrapped, lambda data: touch(data, "owl/0.png"), "would be read from class folders now"),
    (unlabelled_beside, lambda data: touch(data, "test/cat/1.png", "test/dog/1.png", "test/cat/2.png"), "folders of splits"),
    (table_beside, lambda data: (data / "labels.csv").unlink(), "would be read from class folders in pictures now"),
    (table_with_paths, lambda data: (data / "metadata.jsonl").unlink(), "was read from the manifest metadata.jsonl"),
    (tables_of_splits, lambda data: (data / "test.csv").unlink(), "would be read from the manifest train.csv now"),
    (
        parquet_shards,
        lambda data: write_parquet(data / "train-00000-of-00001.parquet", ["cat", "owl"]),
        "images of the class owl",
    ),
    (parquet_shards, lambda data: touch(data, *image_paths(5)), "would be read from class folders now"),
    (web_dataset, lambda data: pack(data / "train-0.tar", {"1.jpg": b"x", "1.cls": b"owl"}), "images of the class owl"),
    (zip_archives, lambda data: touch(data, *image_paths(5)), "was read from class folders, in archives when the run began"),
    (prepared_below, lambda data: prepare_as(data, "pets/2.0.0"), "would be read from a TensorFlow Datasets directory, pets/2"),
]


def prepare_as(data: Path, name: str) -> None:
    prepare(data / name, {"train": 9})


@pytest.mark.parametrize(("make", "change", "told"), CHANGES)
def test_another_reading_than_at_the_start_stops_the_run(make: Maker, change: Maker, told: str, tmp_path: Path) -> None:
    make(tmp_path)
    before = reading(tmp_path, settings())
    change(tmp_path)
    with pytest.raises(UserError) as caught:
        source.find_rows(str(tmp_path), settings(reading=before))
    text = str(caught.value)
    assert told in text
    assert text.endswith("put the data back as it was, or start the run again")


# Limits


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"file_name": "cat/00.png", "label": ' + "[" * 100_000, "line 2: is nested too deeply"),
        ('{"file_name": "cat/00.png", "label": 1' + "0" * 10_000 + "}", "line 2: not JSON (an integer of 10001 digits)"),
        ('{"file_name": "' + "x" * 2**24, "line 2 has more than 1,048,576 characters"),
        (json.dumps({f"c{number}": 1 for number in range(20_000)}), "columns; 10,000 are the most"),
        ('{"file_name": "cat/00.png", "label": "\\ud800"}', "line 2: has half of a character"),
        ('["cat/00.png", "cat"]', "line 2: holds no JSON object"),
    ],
)
def test_json_lines_that_are_too_much_are_refused(line: str, told: str, tmp_path: Path) -> None:
    touch(tmp_path, *image_paths(5))
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "cat/01.png", "label": "cat"}\n' + line + "\n")
    assert told in user_error(tmp_path)


def test_columns_of_json_lines_are_numbers_if_all_values_are(tmp_path: Path) -> None:
    touch(tmp_path, *image_paths(2))
    values: list[dict[str, Any]] = [{"age": 3, "size": 1, "site": "a"}, {"size": 1.5, "site": 2}, {"age": 4}, {"late": True}]
    lines = [{"path": path, "label": path[:3], **value} for path, value in zip(image_paths(2), values, strict=True)]
    (tmp_path / "manifest.jsonl").write_text("\n\n".join(map(json.dumps, lines)))
    rows = source.find_rows(str(tmp_path), settings(manifest="manifest.jsonl")).rows
    assert {row.path: row.meta for row in rows} == {
        "cat/00.png": {"age": 3, "size": 1.0, "site": "a", "late": ""},
        "cat/01.png": {"size": 1.5, "site": "2", "late": ""},
        "dog/00.png": {"age": 4, "site": "", "late": ""},
        "dog/01.png": {"site": "", "late": "true"},
    }


@pytest.mark.parametrize("name", ["labels.csv", "metadata.jsonl", "metadata.parquet", "archive.zip", "x.parquet"])
def test_a_pipe_is_never_waited_for(name: str, tmp_path: Path) -> None:
    touch(tmp_path, *image_paths(5))
    os.mkfifo(tmp_path / name)
    assert reasons(source.find_rows(str(tmp_path), settings()).rows) == {name: "not a regular file"}
    assert "not a regular file" in user_error(tmp_path, manifest=name) or name == "archive.zip"


def test_parquet_files_of_few_bytes_and_many_rows_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("images.dataset.parquet_shards._MAX_ROWS", 99)
    write_parquet(tmp_path / "a.parquet", ["cat"] * 100)
    assert "a.parquet: 100 rows, 99 are the most" in user_error(tmp_path)


def test_a_long_path_in_a_table_is_told_shortly(tmp_path: Path) -> None:
    touch(tmp_path, *image_paths(5))
    path = "C:\\" + "x" * 10_000
    (tmp_path / "manifest.csv").write_text(f"path,label\n{path},cat\n")
    assert len(user_error(tmp_path)) < 400


def test_many_files_of_one_name_are_looked_up_in_seconds(tmp_path: Path) -> None:
    from images.dataset.file_names import FileNames

    paths = [f"{number}/image.png" for number in range(200_000)]
    began = process_time()
    with pytest.raises(UserError, match="may be 0/image"):
        FileNames("labels.csv", dict.fromkeys(paths), "", "", lambda path: path).find("image")
    assert process_time() - began < 5


def test_a_name_in_an_archive_reaches_no_file_outside_of_it(tmp_path: Path) -> None:
    outside = tmp_path / "secret.png"
    outside.write_bytes(b"secret")
    names = [str(outside), f"cat/../../{outside.name}", "gs://bucket/cat/1.png", "cat/1.png", "dog/1.png", "dog/2.png"]
    for suffix in ("zip", "tar"):
        archive = tmp_path / f"data.{suffix}"
        pack(archive, dict.fromkeys(names, b"inside"))
        rows = source.find_rows(str(archive), settings()).rows
        assert {row.path for row in rows if not row.reason} == {"cat/1.png", "dog/1.png", "dog/2.png"}
        found = [content for content in read_files(str(archive), rows) if not isinstance(content, RejectedImage)]
        assert {bytes(content) for content in found} == {b"inside"}


# Names of classes


def with_name(kind: str, data: Path, name: str) -> None:
    if kind == "jsonl":
        touch(data, *image_paths(2))
        (data / "metadata.jsonl").write_text(json.dumps({"file_name": "cat/00.png", "label": name}))
    elif kind == "csv":
        touch(data, *image_paths(2))
        (data / "labels.csv").write_text(f'id,label\ncat/00,"{name}"\n')
    elif kind == "parquet":
        write_parquet(data / "a.parquet", ["cat", name])
    elif kind == "names":
        write_parquet(data / "a.parquet", [0, 1], ["cat", name])
    elif kind == "webdataset":
        pack(data / "a.tar", {"1.jpg": b"x", "1.cls": name.encode(), "2.jpg": b"x", "2.cls": b"cat"})
    elif kind == "tar":
        pack(data / "a.tar", {f"{name}/1.jpg": b"x", "cat/1.jpg": b"x", "dog/1.jpg": b"x"})
    else:
        touch(data, *image_paths(2, "Training/"), *image_paths(2, "Testing/"), f"Training/{name}/1.png")


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet", "names", "webdataset", "tar", "split folders"])
def test_names_with_line_breaks_are_refused(kind: str, tmp_path: Path) -> None:
    with_name(kind, tmp_path, "two\nlines")
    assert "the class 'two\\nlines' " in (told := user_error(tmp_path))
    assert "has a line break or a control character in its name" in told


def test_the_separator_is_part_of_a_name_in_single_label_data(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", ["a|b", "cat"])
    assert {row.labels for row in source.find_rows(str(tmp_path), settings()).rows} == {("a|b",), ("cat",)}
    assert {row.labels for row in source.find_rows(str(tmp_path), settings(multi_label=True)).rows} == {("a", "b"), ("cat",)}
    pack(tmp_path / "web/a.tar", {"1.jpg": b"x", "1.cls": b"a|b", "2.jpg": b"x", "2.cls": b"cat"})
    assert {row.labels for row in source.find_rows(str(tmp_path / "web"), settings(multi_label=True)).rows} == {
        ("a", "b"),
        ("cat",),
    }


def test_an_unknown_number_of_a_class_is_set_aside(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", [0, 1, 7, -2, -1], ["cat", "dog"])
    assert reasons(source.find_rows(str(tmp_path), settings()).rows) == {
        "a.parquet:2": "no class has the number 7",
        "a.parquet:3": "no class has the number -2",
        "a.parquet:4": "label missing",
    }


# Losses


@pytest.mark.parametrize("suffix", ["zip", "tar"])
def test_what_damaged_record_files_in_archives_have_lost_is_counted(suffix: str, tmp_path: Path) -> None:
    write_records(tmp_path / "plain/a.tfrecord", 60, damage_at=20, hole=3)
    content = (tmp_path / "plain/a.tfrecord").read_bytes()
    pack(tmp_path / f"packed/archive.{suffix}", {"inner/a.tfrecord": content})
    plain = source.find_rows(str(tmp_path / "plain"), settings()).losses
    packed = source.find_rows(str(tmp_path / "packed"), settings()).losses
    assert plain
    assert packed
    assert replace(packed, first="") == replace(plain, first="")
    assert packed.first == plain.first.replace("a.tfrecord", f"archive.{suffix}/inner/a.tfrecord")


def test_a_damaged_archive_costs_the_records_of_its_damaged_file(tmp_path: Path) -> None:
    write_records(tmp_path / "plain/a.tfrecord", 200)
    content = (tmp_path / "plain/a.tfrecord").read_bytes()
    archive = tmp_path / "packed/archive.zip"
    pack(archive, {"a.tfrecord": content, "b.tfrecord": content})
    damaged = bytearray(archive.read_bytes())
    damaged[8000:9000] = bytes(1000)
    archive.write_bytes(damaged)
    found = source.find_rows(str(archive.parent), settings())
    assert found.losses
    assert found.losses.of_bytes == 2 * len(content)
    assert "archive.zip/a.tfrecord" in found.losses.first
    good = [row for row in found.rows if not row.reason]
    assert sum("/b." in row.path for row in good) == 200
    assert not any(isinstance(content, RejectedImage) for content in read_files(str(archive.parent), good))


def test_records_that_a_prepared_data_set_below_its_version_has_lost_are_counted(tmp_path: Path) -> None:
    prepare(tmp_path / "pets/1.0.0", {"train": 60}, file_format="tfrecord")
    home = tmp_path / "pets/1.0.0"
    info = json.loads((home / "dataset_info.json").read_text())
    info |= {"name": "pets", "splits": [{"name": "train", "shardLengths": ["60", "60"]}]}
    (home / "dataset_info.json").write_text(json.dumps(info))
    path = home / "pets-train.tfrecord-00000-of-00002"
    write_examples(path, [example(picture=b"%d" % number, kind=number % 3) for number in range(20)])
    found = source.find_rows(str(tmp_path), settings())
    assert found.losses
    assert found.losses.records == 40


def test_a_prepared_data_set_in_an_archive_keeps_the_names_of_its_classes(tmp_path: Path) -> None:
    prepare(tmp_path / "home", {"train": 9, "test": 6})
    contents = {f"pets/1.0.0/{path.name}": path.read_bytes() for path in sorted((tmp_path / "home").iterdir())}
    pack(tmp_path / "packed/pets.zip", contents)
    found = source.find_rows(str(tmp_path / "packed"), settings())
    assert not reasons(found.rows)
    assert {row.label for row in found.rows} == {"cat", "dog", "owl"}
    assert list(read_files(str(tmp_path / "packed"), found.rows)) == [b"%d" % (row.record or 0) for row in found.rows]
