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

from benchmarks import cores, ingestion, scale
from benchmarks.backbones import multiply_adds
from models import features
from models.preprocessing import images_from_files
from pipeline.config.data import ImageConfig
from pipeline.dag.component_settings import image_settings


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


def test_multiply_adds_of_attention_and_of_transposed_kernels_are_counted():
    image = keras.Input((8, 6, 16))
    tokens = keras.layers.Reshape((48, 16))(image)
    tokens = keras.layers.MultiHeadAttention(num_heads=4, key_dim=5)(tokens, tokens)
    x = keras.layers.Conv2DTranspose(3, 2, strides=2)(keras.layers.Reshape((8, 6, 16))(tokens))
    projections = 4 * 48 * 16 * (4 * 5)  # of queries, keys, values and their result
    products = 2 * 4 * 48 * 48 * 5  # of queries and keys, of weights and values, in each head
    assert multiply_adds(keras.Model(image, x)) == projections + products + 8 * 6 * 16 * (2 * 2 * 3)


def test_resnet50_has_its_published_multiply_adds():
    model = keras.applications.ResNet50(weights=None)
    assert abs(multiply_adds(model) / 3.8e9 - 1) < 0.02  # arXiv:1512.03385, table 1


def ingestion_run(side: str, images: int, seconds: float) -> ingestion.Run:
    if side.startswith("loop"):
        return ingestion.Run(side, "small", images, {"loop": seconds})
    parts = {"ImageExampleGen": 0.75 * seconds, "StatisticsGen": 1000.0, "Transform": 0.25 * seconds}
    return ingestion.Run(side, "small", images, parts)


def test_speed_is_that_beyond_the_start_up_in_each_repeat():
    handful = ingestion.HANDFUL
    times = {
        "loop": [(2.0, 4.0), (2.0, 6.0)],
        ingestion.LOOP_WITH_FILES: [(2.0, 4.5)] * 2,
        "pipeline": [(11.0, 13.5), (12.0, 17.0)],
    }
    runs = [
        ingestion_run(side, handful + more, each)
        for side, repeats in times.items()
        for seconds in repeats
        for more, each in zip((0, 1000), seconds, strict=True)
    ]
    loop, with_files = ingestion.figures(runs)
    assert loop.values == with_files.values == pytest.approx([400.0, 200.0])
    assert loop.peer == pytest.approx([500.0, 250.0])
    assert loop.ratios == pytest.approx([0.8, 0.8])
    assert loop.is_met
    assert with_files.peer == pytest.approx([400.0, 400.0])


def test_too_few_images_to_measure_meet_no_bar():
    runs = [ingestion_run(side, images, 3.0) for side in ingestion.SIDES for images in (ingestion.HANDFUL, 20)]
    assert not ingestion.figures(runs)[0].is_met


def test_growth_is_a_line_through_the_times_and_memory_a_ratio_to_that_of_the_fewest_images():
    def run(count: int) -> dict[str, dict[str, float]]:
        seconds = dict.fromkeys(scale.MEASURED, 3.0 + 0.0005 * count)
        return {"seconds": seconds, "peak": dict.fromkeys(scale.MEASURED, (1000 + 0.004 * count) * 2**20)}

    found = {
        figure.name: figure for figure in scale.figures({count: [run(count)] for count in (5_000, 20_000, 50_000, 80_000)})
    }
    assert found["Trainer: fixed part"].values == pytest.approx([3.0])
    assert found["Trainer: a thousand images more"].values == pytest.approx([0.5])
    assert (found["Trainer: 20,000 images"].series, found["Trainer: 20,000 images"].images) == ("Trainer", 20_000)
    held = found["Evaluator: largest memory, 50,000 against 5,000 images"]
    assert held.ratios == pytest.approx([1200 / 1020])
    assert not held.is_met
    assert found["Evaluator: largest memory, 80,000 against 5,000 images"].bar is None


def test_two_cores_are_compared_with_one_beyond_what_few_images_take():
    def run(images: int, each: float) -> dict[str, dict[str, float]]:
        return {what: dict.fromkeys(cores.MEASURED, 3.0 + each * images) for what in ("seconds", "processor")}

    both = {1: 0.002, 2: 0.001}
    runs = {(images, number): [run(images, each)] for images in (cores.FEW, cores.MANY) for number, each in both.items()}
    speed, cost = (
        next(figure for figure in cores.figures(runs) if figure.unit == unit) for unit in ("images/s", "processor ms/image")
    )
    assert (speed.values, speed.peer) == (pytest.approx([1000.0]), pytest.approx([500.0]))
    assert speed.is_met
    assert (cost.values, cost.peer) == (pytest.approx([1.0]), pytest.approx([2.0]))


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
    image = image_settings(ImageConfig.model_validate(ingestion.KINDS["small"].image))
    pixels = images_from_files(tf.constant([path.read_bytes() for path in files]), image).numpy()
    labels = ["ab".index(path.parent.name) for path in files]
    expected = zip([each.tobytes() for each in pixels], labels, strict=True)
    assert read_images(tmp_path / "loop", features.IMAGE) == collections.Counter(expected)
    encoded = zip([path.read_bytes() for path in files], labels, strict=True)
    assert read_images(tmp_path / "files", features.ENCODED) == collections.Counter(encoded)


def test_more_images_begin_with_the_same_ones(tmp_path):
    few = ingestion.write_images(tmp_path, "small", 14)
    (tmp_path / "small-14-handful").mkdir()  # of `whole_run`
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
def test_both_loops_and_the_pipeline_are_measured_and_leave_the_images_alone(tmp_path):
    runs = ingestion.run_in_turns(tmp_path, 1, "small", 24, ingestion.SIDES)
    assert [(run.images, run.side) for run in runs] == [(count, side) for count in (12, 24) for side in ingestion.SIDES]
    assert all(run.total > 0 for run in runs)
    assert {*ingestion.COMPONENTS} < {*runs[-1].seconds}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small-12", "small-24"]


@pytest.mark.extra
def test_what_is_measured_gets_into_the_page_with_the_machine_that_it_is_of(tmp_path):
    places = ["--folder", str(tmp_path / "data"), "--docs", str(tmp_path / "docs")]
    command = [sys.executable, "-m", "benchmarks", "--only", "start-up", "--repeats", "1", *places]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    stored = json.loads((tmp_path / "docs" / "performance.json").read_text())["start-up"]
    cached, first = stored["figures"]
    assert done.returncode == (cached["values"][0] / cached["peer"][0] > cached["bar"])
    assert first["values"][0] > cached["values"][0]
    page = (tmp_path / "docs" / "performance.md").read_text()
    assert f"{stored['machine']}; {stored['date']}, quick." in page
    assert "cached run, against `from tfx import v1`" in page
    assert (tmp_path / "docs" / "images" / "performance.png").exists()
