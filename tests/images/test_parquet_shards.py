"""Parquet files that hold images, as Hugging Face publishes data sets."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from data_folders import reasons, settings, touch, user_error
from pyarrow import parquet

from images.dataset import source
from images.files.decoding import RejectedImage
from images.files.reading import read_files

NAMES = ["cat", "dog", "owl"]


def write(
    path: Path, labels: list[Any], *, names: list[str] | None = NAMES, struct: bool = True, column: str = "label"
) -> None:
    """Writes images "0", "1", ... with labels; several row groups."""
    contents = [str(number).encode() for number in range(len(labels))]
    images = [{"bytes": content, "path": None} for content in contents] if struct else contents
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())]) if struct else pa.binary()
    table = pa.table({"image": pa.array(images, kind), column: labels})
    feature = {"names": names, "_type": "ClassLabel"}
    wrapped = {"feature": feature, "_type": "Sequence"} if isinstance(labels[0], list) else feature
    if names:
        info = {"info": {"features": {"image": {"_type": "Image"}, column: wrapped}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, path, row_group_size=7)


@pytest.mark.parametrize("struct", [True, False])
def test_published_data_sets_are_read_with_their_splits_and_names(struct: bool, tmp_path: Path) -> None:
    for name, count in (("train-00000-of-00002", 30), ("train-00001-of-00002", 12), ("validation-00000-of-00001", 6)):
        write(tmp_path / f"data/{name}.parquet", [number % 3 for number in range(count)], struct=struct)
    touch(tmp_path, "README.md", ".gitattributes")
    found = source.find_rows(str(tmp_path), settings())
    assert Counter((row.split, row.label) for row in found.rows) == {
        (split, label): count for split, count in (("train", 14), ("eval", 2)) for label in NAMES
    }
    assert found.unlisted == 1
    assert list(read_files(str(tmp_path), found.rows)) == [b"%d" % (row.record or 0) for row in found.rows]
    some = [found.rows[number] for number in (3, 1, 1, 20)]
    assert list(read_files(str(tmp_path), some)) == [b"%d" % (row.record or 0) for row in some]


def test_files_without_splits_or_names_are_read(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", ["cat", "dog", None] * 20, names=None, column="category")
    rows = source.read_rows(str(tmp_path), settings())
    assert Counter(row.label for row in rows) == {"cat": 20, "dog": 20, "": 20}
    assert set(reasons(rows).values()) == {"label missing"}
    assert {row.split for row in rows if not row.reason} == {"train", "eval", "test"}


def test_lists_are_the_classes_of_multi_label_data(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [[0, 2], [1], []] * 20)
    rows = source.find_rows(str(tmp_path), settings(multi_label=True)).rows
    assert Counter(row.labels for row in rows) == {("cat", "owl"): 20, ("dog",): 20, (): 20}


def test_a_missing_label_column_is_told(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [0, 1] * 9, column="kind")
    assert "no column label for the label; set data.columns.label" in user_error(tmp_path)
    columns = {"label": "kind"}
    assert len(source.find_rows(str(tmp_path), settings(columns=columns)).rows) == 18
    assert {row.labels for row in source.find_rows(str(tmp_path), settings(labelled=False)).rows} == {()}


def test_a_file_that_has_changed_gives_reasons(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [0, 1] * 9)
    rows = source.find_rows(str(tmp_path), settings()).rows
    write(tmp_path / "a.parquet", [0, 1])
    found = list(read_files(str(tmp_path), rows))
    assert found[:2] == [b"0", b"1"]
    assert all(isinstance(item, RejectedImage) and "no such row" in str(item) for item in found[2:])
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    assert all(isinstance(item, RejectedImage) for item in read_files(str(tmp_path), rows))


def test_tables_without_images_are_no_shards(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"x": [1], "label": ["cat"]}), tmp_path / "a.parquet")
    assert "holds files but no class folders" in user_error(tmp_path)


@pytest.mark.parametrize("form", ["default/{}/0000.parquet", "default/partial-{}/0000.parquet", "{}/part/0.parquet"])
def test_folders_give_the_splits_where_names_do_not(form: str, tmp_path: Path) -> None:
    for split, count in (("train", 12), ("test", 6)):
        write(tmp_path / form.format(split), [number % 3 for number in range(count)])
    assert Counter(row.split for row in source.find_rows(str(tmp_path), settings()).rows) == {"train": 12, "test": 6}


@pytest.mark.parametrize("form", ["{}/{}-00000-of-00001.parquet", "{}/{}/0000.parquet"])
def test_two_configurations_of_a_repository_are_an_error(form: str, tmp_path: Path) -> None:
    for config in ("full", "mini"):
        for split in ("train", "test"):
            write(tmp_path / form.format(config, split), [0, 1, 2] * 4)
    text = user_error(tmp_path)
    assert "full and mini both have files for t" in text
    assert "give one of these folders as data.path" in text
    assert Counter(row.split for row in source.find_rows(str(tmp_path / "full"), settings()).rows)["test"] == 12
    assert len(source.find_rows(str(tmp_path), settings(labelled=False)).rows) == 48


def test_shards_win_over_an_image_at_the_top(tmp_path: Path) -> None:
    write(tmp_path / "data/train.parquet", [0, 1] * 9)
    touch(tmp_path, "thumbnail.png", "README.md")
    found = source.find_rows(str(tmp_path), settings())
    assert len(found.rows) == 18
    assert found.unlisted == 2


def test_whole_floats_are_classes_without_a_point(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [0.0, 1.0, 2.5, None] * 4, names=None)
    assert {row.label for row in source.find_rows(str(tmp_path), settings()).rows} == {"0", "1", "2.5", ""}


def test_whole_floats_in_a_manifest_are_classes_without_a_point(tmp_path: Path) -> None:
    touch(tmp_path, "1.png", "2.png", "3.png")
    table = pa.table({"path": ["1.png", "2.png", "3.png"], "label": [0.0, 1.0, None]})  # as pandas writes numbers with a gap
    parquet.write_table(table, tmp_path / "manifest.parquet")
    assert [row.label for row in sorted(source.find_rows(str(tmp_path), settings()).rows, key=lambda row: row.path)] == [
        "0",
        "1",
        "",
    ]
