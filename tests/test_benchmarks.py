"""The counts in the table of backbones, and the benchmark of ingestion on a few images."""

import collections
import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from benchmarks import ingestion
from benchmarks.backbones import multiply_adds
from models import features
from models.preprocessing import images_from_files
from pipeline.config import ImageConfig


def test_multiply_adds_are_those_of_every_kernel_at_every_position():
    inner_input = keras.Input((8, 6, 4))
    inner = keras.Model(inner_input, keras.layers.SeparableConv2D(6, 3, padding="same")(inner_input))
    image = keras.Input((16, 12, 3))
    x = keras.layers.Conv2D(4, 5, strides=2, padding="same")(image)
    x = keras.layers.Conv2D(4, 3, groups=2, padding="same")(x)
    x = inner(x)
    x = keras.layers.DepthwiseConv2D(3, depth_multiplier=2)(x)
    x = keras.layers.Dense(5)(keras.layers.BatchNormalization()(x))
    expected = (
        8 * 6 * 4 * (5 * 5 * 3)
        + 8 * 6 * 4 * (3 * 3 * 2)
        + 8 * 6 * 4 * (3 * 3)
        + 8 * 6 * 6 * 4
        + 6 * 4 * 12 * (3 * 3)
        + 6 * 4 * 5 * 12
    )
    model = keras.Model(image, x)
    assert multiply_adds(model) == expected
    assert multiply_adds(model) == expected  # counting leaves the model as it was


def test_resnet50_has_its_published_multiply_adds():
    model = keras.applications.ResNet50(weights=None)
    assert abs(multiply_adds(model) / 3.8e9 - 1) < 0.02  # arXiv:1512.03385, table 1


def ingestion_run(side: str, images: int, seconds: float, memory: int = 0) -> ingestion.Run:
    if side.startswith("loop"):
        return ingestion.Run(side, "small", images, {"loop": seconds}, {"loop": memory})
    parts = {"ImageExampleGen": 0.75 * seconds, "StatisticsGen": 1000.0, "Transform": 0.25 * seconds}
    return ingestion.Run(side, "small", images, parts, {"ImageExampleGen": memory, "StatisticsGen": 10**9, "Transform": 5})


def test_speed_is_that_of_the_fastest_runs_without_and_with_the_start_up():
    handful = ingestion.HANDFUL
    runs = [ingestion_run("loop", handful, 2.0), ingestion_run("loop", handful + 1000, 4.0)]
    with_files = ingestion.LOOP_WITH_FILES
    runs += [ingestion_run(with_files, handful, 2.0), ingestion_run(with_files, handful + 1000, 4.5)]
    runs += [ingestion_run("pipeline", handful, seconds) for seconds in (12.0, 11.0, 15.0)]
    runs += [ingestion_run("pipeline", handful + 1000, seconds) for seconds in (16.0, 13.5, 14.0)]
    (speed,) = ingestion.speeds(runs)
    assert speed.start_up == {"loop": 2.0, with_files: 2.0, "pipeline": 11.0}
    seconds = {"loop": 4.0, with_files: 4.5, "pipeline": 13.5}
    assert speed.rates == pytest.approx({side: (handful + 1000) / each for side, each in seconds.items()})
    assert speed.rates_beyond == pytest.approx({"loop": 500.0, with_files: 400.0, "pipeline": 400.0})
    assert speed.ratio_beyond == pytest.approx(0.8)
    text, met = ingestion.describe_speed(runs)
    assert met
    assert "| beyond the start-up | 400.0 | 500.0 | 0.80 | 400.0 | 1.00 |" in text
    assert not ingestion.describe_speed([*runs, ingestion_run("loop", handful + 1000, 3.0)])[1]


def test_memory_is_the_larger_of_the_measured_components():
    runs = [ingestion_run("pipeline", images, 1.0, memory) for images, memory in ((500, 100), (500, 200), (5000, 226))]
    assert ingestion.growth_of_memory(runs) == pytest.approx(1.13)
    assert ingestion.describe_memory(runs)[1]
    assert not ingestion.describe_memory([*runs, ingestion_run("pipeline", 5000, 1.0, 231)])[1]


def test_growth_is_of_the_time_an_image_beyond_the_start_up():
    times = {ingestion.HANDFUL: 10.0}
    times |= {ingestion.HANDFUL + more: 10.0 + more * each for more, each in ((1000, 0.002), (4000, 0.0021), (16_000, 0.00205))}
    runs = [ingestion_run("pipeline", images, seconds) for images, seconds in times.items()]
    assert ingestion.deviation(runs) == pytest.approx(0.05)
    text, met = ingestion.describe_growth(runs)
    assert met
    assert f"| {ingestion.HANDFUL + 4000:,} | 18.4 | 2.100 |" in text


def test_too_few_images_to_measure_meet_no_bar():
    runs = [ingestion_run(side, images, 3.0) for side in ingestion.SIDES for images in (ingestion.HANDFUL, 20)]
    assert not ingestion.describe_speed(runs)[1]
    assert not ingestion.describe_growth(runs)[1]


def read_images(path: Path, name: str) -> collections.Counter[tuple[bytes, int]]:
    """The images of a TFRecord file under a name, each with its label."""
    records = [tf.train.Example.FromString(record) for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator()]
    each = [record.features.feature for record in records]
    return collections.Counter(
        (item[name].bytes_list.value[0], item[features.LABEL_INDEX].int64_list.value[0]) for item in each
    )


def test_the_loop_writes_the_pixels_and_labels_of_every_image(tmp_path):
    data = ingestion.write_images(tmp_path, "small", 20)
    run = ingestion.run_loop(data, "small", tmp_path, with_files=True)
    files = sorted(data.glob("*/*/*.jpg"))
    assert run.images == len(files) == 20
    image = ImageConfig.model_validate(ingestion.KINDS["small"].image).model_dump()
    pixels = images_from_files(tf.constant([path.read_bytes() for path in files]), **image).numpy()
    labels = ["ab".index(path.parent.name) for path in files]
    expected = zip([each.tobytes() for each in pixels], labels, strict=True)
    assert read_images(tmp_path / "loop", features.IMAGE) == collections.Counter(expected)
    encoded = zip([path.read_bytes() for path in files], labels, strict=True)
    assert read_images(tmp_path / "files", features.ENCODED) == collections.Counter(encoded)


def test_more_images_begin_with_the_same_ones(tmp_path):
    few = ingestion.write_images(tmp_path, "small", 14)
    many = ingestion.write_images(tmp_path, "small", 20)
    names = {path.relative_to(many) for path in many.glob("*/*/*")}
    first = {path.relative_to(few) for path in few.glob("*/*/*")}
    assert first < names
    assert len({(many / name).read_bytes() for name in names}) == len(names) == 20
    assert all((few / name).read_bytes() == (many / name).read_bytes() for name in first)
    assert {name.parent for name in first} == {Path(split, label) for split in features.SPLITS for label in "ab"}
    large = np.asarray(ingestion.draw_image(ingestion.KINDS["large"], 0))
    assert large.shape == (1536, 2048, 3)


@pytest.mark.extra
def test_the_benchmark_of_ingestion_writes_its_page_and_every_run(tmp_path):
    numbers = ["--small", "24", "--large", "0", "--memory", "24", "24", "--growth", "24", "24", "24", "--repeats", "1"]
    places = ["--folder", str(tmp_path / "data"), "--docs", str(tmp_path / "docs")]
    command = [sys.executable, "-m", "benchmarks.ingestion", *numbers, *places]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert done.returncode == ("missed" in done.stdout)  # of so few images, the figures mean nothing
    page = (tmp_path / "docs" / "data_speed.md").read_text()
    for title in ("## Speed", "## Memory", "## Growth of time"):
        assert title in page
        assert title in done.stdout
    results = json.loads((tmp_path / "docs" / "data_speed.json").read_text())
    sides = [(run["side"], run["images"]) for run in results["speed"]["runs"]]
    assert sides == [(side, images) for images in (12, 24) for side in ingestion.SIDES]
    pipeline = results["speed"]["runs"][-1]
    assert results["memory"]["runs"][-1] == results["growth"]["runs"][-1] == pipeline  # made once
    assert all(pipeline["seconds"][name] > 0 and pipeline["peak"][name] > 2**27 for name in ingestion.COMPONENTS)
    assert [path for path in (tmp_path / "data").iterdir() if path.name.startswith("run-")] == []
