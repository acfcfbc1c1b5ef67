"""Fashion-MNIST as a data folder, from tiny files in its format."""

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from base.errors import UserError
from images.dataset import source
from pipeline.config.data import DataConfig, SplitsConfig
from pipeline.dag.component_settings import source_settings
from pipeline.samples import fashion_mnist
from pipeline.samples.fashion_mnist import CLASSES, write_fashion_mnist

COUNTS = {"train": 60, "t10k": 20}


def idx(values: np.ndarray) -> bytes:
    return gzip.compress(bytes((0, 0, 8, values.ndim)) + np.array(values.shape, ">i4").tobytes() + values.tobytes())


@pytest.fixture(scope="module")
def images() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {prefix: random.integers(0, 256, (count, 28, 28), np.uint8) for prefix, count in COUNTS.items()}


@pytest.fixture
def place(tmp_path: Path, images: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the four files; no package is installed."""
    monkeypatch.setattr(fashion_mnist, "PACKAGE_FOLDER", tmp_path / "absent")
    for prefix, pixels in images.items():
        (tmp_path / f"{prefix}-images-idx3-ubyte.gz").write_bytes(idx(pixels))
        (tmp_path / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(idx(np.arange(len(pixels), dtype=np.uint8) % 10))
    return tmp_path


def test_every_picture_is_in_the_folder_of_its_split_and_class(place: Path, images: dict[str, np.ndarray]) -> None:
    write_fashion_mnist(place / "fashion")
    assert {path.name for path in (place / "fashion").iterdir()} == {"train", "test"}
    for split, prefix in (("train", "train"), ("test", "t10k")):
        written = {str(path.relative_to(place / "fashion" / split)) for path in (place / "fashion" / split).rglob("*.png")}
        assert written == {f"{CLASSES[number % 10]}/{number:05d}.png" for number in range(COUNTS[prefix])}
        for number, pixels in enumerate(images[prefix]):
            with Image.open(place / "fashion" / split / CLASSES[number % 10] / f"{number:05d}.png") as image:
                assert image.mode == "L"
                np.testing.assert_array_equal(np.asarray(image), pixels)


def test_ingestion_takes_an_eval_split_out_of_train_and_leaves_test_alone(place: Path) -> None:
    write_fashion_mnist(place / "fashion")
    settings = source_settings(DataConfig(path="", splits=SplitsConfig(train=4, eval=1, test=1, stratify=True)))
    rows = source.read_rows(str(place / "fashion"), settings)
    assert {row.label for row in rows} == set(CLASSES)
    assert {row.path.split("/")[0] for row in rows if row.split == "test"} == {"test"}
    assert sum(row.split == "test" for row in rows) == COUNTS["t10k"]
    assert 0 < sum(row.split == "eval" for row in rows) < 30


def test_the_package_is_found(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fashion_mnist, "PACKAGE_FOLDER", place)
    write_fashion_mnist(place / "elsewhere" / "fashion")
    assert len(list((place / "elsewhere" / "fashion").rglob("*.png"))) == sum(COUNTS.values())


def test_an_existing_folder_is_left_alone(place: Path) -> None:
    (place / "fashion").mkdir()
    write_fashion_mnist(place / "fashion")
    assert list((place / "fashion").iterdir()) == []


def test_absent_files_are_told_with_the_cure(place: Path) -> None:
    (place / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(UserError, match="apt-get install dataset-fashion-mnist"):
        write_fashion_mnist(place / "fashion")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: content[: len(content) // 2],
        lambda content: b"not gzip",
        lambda content: gzip.compress(b"\0\0\x08"),
        lambda content: gzip.compress(gzip.decompress(content)[:-1]),
        lambda content: gzip.compress(b"\0\0\x09\x03" + gzip.decompress(content)[4:]),
        lambda content: idx(np.zeros((COUNTS["t10k"] + 1, 28, 28), np.uint8)),
    ],
    ids=["cut", "not gzip", "short header", "short by one", "other type", "more images than labels"],
)
def test_a_broken_file_is_told_and_nothing_is_left(place: Path, spoil: Callable[[bytes], bytes]) -> None:
    path = place / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(spoil(path.read_bytes()))
    before = sorted(place.iterdir())
    with pytest.raises(UserError, match="t10k"):
        write_fashion_mnist(place / "fashion")
    assert sorted(place.iterdir()) == before
