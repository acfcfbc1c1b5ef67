"""Pushed versions in an MLflow registry: what is told of them, once; and what a failure leaves."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow_server import MLFLOW, ask, mlflow_server, needs_mlflow
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

from base.errors import UserError
from components.pusher.places import Version
from components.pusher.record import Record
from components.pusher.versions import push, roll_back
from pipeline.config.delivery import RegistryConfig
from pipeline.config.loading import load_config
from pipeline.pushed.registry import register, register_version
from pipeline.records.reproduction import write_reproduction

SIGNATURE = {
    "inputs": {"image_bytes": ["str", [-1]]},
    "outputs": {"label": ["str", [-1]], "labels": ["str", [-1, 3]], "probabilities": ["float32", [-1, 3]]},
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run."""
    content = {
        "name": "few-digits",
        "data": {"path": "images"},
        "push": {"registry": {"uri": "http://127.0.0.1:9", "model": "digits"}},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))
    folder = tmp_path / "out" / "runs" / "2026-01-01T00-00-00"
    write_reproduction(load_config(tmp_path / "config.yaml"), folder, "run", ["run"])
    (folder / "report.html").write_text("<p>report")
    return folder


@pytest.fixture
def pushed(tmp_path: Path, run: Path, exported: Any) -> Version:
    metrics = {
        "accuracy": {"value": 0.75, "lower": 0.5, "upper": 1.0},
        "auc": {"value": float("nan"), "lower": None, "upper": None},
    }
    record = Record(pipeline="few-digits", run=run.name, run_folder=str(run), data="split:a", metrics=metrics)
    return push(exported.path, str(tmp_path / "pushed"), record, keep=None)


def stand_in(tmp_path: Path, text: str) -> RegistryConfig:
    """A program in place of the interpreter that has MLflow."""
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\n{text}\n")
    script.chmod(0o755)
    return RegistryConfig(uri="http://registry", model=None, python=str(script))


def test_the_registry_is_told_metrics_signature_and_lineage(tmp_path: Path, run: Path, pushed: Version) -> None:
    registry = stand_in(tmp_path, f'cat > {tmp_path}/request; echo greeting; echo \'{{"version": "3", "created": true}}\'')
    found = register(pushed, registry, newest=True)
    assert (found.model, found.version, found.created) == ("few-digits", "3", True)
    request = json.loads((tmp_path / "request").read_text())
    assert request["signature"] == SIGNATURE
    assert request["metrics"] == {"accuracy": 0.75, "accuracy.lower": 0.5, "accuracy.upper": 1.0}
    assert request["path"] == pushed.path
    assert [Path(path).name for path in request["artifacts"]] == ["config.yaml", "reproduction.json", "report.html"]
    tags = request["tags"]
    assert (tags["fpn.run"], tags["fpn.data"], tags["fpn.version"]) == (run.name, "split:a", str(pushed.number))
    reproduction = json.loads((run / "reproduction.json").read_text())
    assert tags["fpn.code"] == reproduction["digest"]["code"]
    assert tags.get("fpn.commit", "") == reproduction["commit"]


def test_a_failure_names_the_version_and_the_reason(tmp_path: Path, pushed: Version) -> None:
    registry = stand_in(tmp_path, "cat > /dev/null; echo 'no route to host' >&2; exit 1")
    with pytest.raises(UserError, match=rf"http://registry: {pushed.number} can't be registered as few-digits \(no route"):
        register(pushed, registry, newest=True)
    with pytest.raises(UserError, match="no file /nowhere/python; name an interpreter that has MLflow, or run make mlflow"):
        register(pushed, RegistryConfig(uri="http://registry", model=None, python="/nowhere/python"), newest=True)


def test_a_damaged_version_is_not_registered(tmp_path: Path, pushed: Version) -> None:
    (Path(pushed.path) / "saved_model.pb").write_bytes(b"")
    for number in (None, pushed.number):
        with pytest.raises(
            UserError, match=rf"{pushed.number}: is damaged \(its files are not those that were pushed: [\w/.-]+ has changed\)"
        ):
            register_version(str(tmp_path / "pushed"), number, None)


def test_fpn_push_lists_rolls_back_and_says_what_it_needs(tmp_path: Path, pushed: Version, fpn: Any) -> None:
    folder = tmp_path / "pushed"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "saved_model.pb").write_text("other")
    push(str(tmp_path / "other"), str(folder), Record(), None)
    ended = fpn("push", "--to", folder, "--version", pushed.number, "--json")
    assert ended.status == 0, ended.stderr
    assert "is served from now on" in ended.stdout
    listed = fpn("push", "--to", folder, "--list", "--json")
    versions = listed.json["versions"]
    assert [item["record"]["copy_of"] for item in versions] == [None, None, pushed.number]
    assert ended.json["version"] == versions[-1]
    assert f"copy of {pushed.number}, served" in listed.stdout
    for arguments, text in (
        (["--to", folder], "push: give --list, --version V, --sign FILE or --register"),
        (["--to", folder, "--version", 7], f"no version 7; there are {pushed.number}"),
        (["--to", tmp_path / "nowhere", "--list"], "nowhere: no such folder"),
        (["--to", folder, "--register", "--version", 7], "no version 7 to register"),
        (["--to", folder, "--register", "--version", versions[1]["number"]], f"{versions[1]['path']}: no push.registry here"),
    ):
        refused = fpn("push", *arguments)
        assert (refused.status, refused.stderr.count("\n")) == (2, 1)
        assert text in refused.stderr


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as uri:
        yield uri


@pytest.mark.extra
@needs_mlflow
def test_a_real_server_has_the_model_once_with_metrics_signature_and_lineage(
    tmp_path: Path, run: Path, pushed: Version, server: str
) -> None:
    folder = str(tmp_path / "pushed")
    config = tmp_path / "with_server.yaml"
    config.write_text((run / "config.yaml").read_text().replace("http://127.0.0.1:9", server))
    first = register_version(folder, None, config)
    assert (first.model, first.version, first.created) == ("digits", "1", True)
    again = register_version(folder, pushed.number, config)
    assert (again.version, again.created) == ("1", False)

    found = ask(server, "model-versions/get?name=digits&version=1")["model_version"]
    tags = {tag["key"]: tag["value"] for tag in found["tags"]}
    assert (tags["fpn.run"], tags["fpn.version"], tags["fpn.data"]) == (run.name, str(pushed.number), "split:a")
    data = ask(server, f"runs/get?run_id={found['run_id']}")["run"]["data"]
    assert {item["key"]: item["value"] for item in data["metrics"]} == {
        "accuracy": 0.75,
        "accuracy.lower": 0.5,
        "accuracy.upper": 1.0,
    }
    files = {item["path"] for item in ask(server, f"artifacts/list?run_id={found['run_id']}")["files"]}
    assert files == {"config.yaml", "reproduction.json", "report.html", "model"}
    script = (
        "import json, mlflow, sys; mlflow.set_tracking_uri(sys.argv[1]);"
        "path = mlflow.artifacts.download_artifacts('models:/digits@pushed', dst_path=sys.argv[2]);"
        "print(json.dumps([path, mlflow.models.get_model_info(path).signature.to_dict()]))"
    )
    command = [str(MLFLOW), "-c", script, server, str(tmp_path)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    path, signature = json.loads(told.splitlines()[-1])
    inputs, outputs = (json.loads(signature[key]) for key in ("inputs", "outputs"))
    assert [item["name"] for item in inputs] == ["image_bytes"]
    shapes = {item["name"]: [item["tensor-spec"]["dtype"], item["tensor-spec"]["shape"]] for item in outputs}
    assert shapes == SIGNATURE["outputs"]
    copy = Path(path) / "saved_model" / "saved_model.pb"
    assert copy.read_bytes() == (Path(pushed.path) / "saved_model.pb").read_bytes()

    (tmp_path / "other").mkdir()
    for name in ("saved_model.pb", "fingerprint.pb"):
        (tmp_path / "other" / name).write_bytes((Path(pushed.path) / name).read_bytes())
    record = pushed.record
    assert record is not None
    push(str(tmp_path / "other"), folder, record, None)
    assert register_version(folder, None, config).version == "2"
    roll_back(folder, pushed.number)  # the same model under a new number: the alias goes back
    back = register_version(folder, None, config)
    assert (back.version, back.created) == ("1", False)
    aliases = ask(server, "registered-models/get?name=digits")["registered_model"]["aliases"]
    assert aliases == [{"alias": "pushed", "version": "1"}]


@pytest.mark.extra
@needs_mlflow
def test_a_registry_that_does_not_answer_is_told_in_a_line(tmp_path: Path, run: Path, fpn: Any) -> None:
    (tmp_path / "model").mkdir()
    graph = saved_model_pb2.SavedModel(meta_graphs=[meta_graph_pb2.MetaGraphDef()]).SerializeToString()
    (tmp_path / "model" / "saved_model.pb").write_bytes(graph)
    record = Record(pipeline="few-digits", run=run.name, run_folder=str(run))
    version = push(str(tmp_path / "model"), str(tmp_path / "pushed"), record, None)
    ended = fpn("push", "--to", tmp_path / "pushed", "--register")
    assert (ended.status, ended.stderr.count("\n")) == (2, 1)
    assert f"http://127.0.0.1:9: {version.number} can't be registered as digits" in ended.stderr
    assert "Connection refused" in ended.stderr
