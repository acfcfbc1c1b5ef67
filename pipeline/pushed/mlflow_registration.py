"""Registers one pushed version with MLflow: a script for an interpreter that has MLflow, and nothing of this project.

MLflow's pinned requirements conflict with TFX's, so it has an environment of its own (`make mlflow`). This script reads the
request that `pipeline.pushed.registry` makes, as JSON from standard input, and writes {"version", "created"} as JSON on the
last line of its output.
"""

import json
import os
import sys
from typing import Any

import mlflow
import numpy as np
from mlflow.entities import Metric, RunTag
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.store.artifact.runs_artifact_repo import RunsArtifactRepository
from mlflow.types import Schema, TensorSpec

_SAVED_MODEL = "saved_model"  # folder in the artifact `model`


def main() -> None:
    request = json.load(sys.stdin)
    try:
        answer = register(request)
    except MlflowException as error:
        sys.exit(str(error).splitlines()[0])
    print(json.dumps(answer))


def register(request: dict[str, Any]) -> dict[str, Any]:
    """Registers the model unless it is there already, and sets the alias if it is the newest.

    Returns:
      {"version": MLflow's number, "created": whether it is new}.
    """
    client = mlflow.MlflowClient(tracking_uri=request["uri"], registry_uri=request["uri"])
    name, digest = request["model"], request["tags"]["fpn.digest"]
    versions = client.search_model_versions(f"name = '{name}' and tags.`fpn.digest` = '{digest}'")
    created = not versions
    if created:
        run, source = _log_run(client, request)
        try:
            client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        number = client.create_model_version(
            name, source, run_id=run, tags=request["tags"], description=request["description"]
        ).version
    else:
        number = max(versions, key=lambda item: int(item.version)).version
    if request["newest"]:
        client.set_registered_model_alias(name, request["alias"], number)
    return {"version": str(number), "created": created}


def _log_run(client: mlflow.MlflowClient, request: dict[str, Any]) -> tuple[str, str]:
    """Logs a run with metrics, the model and the files about it; returns the run's id and the model's location."""
    found = client.get_experiment_by_name(request["experiment"])
    experiment = found.experiment_id if found else client.create_experiment(request["experiment"])
    run = client.create_run(experiment, start_time=request["time"], run_name=request["run_name"])
    run_id, ended = run.info.run_id, "FAILED"
    try:
        client.log_batch(
            run_id,
            metrics=[Metric(key, value, request["time"], 0) for key, value in request["metrics"].items()],
            tags=[RunTag(key, value) for key, value in {**request["tags"], **request["run_tags"]}.items()],
        )
        for path in request["artifacts"]:
            client.log_artifact(run_id, path)
        client.log_artifacts(run_id, request["path"], f"model/{_SAVED_MODEL}")
        model = Model(artifact_path="model", run_id=run_id, signature=_signature(request["signature"]))
        model.add_flavor("tensorflow", saved_model_dir=_SAVED_MODEL, model_type="tf2-module")
        client.log_text(run_id, model.to_yaml(), "model/MLmodel")
        ended = "FINISHED"
    finally:
        client.set_terminated(run_id, ended)
    os.environ["MLFLOW_TRACKING_URI"] = request["uri"]
    mlflow.set_tracking_uri(request["uri"])
    return run_id, RunsArtifactRepository.get_underlying_uri(f"runs:/{run_id}/model")


def _signature(signature: dict[str, dict[str, Any]]) -> ModelSignature:
    def schema(tensors: dict[str, Any]) -> Schema:
        return Schema([TensorSpec(np.dtype(kind), tuple(shape), name) for name, (kind, shape) in tensors.items()])

    return ModelSignature(inputs=schema(signature["inputs"]), outputs=schema(signature["outputs"]))


if __name__ == "__main__":
    main()
