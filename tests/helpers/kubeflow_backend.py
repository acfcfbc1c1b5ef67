"""Kubeflow Pipelines 2.17 in small: runs a compiled file's tasks one by one, as the backend's compiler, driver and launcher do.

Artifacts lie in a bucket of a real object store. Each task is a process with a file system of its own, into which the launcher
downloads the artifacts of its inputs, and from which it uploads those of its outputs. What reaches the task goes through a
pod's specification, as in `kubeflow_pods`, and through what Kubernetes does to that.

Sources, below backend/src/v2: driver/driver.go and cache.go, component/launcher_v2.go, objectstore/object_store.go,
metadata/client.go.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import uuid
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any, Protocol

import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2
from kubeflow_pods import build_pod, pod_errors, shared_implementations
from kubernetes_rules import expand

PROJECT = Path(__file__).parents[2]
_LOG = "executor-logs"
_SESSION = '{"Provider":"minio","Params":{"fromEnv":"false"}}'
_LOCAL = {"minio://": "minio", "s3://": "s3", "gs://": "gcs"}


class ObjectStore(Protocol):
    """A server's buckets."""

    environment: dict[str, str]

    def put(self, bucket: str, key: str, data: bytes) -> None: ...

    def get(self, bucket: str, key: str) -> bytes: ...

    def list(self, bucket: str, prefix: str = "") -> list[str]: ...


class TaskFailed(Exception):
    """A container has ended with another status than 0, or could not be started.

    Attributes:
      log_uri: where its log lies.
    """

    def __init__(self, name: str, reason: str, log: str = "", log_uri: str = "") -> None:
        super().__init__(f"{name}: {reason}\n{log[-5000:]}")
        self.log_uri = log_uri


@dataclass
class Done:
    """What a task has put out; `artifacts` as the metadata store has them: name (its number), uri, metadata."""

    artifacts: dict[str, dict[str, Any]] = field(default_factory=dict)
    parameters: dict[str, Any] = field(default_factory=dict)
    cached: bool = False


class Backend:
    """A bucket, a store of artifacts and a cache, over several runs."""

    def __init__(self, folder: Path, store: ObjectStore, bucket: str) -> None:
        self._folder = folder
        self._store = store
        self._bucket = bucket
        self._cache: dict[str, Done] = {}
        self._artifacts = 0

    def download(self, uri: str, folder: Path) -> Path:
        """An artifact's objects as files below a folder. Markers of directories become files, too, which is what breaks."""
        key = self._key_of(uri)
        for name in self._store.list(self._bucket, key):
            if name == key or name.startswith(f"{key.rstrip('/')}/"):
                path = Path(os.path.normpath(folder / name.removeprefix(key).lstrip("/")))
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(self._store.get(self._bucket, name))
        return folder

    def read(self, uri: str) -> bytes:
        """An object."""
        return self._store.get(self._bucket, self._key_of(uri))

    def keys(self, uri: str) -> list[str]:
        """Names of all objects whose URI begins so."""
        return self._store.list(self._bucket, self._key_of(uri))

    def run(
        self,
        file: Path,
        arguments: dict[str, Any] | None = None,
        only: tuple[str, ...] = (),
        after: dict[str, Done] | None = None,
    ) -> dict[str, Done]:
        """Runs the tasks, or those that are named with `only`, in order.

        Args:
          file: compiled pipeline.
          arguments: runtime parameters.
          only: names of tasks.
          after: tasks of an earlier run, whose outputs these take.

        Raises:
          TaskFailed: one has failed.
        """
        spec, platform = yaml.safe_load_all(file.read_text())
        kubernetes = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
        values = {name: item["defaultValue"] for name, item in spec["root"]["inputDefinitions"]["parameters"].items()}
        values |= arguments or {}
        tasks = spec["root"]["dag"]["tasks"]
        implementations = shared_implementations(spec)
        root = f"{spec['defaultPipelineRoot']}/{spec['pipelineInfo']['name']}/{uuid.uuid4()}"
        done = dict(after or {})
        for name in TopologicalSorter({name: task.get("dependentTasks", []) for name, task in tasks.items()}).static_order():
            if only and name not in only:
                continue
            reference = tasks[name]["componentRef"]["name"]
            pod = kubernetes.get(spec["components"][reference]["executorLabel"], {})
            done[name] = self._run_task(tasks[name], *implementations[reference], pod, values, done, f"{root}/{name}")
        return done

    def _run_task(
        self,
        task: dict[str, Any],
        component: Any,
        container: Any,
        pod: Any,
        values: dict[str, Any],
        done: dict[str, Done],
        root: str,
    ) -> Done:
        """What the driver does."""
        name = task["taskInfo"]["name"]
        parameters = {}
        for key, item in task["inputs"].get("parameters", {}).items():
            if "componentInputParameter" in item:
                parameters[key] = values[item["componentInputParameter"]]
            elif "taskOutputParameter" in item:
                source = item["taskOutputParameter"]
                parameters[key] = done[source["producerTask"]].parameters[source["outputParameterKey"]]
            else:
                parameters[key] = item["runtimeValue"]["constant"]
        inputs = {}
        for key, item in task["inputs"].get("artifacts", {}).items():
            source = item["taskOutputArtifact"]
            inputs[key] = done[source["producerTask"]].artifacts[source["outputArtifactKey"]]
        root = f"{root}/{uuid.uuid4()}"
        outputs = {
            key: {"name": key, "uri": f"{root}/{key}", "type": item["artifactType"]}
            for key, item in component["outputDefinitions"].get("artifacts", {}).items()
        }
        # The number of the attempt is a part of the log's URI, not of its key.
        outputs[_LOG] = {"name": _LOG, "uri": f"{root}/{_LOG}-0", "type": {"schemaTitle": "system.Artifact"}}
        key = _cache_key(container, component, parameters, inputs, outputs, pod)
        if task.get("cachingOptions", {}).get("enableCache") and key in self._cache:
            return Done(self._cache[key].artifacts, self._cache[key].parameters, cached=True)
        ended = self._launch(name, component, container, pod, parameters, inputs, outputs, root)
        if task.get("cachingOptions", {}).get("enableCache"):
            self._cache[key] = ended
        return ended

    def _launch(
        self, name: str, component: Any, container: Any, pod: Any, parameters: Any, inputs: Any, outputs: Any, root: str
    ) -> Done:
        """What the node and the launcher do."""
        system = self._folder / f"container-{len(list(self._folder.glob('container-*')))}-{name}"  # its file system
        files = {key: str(system / "tmp/kfp/outputs" / key) for key in component["outputDefinitions"].get("parameters", {})}
        output_file = self._local(system, f"{root}/output_metadata.json")
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
                "outputFile": str(output_file),
            },
        }
        message = json_format.ParseDict(invocation, pipeline_spec_pb2.ExecutorInput())
        made = build_pod(name.lower(), container, component, json_format.MessageToJson(message, indent=None), pod)
        if errors := pod_errors(made["spec"]):
            raise TaskFailed(name, f"the pod is invalid: {errors[0]}")
        (main,) = made["spec"]["containers"]
        variables = {"KUBERNETES_SERVICE_HOST": "10.96.0.1"}
        for item in main["env"]:
            variables[item["name"]] = expand(item.get("value", ""), variables)
        launched = [expand(text, variables) for text in main["command"]]
        message = json_format.Parse(launched[launched.index("--executor_input") + 1], pipeline_spec_pb2.ExecutorInput())
        command = [expand(text, variables) for text in main["args"]]
        command = [text.replace("{{$}}", json_format.MessageToJson(message, indent=None)) for text in command]
        for key, artifact in inputs.items():
            try:
                self.download(artifact["uri"], self._local(system, artifact["uri"]))
            except OSError as error:
                raise TaskFailed(name, f"failed to download input artifact {key!r}: {error}") from error
        for item in outputs.values():
            self._local(system, item["uri"]).parent.mkdir(parents=True, exist_ok=True)
        for path in files.values():
            Path(path).parent.mkdir(parents=True, exist_ok=True)

        assert command[0] == "python"
        ended = subprocess.run(
            [sys.executable, *command[1:], "--local_root", str(system)],
            env={**os.environ, **self._store.environment, "PYTHONPATH": str(PROJECT), **variables},
            cwd=system,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        self._store.put(self._bucket, self._key_of(outputs[_LOG]["uri"]), ended.stdout.encode())
        if ended.returncode:
            raise TaskFailed(name, f"ended with {ended.returncode}", ended.stdout, outputs[_LOG]["uri"])
        return self._collect(system, outputs, files, output_file)

    def _collect(self, system: Path, outputs: dict[str, Any], files: dict[str, str], output_file: Path) -> Done:
        output = pipeline_spec_pb2.ExecutorOutput()
        if output_file.exists():
            json_format.Parse(output_file.read_text(), output)
        done = Done(parameters={key: Path(path).read_text() for key, path in files.items()})
        for key, expected in outputs.items():
            metadata: dict[str, Any] = {}
            if key in output.artifacts:
                (told,) = output.artifacts[key].artifacts
                assert told.uri == expected["uri"]  # any other is refused that is not below the run's root
                assert not any(value.HasField("null_value") for value in told.metadata.fields.values())
                metadata = json_format.MessageToDict(told.metadata)
            self._upload(self._local(system, expected["uri"]), self._key_of(expected["uri"]))
            self._artifacts += 1
            # The metadata store has no type for truth values.
            metadata = {name: int(value) if isinstance(value, bool) else value for name, value in metadata.items()}
            metadata |= {"display_name": key, "store_session_info": _SESSION}
            done.artifacts[key] = {"name": str(self._artifacts), "uri": expected["uri"], "metadata": metadata}
        shutil.rmtree(system)
        system.mkdir()  # keeps its number
        return done

    def _key_of(self, uri: str) -> str:
        scheme = next(scheme for scheme in _LOCAL if uri.startswith(scheme))
        bucket, _, key = uri.removeprefix(scheme).partition("/")
        assert bucket == self._bucket
        return key

    @staticmethod
    def _local(system: Path, uri: str) -> Path:
        scheme = next(scheme for scheme in _LOCAL if uri.startswith(scheme))
        return system / _LOCAL[scheme] / uri.removeprefix(scheme)

    def _upload(self, source: Path, key: str) -> None:
        """Files alone: a bucket has no empty folders. What is not there, the launcher leaves out."""
        for path in [source] if source.is_file() else source.rglob("*"):
            if path.is_file():
                self._store.put(self._bucket, os.path.normpath(f"{key}/{path.relative_to(source)}"), path.read_bytes())


def _cache_key(container: Any, component: Any, parameters: Any, inputs: Any, outputs: Any, pod: Any) -> str:
    """As `GenerateCacheKey` has it: outputs without their URIs, the log's among them; claims by their names."""
    claims = sorted({item["pvcNameParameter"]["runtimeValue"]["constant"] for item in pod.get("pvcMount", [])})
    key = {
        "inputArtifactNames": {key: artifact["name"] for key, artifact in inputs.items()},
        "inputParameterValues": parameters,
        "outputArtifactsSpec": {key: [item["name"], item["type"]] for key, item in outputs.items()},
        "outputParametersSpec": {
            key: item["parameterType"] for key, item in component["outputDefinitions"].get("parameters", {}).items()
        },
        "containerSpec": [container["image"], [*container["command"], *container["args"]], claims],
    }
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
