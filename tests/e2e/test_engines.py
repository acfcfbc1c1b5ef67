"""The data side of the pipeline on engines, with the results of the run in memory.

- portable-2: Beam's own job service, and two workers from a pool. Each is a process of its own, so all that crosses is pickled.
- dask-2: a scheduler and two workers, each a process; the analyses of TFDV, TFT and TFMA in the component's own.
- prism: Beam's engine in Go, with workers in the component's process.
- flink-2: Beam's Flink runner with its embedded cluster. It needs Java, and Beam's job server, which Beam fetches once.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tensorflow_transform as tft
from PIL import Image
from tensorflow_metadata.proto.v0 import statistics_pb2

from benchmarks.engines import ENGINES, Unavailable, newest, run_data_side
from evaluation.predictions import Predictions
from evaluation.results import read_evaluation
from models import features
from models.training import read_statistics
from pipeline.config.beam import BeamConfig
from pipeline.config.whole import Config

pytestmark = pytest.mark.extra
CLASSES = ("cat", "dog", "owl")  # of the model in conftest.py
IMAGES = 48


@dataclass(frozen=True)
class Outputs:
    """Folders that the components have written."""

    examples: Path
    statistics: Path
    transformed: Path
    graph: Path
    evaluation: Path


def run(images: Path, beam: BeamConfig, output: Path, model: str) -> Outputs:
    image = {"height": 24, "width": 20, "channels": 1}
    data = {"path": str(images), "splits": {"train": 2, "eval": 1, "test": 1}, "duplicates": "group"}
    config = Config.model_validate({"name": "engines", "data": data, "image": image, "beam": beam})
    output.mkdir(exist_ok=True)
    run_data_side(config, output, Path(model), "test")
    return Outputs(
        newest(output / "ImageExampleGen/examples"),
        newest(output / "StatisticsGen/statistics"),
        newest(output / "Transform/transformed_examples"),
        newest(output / "Transform/transform_graph"),
        output / "evaluation",
    )


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for number in range(IMAGES):
        path = folder / CLASSES[number % 3] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (25, 22), np.uint8)).save(path)
    return folder


@pytest.fixture(scope="module")
def in_memory(images: Path, tmp_path_factory: pytest.TempPathFactory, exported: Any) -> Outputs:
    return run(images, BeamConfig(), tmp_path_factory.mktemp("memory"), exported.path)


def records(folder: Path) -> dict[str, list[dict[str, list[Any]]]]:
    """Split -> the values of each example by feature, sorted by the image."""
    import tensorflow as tf

    def values(record: bytes) -> dict[str, list[Any]]:
        found = tf.train.Example.FromString(record).features.feature
        return {name: list(getattr(item, item.WhichOneof("kind") or "int64_list").value) for name, item in found.items()}

    def read(split: Path) -> list[dict[str, list[Any]]]:
        files = [str(path) for path in split.iterdir()]
        examples = map(values, tf.data.TFRecordDataset(files).as_numpy_iterator())
        return sorted(examples, key=lambda item: (item[features.ENCODED], item[features.PIXELS]))

    return {split.name: read(split) for split in sorted(folder.glob("Split-*"))}


def statistics(folder: Path) -> dict[str, dict[tuple[str, ...], Any]]:
    """Split -> the statistics by feature, which come in any order, without what of them is a sum of fractions."""
    found = {}
    for split in sorted(folder.glob("Split-*")):
        message = statistics_pb2.DatasetFeatureStatisticsList.FromString((split / "FeatureStats.pb").read_bytes())
        (dataset,) = message.datasets
        found[split.name] = {tuple(feature.path.step): feature for feature in dataset.features}
    return found


def take_sums(found: dict[str, dict[tuple[str, ...], Any]]) -> list[float]:
    """Removes means and deviations, whose last bit depends on the order of their numbers."""
    sums = []
    for split in found.values():
        for path in sorted(split):
            if split[path].HasField("num_stats"):
                sums += [split[path].num_stats.mean, split[path].num_stats.std_dev]
                split[path].num_stats.ClearField("mean")
                split[path].num_stats.ClearField("std_dev")
    return sums


@pytest.mark.parametrize("engine", ["dask-2", "portable-2", "prism", "flink-2"])
def test_an_engine_gives_what_the_run_in_memory_gives(
    engine: str, request: pytest.FixtureRequest, images: Path, tmp_path: Path
) -> None:
    try:
        with ENGINES[engine].start(tmp_path) as beam:
            model, expected = request.getfixturevalue("exported").path, request.getfixturevalue("in_memory")
            found = run(images, beam, tmp_path / "output", model)
    except Unavailable as reason:
        pytest.skip(str(reason))
    examples, others = records(found.examples), records(expected.examples)
    assert examples == others
    assert min(map(len, examples.values())) > 5
    assert sum(map(len, examples.values())) == IMAGES
    index, other_index = (pd.read_parquet(item.examples / "images.parquet") for item in (found, expected))
    pd.testing.assert_frame_equal(index, other_index)

    measured, other_measured = statistics(found.statistics), statistics(expected.statistics)
    np.testing.assert_allclose(take_sums(measured), take_sums(other_measured), rtol=1e-12)
    assert measured == other_measured
    assert min(map(len, measured.values())) > 5

    transformed, other_transformed = records(found.transformed), records(expected.transformed)
    assert transformed == other_transformed
    assert len(transformed["Split-train"]) == len(examples["Split-train"])
    analysed, other_analysed = (read_statistics(tft.TFTransformOutput(str(item.graph))) for item in (found, expected))
    for name, values in analysed.items():  # the order of sums is another
        np.testing.assert_allclose(values, other_analysed[name], rtol=1e-6)
    vocabulary = Path("transform_fn", "assets", "labels")
    assert (found.graph / vocabulary).read_text() == (expected.graph / vocabulary).read_text() != ""

    predictions, other_predictions = (Predictions.read(str(item.evaluation)) for item in (found, expected))
    pd.testing.assert_frame_equal(predictions.rows, other_predictions.rows)
    np.testing.assert_array_equal(predictions.probabilities, other_predictions.probabilities)
    assert read_evaluation(str(found.evaluation)) == read_evaluation(str(expected.evaluation))
