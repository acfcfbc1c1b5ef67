"""The embedded data set."""

import csv
import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from images.dataset import source
from pipeline.config.data import DataConfig, SplitsConfig
from pipeline.dag.component_settings import source_settings
from pipeline.samples.digits import CANVAS, SIZES, write_digits


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits") / "deep" / "digits"
    write_digits(folder)
    return folder


@pytest.fixture(scope="module")
def rows(digits: Path) -> list[dict[str, str]]:
    with (digits / "manifest.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_digit_is_written_and_listed(digits: Path, rows: list[dict[str, str]]) -> None:
    written = {str(path.relative_to(digits)) for path in digits.rglob("*.png")}
    assert len(rows) == len(written) == 5391
    assert {row["path"] for row in rows} == written
    assert {row["label"] for row in rows} == set("0123456789")
    assert all(row["path"].startswith(row["label"] + "/") for row in rows)


def test_groups_hold_one_digit_at_three_sizes(rows: list[dict[str, str]]) -> None:
    groups: dict[str, list[tuple[str, str]]] = {}
    for row in rows:
        groups.setdefault(row["group"], []).append((row["label"], row["size"]))
    assert len(groups) == 1797
    for members in groups.values():
        assert len({label for label, _ in members}) == 1
        assert Counter(size for _, size in members) == dict.fromkeys(SIZES, 1)


def test_images_are_grey_and_of_the_canvas_size(digits: Path, rows: list[dict[str, str]]) -> None:
    for row in rows[:: len(rows) // 50]:
        with Image.open(digits / row["path"]) as image:
            assert (image.format, image.mode, image.size) == ("PNG", "L", (CANVAS, CANVAS))


def test_larger_digits_are_brighter(digits: Path, rows: list[dict[str, str]]) -> None:
    means = {
        size: np.mean([np.asarray(Image.open(digits / row["path"])).mean() for row in rows[:300] if row["size"] == size])
        for size in SIZES
    }
    assert means["small"] < means["medium"] < means["large"]


def test_ingestion_takes_the_manifest(digits: Path) -> None:
    settings = source_settings(DataConfig(path="", splits=SplitsConfig(train=7, eval=1, test=2)))
    found = source.read_rows(str(digits), settings)
    assert len(found) == 5391
    assert {row.meta["size"] for row in found} == set(SIZES)


def test_two_writes_give_the_same_bytes(digits: Path, rows: list[dict[str, str]], tmp_path: Path) -> None:
    write_digits(tmp_path / "again")
    for path in ["manifest.csv", *(row["path"] for row in rows[::100])]:
        first, second = (hashlib.sha256((folder / path).read_bytes()).hexdigest() for folder in (digits, tmp_path / "again"))
        assert first == second, path


def test_nothing_but_the_folder_is_left(digits: Path) -> None:
    assert list(digits.parent.iterdir()) == [digits]


def test_others_can_read_the_folder(digits: Path) -> None:
    assert digits.stat().st_mode & 0o777 == 0o755


def test_an_existing_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits/mine.txt").write_text("mine")
    write_digits(tmp_path / "digits")
    assert [path.name for path in tmp_path.rglob("*")] == ["digits", "mine.txt"]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_an_interrupted_write_leaves_nothing_behind(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(csv, "writer", interrupt)
    with pytest.raises(type(error)):
        write_digits(tmp_path / "digits")
    assert list(tmp_path.iterdir()) == []
