"""`data.corrections`: labels that stand in for those of the data."""

import csv
import io
from dataclasses import replace

import pytest

from base.errors import UserError
from base.tables import write_table
from images.dataset import source
from pipeline.config.data import DataConfig
from pipeline.dag.component_settings import source_settings

SETTINGS = source_settings(DataConfig(path=".", corrections="corrections.csv"))


def write(folder, table, name="corrections.csv", encoding="utf-8"):
    for label in ("cat", "dog"):
        for number in range(3):
            (folder / label).mkdir(parents=True, exist_ok=True)
            (folder / label / f"{number}.png").write_bytes(b"x")
    (folder / name).write_text(table, encoding=encoding)
    return str(folder)


def labels(folder, settings=SETTINGS):
    return {row.name: row.label for row in source.find_rows(folder, settings).rows if not row.reason}


def test_labels_are_replaced_and_images_left_out(tmp_path):
    folder = write(tmp_path, "path,label\ncat/0.png,dog\ncat/1.png,\ndog/2.png,dog\n")
    found = source.find_rows(folder, SETTINGS)
    rows = {row.name: row for row in found.rows}
    assert {name: row.label for name, row in rows.items()} == {
        "cat/0.png": "dog",
        "cat/2.png": "cat",
        "dog/0.png": "dog",
        "dog/1.png": "dog",
        "dog/2.png": "dog",
    }
    assert found.notes == ["Data: corrections.csv changes the labels of 1 image and leaves 1 image out"]
    assert found.unlisted == 0  # the table is no file of the data set


def test_a_table_that_would_be_the_data_is_only_corrections(tmp_path):
    folder = write(tmp_path, "path,label\ncat/0.png,dog\n", name="labels.csv")
    assert labels(folder, replace(SETTINGS, corrections=None)) == {"cat/0.png": "dog"}
    assert len(labels(folder, replace(SETTINGS, corrections="labels.csv"))) == 6


def test_images_that_the_data_does_not_have_are_told(tmp_path):
    folder = write(tmp_path, "path,label\ncat/9.png,dog\ncat/0.png,dog\n")
    assert source.find_rows(folder, SETTINGS).notes[1:] == [
        "Data: corrections.csv names 1 image that the data does not have, first cat/9.png"
    ]


@pytest.mark.parametrize("table", ["quality;label;path\n0,1;dog;cat/0.png\n", "path\tlabel\ncat/0.png\tdog\n"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_tables_are_read_as_spreadsheets_write_them(table, encoding, tmp_path):
    assert labels(write(tmp_path, table, encoding=encoding))["cat/0.png"] == "dog"


def test_several_labels_replace_those_of_multi_label_data(tmp_path):
    folder = write(tmp_path, "path,label\ncat/0.png,dog|cat\ncat/1.png,\n")
    (tmp_path / "manifest.csv").write_text("path,label\ncat/0.png,cat\ncat/1.png,dog\ndog/0.png,cat|dog\n")
    found = labels(folder, replace(SETTINGS, multi_label=True))
    assert found == {"cat/0.png": "cat|dog", "cat/1.png": "", "dog/0.png": "cat|dog"}


@pytest.mark.parametrize("line", ["new.png,,test", "new.png,bird,test"])
def test_an_image_without_a_known_label_gets_one_and_keeps_its_split(line, tmp_path):
    folder = write(tmp_path, "path,label\nnew.png,dog\n")
    splits = {"0": "train", "1": "eval", "2": "test"}
    lines = [f"{label}/{number}.png,{label},{split}" for label in ("cat", "dog") for number, split in splits.items()]
    (tmp_path / "new.png").write_bytes(b"x")
    (tmp_path / "manifest.csv").write_text("\n".join(["path,label,split", *lines, line]) + "\n")
    settings = replace(SETTINGS, labels=("cat", "dog"))
    rows = {row.name: row for row in source.read_rows(folder, settings)}
    assert (rows["new.png"].label, rows["new.png"].reason, rows["new.png"].split) == ("dog", "", "test")
    without = {row.name: row for row in source.read_rows(folder, replace(settings, corrections=None))}
    assert (without["new.png"].reason.startswith("label "), without["new.png"].split) == (True, "")


def test_images_that_can_not_be_used_stay_so_and_are_told(tmp_path):
    folder = write(tmp_path, "path,label\nout.png,cat\ncat/0.png,dog\n")
    (tmp_path / "out.png").write_bytes(b"x")
    found = source.find_rows(folder, SETTINGS)
    assert "out.png" not in labels(folder)
    assert found.notes[1] == "Data: corrections.csv names 1 image that can't be used, first out.png (not in a class folder)"


def test_a_class_that_has_no_image_any_more_is_told(tmp_path):
    folder = write(tmp_path, "path,label\n" + "".join(f"dog/{number}.png,\n" for number in range(3)))
    assert source.find_rows(folder, SETTINGS).notes[-1] == "Data: by corrections.csv, no image is left of dog"


@pytest.mark.parametrize("path", ["cat\\0.png", "./cat//0.png", "cat/./0.png", " cat/0.png"])
def test_paths_may_be_spelled_otherwise(path, tmp_path):
    assert labels(write(tmp_path, f"path,label\n{path},dog\n"))["cat/0.png"] == "dog"


def test_lines_that_a_spreadsheet_has_emptied_are_passed_over(tmp_path):
    assert labels(write(tmp_path, "path;label;given\ncat/0.png;dog;cat\n;;\n;;\n"))["cat/0.png"] == "dog"


@pytest.mark.parametrize("name", ["=cmd", "'tis", "a, b", 'x "q"', "007", "ünï", " owl", "'C:\\New\\x"])
def test_odd_names_are_written_and_read_by_hand_and_by_this_project(name, tmp_path):
    folder = write(tmp_path, "path,label\n")
    for number in range(3):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / f"{number}.png").write_bytes(b"x")
    for write_cells in (csv_by_hand, write_table):
        with (tmp_path / "corrections.csv").open("wb") as file:
            write_cells(file, ("path", "label"), [("cat/0.png", name), (f"{name}/0.png", "dog")])
        found = labels(folder)
        assert (found["cat/0.png"], found[f"{name}/0.png"]) == (name, "dog")


def csv_by_hand(file, header, rows):
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    csv.writer(text).writerows([header, *rows])
    text.detach()


@pytest.mark.parametrize("spelled", ["{folder}/labels.csv", "./labels.csv", "labels.csv"])
def test_the_table_is_not_read_as_data_however_it_is_named(spelled, tmp_path):
    folder = write(tmp_path / "data", "path,label\ncat/0.png,dog\n", name="labels.csv")
    settings = replace(SETTINGS, corrections=spelled.format(folder=folder))
    found = source.find_rows(folder, settings)
    assert len(found.rows) == 6
    assert found.unlisted == 0


def test_a_changed_table_is_changed_data(tmp_path):
    folder = write(tmp_path / "data", "path,label\ncat/0.png,dog\n")
    (tmp_path / "elsewhere.csv").write_text("path,label\ncat/0.png,dog\n")
    settings = replace(SETTINGS, corrections=str(tmp_path / "elsewhere.csv"))
    before = [source.fingerprint(folder, settings), source.fingerprint(folder, replace(SETTINGS, corrections=None))]
    (tmp_path / "elsewhere.csv").write_text("path,label\ncat/0.png,dog\ncat/1.png,dog\n")
    after = [source.fingerprint(folder, settings), source.fingerprint(folder, replace(SETTINGS, corrections=None))]
    assert (before[0] == after[0], before[1] == after[1]) == (False, True)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("path,label\ncat/0.png,dgo\n", r"corrections\.csv: line 2: the data has no class dgo; did you mean dog\?"),
        ("path,label\ncat/0.png,bird\n", r"the data has no class bird; the classes are cat, dog"),
        ("path,label\ncat/9.png,dog\n", r"none of its images is in the data, the first cat/9\.png; .* such as \w+/\d\.png"),
        ("path,label,note\ncat/0.png,dog,\n,dog,\n", r"line 3 has no path; add it, or remove the line"),
        ("path,label\ncat/0.png,dog\n./cat/0.png,cat\n", r"line 3 names cat/0\.png a second time; keep one of them"),
        ("path,class\ncat/0.png,dog\n", r"needs one column label, beside one column path; it has path, class"),
    ],
)
def test_a_table_that_can_not_be_applied_is_told(table, message, tmp_path):
    with pytest.raises(UserError, match=message):
        labels(write(tmp_path, table))


@pytest.mark.parametrize("name", ["other.csv", "corrections.txt"])
def test_a_table_that_is_not_there_is_told(name, tmp_path):
    with pytest.raises(UserError, match=r"data\.corrections"):
        labels(write(tmp_path, "path,label\n"), replace(SETTINGS, corrections=name))
