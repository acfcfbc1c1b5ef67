"""The runs of an output folder: from ML Metadata, and what is not in it from the files that each run writes."""

import datetime
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import ml_metadata as mlmd
from ml_metadata.proto import metadata_store_pb2

from base.errors import UserError
from base.inputs import MAX_RECORD_BYTES, read_json, read_text
from base.yaml_text import parse_yaml
from pipeline.config.metadata_server import parse_metadata_server
from pipeline.records.reproduction import CONFIG_FILE, read_reproduction
from pipeline.records.store import Store, find_store

_METRICS_FILE: Final = "metrics.json"  # the name in evaluation.results, which takes seconds to import
_RUN_ID: Final = "%Y-%m-%dT%H-%M-%S"
_LONGEST_VALUE: Final = 60  # characters
_Execution: Final = metadata_store_pb2.Execution
_CURE: Final = "delete the run's folder, or put the file back"


@dataclass(frozen=True)
class Run:
    """A run of the pipeline.

    Attributes:
      run_id: the time of its start, and the name of its folder below runs/.
      pipeline: its name.
      data: `data.path`; empty if the run did not get that far.
      images: number of ingested images over all splits; None if the run did not get that far.
      changes: what differs from the run before: "train.epochs 10 -> 20", "data files", "code".
      metrics: metrics on all test images, by name; empty if the run did not get that far.
      blessed: None if the model was not judged.
      pushed: the folder that the model was pushed to; None if it was not pushed.
      failed: the component that failed; None if none did.
      unfinished: the component that was running when the run was killed, or that runs now; None if the run has ended.
    """

    run_id: str
    pipeline: str
    data: str
    images: int | None
    changes: list[str]
    metrics: dict[str, float]
    blessed: bool | None
    pushed: str | None
    failed: str | None
    unfinished: str | None


def read_runs(output: Path) -> list[Run]:
    """All runs of an output folder, the oldest first, without cross-validations and without runs of `fpn inspect`.

    Args:
      output: folder with `runs/`; the runs' configurations say where their metadata is.

    Raises:
      UserError: a server that has their metadata can't be used.
    """
    started = sorted(log.parent for log in output.glob("runs/*/log.txt"))  # those of `fpn inspect`, too
    folders = [folder for folder in started if _is_run(folder)]
    configs = {folder.name: _read_settings(folder / CONFIG_FILE) for folder in started}
    stored: dict[str, _RunRecord] = {}
    for server in dict.fromkeys(config.get("metadata") for config in configs.values()):
        stored |= _read_store(
            server, output, [run_id for run_id, config in configs.items() if config.get("metadata") == server]
        )
    runs: list[Run] = []
    before: dict[str, Any] | None = None
    for folder in folders:
        found = stored.get(folder.name, _RunRecord())
        summary = _read_json(folder / "summary.json")
        settings = configs[folder.name]
        reproduction = read_reproduction(folder)
        state = {
            "settings": settings,
            "data files": found.fingerprint,
            "code": reproduction.digest["code"] if reproduction else None,
        }
        runs.append(
            Run(
                run_id=folder.name,
                pipeline=found.pipeline or summary.get("pipeline", settings.get("name", "")),
                data=settings.get("data.path", found.data),
                images=sum(count for name, count in summary.get("examples", {}).items() if name != "rejected") or None,
                changes=_changes(before, state) if before else [],
                metrics={name: metric["value"] for name, metric in summary.get("metrics", {}).items()},
                blessed=found.blessed,
                pushed=found.pushed,
                failed=found.failed or next((name for name, state in _states(summary) if state == "failed"), None),
                unfinished=None if summary else found.unfinished or "start",
            )
        )
        before = state
    return runs


@dataclass(frozen=True)
class FoundEvaluation:
    """An evaluation and the run that it belongs to.

    Attributes:
      folder: the Evaluator's folder.
      run: the run's folder; None if unknown.
      training: what the run has recorded about its training; see `outputs.read_training`.
    """

    folder: Path
    run: Path | None
    training: dict[str, Any]


def find_evaluation(path: Path) -> FoundEvaluation:
    """The evaluation that a path stands for.

    Args:
      path: an output folder (its latest run with an evaluation is meant), the folder of a run, or the Evaluator's folder.

    Raises:
      UserError: there is none, or it was written by an earlier version.
    """
    is_evaluation = any((path / name).exists() for name in ("eval_config.json", _METRICS_FILE))
    place = (
        path.resolve().parents[3] if is_evaluation and len(path.resolve().parents) > 3 else path
    )  # OUT/artifacts/Evaluator/...
    for file in [*place.glob("summary.json"), *sorted(place.glob("runs/*/summary.json"), reverse=True)]:
        summary = _read_json(file)
        folder = Path(summary.get("evaluation") or "")
        if summary.get("evaluation") and (not is_evaluation or folder == path.resolve()):
            found = FoundEvaluation(folder, file.parent, summary.get("training", {}))
            break
    else:
        if not is_evaluation:
            raise UserError(f"{path}: no evaluation here; give the output folder of a run, such as output/digits")
        found = FoundEvaluation(path, None, {})
    if not (found.folder / _METRICS_FILE).is_file():
        raise UserError(f"{found.folder}: no {_METRICS_FILE} here; it was deleted, or is of an earlier version: run again")
    return found


def flatten(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Turns {"train": {"epochs": 3}} into {"train.epochs": 3}; lists are values."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What has changed between two flat configurations, in the order of the second: "train.epochs 10 -> 20"."""
    keys = dict.fromkeys([*after, *before])
    return [_difference(key, before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)]


def _difference(key: str, before: Any, after: Any) -> str:
    """One difference as text; for lists, such as thresholds, the items that were added and removed."""
    if isinstance(before, list) and isinstance(after, list):
        new = [f"+{_short(item)}" for item in after if item not in before]
        gone = [f"-{_short(item)}" for item in before if item not in after]
        return f"{key} {' '.join([*new, *gone]) or 'in another order'}"
    return f"{key} {_short(before)} -> {_short(after)}"


def _short(value: Any) -> str:
    if isinstance(value, dict):
        given = {key: item for key, item in value.items() if item not in (None, [], {})}
        text = "{" + ", ".join(f"{key}: {_short(item)}" for key, item in given.items()) + "}"
    else:
        text = "-" if value is None else value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 3] + "..."


def _changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    changes = differences(before["settings"], after["settings"]) if before["settings"] and after["settings"] else []
    return changes + [name for name in ("data files", "code") if before[name] and after[name] and before[name] != after[name]]


def _is_run(folder: Path) -> bool:
    reproduction = read_reproduction(folder)
    return reproduction.what == "run" if reproduction else (folder / "summary.json").exists()


def _read_settings(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    content = parse_yaml(read_text(path, MAX_RECORD_BYTES, _CURE), str(path))
    if not isinstance(content, dict):
        raise UserError(f"{path}: is no configuration; {_CURE}")
    return flatten(content)


def _read_json(path: Path) -> dict[str, Any]:
    return read_json(path, _CURE) if path.exists() else {}


def _states(summary: dict[str, Any]) -> list[tuple[str, str]]:
    return [(name, item["state"]) for name, item in summary.get("components", {}).items()]


@dataclass
class _RunRecord:
    """What the store records about a run."""

    pipeline: str = ""
    data: str = ""
    fingerprint: str | None = None
    blessed: bool | None = None
    pushed: str | None = None
    failed: str | None = None
    unfinished: str | None = None


def _read_store(server: str | None, output: Path, run_ids: list[str]) -> dict[str, _RunRecord]:
    """What the store records about each run, by run_id.

    The store names a run by the time at which its first component began, some seconds after the time in our run_id.

    Args:
      server: `metadata` in the runs' configuration.
      output: the output folder.
      run_ids: the runs that are recorded there, in order.
    """
    store = find_store(parse_metadata_server(server) if server else None, output)
    if store is None:
        return {}
    connection = store.open()
    nodes = read_nodes(store, connection)
    stored = {}
    for began, context in pipeline_runs(store, connection):
        if earlier := [run_id for run_id in run_ids if run_id <= began]:
            stored[earlier[-1]] = _read_run(connection, context, nodes)
    return stored


def store_of_run(run: Path) -> Store | None:
    """Finds the store where a run is recorded, to read from it; None if the store is gone.

    Args:
      run: the run's folder.
    """
    server = _read_settings(run / CONFIG_FILE).get("metadata")
    return find_store(parse_metadata_server(server) if server else None, run.resolve().parents[1])


def pipeline_runs(store: Store, connection: mlmd.MetadataStore) -> list[tuple[str, int]]:
    """The runs of the output folder, the oldest first.

    Returns:
      For each run the time at which its first component began, written as a run_id, and the id of its context.
    """
    return sorted(
        (datetime.datetime.fromisoformat(context.name.partition("@")[0]).strftime(_RUN_ID), context.id)
        for context in connection.get_contexts_by_type("pipeline_run")
        if store.owns(context.name)
    )


def read_nodes(store: Store, connection: mlmd.MetadataStore) -> dict[int, str]:
    """Maps each execution's id to its pipeline and component, such as "digits.Trainer", for the output folder's pipelines."""
    nodes: dict[int, str] = {}
    for context in connection.get_contexts_by_type("node"):
        pipeline, _, node = context.name.partition(".")
        if store.owns(pipeline):
            name = f"{pipeline.partition('@')[0]}.{node}"
            nodes |= {execution.id: name for execution in connection.get_executions_by_context(context.id)}
    return nodes


def is_score_ingestion(execution: metadata_store_pb2.Execution) -> bool:
    """Whether an execution ingested the images of `score.path`, which are not part of what a run was made of."""
    return execution.type.rpartition(".")[2] == "ScoreExampleGen"


def _read_run(store: mlmd.MetadataStore, context: int, nodes: dict[int, str]) -> _RunRecord:
    found = _RunRecord()
    executions = store.get_executions_by_context(context)
    for execution in executions:
        found.pipeline, _, node = nodes[execution.id].partition(".")
        if "input_base" in execution.custom_properties and not is_score_ingestion(execution):
            found.data = execution.custom_properties["input_base"].string_value
        if execution.last_known_state == _Execution.FAILED:
            found.failed = node
        elif execution.last_known_state in (_Execution.RUNNING, _Execution.NEW):
            found.unfinished = node
    succeeded = [
        item.id
        for item in executions
        if item.last_known_state in (_Execution.COMPLETE, _Execution.CACHED) and not is_score_ingestion(item)
    ]
    events = store.get_events_by_execution_ids(succeeded)
    made = {event.artifact_id for event in events if event.type == metadata_store_pb2.Event.OUTPUT}
    for artifact in store.get_artifacts_by_id(made):
        properties = artifact.custom_properties
        if "input_fingerprint" in properties:
            found.fingerprint = properties["input_fingerprint"].string_value
        elif artifact.type in ("ModelBlessing", "InfraBlessing"):  # from the Evaluator and from ModelCheck: both must bless
            found.blessed = found.blessed is not False and bool(properties["blessed"].int_value)
        elif artifact.type == "PushedModel" and properties["pushed"].int_value:
            found.pushed = properties["pushed_destination"].string_value
    return found
