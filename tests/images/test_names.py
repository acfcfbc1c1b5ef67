"""Names of classes that would break the vocabulary or tables are refused by name; others stay whole."""

import io
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from data_folders import image_paths, make_manifest, settings, touch, user_error
from executors import ingest, read_summary
from PIL import Image

from images.dataset import source

BROKEN = ["dog\r", "do\ng", "dog\x00", "do\x1bg", "do\u2028g", "do\u2029g", "do\x85g", "\x7fdog"]


@pytest.mark.case(2)
@pytest.mark.parametrize("name", [name for name in BROKEN if "\0" not in name])
def test_a_folder_with_a_line_break_in_its_name_is_refused_by_name(name: str, tmp_path: Path) -> None:
    touch(tmp_path, *image_paths(), f"{name}/1.png")
    text = user_error(tmp_path)
    assert (
        f"{tmp_path}: the class {name!r} (of {name + '/1.png'!r}) has a line break or a control character in its name" in text
    )
    assert text.isprintable()


def test_a_folder_of_a_space_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, *image_paths(), " /1.png")
    assert "the class ' ' (of ' /1.png') has a name of spaces; rename the class" in user_error(tmp_path)


@pytest.mark.case(2, 3)
@pytest.mark.parametrize("name", [f"a{name}z" for name in BROKEN])
def test_a_label_of_a_manifest_with_a_line_break_is_refused_by_name(name: str, tmp_path: Path) -> None:
    touch(tmp_path, *image_paths())
    lines = [f"{path},{path[:3]}" for path in image_paths()]
    make_manifest(tmp_path, "path,label", [f'{image_paths()[0]},"{name}"', *lines[1:]])
    assert f"the class {name!r} (of 'cat/00.png') has a line break" in user_error(tmp_path)


def test_breaks_around_a_label_of_a_manifest_are_cut_off(tmp_path: Path) -> None:
    touch(tmp_path, *image_paths())
    make_manifest(tmp_path, "path,label", [f'{path},"{path[:3]}\r"' for path in image_paths()])
    assert {row.label for row in source.read_rows(str(tmp_path), settings())} == {"cat", "dog"}


@pytest.mark.case(2)
def test_a_label_of_a_record_with_a_line_break_is_refused_by_name(tmp_path: Path) -> None:
    write_records(tmp_path, [["cat"], ["do\u2028g"]])
    assert "the class 'do\\u2028g' (of 'a.tfrecord:1') has a line break" in user_error(tmp_path)


def test_unused_names_and_images_that_are_not_for_training_are_free(tmp_path: Path) -> None:
    touch(tmp_path, *image_paths(), "dog\r/1.png")
    assert len(source.find_rows(str(tmp_path), settings(labelled=False)).rows) == 81


# Names that look the same

NFC, NFD = (unicodedata.normalize(form, "caf\u00e9") for form in ("NFC", "NFD"))


@pytest.mark.parametrize("in_table", [False, True])
@pytest.mark.parametrize(("one", "other"), [(NFC, NFD), ("cat", "cat "), ("cat", "\u00a0cat")])
def test_classes_that_look_the_same_are_refused_by_name(one: str, other: str, in_table: bool, tmp_path: Path) -> None:
    if in_table:  # where blanks around a label are cut off
        touch(tmp_path, *image_paths())
        labels = [one, other, "owl", "owl"]
        make_manifest(tmp_path, "path,label", [f"{path},{labels[n % 4]}" for n, path in enumerate(image_paths())])
        if one == "cat":
            assert {row.label for row in source.read_rows(str(tmp_path), settings())} == {"cat", "owl"}
            return
    else:
        touch(tmp_path, *(f"{label}/{number}.png" for label in (one, other, "owl") for number in range(20)))
    text = user_error(tmp_path)
    assert "look the same, and differ by spaces or by their Unicode form" in text
    assert ascii(one) in text
    assert ascii(other) in text
    assert text.count(".png") == 2


@pytest.mark.parametrize("in_table", [False, True])
def test_classes_that_differ_by_case_are_told_and_kept(in_table: bool, tmp_path: Path) -> None:
    paths = [f"{label}/{number}.png" for label in ("Cat", "cat", "dog") for number in range(20)]
    touch(tmp_path, *paths)
    if in_table:
        make_manifest(tmp_path, "path,label", [f"{path},{path[:3]}" for path in paths])
    found = source.find_rows(str(tmp_path), settings())
    assert {row.label for row in found.rows} == {"Cat", "cat", "dog"}
    assert found.notes == [
        "Data: classes that differ by upper and lower case alone: Cat and cat; if they are one class, give them one name"
    ]


# The separator of classes


def write_records(folder: Path, labels: list[list[str]]) -> None:
    def values(texts: list[str]) -> tf.train.Feature:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[text.encode() for text in texts]))

    with tf.io.TFRecordWriter(str(folder / "a.tfrecord")) as writer:
        for texts in labels:
            feature = {"image/encoded": values(["x"]), "image/class/text": values(texts)}
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())


def test_a_class_of_several_label_data_with_the_separator_is_refused(tmp_path: Path) -> None:
    touch(tmp_path / "folders", *image_paths(), "a|b/1.png")
    told = "the class 'a|b' (of {}) has | in its name, which stands between the classes of an image (data.multi_label)"
    assert told.format("'a|b/1.png'") in user_error(tmp_path / "folders", multi_label=True)
    write_records(tmp_path, [["cat"], ["a|b", "cat"]])
    assert told.format("'a.tfrecord:1'") in user_error(tmp_path, multi_label=True)


def test_one_text_of_a_record_is_read_as_in_a_manifest(tmp_path: Path) -> None:
    write_records(tmp_path, [["dog|cat"], ["cat"], []] * 20)
    rows = source.read_rows(str(tmp_path), settings(multi_label=True))
    assert Counter(row.labels for row in rows) == {("cat", "dog"): 20, ("cat",): 20, (): 20}


@pytest.mark.parametrize("name", ["a|b", "=cmd|'x'!A1"])
def test_a_single_label_class_is_counted_as_one_whatever_its_name(name: str, tmp_path: Path) -> None:
    for label in (name, "x"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for number in range(12):
            pixels: Any = np.random.default_rng(number).integers(0, 256, (8, 8), np.uint8)
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "PNG")
            content = buffer.getvalue() if number else b"no image"
            (tmp_path / "data" / label / f"{number}.png").write_bytes(content)
    examples = ingest(tmp_path / "data", tmp_path / "out", max_rejected=0.5, splits=settings(splits={"stratify": True}).splits)
    summary = read_summary(examples)
    counts: Counter[str] = Counter()
    for found in summary["splits"].values():
        counts.update(found)
    assert counts == {name: 11, "x": 11}
