"""The compiled pipeline that monitors a pushed model, and what its container does."""

import json
import os
import subprocess

import kubernetes_validate
import pytest
import yaml
from kfp import components as kfp_components
from kubeflow_pods import build_pod, pod_errors, shared_implementations
from kubernetes_rules import expand

from base.errors import UserError
from pipeline.config.loading import load_config
from pipeline.kubeflow.compiler import compile_pipeline
from pipeline.kubeflow.file import read_pipeline_file
from pipeline.kubeflow.lint import lint

KUBEFLOW = {
    "image": "registry/fpn:cpu",
    "root": "s3://bucket/root",
    "state": "/data/state",
    "volumes": [{"claim": "fpn-data", "path": "/data"}],
    "pod": {"env": {"PRICE": "$5"}},
}


def compile_with(folder, target="kubeflow", **sections):
    content = {"name": "pets", "data": {"path": "/data/images"}, "kubeflow": KUBEFLOW, **sections}
    (folder / "config.yaml").write_text(json.dumps(content))
    compile_pipeline(load_config(folder / "config.yaml"), folder / "monitor.yaml", target, "monitor")
    return folder / "monitor.yaml"


def test_the_pipeline_is_one_that_kubeflow_takes(tmp_path):
    path = compile_with(tmp_path)
    assert lint(path) == []
    assert kfp_components.load_component_from_file(str(path)).name == "pets-monitor"
    file = read_pipeline_file(path)
    assert file.tasks == ["Monitor"]
    assert file.required == []
    assert file.defaults == {
        "model": "/data/state/pets/pushed",
        "captured": "/data/state/pets/captured",
        "output": "/data/state/pets/captured",
        "since": "7d",
        "reference": "",
        "labels": "",
        "train": "",
    }
    spec, platform = yaml.safe_load_all(path.read_text())
    (executor,) = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values()
    ((component, container),) = shared_implementations(spec).values()
    pod = build_pod("monitor", container, component, "{}", executor)
    kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)
    assert pod_errors(pod["spec"]) == []


@pytest.mark.parametrize(
    ("status", "train", "deploys"),
    [(0, "/data/train.yaml", False), (3, "/data/train.yaml", True), (3, "", False), (2, "x", False)],
)
def test_a_failed_check_starts_the_training_and_fails_the_task(tmp_path, status, train, deploys):
    spec = next(yaml.safe_load_all(compile_with(tmp_path).read_text()))
    ((_, container),) = shared_implementations(spec).values()
    values = read_pipeline_file(tmp_path / "monitor.yaml").values([f"train={train}", "model=/data/my pushed"])
    arguments = [expand(text, {}) for text in container["args"]]
    for name, value in values.items():
        arguments = [text.replace(f"{{{{$.inputs.parameters['{name}']}}}}", value) for text in arguments]
    program, log = tmp_path / "bin" / "python", tmp_path / "log"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$*" >> {log}\n[ "$3" = deploy ] && exit 0\nprintf "<%s>" "$@" > {log}.1\nexit {status}\n'
    )
    program.chmod(0o755)
    environment = {"PATH": f"{program.parent}:{os.environ['PATH']}"}
    assert subprocess.run([*container["command"], *arguments], env=environment, check=False).returncode == status
    started = log.read_text().splitlines()
    assert (started[1:] == [f"-m pipeline.cli deploy --pipeline {train} --in-cluster"]) == deploys
    assert len(started) == 1 + deploys
    assert "<monitor><--model></data/my pushed><--captured></data/state/pets/captured><--since><7d>" in (
        log.with_name("log.1").read_text()
    )
    assert "<--reference><><--labels><>" in log.with_name("log.1").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"kubeflow": {**KUBEFLOW, "root": "gs://bucket/root", "state": None}},
            r"gs://bucket/.*: fpn monitor reads from one of",
        ),
        ({"push": {"path": "gs://bucket/pushed"}}, r"gs://bucket/pushed: fpn monitor reads from one of kubeflow.volumes"),
        ({"target": "vertex"}, r"--pipeline monitor: runs on Kubeflow Pipelines alone"),
    ],
)
def test_what_containers_cannot_reach_is_said(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        compile_with(tmp_path, **change)
    assert not (tmp_path / "monitor.yaml").exists()
