"""The statistics of StatisticsGen against those of TFX's own on the same examples."""

import csv
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
import tensorflow_data_validation as tfdv
from executors import SETTINGS, context, ingest, make_artifact
from pyarrow import parquet
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2
from tfx.components.statistics_gen import executor as stock_executor
from tfx.components.statistics_gen import stats_artifact_utils
from tfx.types import artifact_utils, channel_utils, standard_artifacts, standard_component_specs

import components.examples
from base.errors import UserError
from components.example_validator.comparison import with_thresholds
from components.statistics_gen import executor
from components.statistics_gen.component import ImageStatisticsGen
from images.index import INDEX_FILE
from models import features
from pipeline.samples.digits import write_digits

Statistics = dict[str, statistics_pb2.DatasetFeatureStatisticsList]


def write_data(folder: Path) -> None:
    """All digits in three sizes, with several labels or none, groups, and columns of texts and of numbers, some missing."""
    write_digits(folder)
    with (folder / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for number, row in enumerate(rows):
        digit = int(row["label"])
        names = [
            name for name, holds in (("even", digit % 2 == 0), ("large", digit > 4), ("prime", digit in (2, 3, 5, 7))) if holds
        ]
        row |= {
            "label": "|".join(names),
            "site": ("north", "", "süd")[number % 3],
            "age": "" if number % 5 == 0 else str(number % 90),
            "dose": "" if number % 7 else f"{number / 1000}",
        }
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("statistics")
    write_data(folder / "data")
    return folder


@pytest.fixture(scope="module")
def examples(place: Path) -> standard_artifacts.Examples:
    columns = replace(SETTINGS.columns, types={"age": "integer", "dose": "real"})
    return ingest(place / "data", place, multi_label=True, columns=columns)


def measure(examples: standard_artifacts.Examples, place: Path, kind: Any, number: int) -> Any:
    component = ImageStatisticsGen(examples=channel_utils.as_channel([examples]))
    artifact = make_artifact(standard_artifacts.ExampleStatistics, place, "StatisticsGen", "statistics", number)
    inputs, outputs = (
        {key: [item]}
        for key, item in (
            (standard_component_specs.EXAMPLES_KEY, examples),
            (standard_component_specs.STATISTICS_KEY, artifact),
        )
    )
    kind(context(place, number)).Do(inputs, outputs, dict(component.exec_properties))
    return artifact


def load(artifact: Any) -> Statistics:
    splits = artifact_utils.decode_split_names(artifact.split_names)
    return {split: stats_artifact_utils.load_statistics(artifact, split).proto() for split in splits}


@pytest.fixture(scope="module")
def ours(examples: standard_artifacts.Examples, place: Path) -> Statistics:
    return load(measure(examples, place, executor.Executor, 1))


@pytest.fixture(scope="module")
def theirs(examples: standard_artifacts.Examples, place: Path) -> Statistics:
    return load(measure(examples, place, stock_executor.Executor, 2))


def by_feature(found: statistics_pb2.DatasetFeatureStatisticsList) -> dict[str, statistics_pb2.FeatureNameStatistics]:
    (dataset,) = found.datasets
    return {feature.path.step[0]: feature for feature in dataset.features}


@pytest.mark.parametrize("split", features.SPLITS)
def test_all_statistics_are_those_of_tfx(ours: Statistics, theirs: Statistics, split: str) -> None:
    assert ours[split].datasets[0].num_examples == theirs[split].datasets[0].num_examples > 1000
    found, expected = by_feature(ours[split]), by_feature(theirs[split])
    assert found.keys() == expected.keys() == {*features.RAW, "meta/site", "meta/size", "meta/age", "meta/dose"}
    for name, feature in found.items():
        other = expected[name]
        if feature.HasField("num_stats"):  # the last bit of a sum depends on the order
            for field in ("mean", "std_dev"):
                assert getattr(feature.num_stats, field) == pytest.approx(getattr(other.num_stats, field), rel=1e-12)
                feature.num_stats.ClearField(field)
                other.num_stats.ClearField(field)
        assert feature == other, name


def test_values_are_counted_exactly(ours: Statistics, examples: standard_artifacts.Examples) -> None:
    index = parquet.read_table(f"{examples.uri}/{INDEX_FILE}").to_pandas()
    train = index[index["split"] == "train"]
    found = by_feature(ours["train"])
    labels = Counter(name for text in train["label"] for name in features.split_labels(text, multi_label=True))
    counted = {bucket.label: int(bucket.sample_count) for bucket in found["image/label"].string_stats.rank_histogram.buckets}
    assert counted == labels
    assert found["image/label"].string_stats.common_stats.num_missing == 0
    assert found["image/filename"].string_stats.unique == len(train) > 1024  # as many as TFDV counts exactly in memory
    assert found["image/group"].string_stats.unique == train["group"].nunique()
    assert found["meta/dose"].num_stats.common_stats.num_missing > 0


def judge(statistics: Statistics, split: str, schema: schema_pb2.Schema) -> anomalies_pb2.Anomalies:
    control = statistics["train"]
    judged_by = with_thresholds(schema, "skew_comparator", 0.01, statistics[split], control)
    return tfdv.validate_statistics(statistics[split], judged_by, serving_statistics=control)


def test_schema_and_distances_made_of_them_are_those_made_of_tfxs(ours: Statistics, theirs: Statistics) -> None:
    schema, other = (tfdv.infer_schema(statistics["train"]) for statistics in (ours, theirs))
    assert sorted(map(str, schema.feature)) == sorted(map(str, other.feature))
    assert sorted(map(str, schema.string_domain)) == sorted(map(str, other.string_domain))
    found, expected = (judge(statistics, "eval", schema) for statistics in (ours, theirs))
    assert found.anomaly_info
    assert found.anomaly_info == expected.anomaly_info
    assert sorted(map(str, found.drift_skew_info)) == sorted(map(str, expected.drift_skew_info))


def test_tfxs_own_executor_measures_the_examples_of_another_example_gen(
    examples: standard_artifacts.Examples, place: Path, ours: Statistics
) -> None:
    foreign = standard_artifacts.Examples()
    foreign.uri, foreign.split_names = examples.uri, examples.split_names
    artifact = measure(foreign, place, executor.Executor, 3)
    assert artifact.has_custom_property(stock_executor.SAMPLE_RATE_BY_SPLIT_PROPERTY_NAME)
    assert load(artifact).keys() == ours.keys()


def test_a_split_of_which_all_files_were_set_aside_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no image is left in this split; rejected.csv"):
        executor.measure(str(tmp_path), tfdv.StatsOptions(schema=schema_pb2.Schema()))


def test_about_as_many_bytes_are_read_at_a_time_as_are_measured_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = tf.train.Example(features=tf.train.Features(feature={features.PIXELS: bytes_feature(bytes(1000))}))
    with tf.io.TFRecordWriter(str(tmp_path / "data")) as writer:
        for _ in range(5):
            writer.write(record.SerializeToString())
    monkeypatch.setattr(components.examples, "_BATCH_BYTES", 2500)
    assert [batch.num_rows for batch in executor._read_batches(str(tmp_path))] == [4, 1]


def bytes_feature(value: bytes) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
