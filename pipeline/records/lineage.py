"""What a run was made of: components and artifacts, from ML Metadata."""

from dataclasses import dataclass
from typing import Final

from ml_metadata.proto import metadata_store_pb2

from base.errors import UserError
from pipeline.records.runs import pipeline_runs, read_nodes
from pipeline.records.store import Store

_Event: Final = metadata_store_pb2.Event
_INPUTS: Final = (_Event.INPUT, _Event.DECLARED_INPUT)
_STATES: Final = {
    metadata_store_pb2.Execution.COMPLETE: "done",
    metadata_store_pb2.Execution.CACHED: "from the cache",
    metadata_store_pb2.Execution.FAILED: "failed",
    metadata_store_pb2.Execution.RUNNING: "unfinished",
}


@dataclass(frozen=True)
class Node:
    """A component or an artifact.

    Attributes:
      name: the component's name, or the output's, such as "model".
      kind: type of the execution or the artifact, such as "Trainer" or "Model".
      number: its id in the store.
      state: a component's state, see `_STATES`; empty for an artifact.
    """

    name: str
    kind: str
    number: int
    state: str = ""


@dataclass(frozen=True)
class Lineage:
    """Components and artifacts of a run; an edge is the positions of the two nodes that it leads from and to."""

    nodes: list[Node]
    edges: list[tuple[int, int]]


def read_lineage(store: Store, run_id: str | None = None) -> Lineage:
    """Reads what a run was made of, including artifacts that come from earlier runs, such as the served model.

    Args:
      store: where the run is recorded.
      run_id: name of the run's folder; the latest run if not given.

    Raises:
      UserError: there is no such run.
    """
    opened = store.open()
    runs = [(began, context) for began, context in pipeline_runs(store, opened) if run_id is None or began >= run_id]
    if not runs:
        raise UserError(f"no run {run_id or ''} in the metadata store".replace("  ", " "))
    names = read_nodes(store, opened)
    executions = sorted(opened.get_executions_by_context(runs[-1 if run_id is None else 0][1]), key=lambda item: item.id)
    events = opened.get_events_by_execution_ids([item.id for item in executions])
    made = {event.artifact_id for event in events if event.type == _Event.OUTPUT}
    artifacts = {item.id: item for item in opened.get_artifacts_by_id({event.artifact_id for event in events})}

    nodes: list[Node] = []
    positions: dict[tuple[str, int], int] = {}
    for execution in executions:
        name, kind = names[execution.id].partition(".")[2], execution.type.rpartition(".")[2]
        positions["execution", execution.id] = len(nodes)
        nodes.append(Node(name, kind, execution.id, _STATES.get(execution.last_known_state, "unknown")))
    for event in sorted(events, key=lambda event: event.type != _Event.OUTPUT):  # an output's name goes before an input's
        artifact = artifacts[event.artifact_id]
        if ("artifact", artifact.id) not in positions:
            key = next((step.key for step in event.path.steps if step.key), artifact.type)
            positions["artifact", artifact.id] = len(nodes)
            nodes.append(Node(key, artifact.type, artifact.id))
    first: dict[int, int] = {}  # artifact -> the first component of the run that had to do with it
    for event in events:
        first[event.artifact_id] = min(first.get(event.artifact_id, event.execution_id), event.execution_id)
    edges = []
    for event in events:
        execution_node, artifact_node = positions["execution", event.execution_id], positions["artifact", event.artifact_id]
        # A resolver's events all have one type, both for what this run gave it and for what it found in earlier runs. What
        # another resolver has found before goes for given: training may start from the model that its own is compared with.
        given = event.artifact_id in made or first[event.artifact_id] < event.execution_id
        is_input = event.type in _INPUTS or (event.type != _Event.OUTPUT and given)
        edges.append((artifact_node, execution_node) if is_input else (execution_node, artifact_node))
    return Lineage(nodes, list(dict.fromkeys(edges)))
