"""How the images of a data folder are found, labelled, grouped and split."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from data_folders import image_paths, reasons, settings, split_counts, touch, user_error

from images.dataset import source


@pytest.fixture
def class_folders(tmp_path: Path) -> Path:
    touch(tmp_path / "data", *image_paths())
    return tmp_path / "data"


# Class folders


def test_class_folders_give_labels_and_one_group_a_file(class_folders: Path) -> None:
    rows = source.read_rows(str(class_folders), settings())
    assert sorted(row.path for row in rows) == image_paths()
    assert all(row.label == row.path.split("/")[0] for row in rows)
    assert all(row.group == row.path for row in rows)
    assert all(row.meta == {} for row in rows)


def test_hash_buckets_set_the_shares_of_the_splits(tmp_path: Path) -> None:
    touch(tmp_path, *image_paths(400))
    counts = split_counts(source.read_rows(str(tmp_path), settings(splits={"train": 5, "eval": 3, "test": 2})))
    assert {split: round(count / 800, 1) for split, count in counts.items()} == {"train": 0.5, "eval": 0.3, "test": 0.2}


def test_images_in_folders_inside_a_class_folder_belong_to_the_class(class_folders: Path) -> None:
    touch(class_folders, "cat/kittens/young/00.png")
    rows = source.read_rows(str(class_folders), settings())
    assert {row.path: row.label for row in rows}["cat/kittens/young/00.png"] == "cat"


def test_files_beside_the_class_folders_are_set_aside(class_folders: Path) -> None:
    touch(class_folders, "README.txt")
    rows = source.read_rows(str(class_folders), settings())
    assert len(rows) == 81
    assert reasons(rows) == {"README.txt": "not in a class folder"}
    assert {row.split for row in rows if row.reason} == {""}


def test_hidden_files_and_folders_are_ignored(class_folders: Path) -> None:
    touch(class_folders, ".DS_Store", "cat/.thumbnail.png", ".git/cat/00.png", "dog/.cache/00.png")
    assert sorted(source.list_files(str(class_folders))) == image_paths()
    assert len(source.read_rows(str(class_folders), settings())) == 80


def test_a_folder_below_a_hidden_one_can_be_the_data_folder(tmp_path: Path) -> None:
    touch(tmp_path / ".hidden/data", *image_paths())
    assert len(source.read_rows(str(tmp_path / ".hidden/data"), settings())) == 80


def test_files_are_listed_in_alphabetical_order_with_their_sizes(tmp_path: Path) -> None:
    touch(tmp_path, "b/2.png", "a/10.png", "a/1.png")
    files = source.list_files(str(tmp_path))
    assert list(files) == ["a/1.png", "a/10.png", "b/2.png"]
    assert {item.size for item in files.values()} == {len(b"not opened")}


@pytest.mark.parametrize("written", ["data", "./data", "data/", "data//", "../work/data"])
def test_a_relative_folder_means_the_same_however_it_is_written(
    written: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path / "work/data", *image_paths())
    monkeypatch.chdir(tmp_path / "work")
    rows = source.read_rows(written, settings())
    assert rows == source.read_rows(str(tmp_path / "work/data"), settings())
    assert sorted(row.path for row in rows) == image_paths()


@pytest.mark.parametrize("name", ["photos of 2024", "photos [2024]", "photos*", "what?", "Hände"])
def test_a_folder_may_have_any_name(name: str, tmp_path: Path) -> None:
    touch(tmp_path / name, *image_paths())
    touch(tmp_path / "photos of cars", "car/00.png")
    touch(tmp_path / "whats", "car/00.png")
    assert len(source.read_rows(str(tmp_path / name), settings())) == 80


def test_a_class_may_have_any_name(tmp_path: Path) -> None:
    names = ["a [1]", "b*", "Hände", "train"]
    touch(tmp_path, *(f"{name}/{number}.png" for name in names for number in range(20)))
    assert {row.label for row in source.read_rows(str(tmp_path), settings(layout="class"))} == set(names)


def test_class_folders_give_one_class_each_to_multi_label_data(class_folders: Path) -> None:
    rows = source.read_rows(str(class_folders), settings(multi_label=True))
    assert {row.labels for row in rows} == {("cat",), ("dog",)}


# Order


def test_the_order_is_the_same_on_every_run_and_does_not_depend_on_the_place(tmp_path: Path) -> None:
    touch(tmp_path / "one", *image_paths())
    touch(tmp_path / "two", *reversed(image_paths()))
    rows = source.read_rows(str(tmp_path / "one"), settings())
    assert rows == source.read_rows(str(tmp_path / "one"), settings())
    assert rows == source.read_rows(str(tmp_path / "two"), settings())


def test_the_order_mixes_the_classes(class_folders: Path) -> None:
    labels = [row.label for row in source.read_rows(str(class_folders), settings())]
    assert all(len(set(labels[start : start + 20])) == 2 for start in range(0, 80, 20))


def test_a_row_keeps_its_split_when_files_are_added(class_folders: Path) -> None:
    before = {row.path: row.split for row in source.read_rows(str(class_folders), settings())}
    touch(class_folders, "dog/77.png", "cat/99.png")
    after = {row.path: row.split for row in source.read_rows(str(class_folders), settings())}
    assert before.items() <= after.items()


# Split folders


@pytest.mark.parametrize("names", [("train", "val", "test"), ("Train", "Validation", "TEST"), ("train", "eval", "test")])
def test_split_folders_are_kept_as_they_are(names: tuple[str, str, str], tmp_path: Path) -> None:
    for name, count in zip(names, (5, 2, 3), strict=True):
        touch(tmp_path, *image_paths(count, prefix=f"{name}/"))
    rows = source.read_rows(str(tmp_path), settings())
    canonical = dict(zip(names, ("train", "eval", "test"), strict=True))
    assert split_counts(rows) == {"train": 10, "eval": 4, "test": 6}
    assert all(row.split == canonical[row.path.split("/")[0]] for row in rows)
    assert all(row.label == row.path.split("/")[1] for row in rows)


def test_without_an_eval_folder_the_eval_split_is_taken_out_of_train(tmp_path: Path) -> None:
    touch(tmp_path, *image_paths(50, prefix="train/"), *image_paths(5, prefix="test/"))
    rows = source.read_rows(str(tmp_path), settings(splits={"train": 3, "eval": 1, "test": 9}))
    assert all((row.split == "test") == row.path.startswith("test/") for row in rows)
    counts = split_counts(rows)
    assert counts["train"] + counts["eval"] == 100
    assert 15 <= counts["eval"] <= 35


def test_an_empty_test_split_is_told(tmp_path: Path) -> None:
    touch(tmp_path, *image_paths(1, prefix="train/"), *image_paths(5, prefix="val/"))
    text = user_error(tmp_path, splits={"train": 1000, "eval": 1, "test": 1})
    assert "the test split would be empty (12 images in 12 groups)" in text
    assert "set data.splits.stratify to true, give it more hash buckets (data.splits.test)" in text


def test_too_few_groups_for_the_test_split_are_told(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.png", "dog/1.png")
    assert "split would be empty (2 images in 2 groups)" in user_error(tmp_path, splits={"train": 1000, "eval": 1, "test": 1})


# Mistakes


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    text = user_error(tmp_path / "absent")
    assert f"{tmp_path / 'absent'}: no such folder" in text
    assert "--data" in text


@pytest.mark.parametrize("files", [[], [".DS_Store"]])
def test_an_empty_folder_is_told(files: list[str], tmp_path: Path) -> None:
    touch(tmp_path, *files)
    text = user_error(tmp_path)
    assert f"{tmp_path}: holds no files" in text
    assert "class folders" in text


def test_a_file_in_place_of_the_folder_is_told(tmp_path: Path) -> None:
    touch(tmp_path, "images.zip")
    assert "data.path" in user_error(tmp_path / "images.zip")


def test_a_single_class_is_told(tmp_path: Path) -> None:
    touch(tmp_path, *(f"cat/{number}.png" for number in range(40)))
    text = user_error(tmp_path)
    assert str(tmp_path) in text
    assert "two classes or more, found only cat" in text


def test_files_without_class_folders_are_told(tmp_path: Path) -> None:
    touch(tmp_path, "1.png", "2.png")
    text = user_error(tmp_path)
    assert f"{tmp_path}: holds files but no class folders" in text
    assert "manifest" in text


# Fingerprint


def test_the_fingerprint_is_the_same_while_nothing_changes(class_folders: Path) -> None:
    before = source.fingerprint(str(class_folders), settings())
    (class_folders / "cat/00.png").read_bytes()
    assert source.fingerprint(str(class_folders), settings()) == before


def change_size(file: Path) -> None:
    times = file.stat()
    file.write_bytes(b"some more bytes than before")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def change_time(file: Path) -> None:
    os.utime(file, (1, 1))


def change_name(file: Path) -> None:
    file.rename(file.with_name("renamed.png"))


@pytest.mark.parametrize("change", [change_size, change_time, change_name, Path.unlink])
@pytest.mark.parametrize("path", ["cat/00.png", "cat/deep/down/00.png"])
def test_the_fingerprint_changes_with_any_file(change: Any, path: str, class_folders: Path) -> None:
    touch(class_folders, path)
    before = source.fingerprint(str(class_folders), settings())
    change(class_folders / path)
    assert source.fingerprint(str(class_folders), settings()) != before


def test_the_fingerprint_changes_with_a_new_file_but_not_with_a_hidden_one(class_folders: Path) -> None:
    before = source.fingerprint(str(class_folders), settings())
    touch(class_folders, "cat/.thumbs")
    assert source.fingerprint(str(class_folders), settings()) == before
    touch(class_folders, "cat/new.png")
    assert source.fingerprint(str(class_folders), settings()) != before


def test_the_fingerprint_does_not_depend_on_the_place(class_folders: Path) -> None:
    before = source.fingerprint(str(class_folders), settings())
    assert source.fingerprint(str(class_folders.rename(class_folders.with_name("moved"))), settings()) == before


def test_importing_source_does_not_import_tensorflow() -> None:
    code = "import sys, images.dataset.source; print({'tensorflow', 'tfx'} & sys.modules.keys() or 'none')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "none"
