"""Tar files of WebDataset: splits, classes, keys; without classes."""

import io
import tarfile
from collections import Counter
from pathlib import Path

import pytest
from data_folders import settings, touch, user_error

from images.dataset import source


def pack(path: Path, files: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def shard(count: int, **kinds: bytes) -> dict[str, bytes]:
    """Files of samples 000000, 000001, ...; "_" in a kind is a dot, "%d" in a content is 0 or 1."""
    return {
        f"{number:06d}.{kind.replace('_', '.')}": content.replace(b"%d", b"%d" % (number % 2))
        for number in range(count)
        for kind, content in {"jpg": b"x"}.items() | kinds.items()
    }


def find(folder: Path, **changes) -> source.Found:
    return source.find_rows(str(folder), settings(**changes))


def labels(folder: Path) -> Counter[str]:
    return Counter(row.label for row in find(folder).rows)


def test_folders_give_the_splits(tmp_path: Path) -> None:
    for split, count in (("train", 8), ("val", 4), ("test", 2)):
        for number in range(2):
            pack(tmp_path / f"{split}/{number:05d}.tar", shard(count, cls=b"%d"))
    assert Counter(row.split for row in find(tmp_path).rows) == {"train": 16, "eval": 8, "test": 4}


def test_the_same_split_in_two_folders_is_an_error(tmp_path: Path) -> None:
    for name in ("full/train-0000", "full/test-0000", "mini/train-0000", "mini/test-0000"):
        pack(tmp_path / f"{name}.tar", shard(4, cls=b"%d"))
    assert "full and mini both have files for t" in user_error(tmp_path)


@pytest.mark.parametrize("kinds", [{}, {"txt": b"cat"}, {"json": b'{"caption": "x", "sha": %d}', "txt": b"cat"}])
def test_numbered_tar_files_without_classes_are_told(kinds: dict[str, bytes], tmp_path: Path) -> None:
    for number in range(2):
        pack(tmp_path / f"{number:05d}.tar", shard(6, **kinds))
    touch(tmp_path, "00000_stats.json")
    text = user_error(tmp_path)
    assert "shards of a WebDataset, and these have no classes" in text
    assert "Put KEY.cls with the class beside each KEY.jpg" in text
    assert ("caption, sha: set data.columns.label" in text) == ("json" in kinds)
    rows = find(tmp_path, labelled=False).rows
    assert len(rows) == 12
    assert all(row.path.endswith(".jpg") for row in rows)
    assert {row.label for row in find(tmp_path, layout="class").rows if not row.reason} == {"00000", "00001"}


def test_a_class_in_the_json_files_is_read(tmp_path: Path) -> None:
    pack(tmp_path / "00000.tar", shard(6, json=b'{"label": %d, "breed": "owl%d"}', txt=b"a text"))
    assert labels(tmp_path) == {"0": 3, "1": 3}
    by_breed = find(tmp_path, columns={"label": "breed"})
    assert {row.label for row in by_breed.rows} == {"owl0", "owl1"}
    assert by_breed.unlisted == 12


def test_tar_files_with_other_names_are_classes(tmp_path: Path) -> None:
    for name in ("2019", "2020"):
        pack(tmp_path / f"{name}.tar", shard(6))
    assert labels(tmp_path) == {"2019": 6, "2020": 6}


def test_keys_may_have_dots_and_suffixes_two_parts(tmp_path: Path) -> None:
    dotted = {f"v1.{n}.{kind}": content for n in range(6) for kind, content in (("png", b"x"), ("cls", b"%d" % (n % 2)))}
    pack(tmp_path / "dots/train-0.tar", dotted)
    assert labels(tmp_path / "dots") == {"0": 3, "1": 3}
    pairs = {
        f"{n}.{kind}": content for n in range(6) for kind, content in (("input.png", b"x"), ("target.cls", b"%d" % (n % 2)))
    }
    pack(tmp_path / "pairs/train-0.tar", pairs)
    assert labels(tmp_path / "pairs") == {"0": 3, "1": 3}


def test_images_of_one_sample_are_one_group(tmp_path: Path) -> None:
    pack(tmp_path / "train-0.tar", shard(6, png=b"x", seg_png=b"x", cls=b"%d"))
    rows = find(tmp_path).rows
    assert len(rows) == 12
    assert not any("seg" in row.path for row in rows)
    assert all(count == 2 for count in Counter(row.group for row in rows).values())
