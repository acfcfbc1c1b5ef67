"""Figures against their peers and bars, the page about them, and what both sides of a whole run are given."""

import json
import math

import numpy as np
import pytest
from PIL import Image

from benchmarks import performance_page, plain_keras, whole_run
from benchmarks.measurement import Figure, figures_table
from pipeline.config.whole import Config


def test_a_bar_is_on_the_median_of_the_repeats_ratios():
    # The machine was twice as slow in the last repeat; the ratio of the medians would be 1.5.
    slower = Figure("", "s", [10.0, 12.0, 30.0], [10.0, 8.0, 20.0], bar=1.5)
    assert slower.ratios == [1.0, 1.5, 1.5]
    assert slower.held == 1.5
    assert slower.is_met
    assert not Figure("", "s", [10.0, 12.0, 30.0], [10.0, 8.0, 20.0], bar=1.4).is_met
    assert Figure("", "images/s", [70.0], [100.0], bar=0.7, at_least=True).is_met
    assert not Figure("", "images/s", [69.0], [100.0], bar=0.7, at_least=True).is_met
    assert Figure("", "MB", [20.0, 40.0], [10.0]).ratios == [2.0, 4.0]  # one peer for all repeats
    assert not Figure("", "s", [math.nan], [1.0], bar=5.0).is_met
    assert Figure("", "s", [24.0], bar=25.0).is_met  # without a peer, on the value itself


def test_the_table_has_median_spread_ratio_bar_and_verdict():
    figures = [Figure("run", "s", [3.0, 1.0, 2.0], [1.0, 1.0, 1.0], bar=1.25), Figure("size", "MB", [2048.0])]
    first, second = figures_table(figures).splitlines()[2:]
    assert first == "| run | s | 2 (1 to 3) | 1 (1 to 1) | 2.00 | at most 1.25 | **missed** |"
    assert second == "| size | MB | 2,048 |  |  |  |  |"


def test_the_page_keeps_what_is_written_around_its_tables(tmp_path):
    performance_page.store(tmp_path, "start-up", [Figure("again", "s", [13.0], [10.0], bar=1.5)], full=False)
    performance_page.write(tmp_path)
    page = tmp_path / "performance.md"
    page.write_text("# Mine\n\n" + page.read_text().removeprefix("# Performance\n\n") + "\n## Kept\n")
    growth = [Figure(f"Transform: {images}", "s", [1.0], series="Transform", images=images) for images in (10, 20)]
    performance_page.store(tmp_path, "scale", growth, full=True)
    performance_page.store(tmp_path, "start-up", [Figure("again", "s", [16.0], [10.0], bar=1.5)], full=False)
    performance_page.write(tmp_path)
    text = page.read_text()
    assert text.startswith("# Mine\n")
    assert text.endswith("\n## Kept\n")
    assert "| again | s | 16.0 | 10.0 | 1.60 | at most 1.5 | **missed** |" in text
    assert "13" not in text.partition("## Start-up")[2].partition("##")[0]
    for picture in ("performance.png", "growth.png"):
        assert f"images/{picture}" in text
        assert Image.open(tmp_path / "images" / picture).size[0] > 300
    assert set(json.loads((tmp_path / "performance.json").read_text())) == {"start-up", "scale"}


def group_of(name):
    return name.partition("_")[0]


@pytest.fixture(scope="module")
def dealt(tmp_path_factory):
    """Train, eval and test folders of 120 images in two classes, three to a group."""
    folder = tmp_path_factory.mktemp("whole")
    random = np.random.default_rng(3)
    for number in range(120):
        path = folder / "source" / "ab"[number % 2] / f"{number // 6:03d}_{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (8, 6), dtype=np.uint8)).save(path)
    return whole_run.deal(folder / "source", folder / "dealt", group_of)


def test_files_of_a_group_are_dealt_into_one_split(dealt):
    splits = {}
    files = sorted(dealt.glob("*/*/*.png"))
    for path in files:
        splits.setdefault(group_of(path.stem), set()).add(path.parts[-3])
    assert len(files) == 120
    assert all(len(found) == 1 for found in splits.values())
    assert {path.parts[-3] for path in files} == {"train", "eval", "test"}
    few = whole_run.handful(dealt)
    assert {len(list(classes.iterdir())) for classes in few.glob("*/*")} == {whole_run.HANDFUL}


def test_files_without_groups_are_dealt_one_by_one(dealt, tmp_path):
    source = dealt.with_name("source")
    found = list(whole_run.deal(source, tmp_path / "dealt").glob("*/*/*.png"))
    assert {path.stem for path in found} == {path.stem for path in source.glob("*/*.png")}
    assert len({path.parts[-3] for path in found if path.stem.startswith("000_")}) > 1


def test_the_peer_reads_the_same_images_from_the_disk_and_at_once(dealt):
    config = Config.model_validate({"name": "peer", "data": {"path": "."}, "image": {"height": 8, "width": 6, "channels": 1}})
    sides = [read(dealt, "train", config) for read in (plain_keras.read_streamed, plain_keras.read_at_once)]
    assert sides[0][1] == sides[1][1] == ["a", "b"]
    (pixels, labels), (others, other_labels) = (zip(*data.as_numpy_iterator(), strict=True) for data, _ in sides)
    np.testing.assert_array_equal(labels, other_labels)
    np.testing.assert_array_equal(pixels, others)  # of the network's size already, so nothing is resized
    mean, variance = plain_keras.mean_and_variance(sides[0][0])
    np.testing.assert_allclose(mean, [np.mean(pixels)], rtol=1e-5)
    np.testing.assert_allclose(variance, [np.var(pixels)], rtol=1e-4)
