"""A download as it comes, run as it is: a wrapper, split folders, litter, images without labels, the output inside the data."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

pytestmark = pytest.mark.extra

CLASSES = ("glioma", "[bold]", "pituitary")
WRAPPER = "archive [red]"


def write_images(folder: Path, count: int, grey: int) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        pixels = np.random.default_rng(number + grey).integers(grey, grey + 40, (24, 24), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")


@pytest.fixture(scope="module")
def runs(tmp_path_factory, fpn):
    place = tmp_path_factory.mktemp("download")
    data = place / "data"
    for split, count in (("Training", 20), ("Testing", 6)):
        for number, label in enumerate(CLASSES):
            write_images(data / WRAPPER / split / label, count, 90 * number)
            for litter in ("Thumbs.db", "desktop.ini", ".DS_Store"):
                (data / WRAPPER / split / label / litter).write_bytes(b"no image")
    write_images(data / WRAPPER / "Validation", 5, 50)
    config = {
        "name": "download",
        "data": {"path": str(data)},
        "image": {"height": 16, "width": 16, "channels": 1},
        "model": {"backbone": "small_resnet10", "max_level": 4, "num_filters": 16},
        "train": {"epochs": 1, "batch_size": 16},
        "evaluate": {"thresholds": [{"metric": "accuracy", "lower": 0.0}]},
    }
    (place / "config.yaml").write_text(yaml.safe_dump(config))
    common = ("--config", place / "config.yaml", "--output", data / "output")
    return fpn("run", *common, "--json"), fpn("data", *common, columns=300)


@pytest.mark.case(1, 27)
def test_the_classes_are_those_of_the_folders_inside(runs):
    first, _ = runs
    assert first.status == 0, first.stderr
    summary = first.json
    assert summary["examples"]["test"] == 18
    assert summary["examples"]["train"] + summary["examples"]["eval"] == 60
    assert summary["examples"]["rejected"] == 0
    assert set(summary["classes"]["train"]) == set(CLASSES)


def test_how_the_data_was_read_is_said_on_the_screen_and_in_the_summary(runs):
    first, _ = runs
    lines = [
        f"Data: all images are in {WRAPPER}, which is read as the data folder",
        "Data: read as split folders: Testing (test), Training (train); eval images are taken from train",
        f"Data: {WRAPPER}/Validation has 5 images without labels, which are left out; "
        "a model answers them with score.path, or fpn score --data",
        "Data: skipped: .DS_Store 6, Thumbs.db 6, desktop.ini 6",
    ]
    assert first.json["notes"][: len(lines)] == lines
    for line in lines:
        assert line in first.stderr


@pytest.mark.case(13)
def test_the_output_inside_the_data_is_no_data(runs):
    _, second = runs
    assert second.status == 0, second.stderr
    assert "ImageExampleGen" in second.stderr
    assert "from the cache" in second.stderr.split("ImageExampleGen")[1].split("\n")[0]
    assert "output folder output" in second.stderr
