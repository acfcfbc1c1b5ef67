"""What a run is compared with: the model and the statistics of earlier runs."""

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import ml_metadata as mlmd
import pytest
from ml_metadata.proto import metadata_store_pb2
from saved_models import save_model
from tfx.types import Artifact, standard_artifacts

from components.earlier_runs.baseline import ERROR
from components.earlier_runs.resolvers import PreviousStatistics, ServedBaseline
from components.pusher.record import Record
from components.pusher.versions import push, roll_back
from storage.made_files import FILES_PROPERTY, record_files


@pytest.fixture
def store() -> mlmd.MetadataStore:
    store = mlmd.MetadataStore(metadata_store_pb2.ConnectionConfig(fake_database=metadata_store_pb2.FakeDatabaseConfig()))
    store.put_artifact_type(standard_artifacts.Model().artifact_type)
    return store


@pytest.fixture
def resolve(store: mlmd.MetadataStore, tmp_path: Path) -> Callable[[str], Artifact | None]:
    """Finds the baseline of the model with these weights, as a run does that pushes to `pushed`."""

    def resolve(weights: str) -> Artifact | None:
        candidate = standard_artifacts.Model()
        candidate.uri = str(tmp_path / f"candidate {weights}")
        save_model(Path(candidate.uri) / "Format-Serving", weights)
        inputs = {"model": [], "candidate": [candidate]}
        resolved = ServedBaseline(str(tmp_path / "pushed")).resolve_artifacts(store, inputs)
        assert resolved["candidate"] == [candidate]
        return next(iter(resolved["model"]), None)

    return resolve


def test_the_baseline_is_the_served_model_and_the_same_artifact_until_another_is_served(
    tmp_path: Path, resolve: Callable[[str], Artifact | None]
) -> None:
    assert resolve("new") is None
    first = push(save_model(tmp_path / "a", "a"), str(tmp_path / "pushed"), Record(run="of another pipeline"), None)
    found, again = resolve("new"), resolve("new")
    assert found.uri == first.path
    assert found.mlmd_artifact == again.mlmd_artifact  # which the key of the Evaluator's cache is made of
    push(save_model(tmp_path / "b", "b"), str(tmp_path / "pushed"), Record(), None)
    assert resolve("new").id != found.id
    roll_back(str(tmp_path / "pushed"), first.number)
    back = resolve("new")
    assert (Path(back.uri) / "variables/variables.index").read_text() == "a"


def test_another_model_in_the_same_folder_is_another_artifact(
    tmp_path: Path, resolve: Callable[[str], Artifact | None]
) -> None:
    pushed = str(tmp_path / "pushed")
    first = push(save_model(tmp_path / "a", "a"), pushed, Record(), None)
    before = resolve("new")
    shutil.rmtree(pushed)
    second = push(save_model(tmp_path / "b", "b"), pushed, Record(), None)
    Path(second.path).rename(first.path)
    after = resolve("new")
    assert after.uri == before.uri
    assert after.id != before.id


def test_a_folder_that_can_not_be_read_is_told_to_the_evaluator(
    tmp_path: Path, resolve: Callable[[str], Artifact | None]
) -> None:
    """TFX would go on without a baseline, and the model would be judged by nothing."""
    version = push(save_model(tmp_path / "a", "a"), str(tmp_path / "pushed"), Record(), None)
    index = Path(version.path) / "variables/variables.index"
    index.unlink()
    index.mkdir()
    assert "not a regular file, but a folder" in resolve("new").get_string_custom_property(ERROR)


@pytest.mark.parametrize(
    ("runs", "current", "previous"),
    [
        ([], "a", None),
        (["a on"], "a", None),
        (["a on", "b on"], "c", "b"),
        (["a on", "b on", "b on"], "b", "a"),  # unchanged since the last run: still compared with what was before
        (["a on", "b on", "a on"], "b", "a"),  # back to the data of an earlier run, which came from the cache
        (["a on", "b on", "c on", "a on"], "b", "a"),  # the last run's, though c was made later
        (["a on", "b stopped"], "c", "a"),  # b's anomalies stopped the run
        (["a stopped"], "b", None),
    ],
)
def test_data_is_compared_with_that_of_the_last_run_that_went_on(
    runs: list[str], current: str, previous: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in "abc":
        Path(name).mkdir()
    store, found = record_runs(runs, {*(run.split()[0] for run in runs), current})
    statistics = found[standard_artifacts.ExampleStatistics.TYPE_NAME]
    inputs = {
        "previous": statistics,
        "transformed": found.get(standard_artifacts.TransformGraph.TYPE_NAME, []),
        "current": [item for item in statistics if item.uri == current],
    }
    resolved = PreviousStatistics().resolve_artifacts(store, inputs)
    assert [artifact.uri for artifact in resolved["previous"]] == ([previous] if previous else [])
    assert set(resolved) == set(inputs)


def test_statistics_that_are_gone_or_have_changed_are_not_compared_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in "abc":
        Path(f"StatisticsGen/statistics/{name}").mkdir(parents=True)
    runs = [f"StatisticsGen/statistics/{name} on" for name in "abc"]
    store, found = record_runs(runs, [])
    statistics = found[standard_artifacts.ExampleStatistics.TYPE_NAME]
    Path(statistics[1].uri, "FeatureStats.pb").write_bytes(b"figures")
    statistics[1].set_string_custom_property(FILES_PROPERTY, record_files(statistics[1].uri))
    inputs = {
        "previous": statistics,
        "transformed": found[standard_artifacts.TransformGraph.TYPE_NAME],
        "current": statistics[2:],
    }

    def previous() -> list[str]:
        return [artifact.uri[-1] for artifact in PreviousStatistics().resolve_artifacts(store, inputs)["previous"]]

    assert previous() == ["b"]
    Path(statistics[1].uri, "FeatureStats.pb").write_bytes(b"figurez")
    assert previous() == ["a"]
    shutil.rmtree(statistics[0].uri)
    assert previous() == []


def record_runs(runs: list[str], data: Iterable[str]) -> tuple[mlmd.MetadataStore, dict[str, list[Artifact]]]:
    """A store with runs in their order, each "DATA on" or "DATA stopped", and its artifacts by type.

    As TFX does it, an artifact from the cache is an output of one more execution, and what a resolver chooses is its output.
    """
    store = mlmd.MetadataStore(metadata_store_pb2.ConnectionConfig(fake_database=metadata_store_pb2.FakeDatabaseConfig()))
    run_type = store.put_context_type(metadata_store_pb2.ContextType(name="pipeline_run"))
    execution_type = store.put_execution_type(metadata_store_pb2.ExecutionType(name="a component"))
    artifacts: dict[tuple[str, str], Artifact] = {}

    def make(kind: type[Artifact], uri: str) -> Artifact:
        if (kind.TYPE_NAME, uri) not in artifacts:
            artifact = kind()
            artifact.uri = uri
            artifact.type_id = store.put_artifact_type(artifact.artifact_type)
            (artifact.id,) = store.put_artifacts([artifact.mlmd_artifact])
            artifacts[kind.TYPE_NAME, uri] = artifact
        return artifacts[kind.TYPE_NAME, uri]

    def execute(run: metadata_store_pb2.Context, key: str, output: Artifact) -> None:
        path = metadata_store_pb2.Event.Path(steps=[metadata_store_pb2.Event.Path.Step(key=key)])
        event = metadata_store_pb2.Event(type=metadata_store_pb2.Event.OUTPUT, artifact_id=output.id, path=path)
        execution = metadata_store_pb2.Execution(type_id=execution_type)
        store.put_execution(execution, [(output.mlmd_artifact, event)], [run])

    for number, (name, ending) in enumerate(run.split() for run in runs):
        run = metadata_store_pb2.Context(type_id=run_type, name=f"run {number}")
        (run.id,) = store.put_contexts([run])
        execute(run, "statistics", make(standard_artifacts.ExampleStatistics, name))
        execute(run, "previous", make(standard_artifacts.ExampleStatistics, runs[0].split()[0]))
        if ending == "on":
            execute(run, "transform_graph", make(standard_artifacts.TransformGraph, name))
    for name in data:
        make(standard_artifacts.ExampleStatistics, name)
    by_type: dict[str, list[Artifact]] = {}
    for (kind, _), artifact in artifacts.items():
        by_type.setdefault(kind, []).append(artifact)
    return store, by_type
