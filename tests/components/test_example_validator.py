"""The ExampleValidator: the schema, drift against the previous run, skew between the splits."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.types import artifact_utils, standard_artifacts, standard_component_specs

from base.errors import UserError
from components.example_validator.executor import Distance, Executor, read_anomalies, read_distances

Splits = dict[str, pd.DataFrame]


def statistics_artifact(folder: Path, splits: Splits) -> standard_artifacts.ExampleStatistics:
    artifact = standard_artifacts.ExampleStatistics()
    artifact.uri = str(folder)
    artifact.split_names = artifact_utils.encode_split_names(list(splits))
    artifact.span = 0
    for split, rows in splits.items():
        (folder / f"Split-{split}").mkdir(parents=True)
        found = tfdv.generate_statistics_from_dataframe(rows)
        (folder / f"Split-{split}" / "FeatureStats.pb").write_bytes(found.SerializeToString())
    return artifact


def validate(
    folder: Path,
    splits: Splits,
    previous: Splits | None = None,
    curate: Callable[[schema_pb2.Schema], Any] = lambda schema: None,
    **properties: Any,
) -> str:
    """Runs the component's executor with a schema inferred from the train split; returns the folder of anomalies."""
    schema = tfdv.infer_schema(tfdv.generate_statistics_from_dataframe(splits["train"]))
    curate(schema)
    schema_artifact, anomalies = standard_artifacts.Schema(), standard_artifacts.ExampleAnomalies()
    schema_artifact.uri, anomalies.uri = str(folder / "schema"), str(folder / "anomalies")
    (folder / "schema").mkdir()
    tfdv.write_schema_text(schema, str(folder / "schema/schema.pbtxt"))
    inputs = {
        standard_component_specs.STATISTICS_KEY: [statistics_artifact(folder / "statistics", splits)],
        standard_component_specs.SCHEMA_KEY: [schema_artifact],
        standard_component_specs.BASELINE_STATISTICS_KEY: (
            [statistics_artifact(folder / "previous", previous)] if previous else []
        ),
    }
    defaults = {"max_drift": 0.3, "max_skew": 0.3, "skew_control": "train", "stop_on_anomalies": 0}
    Executor().Do(inputs, {standard_component_specs.ANOMALIES_KEY: [anomalies]}, {**defaults, **properties})
    return anomalies.uri


def images(count: int, seed: int, brightness: float = 0.5, cats: float = 0.5) -> pd.DataFrame:
    """Features of so many images; their brightness has a standard deviation of 0.1."""
    random = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "image/mean": random.normal(brightness, 0.1, count).astype(np.float32),
            "image/bytes": random.lognormal(9, 1.5, count).astype(np.int64),
            "image/height": random.choice([240, 480], count),
            "image/label": np.where(np.arange(count) < cats * count, "cat", "dog"),
            "image/format": "png",
            "image/filename": [f"{seed}/{number}.png" for number in range(count)],
            "image/group": [f"{seed}/{number}" for number in range(count)],
            "meta/site": random.choice(["north", "south"], count),
        }
    )


def three_splits(**of_eval: Any) -> Splits:
    return {"train": images(600, 1), "eval": images(100, 2, **of_eval), "test": images(100, 3)}


def light(*values: str) -> pd.DataFrame:
    return pd.DataFrame({"light": values})


def test_data_that_fits_the_schema_has_no_anomalies(tmp_path: Path) -> None:
    splits = {"train": light(*["day", "night"] * 5), "eval": light("night", "day")}
    folder = validate(tmp_path, splits, stop_on_anomalies=1)
    assert sorted(path.name for path in Path(folder).iterdir()) == ["Split-eval", "Split-train"]
    assert read_anomalies(folder) == []


def test_an_unknown_value_stops_the_run_if_it_is_to_and_is_named(tmp_path: Path) -> None:
    splits = {"train": light(*["day", "night"] * 5), "eval": light("day", "night", "dusk", "dusk")}
    with pytest.raises(UserError) as caught:
        validate(tmp_path, splits, stop_on_anomalies=1)
    first, cure = str(caught.value).splitlines()
    assert first.startswith("1 anomaly in the data: eval: light: ")
    assert "dusk" in first
    assert "data.schema" in cure
    assert "data.stop_on_anomalies" in cure
    (anomaly,) = map(str, read_anomalies(str(tmp_path / "anomalies")))
    assert anomaly.startswith("eval: light: ")
    assert anomaly in first


def test_anomalies_of_every_split_are_found(tmp_path: Path) -> None:
    splits = {"train": light(*["day", "night"] * 5), "eval": light("dusk", "dusk", "dusk"), "test": light("dawn", "dawn")}
    folder = validate(tmp_path, splits)
    assert [anomaly.split for anomaly in read_anomalies(folder)] == ["eval", "test"]


def test_splits_and_runs_of_the_same_distributions_have_no_anomalies(tmp_path: Path) -> None:
    previous = {"train": images(600, 4), "eval": images(30, 5), "test": images(30, 6)}
    splits = {"train": images(600, 1), "eval": images(30, 2), "test": images(30, 3)}
    folder = validate(tmp_path, splits, previous, stop_on_anomalies=1)
    assert len(read_distances(folder)) == 5 * (3 + 2)  # features, each with drift in all splits and skew in two


def test_without_a_metadata_store_the_state_has_the_previous_statistics(tmp_path: Path) -> None:
    three = ("first", "again", "other")
    folders = {name: tmp_path / name for name in three}
    for folder in folders.values():
        folder.mkdir()
    splits = {"train": images(600, 1), "eval": images(30, 2), "test": images(30, 3)}
    found = [validate(folders[name], splits, state=str(tmp_path / "state")) for name in three[:2]]
    splits = {**splits, "train": images(600, 4, brightness=0.9)}
    found.append(validate(folders["other"], splits, state=str(tmp_path / "state")))
    drifts = [{item.kind for item in read_distances(folder)} for folder in found]
    assert drifts == [{"skew"}, {"skew"}, {"skew", "drift"}]


def test_darker_eval_images_are_told_with_feature_splits_distance_and_threshold(tmp_path: Path) -> None:
    folder = validate(tmp_path, three_splits(brightness=0.2))
    (skew,) = [item for item in read_distances(folder) if item.value > item.threshold]
    assert (skew.kind, skew.split, skew.feature, skew.threshold) == ("skew", "eval", "image/mean", 0.3)
    (anomaly,) = map(str, read_anomalies(folder))
    assert anomaly == (
        f"eval: image/mean: The Jensen-Shannon divergence between eval and train is {skew.value:.6g}, above the threshold 0.3."
    )


def test_changed_labels_are_told_as_drift_with_the_class(tmp_path: Path) -> None:
    splits = {"train": images(600, 1, cats=0.9), "eval": images(100, 2)}
    folder = validate(tmp_path, splits, previous={"train": images(500, 3, cats=0.5)}, max_skew=None)
    (anomaly,) = map(str, read_anomalies(folder))
    told, _, value = anomaly.partition(" The value with the largest difference is: ")
    assert value in ("cat", "dog")
    assert told == (
        "train: image/label: The largest difference of a share between train and train of the previous run is 0.4, "
        "above the threshold 0.3."
    )


def test_names_groups_and_the_manifests_columns_are_not_compared(tmp_path: Path) -> None:
    folder = validate(tmp_path, three_splits(), previous=three_splits())
    compared = {item.feature for item in read_distances(folder)}
    assert compared == {"image/mean", "image/bytes", "image/height", "image/label", "image/format"}


def distance(folder: str, feature: str, kind: str = "skew", split: str = "eval") -> Distance:
    (found,) = [item for item in read_distances(folder) if (item.feature, item.kind, item.split) == (feature, kind, split)]
    return found


@pytest.mark.parametrize("shift", [0.0, 0.1, 0.2, 2.0])
def test_the_distance_of_numbers_is_the_divergence_of_their_densities(tmp_path: Path, shift: float) -> None:
    splits = {"train": images(20_000, 1), "eval": images(20_000, 2, brightness=0.5 + shift)}
    folder = validate(tmp_path, splits)
    at = np.linspace(-1, 4, 100_001)
    p, q = (np.exp(-np.square((at - mean) / 0.1) / 2) / (0.1 * np.sqrt(2 * np.pi)) for mean in (0.5, 0.5 + shift))
    middle = (p + q) / 2

    def divergence(density: np.ndarray) -> float:
        inside = density > 1e-300
        return float(np.trapezoid(density[inside] * np.log2(density[inside] / middle[inside]), at[inside]))

    expected = (divergence(p) + divergence(q)) / 2
    assert distance(folder, "image/mean").value == pytest.approx(expected, abs=0.07)  # of ten quantiles, not of the density


def test_a_few_huge_files_are_no_skew(tmp_path: Path) -> None:
    splits = three_splits()
    splits["train"].loc[:2, "image/bytes"] = 10**9
    assert distance(validate(tmp_path, splits), "image/bytes").value < 0.15


def test_the_distance_of_labels_is_the_largest_difference_of_a_share(tmp_path: Path) -> None:
    folder = validate(tmp_path, three_splits(cats=0.83))
    assert distance(folder, "image/label").value == pytest.approx(abs(0.83 - 0.5))


def test_in_few_images_no_distance_is_looked_for(tmp_path: Path) -> None:
    splits = {"train": images(600, 1), "eval": images(29, 2, brightness=0.2)}
    folder = validate(tmp_path, splits, previous={"train": images(29, 3, brightness=0.2)})
    assert read_distances(folder) == []
    assert read_anomalies(folder) == []


@pytest.mark.parametrize(("switch", "left"), [("max_skew", "drift"), ("max_drift", "skew"), ("skew_control", "drift")])
def test_a_comparison_is_switched_off(tmp_path: Path, switch: str, left: str) -> None:
    folder = validate(tmp_path, three_splits(), previous=three_splits(), **{switch: None})
    assert {item.kind for item in read_distances(folder)} == {left}


def test_thresholds_of_a_curated_schema_hold(tmp_path: Path) -> None:
    def curate(schema: schema_pb2.Schema) -> None:
        mean = tfdv.get_feature(schema, "image/mean")
        mean.skew_comparator.jensen_shannon_divergence.threshold = 0.95
        tfdv.get_feature(schema, "image/height").skew_comparator.SetInParent()  # an empty one: not to be compared
        tfdv.get_feature(schema, "meta/site").skew_comparator.infinity_norm.threshold = 0.01

    folder = validate(tmp_path, three_splits(brightness=0.3), curate=curate)
    assert distance(folder, "image/mean").threshold == 0.95
    assert distance(folder, "image/mean").value > 0.3
    assert distance(folder, "image/bytes").threshold == 0.3
    assert "image/height" not in {item.feature for item in read_distances(folder)}
    assert {anomaly.feature for anomaly in read_anomalies(folder)} == {"meta/site"}


def test_the_schema_with_its_thresholds_is_kept_beside_the_anomalies(tmp_path: Path) -> None:
    folder = validate(tmp_path, three_splits(), previous=three_splits(), max_drift=0.4)
    judged_by = tfdv.load_schema_text(f"{folder}/Split-eval/schema.pbtxt")
    mean = tfdv.get_feature(judged_by, "image/mean")
    assert mean.drift_comparator.jensen_shannon_divergence.threshold == 0.4
    assert mean.skew_comparator.jensen_shannon_divergence.threshold == 0.3
    assert tfdv.get_feature(judged_by, "image/label").skew_comparator.infinity_norm.threshold == 0.3
    assert not tfdv.get_feature(judged_by, "image/group").HasField("skew_comparator")


def test_a_feature_that_the_previous_run_did_not_have_is_no_anomaly(tmp_path: Path) -> None:
    previous = {split: rows.drop(columns="image/bytes") for split, rows in three_splits().items()}
    folder = validate(tmp_path, three_splits(), previous)
    assert read_anomalies(folder) == []
    assert {item.feature for item in read_distances(folder) if item.kind == "drift"} == {
        "image/mean", "image/height", "image/label", "image/format"
    }  # fmt: skip
