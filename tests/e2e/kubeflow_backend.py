"""Kubeflow Pipelines in small: runs a compiled file's tasks one by one, as the backend's driver and launcher do.

Each task gets an ExecutorInput whose input artifacts have empty schemas, an output `executor-logs`, a folder of its own, and of
the objects in the bucket only those of its inputs, below `s3/` in its own file system. What it leaves is put into the bucket.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

PROJECT = Path(__file__).parents[2]


class TaskFailed(Exception):
    """A container has ended with another status than 0."""

    def __init__(self, name: str, status: int, log: str) -> None:
        super().__init__(f"{name} ended with {status}\n{log[-5000:]}")


@dataclass
class Done:
    """What a task has put out; `artifacts` as the metadata store has them: name (its number), uri, metadata."""

    artifacts: dict[str, dict[str, Any]] = field(default_factory=dict)
    parameters: dict[str, Any] = field(default_factory=dict)
    cached: bool = False


class Backend:
    """A bucket, a store of artifacts and a cache, over several runs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._bucket = folder / "buckets"
        self._cache: dict[str, Done] = {}
        self._artifacts = 0
        self._containers = 0

    def path(self, uri: str) -> Path:
        """Where the objects of an artifact are."""
        assert uri.startswith("s3://")
        return self._bucket / uri.removeprefix("s3://")

    def run(self, file: Path, arguments: dict[str, Any] | None = None, only: tuple[str, ...] = ()) -> dict[str, Done]:
        """Runs the tasks, or those that are named with `only`, in order.

        Raises:
          TaskFailed: one has failed.
        """
        spec, _platform = yaml.safe_load_all(file.read_text())
        values = {name: item["defaultValue"] for name, item in spec["root"]["inputDefinitions"]["parameters"].items()}
        values |= arguments or {}
        tasks = spec["root"]["dag"]["tasks"]
        self._containers += 1
        root = f"{spec['defaultPipelineRoot']}/{spec['pipelineInfo']['name']}/run-{self._containers}"
        done: dict[str, Done] = {}
        for name in TopologicalSorter({name: task.get("dependentTasks", []) for name, task in tasks.items()}).static_order():
            if not only or name in only:
                done[name] = self._run_task(spec, tasks[name], values, done, f"{root}/{name}")
        return done

    def _run_task(
        self, spec: dict[str, Any], task: dict[str, Any], values: dict[str, Any], done: dict[str, Done], root: str
    ) -> Done:
        name = task["taskInfo"]["name"]
        component = spec["components"][task["componentRef"]["name"]]
        container = spec["deploymentSpec"]["executors"][component["executorLabel"]]["container"]
        parameters = {}
        for key, item in task["inputs"].get("parameters", {}).items():
            if "componentInputParameter" in item:
                parameters[key] = values[item["componentInputParameter"]]
            elif "taskOutputParameter" in item:
                source = item["taskOutputParameter"]
                parameters[key] = done[source["producerTask"]].parameters[source["outputParameterKey"]]
            else:
                parameters[key] = item["runtimeValue"]["constant"]
        assert set(parameters) == set(component["inputDefinitions"]["parameters"])
        inputs = {}
        for key, item in task["inputs"].get("artifacts", {}).items():
            source = item["taskOutputArtifact"]
            inputs[key] = done[source["producerTask"]].artifacts[source["outputArtifactKey"]]
        key = self._key(container, component, parameters, inputs)
        if task.get("cachingOptions", {}).get("enableCache") and key in self._cache:
            return Done(self._cache[key].artifacts, self._cache[key].parameters, cached=True)
        ended = self._launch(name, component, container, parameters, inputs, root)
        self._cache[key] = ended
        return ended

    @staticmethod
    def _key(container: Any, component: Any, parameters: Any, inputs: dict[str, Any]) -> str:
        names = {key: artifact["name"] for key, artifact in inputs.items()}
        called = [container[key] for key in ("image", "command", "args")]
        key = json.dumps([called, component["outputDefinitions"], parameters, names], sort_keys=True)
        return hashlib.sha256(key.encode()).hexdigest()

    def _launch(self, name: str, component: Any, container: Any, parameters: Any, inputs: dict[str, Any], root: str) -> Done:
        self._containers += 1
        system = self._folder / f"container-{self._containers}-{name}"  # the container's file system
        outputs = {
            key: {"uri": f"{root}/{self._containers}/{key}", "type": item["artifactType"]}
            for key, item in component["outputDefinitions"].get("artifacts", {}).items()
        }
        log_uri = f"{root}/{self._containers}/executor-logs"
        outputs["executor-logs"] = {"uri": log_uri, "type": {"schemaTitle": "system.Artifact"}}
        files = {key: str(system / "outputs" / key) for key in component["outputDefinitions"].get("parameters", {})}
        invocation = {
            "inputs": {
                "parameterValues": parameters,
                "artifacts": {
                    key: {"artifacts": [{**artifact, "type": {"instanceSchema": ""}}]} for key, artifact in inputs.items()
                },
            },
            "outputs": {
                "artifacts": {key: {"artifacts": [artifact]} for key, artifact in outputs.items()},
                "parameters": {key: {"outputFile": path} for key, path in files.items()},
                "outputFile": str(system / "kfp_outputs" / "output_metadata.json"),
            },
        }
        message = json_format.ParseDict(invocation, pipeline_spec_pb2.ExecutorInput())
        for artifact in inputs.values():
            if self.path(artifact["uri"]).exists():
                shutil.copytree(self.path(artifact["uri"]), self._local(system, artifact["uri"]))
        for item in outputs.values():
            self._local(system, item["uri"]).parent.mkdir(parents=True, exist_ok=True)
        for path in files.values():
            Path(path).parent.mkdir(parents=True, exist_ok=True)

        command = [*container["command"], *container["args"]]
        command = [part.replace("{{$}}", json_format.MessageToJson(message, indent=None)) for part in command]
        assert command[0] == "python"
        variables = {item["name"]: item["value"] for item in container.get("env", [])}
        ended = subprocess.run(
            [sys.executable, *command[1:], "--local_root", str(system)],
            env={**os.environ, "PYTHONPATH": str(PROJECT), **variables},
            cwd=system,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if ended.returncode:
            raise TaskFailed(name, ended.returncode, ended.stdout)
        self._local(system, log_uri).write_text(ended.stdout)
        return self._collect(system, outputs, files)

    def _collect(self, system: Path, outputs: dict[str, dict[str, Any]], files: dict[str, str]) -> Done:
        output = pipeline_spec_pb2.ExecutorOutput()
        written = system / "kfp_outputs" / "output_metadata.json"
        if written.exists():
            json_format.Parse(written.read_text(), output)
        done = Done(parameters={key: Path(path).read_text() for key, path in files.items()})
        for key, expected in outputs.items():
            artifact = dict(expected)
            if key in output.artifacts:
                (told,) = output.artifacts[key].artifacts
                assert told.uri == expected["uri"]  # any other is refused that is not below the run's root
                assert not any(value.HasField("null_value") for value in told.metadata.fields.values())
                artifact["metadata"] = json_format.MessageToDict(told.metadata)
            self._upload(self._local(system, artifact["uri"]), self.path(artifact["uri"]))
            self._artifacts += 1
            metadata = {**artifact.get("metadata", {}), "display_name": key}
            done.artifacts[key] = {"name": str(self._artifacts), "uri": artifact["uri"], "metadata": metadata}
        shutil.rmtree(system)
        return done

    @staticmethod
    def _local(system: Path, uri: str) -> Path:
        return system / uri.replace("s3://", "s3/")

    @staticmethod
    def _upload(source: Path, destination: Path) -> None:
        """Files alone: a bucket has no empty folders."""
        for path in [source] if source.is_file() else source.rglob("*"):
            if path.is_file():
                copy = destination / path.relative_to(source) if path != source else destination
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, copy)
