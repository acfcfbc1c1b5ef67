"""How a manifest names images, labels, groups and splits."""

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_folders import COLUMNS, image_paths, make_manifest, reasons, settings, split_counts, touch, user_error

from images.dataset import source
from images.dataset.row import LEADS_OUT


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
        f"{path},{path[:3]},{number // 4},{'test' if number // 4 in (3, 13) else 'train'}"
        for number, path in enumerate(image_paths())
    ]
    make_manifest(tmp_path, "path,label,group,split", lines)
    rows = source.read_rows(str(tmp_path), settings(splits={"train": 1, "eval": 1, "test": 1}))
    assert len({(row.group, row.split) for row in rows}) == 20
    assert {row.group for row in rows if row.split == "test"} == {"3", "13"}
    assert "eval" in split_counts(rows)


# Types


def rows_by_path(folder: Path, **changes: Any) -> dict[str, source.Row]:
    return {row.path: row for row in source.read_rows(str(folder), settings(**changes))}


def test_columns_are_read_as_the_types_that_the_configuration_gives_them(tmp_path: Path) -> None:
    touch(tmp_path, *image_paths())
    lines = [f"{path},{path[:3]},{number},{number / 4},{number}" for number, path in enumerate(image_paths())]
    lines[1] = f"{image_paths()[1]},cat,,,"
    make_manifest(tmp_path, "path,label,age,dose,ward", lines)
    rows = rows_by_path(tmp_path, columns={"types": {"age": "integer", "dose": "real"}})
    assert rows["cat/00.png"].meta == {"age": 0, "dose": 0.0, "ward": "0"}
    assert rows["dog/39.png"].meta == {"age": 79, "dose": 19.75, "ward": "79"}
    assert isinstance(rows["dog/39.png"].meta["age"], int)
    assert rows["cat/01.png"].meta == {"ward": ""}, "a number that is missing is left out"


@pytest.mark.parametrize(
    ("kind", "value", "told"),
    [
        ("integer", "3.5", "no integer"),
        ("real", "tall", "no number"),
        ("real", "inf", "not finite"),
        ("integer", "9" * 30, "beyond 64 bits"),
    ],
)
def test_a_value_of_another_type_is_told_with_its_line(kind: str, value: str, told: str, tmp_path: Path) -> None:
    touch(tmp_path, *image_paths(2))
    make_manifest(tmp_path, "path,label,age", ["cat/00.png,cat,1", f"dog/00.png,dog,{value}"])
    text = user_error(tmp_path, columns={"types": {"age": kind}})
    assert f"{tmp_path}/manifest.csv: line 3 has '{value}' as age, which is {told}" in text
    assert "data.columns.types" in text


def test_a_type_of_a_column_that_is_not_there_is_told(tmp_path: Path) -> None:
    make_manifest(tmp_path, "path,label,age", [])
    text = user_error(tmp_path, columns={"types": {"ages": "integer"}})
    assert "no column ages" in text
    assert "is it age?" in text
    assert "data.columns.types" in text


# Parquet


def parquet(folder: Path, name: str = "manifest.parquet", **columns: Any) -> None:
    table = {"path": image_paths(), "label": [number // 40 for number in range(80)], **columns}
    pq.write_table(pa.table(table), folder / name)


def test_a_parquet_manifest_keeps_its_numbers_and_all_else_is_text(tmp_path: Path) -> None:
    touch(tmp_path, *image_paths())
    parquet(
        tmp_path,
        age=[None, *range(1, 80)],
        dose=pa.array([float("nan"), *(n / 4 for n in range(1, 80))], pa.float32()),
        ward=pa.array(["a", None] * 40).dictionary_encode(),
        smokes=[n % 2 == 0 for n in range(80)],
        tags=[["x", "y"]] * 80,
    )
    rows = rows_by_path(tmp_path)
    assert Counter(row.label for row in rows.values()) == {"0": 40, "1": 40}
    assert rows["cat/00.png"].meta == {"ward": "a", "smokes": "true", "tags": "['x', 'y']"}
    assert rows["dog/39.png"].meta == {"age": 79, "dose": 19.75, "ward": "", "smokes": "false", "tags": "['x', 'y']"}


def test_a_csv_manifest_goes_before_a_parquet_one_and_another_name_before_both(tmp_path: Path) -> None:
    touch(tmp_path, *image_paths())
    parquet(tmp_path)
    parquet(tmp_path, "third.parquet", kind=["x"] * 80)
    make_manifest(tmp_path, "path,label,kind", [f"{path},{path[:3]},csv" for path in image_paths()])
    assert rows_by_path(tmp_path)["cat/00.png"].meta == {"kind": "csv"}
    assert rows_by_path(tmp_path, manifest="third.parquet")["cat/00.png"].meta == {"kind": "x"}
    (tmp_path / "manifest.csv").unlink()
    assert rows_by_path(tmp_path)["cat/00.png"].meta == {}


def test_rows_of_a_parquet_manifest_are_told_by_their_number(tmp_path: Path) -> None:
    touch(tmp_path, *image_paths())
    parquet(tmp_path, split=["train"] * 79 + ["holdout"])
    assert "manifest.parquet: row 80 has the split holdout" in user_error(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("manifest.parquet", b"PAR1 but not really", "no Parquet file"),
        ("list.xlsx", b"", "must end in .csv, .tsv, .jsonl, .parquet, .json or .xml"),
        ("gone.csv", None, "no manifest gone.csv"),
    ],
)
def test_a_manifest_that_can_not_be_read_is_told(name: str, content: bytes | None, told: str, tmp_path: Path) -> None:
    touch(tmp_path, *image_paths(1))
    if content is not None:
        (tmp_path / name).write_bytes(content)
    text = user_error(tmp_path, manifest="manifest.csv" if name == "manifest.parquet" else name)
    assert name in text
    assert told in text


# What is set aside or left out


def test_rows_without_a_label_or_with_an_unknown_one_are_set_aside(tmp_path: Path) -> None:
    touch(tmp_path, *image_paths(), "cow/00.png", "none/00.png")
    lines = [f"{path},{path[:3]}" for path in image_paths()]
    make_manifest(tmp_path, "path,label", [*lines, "cow/00.png,cow", "none/00.png, "])
    rows = source.read_rows(str(tmp_path), settings(labels=["cat", "dog"]))
    assert reasons(rows) == {"cow/00.png": "label cow is not in data.labels", "none/00.png": "label missing"}
    assert {row.split for row in rows if row.reason} == {""}
    assert len(rows) == 82


def test_one_unknown_class_of_several_sets_a_multi_label_image_aside(tmp_path: Path) -> None:
    rows = source.read_rows(
        str(write_multi_label(tmp_path, ["cat", "cat|dog", "cow|dog", "dog", ""])),
        settings(labels=["cat", "dog"], multi_label=True),
    )
    assert Counter(row.label for row in rows if row.reason == "label cow is not in data.labels") == {"cow|dog": 24}
    assert sum(not row.reason for row in rows) == 96


def test_files_that_a_manifest_does_not_name_are_counted(tmp_path: Path) -> None:
    touch(tmp_path, *image_paths(), "bird/00.png", "README.txt", ".hidden")
    make_manifest(tmp_path, "path,label", [f"{path},{path[:3]}" for path in image_paths()])
    found = source.find_rows(str(tmp_path), settings())
    assert (len(found.rows), found.unlisted) == (80, 2)


# Paths


@pytest.mark.parametrize(
    "written", ["cat/00.png", "./cat//00.png", "cat/../cat/00.png", "{folder}/cat/00.png", "{folder}/../data/cat/00.png"]
)
def test_a_path_into_the_folder_means_the_same_however_it_is_written(written: str, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    touch(folder, *image_paths())
    lines = [f"{path},{path[:3]}" for path in image_paths()]
    make_manifest(folder, "path,label", [f"{written.format(folder=folder)},cat", *lines[1:]])
    assert sorted(rows_by_path(folder)) == image_paths()
    make_manifest(folder, "path,label", [f"{written.format(folder=folder)},cat", *lines])
    assert "lines 2 and 3 name the same file, cat/00.png" in user_error(folder)


def test_paths_are_relative_to_the_folder_of_the_manifest(tmp_path: Path) -> None:
    touch(tmp_path, *image_paths())
    make_manifest(tmp_path / "lists", "path,label", [f"../{path},{path[:3]}" for path in image_paths()])
    assert sorted(rows_by_path(tmp_path, manifest="lists/manifest.csv")) == image_paths()


@pytest.mark.parametrize("manifest", ["manifest.csv", "lists/manifest.csv"])
def test_spaces_around_a_path_belong_to_it_if_there_is_such_a_file(manifest: str, tmp_path: Path) -> None:
    odd = [" cat.png", "cat.png ", "cat.png", " cat/00.png"]
    touch(tmp_path, *image_paths(), *odd)
    up = "../" * manifest.count("/")
    lines = [f'"{up}{path}",cat' for path in odd] + [f" {up}{path} ,{path[:3]}" for path in image_paths()]
    make_manifest((tmp_path / manifest).parent, "path,label", lines)
    assert sorted(rows_by_path(tmp_path, manifest=manifest)) == sorted([*odd, *image_paths()])


def test_a_hidden_file_is_taken_if_it_is_named(tmp_path: Path) -> None:
    touch(tmp_path, *image_paths(), ".store/a.png")
    lines = [f"{path},{path[:3]}" for path in image_paths()]
    make_manifest(tmp_path, "path,label", [*lines, ".store/a.png,cat"])
    assert rows_by_path(tmp_path)[".store/a.png"].size == len(b"not opened")


@pytest.mark.parametrize("written", ["../outside.png", "cat/../../outside.png", "{outside}", "/etc/hostname", "../gone.png"])
def test_a_path_that_leads_out_of_the_folder_is_set_aside_unless_allowed(written: str, tmp_path: Path) -> None:
    folder, outside = tmp_path / "data", tmp_path / "outside.png"
    touch(tmp_path, "outside.png")
    touch(folder, *image_paths())
    written = written.format(outside=outside)
    make_manifest(folder, "path,label", [*(f"{path},{path[:3]}" for path in image_paths()), f"{written},cat"])
    assert list(reasons(list(rows_by_path(folder).values())).values()) == [LEADS_OUT]
    if written == "../gone.png":
        assert "1 of 81 files are missing, the first in line 82: ../gone.png" in user_error(folder, allow_links=True)
    else:
        rows = rows_by_path(folder, allow_links=True)
        assert len(rows) == 81
        assert not reasons(list(rows.values()))


def test_a_pipe_that_a_manifest_names_is_set_aside(tmp_path: Path) -> None:
    touch(tmp_path, *image_paths())
    os.mkfifo(tmp_path / "pipe.png")
    os.mkfifo(tmp_path / ".pipe.png")
    lines = [f"{path},{path[:3]}" for path in [*image_paths(), "pipe.png", ".pipe.png"]]
    make_manifest(tmp_path, "path,label", lines)
    assert reasons(list(rows_by_path(tmp_path).values())) == dict.fromkeys(["pipe.png", ".pipe.png"], "not a regular file")


def test_uris_are_looked_up_in_their_file_system(memory: dict[str, bytes], tmp_path: Path) -> None:
    memory.update({"memory://a/cat/1.png": b"12345", "memory://a/[x]*/2.png": b"1"})
    touch(tmp_path, *image_paths())
    lines = [*(f"{path},{path[:3]}" for path in image_paths()), "memory://a/cat/1.png,cat", "memory://a/[x]*/2.png,cat"]
    make_manifest(tmp_path, "path,label", lines)
    rows = rows_by_path(tmp_path)
    assert (rows["memory://a/cat/1.png"].size, rows["memory://a/[x]*/2.png"].size) == (5, 1)
    before = source.fingerprint(str(tmp_path), settings())
    memory["memory://a/cat/1.png"] = b"123456"
    assert source.fingerprint(str(tmp_path), settings()) != before
    del memory["memory://a/cat/1.png"]
    assert "1 of 82 files are missing, the first in line 82: memory://a/cat/1.png" in user_error(tmp_path)


def test_a_uri_without_a_file_system_is_told(tmp_path: Path) -> None:
    touch(tmp_path, *image_paths(1))
    make_manifest(tmp_path, "path,label", ["cat/00.png,cat", "nowhere://a/1.png,dog"])
    assert "nowhere://a/1.png: can't be looked up" in user_error(tmp_path)


def test_a_data_folder_may_be_in_another_file_system(memory: dict[str, bytes]) -> None:
    memory.update({f"memory://a/data/{path}": b"x" for path in image_paths()})
    memory["memory://a/data/cat/"] = b""
    memory["memory://a/data/.hidden/x.png"] = b""
    memory["memory://a/data2/other.png"] = b""
    folders = source.read_rows("memory://a/data", settings())
    assert sorted(row.path for row in folders) == image_paths()
    lines = [*(f"{path},{path[:3]}" for path in image_paths()), "../data2/other.png,cat", "/etc/hostname,dog"]
    lines[0] = "memory://a/data/cat/00.png,cat"
    memory["memory://a/data/manifest.csv"] = "\n".join(["path,label", *lines]).encode()
    listed = source.read_rows("memory://a/data/", settings())
    assert reasons(listed) == dict.fromkeys(["../data2/other.png", "/etc/hostname"], LEADS_OUT)
    assert {(row.path, row.split) for row in folders} == {(row.path, row.split) for row in listed if not row.reason}
    assert len(source.read_rows("memory://a/data", settings(allow_links=True))) == 82


# Mistakes


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


@pytest.mark.parametrize("header", ["", "x,y", "path|label"])
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


def test_two_rows_for_one_file_are_told(tmp_path: Path) -> None:
    touch(tmp_path, *image_paths(2))
    make_manifest(tmp_path, "path,label", ["cat/00.png,cat", "dog/00.png,dog", "./cat/00.png,dog"])
    text = user_error(tmp_path)
    assert "lines 2 and 4 name the same file, cat/00.png" in text
    assert "keep one" in text


@pytest.mark.parametrize("line", ["cat/01.png,cat,1,2", "cat/01.png", "cat/01.png,cat", ",cat,1"])
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
    assert f"group twins is in the splits {splits[0]} and {splits[1]} (files " in text


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
    assert "the train split has no image of owl (1 group in all);" in user_error(tmp_path, multi_label=True)


def test_multi_label_data_without_any_label_is_told(tmp_path: Path) -> None:
    assert "no image has a label" in user_error(write_multi_label(tmp_path, [""]), multi_label=True)


def test_joined_classes_are_an_error_where_an_image_has_one_class(tmp_path: Path) -> None:
    text = user_error(write_multi_label(tmp_path, ["cat", "dog", "cat|dog"]))
    assert "the label cat|dog looks like 2 classes; set data.multi_label to true" in text
    assert len(source.read_rows(str(write_multi_label(tmp_path, ["a|b", "c|d"])), settings())) == 120
