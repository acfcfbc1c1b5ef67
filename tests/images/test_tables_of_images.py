"""Tables as people have them: other names, columns, separators, paths; several tables; JSON Lines."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from data_folders import image_paths, reasons, settings, touch, user_error
from pyarrow import parquet

from images.dataset import source
from images.dataset.columns import separator_of
from images.dataset.source import Found

IDS = [f"{number:04x}" for number in range(0xA00, 0xA00 + 40)]


def find(folder: Path, **changes: Any) -> Found:
    return source.find_rows(str(folder), settings(**changes))


def labels(found: Found) -> dict[str, str]:
    """Path -> label."""
    assert not reasons(found.rows)
    return {row.path: row.label for row in found.rows}


def write(path: Path, header: str, lines: list[str], encoding: str = "utf-8") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *lines]) + "\n", encoding)


BY_FOLDER = {path: path.split("/")[0] for path in image_paths(5)}


# As spreadsheets write them


@pytest.mark.case(19)
@pytest.mark.parametrize("separator", [";", "\t", ","])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_the_separator_and_the_encoding_are_seen(separator: str, encoding: str, tmp_path: Path) -> None:
    touch(tmp_path, *image_paths(5))
    lines = [separator.join((path, label, "1,5" if separator != "," else '"1,5"')) for path, label in BY_FOLDER.items()]
    write(tmp_path / "manifest.csv", separator.join(("path", "label", "größe")), lines, encoding)
    found = find(tmp_path)
    assert labels(found) == BY_FOLDER
    assert {row.meta["größe"] for row in found.rows} == {"1,5"}
    assert found.notes == []


def test_line_ends_of_old_spreadsheets_are_read(tmp_path: Path) -> None:
    touch(tmp_path, *image_paths(5))
    lines = [f"{path},{label}" for path, label in BY_FOLDER.items()]
    (tmp_path / "labels.csv").write_bytes("\r".join(["file,label", *lines]).encode())
    assert labels(find(tmp_path)) == BY_FOLDER


@pytest.mark.parametrize(
    "content", [b"a,b\r1,2\r3,4\r", b"a,\0b\n1,\0\n", b'a,"' + b"x" * 200_000 + b'"\n1,2\n', b'a,"b\r\n', b"\r\r\n,,\n"]
)
def test_tables_that_say_nothing_about_images_are_passed_over(content: bytes, tmp_path: Path) -> None:
    touch(tmp_path, *image_paths(5))
    (tmp_path / "cat/measured.csv").write_bytes(content)
    (tmp_path / "notes.csv").write_bytes(content)
    assert BY_FOLDER.items() <= {row.path: row.label for row in find(tmp_path).rows}.items()


@pytest.mark.parametrize(
    ("column", "names"),
    [
        ("Split", ("Train", "Val", "TEST")),
        ("SPLIT", ("train", "dev", "test")),
        ("Usage", ("Training", "PublicTest", "PrivateTest")),
    ],
)
def test_usual_columns_of_splits_are_known(column: str, names: tuple[str, ...], tmp_path: Path) -> None:
    touch(tmp_path, *image_paths(6))
    lines = [f"{path},{label},{names[number % 3]}" for number, (path, label) in enumerate(sorted(BY_FOLDER.items()))]
    write(tmp_path / "labels.csv", f"File,Label,{column}", lines)
    found = find(tmp_path)
    assert Counter(row.split for row in found.rows) == {"train": 4, "eval": 3, "test": 3}
    assert any(f"{column} the split" in note for note in found.notes)
    assert column not in found.rows[0].meta


def test_a_column_of_usage_that_has_no_splits_is_kept(tmp_path: Path) -> None:
    touch(tmp_path, *image_paths(5))
    write(tmp_path / "labels.csv", "file,label,usage", [f"{path},{label},free" for path, label in BY_FOLDER.items()])
    assert {(row.split, row.meta["usage"]) for row in find(tmp_path).rows} == {("", "free")}


def test_the_separator_is_not_looked_for_inside_quotes() -> None:
    assert separator_of('path,"a;b;c",label') == ","
    assert separator_of("path\tlabel\tsize, mm") == "\t"
    assert separator_of("path") == ","


@pytest.mark.case(20)
@pytest.mark.parametrize("written", ["{0}", ".\\{0}"])
def test_paths_with_backslashes_are_read(written: str, tmp_path: Path) -> None:
    touch(tmp_path, *image_paths(5))
    lines = [f"{written.format(path.replace('/', chr(92)))},{label}" for path, label in BY_FOLDER.items()]
    write(tmp_path / "manifest.csv", "path,label", lines)
    assert labels(find(tmp_path)) == BY_FOLDER


def test_a_backslash_in_the_name_of_a_file_stays(tmp_path: Path) -> None:
    touch(tmp_path, "cat\\1.png", "cat/1.png")
    write(tmp_path / "manifest.csv", "path,label", ["cat\\1.png,cat", "cat/1.png,dog"])
    assert labels(find(tmp_path)) == {"cat\\1.png": "cat", "cat/1.png": "dog"}


@pytest.mark.case(20)
def test_a_path_on_a_drive_of_windows_is_told(tmp_path: Path) -> None:
    touch(tmp_path, *image_paths(5))
    write(tmp_path / "manifest.csv", "path,label", ["C:\\data\\cat\\00.png,cat"])
    assert "C:\\data\\cat\\00.png is on a drive of Windows" in user_error(tmp_path)


# Names without folder or suffix


@pytest.mark.parametrize("name", ["labels.csv", "train.csv", "trainLabels.csv", "metadata.tsv", "Annotations.csv"])
def test_a_table_beside_a_folder_of_images_is_found_and_told(name: str, tmp_path: Path) -> None:
    touch(tmp_path, *(f"images/{id_}.jpg" for id_ in IDS), "README.md")
    write(tmp_path / name, "id,label", [f"{id_},{'cat' if n % 2 else 'dog'}" for n, id_ in enumerate(IDS)])
    found = find(tmp_path)
    assert labels(found) == {f"images/{id_}.jpg": "cat" if n % 2 else "dog" for n, id_ in enumerate(IDS)}
    assert found.notes == [
        f"Data: read from {name}: id is the file, label the class",
        f"Data: 40 files that {name} names without folder or suffix are found by their names",
    ]
    assert {row.split for row in source.read_rows(str(tmp_path), settings())} == {"train", "eval", "test"}


def test_images_that_the_table_does_not_name_are_told(tmp_path: Path) -> None:
    touch(tmp_path, *(f"train/{id_}.jpg" for id_ in IDS), *(f"test/b{id_}.jpg" for id_ in IDS[:7]))
    write(tmp_path / "train.csv", "image_id,label", [f"{id_},{'cat' if n % 2 else 'dog'}" for n, id_ in enumerate(IDS)])
    write(tmp_path / "test.csv", "image_id", [f"b{id_}" for id_ in IDS[:7]])
    found = find(tmp_path)
    assert len(labels(found)) == 40
    assert "Data: 7 files that train.csv does not name are left out" in found.notes


def test_a_name_that_two_files_have_is_looked_for_in_the_split_or_told(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{split}/{number}.png" for split in ("train_images", "test_images") for number in range(20)))
    lines = [f"{number},{number % 2}" for number in range(20)]
    write(tmp_path / "train.csv", "id,label", lines)
    assert set(labels(find(tmp_path))) == {f"train_images/{number}.png" for number in range(20)}
    (tmp_path / "train.csv").rename(tmp_path / "labels.csv")
    text = user_error(tmp_path)
    assert "labels.csv: 0 may be" in text
    assert "test_images/0.png" in text
    assert "train_images/0.png" in text


def test_a_path_with_a_folder_is_not_found_in_another_one(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.png", "dog/2.png")
    write(tmp_path / "manifest.csv", "path,label", ["cat/1,cat", "cat/2.png,cat"])
    assert "1 of 2 files are missing, the first in line 3: cat/2.png" in user_error(tmp_path)


@pytest.mark.parametrize(("on_disk", "written"), [("{}.JPG", "{}.jpg"), ("{}.png", "{}.PNG"), ("{}.Jpeg", "a/{}.jpeg")])
def test_a_suffix_in_another_case_is_found(on_disk: str, written: str, tmp_path: Path) -> None:
    places = {id_: f"{'ab'[n % 2] if '/' not in written else 'a'}/{on_disk.format(id_)}" for n, id_ in enumerate(IDS)}
    touch(tmp_path, *places.values(), "b/0.png")
    write(tmp_path / "labels.csv", "file,label", [f"{written.format(id_)},{n % 3}" for n, id_ in enumerate(IDS)])
    assert labels(find(tmp_path)) == {path: str(n % 3) for n, path in enumerate(places.values())}


def test_a_table_whose_first_lines_name_files_that_are_gone_is_told(tmp_path: Path) -> None:
    touch(tmp_path, *image_paths(5, "batch_"))
    for gone in (20, 2000):
        lines = [f"gone_{number}.png,cat" for number in range(gone)]
        write(tmp_path / "labels.csv", "file,label", [*lines, *(f"{path},dog" for path in image_paths(5, "batch_") * 20)])
        assert "name the same file" in user_error(tmp_path)
    write(tmp_path / "labels.csv", "file,label", [*lines[:20], *(f"{path},dog" for path in image_paths(5, "batch_"))])
    assert "labels.csv: 20 of 30 files are missing" in user_error(tmp_path)


# Columns


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        ("Path,Label", ("Path", "Label")),
        ("Width,ClassId,file name", ("file name", "ClassId")),
        ("image,id,category", ("image", "category")),
        ("filename,class,class_id", ("filename", "class")),
        ("Image ID , Diagnosis", ("Image ID ", " Diagnosis")),
        ("lesion_id,image_id,dx,dx_type", ("image_id", "dx")),
        ("id_code,diagnosis", ("id_code", "diagnosis")),
        ("id,breed,class", ("id", "class")),
    ],
)
def test_usual_names_of_columns_are_known(header: str, columns: tuple[str, str], tmp_path: Path) -> None:
    touch(tmp_path, *image_paths(5))
    names = header.split(",")
    write(
        tmp_path / "manifest.csv",
        header,
        [
            ",".join(path if name == columns[0] else label if name == columns[1] else "7" for name in names)
            for path, label in BY_FOLDER.items()
        ],
    )
    found = find(tmp_path)
    assert labels(found) == BY_FOLDER
    assert found.notes == [f"Data: read from manifest.csv: {columns[0]} is the file, {columns[1]} the class"]
    assert all(set(row.meta) == set(names) - set(columns) for row in found.rows)


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ("image,filename,label", "image and filename may both be the column of the path; set data.columns.path"),
        ("path,class,category", "class and category may both be the column of the label; set data.columns.label"),
    ],
)
def test_two_usual_names_are_told(header: str, told: str, tmp_path: Path) -> None:
    touch(tmp_path, *image_paths(5))
    write(tmp_path / "labels.csv", header, [])
    text = user_error(tmp_path)
    assert told in text
    assert "or set data.layout to class if folders give the classes" in text


def test_columns_that_the_configuration_names_are_not_guessed(tmp_path: Path) -> None:
    touch(tmp_path, *image_paths(5))
    write(tmp_path / "manifest.csv", "file,class,path,breed", [f"x,y,{path},{label}" for path, label in BY_FOLDER.items()])
    assert labels(find(tmp_path, columns={"label": "breed"})) == BY_FOLDER


# Which table


def test_tables_of_splits_give_the_splits(tmp_path: Path) -> None:
    touch(tmp_path, *image_paths(5, "Train/"), *image_paths(2, "Test/"))
    for split, count in (("Train", 5), ("Test", 2)):
        lines = [f"7,{path},{path.split('/')[1]}" for path in image_paths(count, f"{split}/")]
        write(tmp_path / f"{split}.csv", "Width,Path,ClassId", lines)
    found = find(tmp_path)
    assert labels(found) == {path: path.split("/")[1] for path in [*image_paths(5, "Train/"), *image_paths(2, "Test/")]}
    assert Counter((row.split, row.path.split("/")[0]) for row in found.rows) == {("train", "Train"): 10, ("test", "Test"): 4}


def test_a_file_in_two_tables_is_told(tmp_path: Path) -> None:
    touch(tmp_path, *image_paths(5))
    for split in ("train", "test"):
        write(tmp_path / f"{split}.csv", "path,label", [f"{path},{label}" for path, label in BY_FOLDER.items()])
    assert "train.csv name the same file, cat/00.png" in user_error(tmp_path)


def test_two_tables_that_may_be_the_manifest_are_told(tmp_path: Path) -> None:
    touch(tmp_path, *image_paths(5))
    for name in ("labels", "annotations"):
        write(tmp_path / f"{name}.csv", "path,label", [f"{path},{label}" for path, label in BY_FOLDER.items()])
    text = user_error(tmp_path)
    assert "annotations.csv and labels.csv may both be the manifest" in text
    assert "data.manifest" in text
    assert labels(find(tmp_path, manifest="labels.csv")) == BY_FOLDER
    assert len(find(tmp_path, layout="class").rows) == 12


@pytest.mark.parametrize(
    ("header", "line"), [("id,name", "0,cat"), ("path,caption", "cat/00.png,a cat"), ("path,label", "elsewhere.png,cat")]
)
def test_a_table_that_says_something_else_is_no_manifest(header: str, line: str, tmp_path: Path) -> None:
    touch(tmp_path, *image_paths(5))
    write(tmp_path / "labels.csv", header, [line])
    found = find(tmp_path)
    assert {row.path: row.label for row in found.rows if not row.reason} == BY_FOLDER
    assert reasons(found.rows) == {"labels.csv": "not in a class folder"}


def test_a_manifest_in_the_folder_that_holds_everything_is_found(tmp_path: Path) -> None:
    touch(tmp_path, *image_paths(5, "archive/data/"))
    write(tmp_path / "archive/manifest.csv", "path,label", [f"data/{path},x{label}" for path, label in BY_FOLDER.items()])
    assert labels(find(tmp_path)) == {f"archive/data/{path}": f"x{label}" for path, label in BY_FOLDER.items()}


# Tables that are not read


@pytest.mark.parametrize(("name", "column"), [("HAM10000_metadata.csv", "dx"), ("labels.csv", "kind of lesion")])
def test_a_table_that_may_say_other_classes_than_the_folders_needs_a_choice(name: str, column: str, tmp_path: Path) -> None:
    touch(tmp_path, *(f"batch_{'ab'[n % 2]}/{id_}.jpg" for n, id_ in enumerate(IDS)))
    write(tmp_path / name, f"lesion,image_id,{column}", [f"{n},{id_},{'mel' if n % 3 else 'nv'}" for n, id_ in enumerate(IDS)])
    text = user_error(tmp_path)
    assert f"{name} names the images, too, so they can be read in two ways; if its column {column} is the class" in text
    assert f"data.manifest={name}" in text
    assert f"data.columns.label={column}" in text
    assert "if the folders (batch_a, batch_b) are the classes, set data.layout to class" in text
    assert set(labels(find(tmp_path, manifest=name, columns={"label": column})).values()) == {"mel", "nv"}
    assert {row.label for row in find(tmp_path, layout="class").rows if not row.reason} == {"batch_a", "batch_b"}


def test_a_table_that_says_the_folders_classes_or_none_is_no_second_reading(tmp_path: Path) -> None:
    touch(tmp_path, *image_paths(5))
    write(tmp_path / "info.csv", "file,category", [f"{path},{label}" for path, label in BY_FOLDER.items()])
    assert find(tmp_path).notes == []
    write(tmp_path / "info.csv", "file,note", [f"{path},{n}" for n, path in enumerate(BY_FOLDER)])
    (note,) = find(tmp_path).notes
    assert note.startswith("Data: info.csv names images, too, and is not read; if the class is in it (note), add --set ")
    write(tmp_path / "info.csv", "file,sex", [f"{path},{'fm'[n % 2]}" for n, path in enumerate(BY_FOLDER)])
    (note,) = find(tmp_path).notes
    assert "if the class is in it (sex)" in note
    write(tmp_path / "info.csv", "age,label", ["1,2"] * 20)
    assert find(tmp_path).notes == []


@pytest.mark.parametrize("place", ["train_images/{}.png", "{}.png"])
def test_an_error_of_missing_class_folders_names_the_table_that_is_there(place: str, tmp_path: Path) -> None:
    touch(tmp_path, *(place.format(id_) for id_ in IDS), "test_images/1.png")
    write(tmp_path / "train.csv", "image,MEL,NV", [f"{id_},{n % 2},{1 - n % 2}" for n, id_ in enumerate(IDS)])
    text = user_error(tmp_path)
    assert "train.csv names images and is not read (it has image, MEL, NV): its columns of 0 and 1 are not read" in text
    write(tmp_path / "train.csv", "image,found", [f"{id_},{'ab'[n % 2]}" for n, id_ in enumerate(IDS)])
    text = user_error(tmp_path)
    assert "add --set data.manifest=train.csv --set data.columns.path=image --set data.columns.label=found" in text


# Hugging Face's imagefolder


def write_metadata(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        write(path, ",".join(rows[0]), [",".join(map(str, row.values())) for row in rows])


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("splits", [("",), ("train/", "validation/", "test/"), ("data/train/", "data/test/")])
def test_an_image_folder_with_metadata_is_read(suffix: str, splits: tuple[str, ...], tmp_path: Path) -> None:
    for split in splits:
        touch(tmp_path, *image_paths(5, split))
        rows = [{"file_name": path, "label": label, "age": 30 + n} for n, (path, label) in enumerate(BY_FOLDER.items())]
        write_metadata(tmp_path / f"{split}metadata.{suffix}", rows)
    found = find(tmp_path)
    assert labels(found) == {f"{split}{path}": label for split in splits for path, label in BY_FOLDER.items()}
    given = {"": "", "train/": "train", "validation/": "eval", "test/": "test", "data/train/": "train", "data/test/": "test"}
    assert all(row.split == given[row.path.removesuffix(row.path[-10:])] for row in found.rows)
    assert {row.meta["age"] for row in found.rows} == {*range(30, 40)} if suffix != "csv" else {*map(str, range(30, 40))}


def test_metadata_without_labels_leaves_the_class_folders(tmp_path: Path) -> None:
    touch(tmp_path, *image_paths(5, "train/"), *image_paths(5, "test/"))
    for split in ("train", "test"):
        write_metadata(tmp_path / split / "metadata.jsonl", [{"file_name": path, "text": "a pet"} for path in BY_FOLDER])
    found = find(tmp_path)
    assert Counter(row.label for row in found.rows if not row.reason) == {"cat": 10, "dog": 10}


def test_json_lines_that_can_not_be_read_are_told(tmp_path: Path) -> None:
    touch(tmp_path, *image_paths(5))
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "cat/00.png", "label"')
    assert "metadata.jsonl: line 1: not JSON" in user_error(tmp_path)
