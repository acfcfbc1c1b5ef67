"""What a run is compared with: the model and the statistics of earlier runs."""

import shutil
from collections.abc import Iterable
from pathlib import Path

import ml_metadata as mlmd
import pytest
from ml_metadata.proto import metadata_store_pb2
from tfx.types import Artifact, standard_artifacts

from components.earlier_runs.resolvers import LastBlessedBaseline, PreviousStatistics
from storage.made_files import FILES_PROPERTY, record_files


def model(number: int) -> standard_artifacts.Model:
    artifact = standard_artifacts.Model()
    artifact.id = number
    artifact.uri = "."  # a folder that is there
    return artifact


def blessing(model_id: int, blessed: bool) -> standard_artifacts.ModelBlessing:
    artifact = standard_artifacts.ModelBlessing()
    artifact.set_int_custom_property("current_model_id", model_id)
    artifact.set_int_custom_property("blessed", int(blessed))
    return artifact


@pytest.mark.parametrize(
    ("models", "blessed", "refused", "candidate", "chosen"),
    [
        ([], [], [], 5, []),
        ([3, 4, 5], [], [3, 4], 5, []),
        ([5], [5], [], 5, []),
        ([3, 4, 5], [3, 4], [], 5, [4]),
        ([5, 4, 3], [4, 3], [], 5, [4]),
        ([3, 4, 5], [3], [4], 5, [3]),
        ([3, 4, 5], [3, 5], [4], 5, [3]),
        ([3, 4, 5], [3, 4, 5], [], 4, [5]),
        ([4, 5], [3], [], 5, []),
        ([3, 5, 10], [3, 10], [], 5, [10]),
    ],
)
def test_the_last_blessed_model_other_than_the_candidate_is_the_baseline(
    models: list[int], blessed: list[int], refused: list[int], candidate: int, chosen: list[int]
) -> None:
    inputs = {
        "model": [model(number) for number in models],
        "model_blessing": [blessing(number, True) for number in blessed] + [blessing(number, False) for number in refused],
        "infra_blessing": [],
        "candidate": [model(candidate)],
    }
    resolved = LastBlessedBaseline().resolve_artifacts(None, inputs)
    assert [artifact.id for artifact in resolved["model"]] == chosen
    assert resolved["candidate"] == inputs["candidate"]
    assert resolved["model_blessing"] == []


@pytest.mark.parametrize(("checks", "chosen"), [([False], 3), ([True], 4), ([False, True], 4), ([True, False], 3)])
def test_a_model_that_failed_its_last_check_is_no_baseline(checks: list[bool], chosen: int) -> None:
    inputs = {
        "model": [model(number) for number in (3, 4, 5)],
        "model_blessing": [blessing(number, True) for number in (3, 4)],
        "infra_blessing": [blessing(4, passed) for passed in checks],
        "candidate": [model(5)],
    }
    for number, item in enumerate(inputs["infra_blessing"]):
        item.id = number
    inputs["infra_blessing"].reverse()
    assert [artifact.id for artifact in LastBlessedBaseline().resolve_artifacts(None, inputs)["model"]] == [chosen]


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
