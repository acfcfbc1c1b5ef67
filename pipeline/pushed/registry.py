"""Registers a pushed version with an MLflow model registry: its files, metrics, signature, and where it comes from."""

import datetime
import importlib.util
import json
import math
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from base.errors import UserError
from components.pusher.model_files import fetch
from components.pusher.places import Version
from components.pusher.record import Record
from components.pusher.versions import list_versions
from pipeline.config.delivery import RegistryConfig
from pipeline.config.loading import load_config
from pipeline.records.reproduction import CONFIG_FILE, REPRODUCTION_FILE, read_reproduction

ALIAS: Final = "pushed"  # alias of the newest version in the folder
_SCRIPT: Final = Path(__file__).with_name("mlflow_registration.py")
RUN_FILES: Final = (CONFIG_FILE, REPRODUCTION_FILE, "summary.json", "report.html")
_LONGEST_REASON: Final = 300  # characters
PATIENCE: Final = {  # with MLflow's defaults it would try for minutes
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


@dataclass(frozen=True)
class Registered:
    """Where a version is in the registry.

    Attributes:
      uri: URI of the registry.
      model: name of the registered model.
      version: MLflow's number of the version.
      created: False if the version was there already.
    """

    uri: str
    model: str
    version: str
    created: bool


def register(version: Version, registry: RegistryConfig, *, newest: bool) -> Registered:
    """Registers a version, unless a model with the same files is registered under this name already.

    Args:
      version: the version, as `components.pusher.versions` lists it.
      registry: the registry to use.
      newest: whether it is the newest version in its folder: if so, it gets MLflow's alias `pushed`.

    Raises:
      UserError: MLflow is not installed, or the registry did not answer or did not accept the version.
    """
    record = version.record
    if record is None:
        raise UserError(f"{version.path}: can't be registered, for it was not pushed by this pipeline: run fpn run again")
    python = _python(registry)
    model = registry.model or record.pipeline
    with tempfile.TemporaryDirectory(prefix="fpn-register-") as folder:
        path = fetch(version.path, folder)
        request = {"uri": registry.uri, "model": model, "newest": newest, "alias": ALIAS, **_request(version, record, path)}
        ended = subprocess.run(
            [python, "-I", str(_SCRIPT)],
            input=json.dumps(request),
            env=PATIENCE | os.environ,
            capture_output=True,
            text=True,
            check=False,
        )
    if ended.returncode != 0:
        reason = (ended.stderr.strip().splitlines() or [f"ended with status {ended.returncode}"])[-1]
        raise UserError(f"{registry.uri}: {version.number} can't be registered as {model} ({shortened(reason)})")
    answer = json.loads(ended.stdout.splitlines()[-1])
    return Registered(registry.uri, model, answer["version"], answer["created"])


def register_version(folder: str, number: int | None, config: Path | None) -> Registered:
    """Registers a version in a folder, as `register` does.

    Args:
      folder: folder of the versions.
      number: number of the version; None for the one that is served.
      config: file that has `push.registry`; None for the configuration of the version's run.

    Raises:
      UserError: there is no such version, it is damaged, there is no `push.registry`, or one of the errors of `register`.
    """
    versions = {version.number: version for version in list_versions(folder)}
    if not versions or (number is not None and number not in versions):
        known = ", ".join(map(str, versions)) or "none"
        raise UserError(f"{folder}: no version {'' if number is None else number} to register; there are {known}")
    served = max((version.number for version in versions.values() if not version.problem), default=max(versions))
    version = versions[served if number is None else number]
    if version.problem:
        raise UserError(f"{version.path}: is damaged ({version.problem}); register another version, see fpn push --list")
    record = version.record or Record()
    path = config or (Path(record.run_folder, CONFIG_FILE) if record.run_folder else None)
    registry = load_config(path, recorded=not config).push.registry if path and (config or path.is_file()) else None
    if registry is None:
        where = path or version.path
        raise UserError(f"{where}: no push.registry here; give --config FILE that has push.registry: {{uri: ...}}")
    return register(version, registry, newest=version.number == served)


def _request(version: Version, record: Record, path: str) -> dict[str, Any]:
    """The request that `mlflow_registration` reads."""
    folder = Path(record.run_folder) if record.run_folder else None
    reproduction = read_reproduction(folder) if folder else None
    tags = {
        "fpn.digest": record.digest,
        "fpn.version": str(version.number),
        "fpn.pushed_to": version.path,
        "fpn.pipeline": record.pipeline,
        "fpn.run": record.run,
        "fpn.data": record.data,
        "fpn.copy_of": str(record.copy_of or ""),
        "fpn.code": reproduction.digest["code"] if reproduction else "",
        "fpn.configuration": reproduction.digest["configuration"] if reproduction else "",
        "fpn.commit": reproduction.commit if reproduction else "",
    }
    commit = tags["fpn.commit"].removesuffix("-dirty")
    return {
        "path": path,
        "experiment": record.pipeline,
        "run_name": record.run or str(version.number),
        "time": round(datetime.datetime.fromisoformat(record.time).timestamp() * 1000),
        "description": f"Version {version.number} of {record.pipeline}, run {record.run or '-'}, pushed {record.time}",
        "metrics": figures(record.metrics),
        "signature": read_signature(path),
        "tags": {name: value for name, value in tags.items() if value},
        "run_tags": {"mlflow.source.git.commit": commit} if commit else {},
        "artifacts": [str(file) for name in RUN_FILES if folder and (file := folder / name).exists()],
    }


def figures(metrics: dict[str, dict[str, Any]]) -> dict[str, float]:
    """The finite numbers of metrics, for MLflow: `accuracy`, and the ends of its interval as `accuracy.lower` and `.upper`."""
    return {
        f"{name}{end}": metric[key]
        for name, metric in metrics.items()
        for key, end in (("value", ""), ("lower", ".lower"), ("upper", ".upper"))
        if metric[key] is not None and math.isfinite(metric[key])
    }


def shortened(reason: str) -> str:
    """A reason without its middle, if it is long: if a connection fails, the cause comes last, after a long address."""
    if len(reason) <= _LONGEST_REASON:
        return reason
    return f"{reason[: _LONGEST_REASON // 2]} ... {reason[-_LONGEST_REASON // 2 :]}"


def read_signature(model: str) -> dict[str, dict[str, Any]]:
    """Reads the inputs and outputs of `serving_default` without loading the model.

    Args:
      model: folder of a SavedModel.

    Returns:
      {"inputs": {name: [NumPy's name of the type, shape with -1 for any length]}, "outputs": the same}.
    """
    import tensorflow as tf
    from tensorflow.core.protobuf import saved_model_pb2

    saved_model = saved_model_pb2.SavedModel.FromString(Path(model, "saved_model.pb").read_bytes())
    signature = saved_model.meta_graphs[0].signature_def["serving_default"]

    def tensors(infos: Any) -> dict[str, Any]:
        found = {}
        for name in sorted(infos):
            kind = tf.dtypes.as_dtype(infos[name].dtype)
            found[name] = ["str" if kind == tf.string else kind.name, [size.size for size in infos[name].tensor_shape.dim]]
        return found

    return {"inputs": tensors(signature.inputs), "outputs": tensors(signature.outputs)}


def mlflow_python() -> str | None:
    """The interpreter that has MLflow: that of `make mlflow`, or this one; None if there is none."""
    beside = Path(f"{sys.prefix}-mlflow") / "bin" / "python"
    if beside.exists():
        return str(beside)
    return sys.executable if importlib.util.find_spec("mlflow") else None


def _python(registry: RegistryConfig) -> str:
    if registry.python and not Path(registry.python).exists():
        raise UserError(
            f"push.registry.python: no file {registry.python}; name an interpreter that has MLflow, or run make mlflow"
        )
    if python := registry.python or mlflow_python():
        return python
    raise UserError("push.registry: MLflow is not here; make mlflow gives it an environment of its own")
