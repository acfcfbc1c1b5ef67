"""Image files reach a pushed model as they reached its training."""

import io
import os
import socket
from pathlib import Path

import bombs
import numpy as np
import pytest
import tensorflow as tf
import tifffile
from PIL import Image

from base.errors import UserError
from components.pusher.record import Record
from components.pusher.versions import push
from models.export import export_image_settings
from pipeline.config.data import ImageConfig
from pipeline.dag.component_settings import image_settings
from pipeline.pushed.pushed_model import Files, find_version, read_files

HOUNSFIELD = np.arange(-1000, 1000, 5, dtype=np.int16).reshape(20, 20)


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    tifffile.imwrite(tmp_path / "scan.tif", HOUNSFIELD)
    return tmp_path / "scan.tif"


def test_the_window_of_the_training_is_used(scan: Path, tmp_path: Path) -> None:
    config = ImageConfig(height=8, intensity="window", window=[-500.0, 500.0])
    export_image_settings(image_settings(config), str(tmp_path))
    pixels = np.asarray(Image.open(io.BytesIO(read_files([scan], tmp_path).encoded[0])))
    np.testing.assert_array_equal(pixels, np.round(255 * np.clip((HOUNSFIELD + 500) / 1000, 0, 1)))


def test_a_model_that_does_not_say_takes_the_range_of_the_type(scan: Path, tmp_path: Path) -> None:
    pixels = np.asarray(Image.open(io.BytesIO(read_files([scan], tmp_path).encoded[0])))
    np.testing.assert_array_equal(pixels, HOUNSFIELD.astype(int) + 32768)


def test_a_version_that_is_damaged_is_not_used(tmp_path: Path) -> None:
    versions = []
    for graph in ("graph", "another"):
        (tmp_path / graph).mkdir()
        (tmp_path / graph / "saved_model.pb").write_text(graph)
        versions.append(push(str(tmp_path / graph), str(tmp_path / "pushed"), Record(), None))
    newest = Path(versions[1].path)
    assert find_version(tmp_path / "pushed") == newest
    (newest / "saved_model.pb").write_text("grap")
    assert find_version(tmp_path / "pushed") == Path(versions[0].path)
    with pytest.raises(
        UserError,
        match=rf"{newest}: is damaged \(its files are not those that were pushed: saved_model.pb has changed\); push the model",
    ):
        find_version(newest)


def test_a_file_that_is_no_image_is_told(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("notes")
    (failure,) = read_files([tmp_path / "notes.txt"], tmp_path).failures
    assert str(failure) == f"{tmp_path}/notes.txt: not an image; give an image file, such as PNG or JPEG"


def test_what_is_no_regular_file_is_refused_without_being_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "device.png").symlink_to("/dev/zero")
    (tmp_path / "folder.png").mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket.png"))
        for name in ("pipe", "device", "socket", "folder"):
            (failure,) = read_files([tmp_path / f"{name}.png"], tmp_path).failures
            assert f"{name}.png: not a regular file, but a {name}; give an image file" in str(failure)


def test_a_bomb_is_told(tmp_path: Path) -> None:
    (tmp_path / "bomb.jpg").write_bytes(bombs.jpeg_of_scans(5000, 5000, 2000))
    (failure,) = read_files([tmp_path / "bomb.jpg"], tmp_path).failures
    assert str(failure).endswith("bomb.jpg: too costly to decode: JPEG of 2,000 scans; at most 100 are read")


@pytest.mark.parametrize(("images", "optimized"), [(3, False), (300, True)])
def test_a_few_images_are_answered_before_the_graph_is_optimized_and_later_ones_as_ever(images: int, optimized: bool) -> None:
    seen = []

    def signature(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        seen.append(not tf.config.optimizer.get_experimental_options().get("disable_meta_optimizer", False))
        return {"lengths": tf.strings.length(image_bytes)}

    files = Files([Path(f"{number}.png") for number in range(images)], [bytes(number) for number in range(images)])
    answers = [int(answer["lengths"]) for _, answer in files.ask(signature, 64)]
    assert answers == list(range(images))
    assert set(seen) == {optimized}
    assert not tf.config.optimizer.get_experimental_options().get("disable_meta_optimizer", False)


def test_a_model_that_fails_leaves_the_optimizer_as_it_was() -> None:
    def signature(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        raise ValueError("no model")

    with pytest.raises(ValueError, match="no model"):
        list(Files([Path("one.png")], [b"one"]).ask(signature, 64))
    assert not tf.config.optimizer.get_experimental_options().get("disable_meta_optimizer", False)
