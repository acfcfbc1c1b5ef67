"""Folders as people have them: what is read as a split, a class, an image without a label, or litter."""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from data_folders import settings, touch, user_error

from images.dataset import source
from images.dataset.listing import list_folder
from images.dataset.source import Found
from images.dataset.tree import split_folders
from images.files.decoding import RejectedImage
from images.files.reading import read_files

CLASSES = ("glioma", "none", "pituitary")


def images(folder: str, per_class: int = 20, classes: tuple[str, ...] = CLASSES) -> list[str]:
    return [f"{folder}{label}/{number:02d}.png" for label in classes for number in range(per_class)]


def find(folder: Path, **changes: Any) -> Found:
    return source.find_rows(str(folder), settings(**changes))


def counts(found: Found) -> Counter[tuple[str, str]]:
    """(split that the data gives, label) -> number of images."""
    assert not any(row.reason for row in found.rows), [row for row in found.rows if row.reason][:3]
    return Counter((row.split, row.label) for row in found.rows)


def expected(*splits: str, per_class: int = 20) -> dict[tuple[str, str], int]:
    return {(split, label): per_class for split in splits for label in CLASSES}


# Split folders


@pytest.mark.case(1)
@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("Training", "Testing"),
        ("TRAIN", "Test"),
        ("trn", "tst"),
        ("training_set", "test_set"),
        ("seg_train", "seg_test"),
        ("images-train", "images-test"),
        ("train2017", "test2017"),
        ("Brain Train", "Brain Test"),
        ("TrainSet", "TestImages"),
        ("train", "test_set"),
    ],
)
def test_split_folders_are_known_in_any_usual_spelling(train: str, test: str, tmp_path: Path) -> None:
    touch(tmp_path, *images(f"{train}/"), *images(f"{test}/"))
    found = find(tmp_path)
    assert counts(found) == expected("train", "test")
    assert all(row.split == {train: "train", test: "test"}[row.path.split("/")[0]] for row in found.rows)
    first, second = sorted((f"{train} (train)", f"{test} (test)"))
    assert found.notes == [f"Data: read as split folders: {first}, {second}; eval images are taken from train"]


@pytest.mark.case(1)
@pytest.mark.parametrize("name", ["val", "valid", "Validation", "dev", "eval", "validation_set"])
def test_the_eval_folder_is_known_in_any_usual_spelling(name: str) -> None:
    assert split_folders(["train", name, "test"]) == {"train": "train", name: "eval", "test": "test"}


@pytest.mark.parametrize(
    "names",
    [
        ("trainer", "tester"),
        ("training shoes", "running shoes"),
        ("test_a", "train_b"),
        ("train_val", "test"),
        ("cat", "dog"),
        ("train", "training"),
        (),
    ],
)
def test_other_names_are_no_splits(names: tuple[str, ...]) -> None:
    assert split_folders(names) == {}


def test_a_split_that_no_folder_gives_is_taken_from_train(tmp_path: Path) -> None:
    touch(tmp_path, *images("train/", 60), *images("val/"))
    rows = source.read_rows(str(tmp_path), settings())
    assert all((row.split == "eval") == row.path.startswith("val/") for row in rows)
    assert Counter(row.split for row in rows).keys() == {"train", "eval", "test"}


def test_a_folder_inside_each_split_folder_that_holds_everything_is_passed_over(tmp_path: Path) -> None:
    touch(tmp_path, *images("seg_train/seg_train/"), *images("seg_test/seg_test/"))
    touch(tmp_path, *(f"seg_pred/seg_pred/{number}.png" for number in range(7)))
    found = find(tmp_path)
    assert counts(found) == expected("train", "test")
    assert found.unlisted == 7


# One folder around everything


@pytest.mark.case(27)
@pytest.mark.parametrize("wrapper", ["archive", "archive/archive", "chest xray/data/v1"])
@pytest.mark.parametrize("splits", [("",), ("train", "val", "test")])
def test_a_folder_that_holds_everything_is_passed_over(wrapper: str, splits: tuple[str, ...], tmp_path: Path) -> None:
    for split in splits:
        touch(tmp_path, *images(f"{wrapper}/{split}/" if split else f"{wrapper}/"))
    touch(tmp_path, "README.md", f"{wrapper}/licence.txt")
    found = find(tmp_path)
    assert Counter((row.split, row.label) for row in found.rows if not row.reason) == expected(
        *(("train", "eval", "test") if "train" in splits else ("",))
    )
    assert f"Data: all images are in {wrapper}, which is read as the data folder" in found.notes


def test_a_lone_train_folder_gives_all_splits(tmp_path: Path) -> None:
    touch(tmp_path, *images("train/"))
    assert counts(find(tmp_path)) == expected("")


# Images without labels


@pytest.mark.case(26)
@pytest.mark.parametrize("place", ["test", "Test/images", "test/test"])
def test_images_without_labels_beside_a_labelled_train_folder_are_left_out_and_told(place: str, tmp_path: Path) -> None:
    touch(tmp_path, *images("train/"), *(f"{place}/{number}.png" for number in range(9)))
    found = find(tmp_path)
    assert counts(found) == expected("")
    assert found.unlisted == 9
    (line,) = [line for line in found.notes if "without labels" in line]
    assert place.split("/")[0] in line
    assert "9 images" in line
    assert "score.path" in line
    assert {row.split for row in source.read_rows(str(tmp_path), settings())} == {"train", "eval", "test"}


def test_a_folder_in_test_may_be_a_class_of_its_own(tmp_path: Path) -> None:
    touch(tmp_path, *images("train/"), *(f"test/unknown/{number}.png" for number in range(9)))
    assert "the train split has no image of unknown" in user_error(tmp_path)


def test_a_labelled_eval_folder_stays_eval_where_test_has_no_labels(tmp_path: Path) -> None:
    touch(tmp_path, *images("train/", 60), *images("val/"), *(f"test/{number}.png" for number in range(9)))
    assert counts(find(tmp_path)) == expected("train", per_class=60) | expected("eval")
    rows = source.read_rows(str(tmp_path), settings())
    assert all((row.split == "eval") == row.path.startswith("val/") for row in rows)
    assert "test" in {row.split for row in rows}


def test_data_that_is_not_for_training_is_read_whole(tmp_path: Path) -> None:
    touch(tmp_path, *images("train/"), *(f"test/{number}.png" for number in range(9)))
    found = find(tmp_path, labelled=False)
    assert Counter(row.label for row in found.rows) == {**dict.fromkeys(CLASSES, 20), "": 9}
    touch(tmp_path / "two", *images("glioma/", classes=("a", "b")), *images("none/", classes=("a", "b")))
    assert {row.label for row in find(tmp_path / "two", labelled=False).rows} == {"glioma", "none"}


# Two readings


def test_classes_with_the_same_folders_inside_need_a_choice(tmp_path: Path) -> None:
    for label in CLASSES:
        touch(tmp_path, *images(f"{label}/", classes=("images", "masks")))
    text = user_error(tmp_path)
    assert "two ways" in text
    assert "data.layout" in text
    assert all(name in text for name in (*CLASSES, "images", "masks", "folder/class"))
    assert counts(find(tmp_path, layout="class")) == {("", label): 40 for label in CLASSES}
    assert counts(find(tmp_path, layout="folder/class")) == {("", "images"): 60, ("", "masks"): 60}


@pytest.mark.parametrize(
    "folders",
    [
        {"camera_1": "ab", "camera_2": "a", "camera_3": "ab"},
        {"camera_1": "ab", "camera_2": "ab", "camera_1/preview.png": ""},
        {"color": "ab", "grayscale": "ab", "segmented": "a"},
        {"color": "ab", "augmented": "abc"},
        {"8863": "0", "8864": "01", "8865": "01"},
    ],
)
def test_most_folders_with_the_same_folders_inside_need_a_choice(folders: dict[str, str], tmp_path: Path) -> None:
    for folder, classes in folders.items():
        touch(tmp_path, *([*images(f"{folder}/", classes=(*classes,))] if classes else [folder]))
    text = user_error(tmp_path)
    assert "two ways; set data.layout to class" in text
    assert "to folder/class if those inside" in text
    inner = {label for classes in folders.values() for label in classes}
    assert {row.label for row in find(tmp_path, layout="folder/class").rows if not row.reason} == inner


def test_folders_inside_that_few_classes_share_mean_nothing(tmp_path: Path) -> None:
    for label, sites in {"cat": "abcde", "dog": "defgh"}.items():
        touch(tmp_path, *images(f"{label}/", 4, (*sites,)))
    touch(tmp_path / "loose", *images("", 9, ("cat", "dog")), *images("cat/", 1, ("x", "y")), *images("dog/", 1, ("x", "y")))
    assert {row.label for row in find(tmp_path / "loose").rows} == {"cat", "dog"}
    for path in sorted((tmp_path / "loose").rglob("*.png")):
        path.unlink()
    assert {row.label for row in find(tmp_path).rows} == {"cat", "dog"}


def test_the_same_folders_once_more_inside_are_told(tmp_path: Path) -> None:
    touch(tmp_path, *images("flowers/"), *images("flowers/flowers/"))
    text = user_error(tmp_path)
    assert "flowers/flowers holds folders of the same names as those beside it (glioma, none, pituitary)" in text
    assert "move it away if it is a second copy of the data, or set data.layout to class" in text
    assert {row.label for row in find(tmp_path, layout="class").rows} == {*CLASSES, "flowers"}


def test_split_folders_inside_class_folders_need_a_choice(tmp_path: Path) -> None:
    for label in CLASSES:
        touch(tmp_path, *images(f"data/{label}/", classes=("train", "test")))
    text = user_error(tmp_path)
    assert "class/split" in text
    assert "set data.layout to class" in text
    assert counts(find(tmp_path, layout="class/split")) == expected("train", "test")
    assert counts(find(tmp_path, layout="class")) == expected("", per_class=40)


def test_folders_for_splits_in_another_language_are_no_classes(tmp_path: Path) -> None:
    touch(tmp_path, *images("Entrenamiento/"), *images("Prueba/"))
    assert "the names train, val and test" in user_error(tmp_path)


@pytest.mark.parametrize("inside", [("",), ("a/", "b/")])
def test_a_class_that_is_named_as_a_split_needs_a_choice(inside: tuple[str, ...], tmp_path: Path) -> None:
    touch(tmp_path, *(f"{label}/{folder}{n}.png" for label in ("cat", "dog", "test") for folder in inside for n in range(9)))
    text = user_error(tmp_path)
    assert "test may be a class or not" in text
    assert "data.layout" in text
    assert {row.label for row in find(tmp_path, layout="class").rows} == {"cat", "dog", "test"}


@pytest.mark.parametrize("names", [("images_part_1", "images_part_2"), ("images", "masks"), ("cats", "data")])
def test_folders_whose_names_say_nothing_are_no_classes_unless_that_is_said(names: tuple[str, ...], tmp_path: Path) -> None:
    touch(tmp_path, *images("", classes=names))
    text = user_error(tmp_path)
    assert f"{names[-1] if 'data' in names else names[0]}" in text
    assert "data.layout to class" in text
    assert "manifest" in text
    assert {row.label for row in find(tmp_path, layout="class").rows} == set(names)


def test_folders_inside_split_folders_are_looked_at_too(tmp_path: Path) -> None:
    for split in ("train", "test"):
        touch(tmp_path, *images(f"{split}/images/"), *images(f"{split}/masks/"))
    assert "images may be a class or not; set data.layout to split/class" in user_error(tmp_path)
    for split in ("train", "test"):
        (tmp_path / split / "images").rename(tmp_path / split / "scans")
    text = user_error(tmp_path)
    assert "two ways; set data.layout to split/class" in text
    assert "glioma, none, pituitary" in text
    assert {row.label for row in find(tmp_path, layout="split/class").rows} == {"scans", "masks"}


def test_numbers_are_classes(tmp_path: Path) -> None:
    touch(tmp_path, *images("", classes=("0", "1", "10")))
    assert {row.label for row in find(tmp_path).rows} == {"0", "1", "10"}


def test_folders_beside_split_folders_are_told(tmp_path: Path) -> None:
    touch(tmp_path, *images("train/"), *images("test/"), *images("extra/"))
    text = user_error(tmp_path)
    assert "others beside them (extra)" in text
    assert "data.layout" in text


def test_split_folders_without_class_folders_are_told(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{split}/{number}.png" for split in ("train", "test") for number in range(20)))
    text = user_error(tmp_path)
    assert "train" in text
    assert "no class folders" in text
    assert counts(find(tmp_path, layout="class")) == {("", "train"): 20, ("", "test"): 20}


def test_a_layout_that_is_not_there_is_told(tmp_path: Path) -> None:
    touch(tmp_path, *images(""))
    assert "data.layout" in user_error(tmp_path, layout="class/split")
    assert "data.layout" in user_error(tmp_path, layout="split/class")


# Litter


@pytest.mark.case(17)
def test_what_systems_and_galleries_leave_is_skipped_and_counted(tmp_path: Path) -> None:
    touch(tmp_path, *images(""))
    touch(tmp_path, "Thumbs.db", "glioma/Thumbs.db", "glioma/desktop.ini", "glioma/.DS_Store", "glioma/._00.png")
    touch(tmp_path, "__MACOSX/glioma/._00.png", ".ipynb_checkpoints/a.png", "none/@eaDir/00.png/thumb.jpg", ".git/config")
    (tmp_path / "not yet").mkdir()
    touch(tmp_path, "nothing/Thumbs.db")
    found = find(tmp_path)
    assert counts(found) == expected("")
    assert found.notes == [
        "Data: skipped: .DS_Store 1, ._* 1, .ipynb_checkpoints 1, @eaDir 1, Thumbs.db 3, __MACOSX 1, desktop.ini 1, "
        "empty folders 2, hidden files 1"
    ]


@pytest.mark.case(13)
@pytest.mark.parametrize(
    "outputs",
    [
        ("metadata.sqlite", "artifacts/Evaluator/1/x.png"),
        (".lock", "runs/2026-11-28T20-00-00/log.txt"),
        ("job.json", "scores/0.parquet"),
    ],
)
def test_an_output_folder_inside_the_data_is_left_out(outputs: tuple[str, ...], tmp_path: Path) -> None:
    touch(tmp_path, *images(""))
    before = source.fingerprint(str(tmp_path), settings())
    touch(tmp_path / "output/mine", *outputs)
    found = find(tmp_path)
    assert counts(found) == expected("")
    assert "Data: skipped: output folder output/mine" in found.notes
    assert source.fingerprint(str(tmp_path), settings()) == before


def test_names_of_outputs_may_be_classes(tmp_path: Path) -> None:
    touch(tmp_path, *images("", classes=("runs", "artifacts", "scores")))
    assert {row.label for row in find(tmp_path).rows} == {"runs", "artifacts", "scores"}


def test_litter_is_skipped_in_another_file_system(memory: dict[str, bytes]) -> None:
    memory |= {f"memory://a/{path}": b"" for path in (*images("Training/"), *images("Testing/"), "Training/none/Thumbs.db")}
    assert counts(find("memory://a")) == expected("train", "test")  # type: ignore[arg-type]
    assert list_folder("memory://a").skipped == {"Thumbs.db": 1}


# Hugging Face's cache


def test_the_snapshot_in_the_cache_of_hugging_face_is_read_without_its_blobs(tmp_path: Path) -> None:
    for number, path in enumerate(images("snapshots/abc/train/")):
        touch(tmp_path, blob := f"blobs/{number:040x}")
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).symlink_to(f"../../../../{blob}")
    touch(tmp_path, "refs/main")
    found = find(tmp_path)
    assert counts(found) == expected("")
    assert found.unlisted == 0
    assert "Data: skipped: blobs of Hugging Face's cache 60" in found.notes
    touch(tmp_path, "snapshots/def/1.png")
    assert "cache of 2 snapshots, such as abc and def; give" in user_error(tmp_path)


# Archives


def pack(path: Path, *names: str) -> None:
    """Adds files, which hold their names, to a zip or tar archive."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
            for name in names:
                archive.writestr(name, name)
        return
    with tarfile.open(path, "a") as archive:
        for name in names:
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(name)
            archive.addfile(member, io.BytesIO(name.encode()))


@pytest.mark.parametrize("suffix", ["zip", "tar"])
@pytest.mark.parametrize("inside", [True, False])
def test_an_archive_is_read_as_the_folder_that_is_packed_in_it(suffix: str, inside: bool, tmp_path: Path) -> None:
    archive = tmp_path / f"archive.{suffix}"
    pack(archive, *images("chest [x]/Training/"), *images("chest [x]/Testing/"))
    pack(archive, "__MACOSX/chest [x]/._00.png", "chest [x]/Training/none/Thumbs.db")
    folder = tmp_path if inside else archive
    found = find(folder)
    assert counts(found) == expected("train", "test")
    assert found.notes[-1] == "Data: skipped: Thumbs.db 1, __MACOSX 1"
    assert [bytes(content) for content in read_files(str(folder), found.rows)] == [
        row.path.removeprefix(f"{archive.name}/").encode() for row in found.rows
    ]
    before = source.fingerprint(str(folder), settings())
    pack(archive, "chest [x]/Testing/none/new.png")
    assert source.fingerprint(str(folder), settings()) != before
    assert len(find(folder).rows) == 121


def test_archives_may_be_splits_or_classes_or_have_a_table(tmp_path: Path) -> None:
    for split in ("train", "test"):
        pack(tmp_path / f"splits/{split}.zip", *images(""))
    assert counts(find(tmp_path / "splits")) == expected("train", "test")
    for label in CLASSES:
        pack(tmp_path / f"classes/{label}.tar", *images("", classes=("a",)))
    assert counts(find(tmp_path / "classes")) == expected("")
    pack(tmp_path / "table/images.zip", *(f"images/{number}.png" for number in range(40)))
    (tmp_path / "table/labels.csv").write_text("id,label\n" + "".join(f"{number},{number % 2}\n" for number in range(40)))
    assert {row.path: row.label for row in find(tmp_path / "table").rows} == {
        f"images.zip/images/{number}.png": str(number % 2) for number in range(40)
    }


def test_an_archive_beside_what_was_unpacked_from_it_is_not_read(tmp_path: Path) -> None:
    pack(tmp_path / "archive.zip", *images("archive/"))
    touch(tmp_path, *images("archive/"))
    found = find(tmp_path)
    assert Counter(row.reason for row in found.rows) == {"": 60, "not in a class folder": 1}


COMPRESSIONS = {".tar.gz": gzip, ".tgz": gzip, ".tar.bz2": bz2, ".tbz2": bz2, ".tar.xz": lzma, ".txz": lzma, ".tar": gzip}


def compress(tar: Path, suffix: str) -> Path:
    """Puts a compressed tar, whose name may not tell it, in the place of a tar."""
    content = COMPRESSIONS[suffix].compress(tar.read_bytes())
    tar.unlink()
    path = tar.parent / f"{tar.stem}{suffix}"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("suffix", COMPRESSIONS)
@pytest.mark.parametrize("inside", [True, False])
def test_a_compressed_tar_is_read_as_the_folder_that_is_packed_in_it(suffix: str, inside: bool, tmp_path: Path) -> None:
    pack(tmp_path / "archive.tar", *images("chest [x]/Training/"), *images("chest [x]/Testing/"), "__MACOSX/._00.png")
    archive = compress(tmp_path / "archive.tar", suffix)
    folder = tmp_path if inside else archive
    found = find(folder)
    assert counts(found) == expected("train", "test")
    assert found.notes[-1] == "Data: skipped: __MACOSX 1"
    assert [bytes(content) for content in read_files(str(folder), found.rows)] == [
        row.path.removeprefix(f"{archive.name}/").encode() for row in found.rows
    ]
    assert list(tmp_path.iterdir()) == [archive]


def test_compressed_tars_may_be_splits_or_classes_or_webdatasets(tmp_path: Path) -> None:
    for split in ("train", "test"):
        pack(tmp_path / f"splits/{split}.tar", *images(""))
        compress(tmp_path / f"splits/{split}.tar", ".tar.gz")
        shard = [f"{number:03d}.{kind}" for number in range(10) for kind in ("jpg", "cls")]
        pack(tmp_path / f"web/{split}-000.tar", *shard)
        compress(tmp_path / f"web/{split}-000.tar", ".tgz")
    for label in CLASSES:
        pack(tmp_path / f"classes/{label}.tar", *images("", classes=("a",)))
        compress(tmp_path / f"classes/{label}.tar", ".tar.xz")
    assert counts(find(tmp_path / "splits")) == expected("train", "test")
    assert counts(find(tmp_path / "classes")) == expected("")
    assert Counter(row.split for row in find(tmp_path / "web").rows) == {"train": 10, "test": 10}


def test_links_and_names_that_lead_out_of_a_compressed_tar_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "secret.png"
    outside.write_bytes(b"secret")
    pack(tmp_path / "a/data.tar", *images(""), "../../secret.png", str(outside))
    with tarfile.open(tmp_path / "a/data.tar", "a") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            link = tarfile.TarInfo(f"none/link{kind!r}.png")
            link.type, link.linkname = kind, str(outside)
            archive.addfile(link)
    folder = compress(tmp_path / "a/data.tar", ".tar.gz")
    rows = find(folder).rows
    assert {row.reason for row in rows if "secret" in row.path} == {"a name in an archive that leads out of it"}
    assert not any("none/link" in row.path for row in rows)
    assert b"secret" not in {bytes(content) for content in read_files(str(folder), rows) if isinstance(content, bytes)}
    assert outside.read_bytes() == b"secret"


@pytest.mark.parametrize("suffix", [".tar.gz", ".tar.bz2", ".tar.xz", ".zip"])
def test_an_archive_that_would_fill_the_disk_is_refused(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("images.dataset.archives._MOST", (2**20, 100))
    if suffix == ".zip":
        with zipfile.ZipFile(tmp_path / "archive.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("cat/1.png", bytes(2**26))
    else:
        with tarfile.open(tmp_path / "archive.tar", "w") as tar:
            member = tarfile.TarInfo("cat/1.png")
            member.size = 2**26
            tar.addfile(member, io.BytesIO(bytes(member.size)))
        compress(tmp_path / "archive.tar", suffix)
    text = user_error(tmp_path)
    assert "would have more than" in text
    assert "unpack it" in text


def test_a_compressed_tar_for_which_there_is_no_space_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack(tmp_path / "archive.tar", *images(""))
    compress(tmp_path / "archive.tar", ".tar.gz")
    monkeypatch.setattr("images.dataset.archives._FREE_SHARE", 0)
    assert "set TMPDIR to a folder with more" in user_error(tmp_path)


def test_more_compressed_tars_than_can_be_kept_open_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{number}.tgz" for number in range(101)))
    assert "101 compressed tar archives, 100 are the most; decompress them to .tar" in user_error(tmp_path)


@pytest.mark.parametrize("suffix", [".tar.gz", ".tar.bz2", ".tar.xz"])
@pytest.mark.parametrize("damage", ["cut", "garbage"])
def test_a_damaged_compressed_tar_is_told(suffix: str, damage: str, tmp_path: Path) -> None:
    pack(tmp_path / "archive.tar", *images(""))
    path = compress(tmp_path / "archive.tar", suffix)
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(content[:middle] if damage == "cut" else content[:middle] + bytes(20) + content[middle + 20 :])
    assert f"{path.name}: no archive that can be read" in user_error(tmp_path)


@pytest.mark.parametrize("name", ["archive.zip", "archive.tar", "archive.tar.gz"])
def test_an_archive_that_is_none_is_told(name: str, tmp_path: Path) -> None:
    touch(tmp_path, name)
    assert f"{name}: no archive that can be read" in user_error(tmp_path)
    assert f"{name}: no archive that can be read" in user_error(tmp_path / name)


def test_a_folder_may_be_called_as_an_archive(tmp_path: Path) -> None:
    touch(tmp_path / "data.zip", *images(""))
    found = find(tmp_path / "data.zip")
    assert counts(found) == expected("")
    assert set(read_files(str(tmp_path / "data.zip"), found.rows)) == {b"not opened"}


def test_a_damaged_file_in_an_archive_is_set_aside_alone(tmp_path: Path) -> None:
    path = tmp_path / "archive.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in images(""):
            archive.writestr(name, f"<{name}>")
    path.write_bytes(path.read_bytes().replace(b"<none/07.png>", b"<none/08.png>"))
    rows = find(tmp_path).rows
    content = dict(zip((row.path for row in rows), read_files(str(tmp_path), rows), strict=True))
    wrong = [name for name, found in content.items() if isinstance(found, RejectedImage)]
    assert wrong == ["archive.zip/none/07.png"]
    assert "Bad CRC-32" in str(content[wrong[0]])


@pytest.mark.parametrize(
    ("start", "told"), [(40_000, "damaged or truncated after 39 files"), (40_600, "unexpected end of data")]
)
def test_a_truncated_or_damaged_archive_is_told(start: int, told: str, tmp_path: Path) -> None:
    path = tmp_path / "archive.tar"
    pack(path, *images(""))
    content = path.read_bytes()
    path.write_bytes(content[:start])
    assert f"archive.tar: no archive that can be read ({told})" in user_error(tmp_path)
    path.write_bytes(content[:39936] + b"x" * 512 + content[39936 + 512 :])  # the header of a file
    assert "damaged or truncated after 39 files" in user_error(tmp_path)


def test_tar_files_of_webdataset_are_read_with_the_classes_beside_the_images(tmp_path: Path) -> None:
    for name, count in (("train-000000", 12), ("train-000001", 6), ("test-000000", 3)):
        with tarfile.open(tmp_path / f"{name}.tar", "w") as archive:
            for number in range(count):
                for suffix, content in (("jpg", b"%d" % number), ("cls", b"%d\n" % (number % 3)), ("json", b"{}")):
                    member = tarfile.TarInfo(f"{number:06d}.{suffix}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
    found = find(tmp_path)
    assert counts(found) == {(split, label): count for split, count in (("train", 6), ("test", 1)) for label in ("0", "1", "2")}
    assert found.unlisted == 2 * 21
    assert [bytes(content) for content in read_files(str(tmp_path), found.rows)] == [
        str(int(row.path[-10:-4])).encode() for row in found.rows
    ]


# Size


def test_a_large_folder_is_arranged_in_seconds() -> None:
    from time import process_time

    from images.dataset.folders import read_folders
    from images.dataset.listing import File
    from images.dataset.tree import find_arrangement

    files = {f"train/{label}/{number}.png": File() for label in range(100) for number in range(1000)}
    files |= {f"test/{label}/{number}.png": File() for label in range(100) for number in range(100)}
    began = process_time()
    rows = read_folders("x", files, find_arrangement("x", files, "auto", labelled=True), labelled=True)
    assert len(rows) == 110_000
    assert process_time() - began < 5
