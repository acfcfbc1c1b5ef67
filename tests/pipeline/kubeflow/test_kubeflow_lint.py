"""fpn lint: what kfp itself compiles passes; each planted breach is found, by its rule and place."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from compiled_pipelines import read_documents, write_documents, write_small

from base.errors import UserError
from pipeline.cli import main
from pipeline.kubeflow.lint import lint

Spec = dict[str, Any]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Spec:
    return read_documents(write_small(tmp_path_factory.mktemp("small")))[0]


def test_a_file_of_kfps_own_compiler_passes(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = write_small(tmp_path)

    assert main(["lint", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: 3 tasks, no breach\n"


def _tasks(spec: Spec) -> Spec:
    return spec["root"]["dag"]["tasks"]


def _container(spec: Spec) -> Spec:
    return spec["deploymentSpec"]["executors"]["exec-train"]["container"]


def _rename(spec: Spec, old: str, new: str) -> None:
    tasks = _tasks(spec)
    tasks[new] = tasks.pop(old)


def _replace(container: Spec, new: Spec) -> None:
    container.clear()
    container.update(new)


PLANTED: dict[str, tuple[Callable[[Spec], Any], str, str]] = {
    "older schema": (lambda spec: spec.update(schemaVersion="2.0.0"), "schema-version", "schemaVersion"),
    "unknown field": (lambda spec: spec["root"].update(tasks={}), "protobuf", "PipelineSpec"),
    "upper-case pipeline name": (lambda spec: spec["pipelineInfo"].update(name="Small"), "pipeline-name", "pipelineInfo.name"),
    "no pipeline root": (lambda spec: spec.pop("defaultPipelineRoot"), "pipeline-root", "defaultPipelineRoot"),
    "local pipeline root": (lambda spec: spec.update(defaultPipelineRoot="/tmp"), "pipeline-root", "defaultPipelineRoot"),
    "underscore in a task's name": (lambda spec: _rename(spec, "push", "push_it"), "task-name", "root.dag.tasks.push_it"),
    "name of a driver": (lambda spec: _rename(spec, "push", "train-driver"), "task-name", "root.dag.tasks.train-driver"),
    "no such component": (
        lambda spec: _tasks(spec)["push"]["componentRef"].update(name="comp-x"),
        "component",
        "root.dag.tasks.push.componentRef",
    ),
    "no such executor": (
        lambda spec: spec["components"]["comp-push"].update(executorLabel="exec-x"),
        "executor",
        "components.comp-push.executorLabel",
    ),
    "resolver": (
        lambda spec: spec["deploymentSpec"]["executors"].update({"exec-train": {"resolver": {}}}),
        "executor",
        "deploymentSpec.executors.exec-train",
    ),
    "custom job": (
        lambda spec: spec["deploymentSpec"]["executors"].update({"exec-train": {"customJob": {}}}),
        "executor",
        "deploymentSpec.executors.exec-train",
    ),
    "importer of no type": (
        lambda spec: spec["deploymentSpec"]["executors"].update(
            {"exec-train": {"importer": {"artifactUri": {"constant": "s3://b/m"}, "typeSchema": {}}}}
        ),
        "artifact-type",
        "deploymentSpec.executors.exec-train.importer.typeSchema",
    ),
    "importer with two outputs": (
        lambda spec: (
            spec["deploymentSpec"]["executors"].update(
                {
                    "exec-ingest": {
                        "importer": {"artifactUri": {"constant": "s3://b/m"}, "typeSchema": {"schemaTitle": "system.Dataset"}}
                    }
                }
            ),
            spec["components"]["comp-ingest"]["outputDefinitions"].update(parameters={"x": {"parameterType": "STRING"}}),
        ),
        "importer",
        "components.comp-ingest.outputDefinitions",
    ),
    "no image": (lambda spec: _container(spec).pop("image"), "image", "deploymentSpec.executors.exec-train.container.image"),
    "no command": (
        lambda spec: _container(spec).pop("command"),
        "command",
        "deploymentSpec.executors.exec-train.container.command",
    ),
    "no memory": (
        lambda spec: _replace(_container(spec)["resources"], {"cpuLimit": 1.0}),
        "resources",
        "deploymentSpec.executors.exec-train.container.resources",
    ),
    "accelerator without a type": (
        lambda spec: _container(spec)["resources"].update(accelerator={"count": "1"}),
        "resources",
        "deploymentSpec.executors.exec-train.container.resources.accelerator",
    ),
    "parameter without a value": (
        lambda spec: _tasks(spec)["train"]["inputs"].pop("parameters"),
        "parameter",
        "root.dag.tasks.train.inputs.parameters.epochs",
    ),
    "constant of an older schema": (
        lambda spec: _tasks(spec)["train"]["inputs"]["parameters"].update(
            epochs={"runtimeValue": {"constantValue": {"intValue": "3"}}}
        ),
        "parameter",
        "root.dag.tasks.train.inputs.parameters.epochs",
    ),
    "constant of another type": (
        lambda spec: _tasks(spec)["train"]["inputs"]["parameters"].update(epochs={"runtimeValue": {"constant": "three"}}),
        "parameter",
        "root.dag.tasks.train.inputs.parameters.epochs",
    ),
    "no such runtime parameter": (
        lambda spec: _tasks(spec)["train"]["inputs"]["parameters"]["epochs"].update(componentInputParameter="steps"),
        "runtime-parameter",
        "root.dag.tasks.train.inputs.parameters.epochs",
    ),
    "default of another type": (
        lambda spec: spec["root"]["inputDefinitions"]["parameters"]["epochs"].update(defaultValue="three"),
        "runtime-parameter",
        "root.inputDefinitions.parameters.epochs",
    ),
    "missing input": (
        lambda spec: _tasks(spec)["train"]["inputs"].pop("artifacts"),
        "artifact",
        "root.dag.tasks.train.inputs.artifacts.examples",
    ),
    "no such producer": (
        lambda spec: _tasks(spec)["train"]["inputs"]["artifacts"]["examples"]["taskOutputArtifact"].update(producerTask="x"),
        "producer",
        "root.dag.tasks.train.inputs.artifacts.examples",
    ),
    "no such output": (
        lambda spec: _tasks(spec)["train"]["inputs"]["artifacts"]["examples"]["taskOutputArtifact"].update(
            outputArtifactKey="x"
        ),
        "producer",
        "root.dag.tasks.train.inputs.artifacts.examples",
    ),
    "no such upstream task": (
        lambda spec: _tasks(spec)["train"].update(dependentTasks=["ingest", "x"]),
        "producer",
        "root.dag.tasks.train.dependentTasks",
    ),
    "cycle": (lambda spec: _tasks(spec)["ingest"].update(dependentTasks=["push"]), "cycle", "root.dag.tasks."),
    "artifact type without a name space": (
        lambda spec: spec["components"]["comp-train"]["outputDefinitions"]["artifacts"]["model"]["artifactType"].update(
            schemaTitle="Model"
        ),
        "artifact-type",
        "components.comp-train.outputDefinitions.artifacts.model",
    ),
    "artifact type by an instance schema": (
        lambda spec: _replace(
            spec["components"]["comp-train"]["outputDefinitions"]["artifacts"]["model"]["artifactType"],
            {"instanceSchema": "title: tfx.Model\ntype: object\n"},
        ),
        "artifact-type",
        "components.comp-train.outputDefinitions.artifacts.model",
    ),
    "containers that are equal": (
        lambda spec: spec["deploymentSpec"]["executors"].update(
            {"exec-push": copy.deepcopy(spec["deploymentSpec"]["executors"]["exec-train"])}
        ),
        "equal-containers",
        "components.comp-train",
    ),
    "pipeline name without room for a version's": (
        lambda spec: spec["pipelineInfo"].update(name="x" * 115),
        "pipeline-name",
        "pipelineInfo.name",
    ),
    "placeholder of nothing": (
        lambda spec: _container(spec)["args"].append("{{$.inputs.parameters['steps']}}"),
        "placeholder",
        "components.comp-train",
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_breach_is_found(name: str, small: Spec, tmp_path: Path) -> None:
    plant, rule, place = PLANTED[name]
    spec = copy.deepcopy(small)
    plant(spec)

    breaches = lint(write_documents(tmp_path / "pipeline.yaml", spec))

    assert [(breach.rule, breach.place) for breach in breaches if breach.rule == rule and breach.place.startswith(place)], (
        breaches
    )


@pytest.mark.parametrize(
    ("executors", "breach"),
    [
        ({"exec-x": {}}, "exec-x: platform: there is no such executor"),
        (
            {"exec-train": {"pvcMounts": []}},
            'exec-train: protobuf: Message type "kfp_kubernetes.KubernetesExecutorConfig" has no ',
        ),
        ({"exec-train": {"nodeSelector": {"labels": {"gpus": 1}}}}, "exec-train: protobuf: Failed to parse nodeSelector field"),
        ({"exec-train": {"tolerations": [{"seconds": 5}]}}, "exec-train: protobuf: Failed to parse tolerations field"),
    ],
)
def test_a_breach_in_the_platforms_document_is_found(executors: Spec, breach: str, small: Spec, tmp_path: Path) -> None:
    platforms = {"platforms": {"kubernetes": {"deploymentSpec": {"executors": executors}}}}

    (found,) = lint(write_documents(tmp_path / "pipeline.yaml", small, platforms))

    assert str(found).startswith(f"platforms.kubernetes.deploymentSpec.executors.{breach}")


def _named(name: str, parameter: str) -> Spec:
    return {parameter: {"runtimeValue": {"constant": name}}}


@pytest.mark.parametrize(
    ("executor", "breach"),
    [
        (
            {"pvcMount": [{"constant": "fpn.data", **_named("fpn.data", "pvcNameParameter"), "mountPath": "/data"}]},
            "the claim 'fpn.data' can't be mounted",
        ),
        (
            {
                "pvcMount": [{**_named("data", "pvcNameParameter"), "mountPath": "/data"}],
                "secretAsVolume": [{"secretName": "data", "mountPath": "/keys"}],
            },
            "'data' names a claim and a secret",
        ),
        (
            {
                "emptyDirMounts": [{"volumeName": "room", "mountPath": "/room"}],
                "configMapAsVolume": [{"configMapName": "settings", "mountPath": "/room"}],
            },
            "/room is the place of 2 volumes",
        ),
    ],
)
def test_a_volume_that_kubernetes_would_refuse_is_found(executor: Spec, breach: str, small: Spec, tmp_path: Path) -> None:
    platforms = {"platforms": {"kubernetes": {"deploymentSpec": {"executors": {"exec-train": executor}}}}}

    (found,) = lint(write_documents(tmp_path / "pipeline.yaml", small, platforms))

    assert (found.rule, found.place) == ("volume", "platforms.kubernetes.deploymentSpec.executors.exec-train")
    assert breach in found.message


def test_components_of_one_kind_may_share_a_container(small: Spec, tmp_path: Path) -> None:
    spec = copy.deepcopy(small)
    spec["components"]["comp-train-2"] = copy.deepcopy(spec["components"]["comp-train"])
    spec["root"]["dag"]["tasks"]["train-2"] = copy.deepcopy(spec["root"]["dag"]["tasks"]["train"])
    spec["root"]["dag"]["tasks"]["train-2"]["componentRef"]["name"] = "comp-train-2"

    assert lint(write_documents(tmp_path / "pipeline.yaml", spec)) == []


def test_a_pipeline_job_and_other_documents_are_refused(small: Spec, tmp_path: Path) -> None:
    job = {"pipelineSpec": small, "runtimeConfig": {}}

    assert [item.rule for item in lint(write_documents(tmp_path / "job.yaml", job))] == ["document"]
    assert [item.rule for item in lint(write_documents(tmp_path / "two.yaml", small, small))] == ["document"]
    with pytest.raises(UserError, match="not a compiled pipeline"):
        lint(write_documents(tmp_path / "list.yaml", [1, 2]))


def test_breaches_are_printed_with_their_places(small: Spec, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = write_documents(tmp_path / "pipeline.yaml", small | {"schemaVersion": "2.0.0", "defaultPipelineRoot": ""})

    assert main(["lint", str(path)]) == 2
    assert capsys.readouterr().out.splitlines() == [
        f"{path}: schemaVersion: schema-version: must be 2.1.0, is 2.0.0",
        f"{path}: defaultPipelineRoot: pipeline-root: is missing; set it to a URI such as s3://bucket/folder",
    ]


def test_parameters_without_a_default_are_listed(small: Spec, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    spec = copy.deepcopy(small)
    spec["root"]["inputDefinitions"]["parameters"]["epochs"] = {"parameterType": "NUMBER_INTEGER"}
    path = write_documents(tmp_path / "pipeline.yaml", spec)

    assert main(["lint", str(path)]) == 0
    assert "epochs has no default" in capsys.readouterr().out
