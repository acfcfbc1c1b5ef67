"""Validates as the stock component does, then stops the run if there is anything to stop for."""

import os
from typing import Any

from tensorflow_metadata.proto.v0 import anomalies_pb2
from tfx.components.example_validator import executor
from tfx.dsl.io import fileio
from tfx.types import artifact_utils, standard_component_specs

from components.errors import UserError


class Executor(executor.Executor):
    """Raises UserError, naming the anomalies, when there are any."""

    def Do(self, input_dict: dict[str, Any], output_dict: dict[str, Any], exec_properties: dict[str, Any]) -> None:
        super().Do(input_dict, output_dict, exec_properties)
        anomalies = read_anomalies(artifact_utils.get_single_uri(output_dict[standard_component_specs.ANOMALIES_KEY]))
        if anomalies:
            raise UserError(
                f"{len(anomalies)} anomalies in the data: {'; '.join(anomalies[:5])}\n"
                f"Mend the data or the schema (data.schema), or set data.stop_on_anomalies to false"
            )


def read_anomalies(uri: str) -> list[str]:
    """What an ExampleValidator found, a line each: split, feature and what is wrong."""
    anomalies = []
    for path in sorted(fileio.glob(os.path.join(uri, "Split-*", "SchemaDiff.pb"))):
        split = path.split("/")[-2].removeprefix("Split-")
        with fileio.open(path, "rb") as file:
            found = anomalies_pb2.Anomalies.FromString(file.read())
        named = [(name, info.description) for name, info in sorted(found.anomaly_info.items())]
        if found.HasField("dataset_anomaly_info"):
            named.append(("the whole split", found.dataset_anomaly_info.description))
        anomalies += [f"{split}: {name}: {description}" for name, description in named]
    return anomalies
