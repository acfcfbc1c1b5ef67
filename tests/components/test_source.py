"""How the images of a data folder are found, labelled, grouped and split."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from components.errors import UserError
from components.image_example_gen import source

COLUMNS = {"path": "path", "label": "label", "group": "group", "split": "split"}


def settings(**changes: Any) -> dict[str, Any]:
    splits = {"train": 8, "eval": 1, "test": 1}
    return {"manifest": "manifest.csv", "columns": COLUMNS, "splits": splits, "multi_label": False, **changes}


def touch(folder: Path, *paths: str) -> None:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"not opened")


def image_paths(per_class: int = 40, prefix: str = "") -> list[str]:
    return [f"{prefix}{label}/{number:02d}.png" for label in ("cat", "dog") for number in range(per_class)]


def make_manifest(folder: Path, header: str, lines: list[str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.csv").write_text("\n".join([header, *lines]) + "\n")
    return folder


@pytest.fixture
def class_folders(tmp_path: Path) -> Path:
    touch(tmp_path / "data", *image_paths())
    return tmp_path / "data"


def user_error(folder: Path | str, **changes: Any) -> str:
    with pytest.raises(UserError) as caught:
        source.read_rows(str(folder), settings(**changes))
    text = str(caught.value)
    assert len(text.splitlines()) <= 2
    return text


def split_counts(rows: list[source.Row]) -> Counter[str]:
    return Counter(row.split for row in rows)


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


def test_files_beside_the_class_folders_are_left_out(class_folders: Path) -> None:
    touch(class_folders, "README.txt")
    assert len(source.read_rows(str(class_folders), settings())) == 80


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
    assert {item.size_in_bytes for item in files.values()} == {len(b"not opened")}


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
    assert {row.label for row in source.read_rows(str(tmp_path), settings())} == set(names)


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
    touch(class_folders, "bird/00.png", "cat/99.png")
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
    touch(tmp_path, *image_paths(20, prefix="train/"), *image_paths(5, prefix="val/"))
    text = user_error(tmp_path)
    assert "the test split would be empty (50 images in 50 groups)" in text
    assert "data.splits.test" in text


def test_too_few_groups_for_the_test_split_are_told(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.png", "dog/1.png")
    assert "split would be empty (2 images in 2 groups)" in user_error(tmp_path, splits={"train": 1000, "eval": 1, "test": 1})


# Manifests


def test_extra_columns_of_a_manifest_become_meta(tmp_path: Path) -> None:
    touch(tmp_path, *image_paths())
    make_manifest(tmp_path, "path,size,label,camera", [f"{path},big,{path[:3]}, A " for path in image_paths()])
    rows = source.read_rows(str(tmp_path), settings())
    assert sorted(row.path for row in rows) == image_paths()
    assert all(row.meta == {"size": "big", "camera": "A"} for row in rows)
    assert {row.label for row in rows} == {"cat", "dog"}


def test_only_the_files_that_a_manifest_names_are_taken(tmp_path: Path) -> None:
    touch(tmp_path, *image_paths(), "bird/00.png")
    make_manifest(tmp_path, "path,label", [f"./{path},{path[:3]}" for path in image_paths()])
    assert sorted(row.path for row in source.read_rows(str(tmp_path), settings())) == image_paths()


def test_a_manifest_saved_by_a_spreadsheet_is_read(tmp_path: Path) -> None:
    touch(tmp_path, *image_paths())
    text = "\r\n".join(["path,label", *(f'"{path}","{path[:3]}, tame"' for path in image_paths())])
    (tmp_path / "manifest.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert {row.label for row in source.read_rows(str(tmp_path), settings())} == {"cat, tame", "dog, tame"}


def test_a_manifest_may_have_another_name(tmp_path: Path) -> None:
    touch(tmp_path, *image_paths())
    make_manifest(tmp_path, "path,label", [f"{path},{path[:2]}" for path in image_paths()]).joinpath("manifest.csv").rename(
        tmp_path / "list.csv"
    )
    assert {row.label for row in source.read_rows(str(tmp_path), settings(manifest="list.csv"))} == {"ca", "do"}


def test_a_group_never_straddles_splits(tmp_path: Path) -> None:
    touch(tmp_path, *image_paths(60))
    make_manifest(
        tmp_path, "path,label,group", [f"{path},{path[:3]},{number // 3}" for number, path in enumerate(image_paths(60))]
    )
    rows = source.read_rows(str(tmp_path), settings(splits={"train": 2, "eval": 1, "test": 1}))
    splits_of_groups: dict[str, set[str]] = {}
    for row in rows:
        splits_of_groups.setdefault(row.group, set()).add(row.split)
    assert len(splits_of_groups) == 40
    assert all(len(splits) == 1 for splits in splits_of_groups.values())
    assert set(split_counts(rows)) == {"train", "eval", "test"}


def test_a_row_without_a_group_is_its_own_group(tmp_path: Path) -> None:
    touch(tmp_path, *image_paths())
    make_manifest(tmp_path, "path,label,group", [f"{path},{path[:3]}," for path in image_paths()])
    assert all(row.group == row.path for row in source.read_rows(str(tmp_path), settings()))


def test_renamed_columns_are_read(tmp_path: Path) -> None:
    touch(tmp_path, *image_paths())
    lines = [
        f"{path},{path[:3]},{number // 2},{('train', 'eval', 'test')[number // 2 % 3]},x"
        for number, path in enumerate(image_paths())
    ]
    make_manifest(tmp_path, "file,animal,source,fold,size", lines)
    columns = {"path": "file", "label": "animal", "group": "source", "split": "fold"}
    rows = source.read_rows(str(tmp_path), settings(columns=columns))
    assert {row.label for row in rows} == {"cat", "dog"}
    assert {row.group for row in rows} == {str(number) for number in range(40)}
    assert set(split_counts(rows)) == {"train", "eval", "test"}
    assert all(row.meta == {"size": "x"} for row in rows)


def test_a_given_split_column_is_followed(tmp_path: Path) -> None:
    touch(tmp_path, *image_paths())
    given = {path: ("train", "Validation", " TEST ")[number % 3] for number, path in enumerate(image_paths())}
    make_manifest(tmp_path, "path,label,split", [f"{path},{path[:3]},{split}" for path, split in given.items()])
    canonical = {"train": "train", "Validation": "eval", " TEST ": "test"}
    rows = source.read_rows(str(tmp_path), settings())
    assert {row.path: row.split for row in rows} == {path: canonical[split] for path, split in given.items()}
    assert all(row.meta == {} for row in rows)


def test_a_group_stays_together_when_eval_is_taken_out_of_a_given_train(tmp_path: Path) -> None:
    touch(tmp_path, *image_paths())
    lines = [
        f"{path},{path[:3]},{number // 4},{'test' if number // 4 == 3 else 'train'}"
        for number, path in enumerate(image_paths())
    ]
    make_manifest(tmp_path, "path,label,group,split", lines)
    rows = source.read_rows(str(tmp_path), settings(splits={"train": 1, "eval": 1, "test": 1}))
    assert len({(row.group, row.split) for row in rows}) == 20
    assert {row.group for row in rows if row.split == "test"} == {"3"}
    assert "eval" in split_counts(rows)


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


@pytest.mark.parametrize(
    ("header", "columns", "missing", "near"),
    [
        ("path,labels", {}, "label", "is it labels?"),
        ("paths,label", {}, "path", "is it paths?"),
        ("path,label,sources", {"group": "source"}, "source", "is it sources?"),
        ("path,label,folds", {"split": "fold"}, "fold", "is it folds?"),
    ],
)
def test_a_missing_column_is_told_with_a_near_name(
    header: str, columns: dict[str, str], missing: str, near: str, tmp_path: Path
) -> None:
    make_manifest(tmp_path, header, [])
    text = user_error(tmp_path, columns=COLUMNS | columns)
    assert f"{tmp_path}/manifest.csv: no column {missing}" in text
    assert near in text
    assert f"data.columns.{next(role for role, name in (COLUMNS | columns).items() if name == missing)}" in text


@pytest.mark.parametrize("header", ["", "x,y", "path;label"])
def test_a_manifest_without_any_expected_column_is_told_in_whole_sentences(header: str, tmp_path: Path) -> None:
    make_manifest(tmp_path, header, [])
    text = user_error(tmp_path)
    assert f"no column path for the path, found {', '.join(header.split(',')) or 'none'}" in text
    before, _ = text.split(" Set data.columns.path")
    assert before[-1] in ".;?", "a sentence ends before the next begins"


def test_rows_whose_file_is_missing_are_counted_and_the_first_is_told(tmp_path: Path) -> None:
    touch(tmp_path, *image_paths(2))
    make_manifest(tmp_path, "path,label", ["cat/00.png,cat", "cat/77.png,cat", "dog/00.png,dog", "dog/88.png,dog"])
    text = user_error(tmp_path)
    assert f"{tmp_path}/manifest.csv: 2 of 4 files are missing, the first in line 3: cat/77.png" in text
    assert "add the files or remove the lines" in text


@pytest.mark.parametrize("written", ["../outside.png", "cat/../cat/00.png", "{folder}/cat/00.png", "/etc/hostname"])
def test_a_path_that_leads_out_of_the_folder_is_refused(written: str, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    touch(tmp_path, "outside.png")
    touch(folder, *image_paths(2))
    path = written.format(folder=folder)
    make_manifest(folder, "path,label", [f"{path},cat", "dog/00.png,dog"])
    assert f"1 of 2 files are missing, the first in line 2: {path}" in user_error(folder)


def test_two_rows_for_one_file_are_told(tmp_path: Path) -> None:
    touch(tmp_path, *image_paths(2))
    make_manifest(tmp_path, "path,label", ["cat/00.png,cat", "dog/00.png,dog", "./cat/00.png,dog"])
    text = user_error(tmp_path)
    assert "lines 2 and 4 name the same file, cat/00.png" in text
    assert "keep one" in text


@pytest.mark.parametrize("line", ["cat/01.png,cat,1,2", "cat/01.png", "cat/01.png,cat", "cat/01.png,,1", ",cat,1"])
def test_a_line_without_one_value_a_column_is_told(line: str, tmp_path: Path) -> None:
    touch(tmp_path, *image_paths())
    lines = [f"{path},{path[:3]},1" for path in image_paths() if path != "cat/01.png"]
    make_manifest(tmp_path, "path,label,size", [*lines[:3], line, *lines[3:]])
    assert f"{tmp_path}/manifest.csv: line 5" in user_error(tmp_path)


def test_empty_lines_do_not_shift_the_line_that_is_told(tmp_path: Path) -> None:
    touch(tmp_path, *image_paths(2))
    make_manifest(tmp_path, "path,label", ["", "cat/00.png,cat", "", "", "cat/77.png,cat"])
    assert "the first in line 6: cat/77.png" in user_error(tmp_path)


@pytest.mark.parametrize("lines", [0, 10, 10_000])
def test_a_quote_that_is_never_closed_is_told(lines: int, tmp_path: Path) -> None:
    make_manifest(tmp_path, "path,label", ['"cat/00.png,cat', *(f"cat/{number}.png,cat" for number in range(lines))])
    assert f"{tmp_path}/manifest.csv" in user_error(tmp_path)


def test_a_manifest_that_is_not_utf_8_is_told(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_bytes("path,label\ncat/Hände.png,cat\n".encode("latin-1"))
    text = user_error(tmp_path)
    assert f"{tmp_path}/manifest.csv: not UTF-8" in text
    assert "save it as UTF-8" in text


@pytest.mark.parametrize(("given", "told"), [("trian", "trian"), ("", "(none)")])
def test_an_unknown_split_name_is_told(given: str, told: str, tmp_path: Path) -> None:
    touch(tmp_path, *image_paths(2))
    make_manifest(tmp_path, "path,label,split", ["cat/00.png,cat,train", f"dog/00.png,dog,{given}"])
    text = user_error(tmp_path)
    assert f"{tmp_path}/manifest.csv: line 3 has the split {told}" in text
    assert "use train, eval or test" in text


@pytest.mark.parametrize("splits", [("train", "test"), ("eval", "test"), ("train", "eval")])
def test_a_group_in_two_given_splits_is_told(splits: tuple[str, str], tmp_path: Path) -> None:
    touch(tmp_path, *image_paths())
    lines = [
        f"{path},{path[:3]},{number},{('train', 'eval', 'test')[number % 3]}"
        for number, path in enumerate(image_paths())
        if number > 1
    ]
    paths = image_paths()
    make_manifest(
        tmp_path,
        "path,label,group,split",
        [f"{paths[0]},cat,twins,{splits[0]}", f"{paths[1]},cat,twins,{splits[1]}", *lines],
    )
    text = user_error(tmp_path)
    assert f"group twins is in the splits {splits[0]} and {splits[1]} (file {paths[1]})" in text


def test_a_group_in_two_splits_is_told_with_the_splits_that_the_manifest_names(tmp_path: Path) -> None:
    group = "twins 0"  # falls into the eval split where that is taken out of train
    touch(tmp_path, *image_paths())
    lines = [f"{path},{path[:3]},,{('train', 'test')[number % 2]}" for number, path in enumerate(image_paths()) if number > 1]
    paths = image_paths()
    make_manifest(tmp_path, "path,label,group,split", [f"{paths[0]},cat,{group},train", f"{paths[1]},cat,{group},test", *lines])
    assert f"group {group} is in the splits train and test" in user_error(tmp_path, splits={"train": 1, "eval": 1, "test": 1})


# Multi-label data


def write_multi_label(folder: Path, texts: list[str]) -> Path:
    paths = image_paths(60)
    touch(folder, *paths)
    lines = [f"{path},{texts[number % len(texts)]}" for number, path in enumerate(paths)]
    return make_manifest(folder, "path,label", lines)


def test_a_label_is_split_into_classes_in_one_order_and_without_repeats(tmp_path: Path) -> None:
    texts = ["dog|cat", " cat | dog ", "cat|dog|cat", "|cat||dog|"]
    rows = source.read_rows(str(write_multi_label(tmp_path, texts)), settings(multi_label=True))
    assert {row.labels for row in rows} == {("cat", "dog")}
    assert {row.label for row in rows} == {"cat|dog"}


def test_an_image_may_have_no_class(tmp_path: Path) -> None:
    rows = source.read_rows(str(write_multi_label(tmp_path, ["cat", ""])), settings(multi_label=True))
    assert {row.labels for row in rows} == {("cat",), ()}


def test_class_folders_give_one_class_each_to_multi_label_data(class_folders: Path) -> None:
    rows = source.read_rows(str(class_folders), settings(multi_label=True))
    assert {row.labels for row in rows} == {("cat",), ("dog",)}


def test_a_class_that_only_other_splits_have_is_told_by_itself(tmp_path: Path) -> None:
    touch(tmp_path, *image_paths(3))
    lines = [
        f"{path},{label},{split}"
        for path, label, split in zip(
            image_paths(3),
            ("cat", "dog", "", "cat|owl", "dog", ""),
            ("train", "train", "eval", "eval", "test", "test"),
            strict=True,
        )
    ]
    make_manifest(tmp_path, "path,label,split", lines)
    assert "the train split has no image of owl;" in user_error(tmp_path, multi_label=True)


def test_multi_label_data_without_any_label_is_told(tmp_path: Path) -> None:
    assert "no image has a label" in user_error(write_multi_label(tmp_path, [""]), multi_label=True)


def test_an_empty_label_and_joined_classes_are_errors_where_an_image_has_one_class(tmp_path: Path) -> None:
    assert "needs one value for each column, and a path and a label" in user_error(write_multi_label(tmp_path, ["cat", ""]))
    text = user_error(write_multi_label(tmp_path, ["cat", "dog", "cat|dog"]))
    assert "the label cat|dog looks like 2 classes; set data.multi_label to true" in text
    assert len(source.read_rows(str(write_multi_label(tmp_path, ["a|b", "c|d"])), settings())) == 120


# Fingerprint


def test_the_fingerprint_is_the_same_while_nothing_changes(class_folders: Path) -> None:
    before = source.fingerprint(str(class_folders))
    (class_folders / "cat/00.png").read_bytes()
    assert source.fingerprint(str(class_folders)) == before


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
    before = source.fingerprint(str(class_folders))
    change(class_folders / path)
    assert source.fingerprint(str(class_folders)) != before


def test_the_fingerprint_changes_with_a_new_file_but_not_with_a_hidden_one(class_folders: Path) -> None:
    before = source.fingerprint(str(class_folders))
    touch(class_folders, "cat/.thumbs")
    assert source.fingerprint(str(class_folders)) == before
    touch(class_folders, "cat/new.png")
    assert source.fingerprint(str(class_folders)) != before


def test_the_fingerprint_does_not_depend_on_the_place(class_folders: Path) -> None:
    before = source.fingerprint(str(class_folders))
    assert source.fingerprint(str(class_folders.rename(class_folders.with_name("moved")))) == before


def test_importing_source_does_not_import_tensorflow() -> None:
    code = "import sys, components.image_example_gen.source; print({'tensorflow', 'tfx'} & sys.modules.keys() or 'none')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "none"


def test_a_class_that_training_would_never_see_is_an_error(tmp_path):
    for split, label in [("train", "cat"), ("train", "dog"), ("val", "cat"), ("test", "cat"), ("test", "owl")]:
        folder = tmp_path / split / label
        folder.mkdir(parents=True)
        (folder / "a.png").write_bytes(b"x")
    with pytest.raises(UserError, match=r"the train split has no image of owl; .*data\.splits\.train"):
        source.read_rows(str(tmp_path), settings())
