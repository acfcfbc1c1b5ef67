"""Validates every split and writes the same artifact as TFX's ExampleValidator."""

import os
from dataclasses import dataclass
from typing import Any, Final

import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import anomalies_pb2
from tfx.components.example_validator import executor as stock
from tfx.components.statistics_gen import stats_artifact_utils
from tfx.dsl.components.base import base_executor
from tfx.dsl.io import fileio
from tfx.types import artifact_utils, standard_component_specs
from tfx.utils import io_utils, writer_utils

from base.errors import UserError
from components.earlier_runs.state_folder import keep_statistics, previous_statistics
from components.example_validator.comparison import MEASURES, name_splits, with_thresholds

MAX_DRIFT_KEY: Final = "max_drift"
MAX_SKEW_KEY: Final = "max_skew"
SKEW_CONTROL_KEY: Final = "skew_control"
STOP_KEY: Final = "stop_on_anomalies"
STATE_KEY: Final = "state"
SCHEMA_FILE: Final = "schema.pbtxt"  # beside the anomalies of each split: the schema with the thresholds that were used


@dataclass(frozen=True)
class Distance:
    """Distance between the distribution of a feature in a split and another distribution of the feature.

    Attributes:
      kind: "drift" (to the same split of the previous run) or "skew" (to the train split).
      split: the split that was judged.
      feature: name of the feature.
      measure: one of `comparison.MEASURES`, such as "Jensen-Shannon divergence".
      value: 0 for equal distributions, 1 for distributions without overlap.
      threshold: the largest value that is not an anomaly.
    """

    kind: str
    split: str
    feature: str
    measure: str
    value: float
    threshold: float


@dataclass(frozen=True)
class Anomaly:
    """An anomaly of a feature in a split.

    Attributes:
      split: name of the split.
      feature: name of the feature, or "the whole split".
      description: TFDV's description, reworded by `name_splits`.
    """

    split: str
    feature: str
    description: str

    def __str__(self) -> str:
        return f"{self.split}: {self.feature}: {self.description}"


class Executor(base_executor.BaseExecutor):
    """Raises UserError, which names the anomalies, if there are any and `stop_on_anomalies` is set."""

    def Do(self, input_dict: dict[str, Any], output_dict: dict[str, Any], exec_properties: dict[str, Any]) -> None:
        self._log_startup(input_dict, output_dict, exec_properties)
        statistics_artifact = artifact_utils.get_single_instance(input_dict[standard_component_specs.STATISTICS_KEY])
        schema_folder = artifact_utils.get_single_uri(input_dict[standard_component_specs.SCHEMA_KEY])
        schema = io_utils.SchemaReader().read(io_utils.get_only_uri_in_dir(schema_folder))
        statistics = _load(statistics_artifact)
        baseline = input_dict.get(standard_component_specs.BASELINE_STATISTICS_KEY)
        state = exec_properties.get(STATE_KEY)
        if state:
            baseline = [found] if (found := previous_statistics(state, statistics_artifact)) else []
        previous = _load(baseline[0]) if baseline else {}
        skew_control = exec_properties.get(SKEW_CONTROL_KEY)

        output = artifact_utils.get_single_instance(output_dict[standard_component_specs.ANOMALIES_KEY])
        output.split_names = statistics_artifact.split_names
        output.span = statistics_artifact.span
        blessed = {}
        for split, found in statistics.items():
            before = previous.get(split)
            control = statistics[skew_control] if skew_control and split != skew_control else None
            judged_by = with_thresholds(schema, "drift_comparator", exec_properties.get(MAX_DRIFT_KEY), found, before)
            judged_by = with_thresholds(judged_by, "skew_comparator", exec_properties.get(MAX_SKEW_KEY), found, control)
            anomalies = tfdv.validate_statistics(found, judged_by, previous_statistics=before, serving_statistics=control)
            name_splits(anomalies, split, skew_control)
            folder = artifact_utils.get_split_uri([output], split)
            writer_utils.write_anomalies(os.path.join(folder, stock.DEFAULT_FILE_NAME), anomalies)
            io_utils.write_pbtxt_file(os.path.join(folder, SCHEMA_FILE), judged_by)
            is_clean = not anomalies.anomaly_info and not anomalies.HasField("dataset_anomaly_info")
            blessed[split] = stock.BLESSED_VALUE if is_clean else stock.NOT_BLESSED_VALUE
        output.set_json_value_custom_property(stock.ARTIFACT_PROPERTY_BLESSED_KEY, blessed)

        if exec_properties[STOP_KEY] and (named := read_anomalies(output.uri)):
            raise UserError(
                f"{len(named)} {'anomaly' if len(named) == 1 else 'anomalies'} in the data: {'; '.join(map(str, named[:5]))}\n"
                f"Mend the data or the schema (data.schema), or set data.stop_on_anomalies to false"
            )
        if state:  # only for data with which the run continues
            keep_statistics(state, statistics_artifact)


def _load(artifact: Any) -> dict[str, Any]:
    """Loads the statistics by split, each a DatasetFeatureStatisticsList."""
    splits = artifact_utils.decode_split_names(artifact.split_names)
    return {split: stats_artifact_utils.load_statistics(artifact, split).proto() for split in splits}


def _read(uri: str) -> list[tuple[str, anomalies_pb2.Anomalies]]:
    anomalies = []
    for path in sorted(fileio.glob(os.path.join(uri, "Split-*", stock.DEFAULT_FILE_NAME))):
        with fileio.open(path, "rb") as file:
            anomalies.append((path.split("/")[-2].removeprefix("Split-"), anomalies_pb2.Anomalies.FromString(file.read())))
    return anomalies


def read_anomalies(uri: str) -> list[Anomaly]:
    """Reads the anomalies that an ExampleValidator has found, by split and feature."""
    anomalies = []
    for split, found in _read(uri):
        named = [(name, info.description) for name, info in sorted(found.anomaly_info.items())]
        if found.HasField("dataset_anomaly_info"):
            named.append(("the whole split", found.dataset_anomaly_info.description))
        anomalies += [Anomaly(split, name, description) for name, description in named]
    return anomalies


def read_distances(uri: str) -> list[Distance]:
    """Reads all distances that an ExampleValidator has measured, too large or not, sorted by feature, kind and split."""
    found = []
    for split, anomalies in _read(uri):
        for info in anomalies.drift_skew_info:
            for kind, measurements in (("drift", info.drift_measurements), ("skew", info.skew_measurements)):
                found += [
                    Distance(kind, split, ".".join(info.path.step), MEASURES[item.type], item.value, item.threshold)
                    for item in measurements
                ]
    return sorted(found, key=lambda item: (item.feature, item.kind, item.split))
