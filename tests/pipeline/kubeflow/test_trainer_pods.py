"""Several pods that train together on Kubeflow: what the cluster is asked for, and how the Trainer's task follows it."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml
from kubeflow_pods import pod_errors
from kubernetes_rules import expand
from tfx.components.trainer.fn_args_utils import FnArgs
from tiny_training import arguments, write_transformed
from worker_processes import PROJECT, free_addresses

from base.errors import UserError
from pipeline.config.kubeflow import KubeflowConfig
from pipeline.config.whole import Config
from pipeline.kubeflow import trainer_pods
from pipeline.kubeflow.compiler import compile_pipeline
from pipeline.kubeflow.jobset import build_jobset
from pipeline.kubeflow.lint import lint

KUBEFLOW = {
    "image": "registry/fpn:cpu",
    "gpu_image": "registry/fpn:gpu",
    "state": "/data/state",
    "volumes": [{"claim": "fpn-data", "path": "/data"}],
    "secrets": [{"name": "keys", "env": {"AWS_ACCESS_KEY_ID": "id"}}, {"name": "files", "path": "/secrets"}],
    "pod": {"env": {"PRICE": "5$"}},
    "components": {
        "Trainer": {
            "gpus": 2,
            "memory_limit": "16Gi",
            "node_selector": {"gpu": "a100"},
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        }
    },
    "image_pull_policy": "Always",
    "image_pull_secrets": ["registry"],
    "trainer_workers": 3,
}


@pytest.fixture(scope="module")
def manifest():
    return build_jobset(KubeflowConfig.model_validate(KUBEFLOW), "fpn-1", "/data/state/$1/arguments.json")


def job_of(manifest):
    (replicated,) = manifest["spec"]["replicatedJobs"]
    return replicated["template"]


def test_the_jobset_fits_the_schema_of_jobsets(manifest):
    models = pytest.importorskip("kubeflow_trainer_api.models", reason="kubeflow-trainer-api is not installed")
    read = models.JobsetV1alpha2JobSet.from_dict(manifest).to_dict()

    def check(given, found):
        if isinstance(given, dict):
            for key, value in given.items():
                check(value, found[key])
        elif isinstance(given, list):
            for pair in zip(given, found, strict=True):
                check(*pair)
        else:
            assert given == found

    check(manifest, read)  # a key that the schema does not have would be lost


def test_its_job_fits_the_schema_of_kubernetes(manifest):
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "job"}, **job_of(manifest)}
    kubernetes_validate.validate(job, kubernetes_validate.latest_version(), strict=True)
    assert pod_errors(job["spec"]["template"]["spec"]) == []


def test_each_pod_knows_all_of_them_and_has_what_the_trainer_is_given(manifest):
    job = job_of(manifest)["spec"]
    assert (job["completions"], job["parallelism"], job["completionMode"]) == (3, 3, "Indexed")
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    variables = {item["name"]: item.get("value") for item in container["env"]}
    assert list(variables).index("WORKER_INDEX") < list(variables).index("TF_CONFIG")  # else it is not filled in
    given = json.loads(expand(variables["TF_CONFIG"], {"WORKER_INDEX": "2"}))
    assert given == {
        "cluster": {"worker": [f"fpn-1-worker-0-{index}.fpn-1:2222" for index in range(3)]},
        "task": {"type": "worker", "index": 2},
    }
    assert expand(variables["PRICE"], {}) == "5$"
    assert expand(container["command"][-1], {}) == "/data/state/$1/arguments.json"
    assert container["image"] == "registry/fpn:gpu"
    assert container["resources"]["limits"] == {"cpu": "4", "memory": "16Gi", "nvidia.com/gpu": "2"}
    assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/data", "/secrets", "/dev/shm"}
    assert pod["nodeSelector"] == {"gpu": "a100"}


def test_the_trainers_task_follows_without_gpus(tmp_path):
    config = Config(name="many", data={"path": "/data/images"}, train={"batch_size": 30}, kubeflow=KUBEFLOW)
    compile_pipeline(config, tmp_path / "pipeline.yaml")
    assert lint(tmp_path / "pipeline.yaml") == []
    spec, _ = yaml.safe_load_all((tmp_path / "pipeline.yaml").read_text())
    container = spec["deploymentSpec"]["executors"]["Trainer_executor"]["container"]
    assert container["image"] == "registry/fpn:cpu"
    assert "accelerator" not in container["resources"]
    passed = expand(container["args"][container["args"].index("--trainer_pods") + 1], {})
    assert KubeflowConfig.model_validate_json(passed) == config.kubeflow


def test_what_the_pods_could_not_train_is_not_compiled(tmp_path):
    config = Config(name="many", data={"path": "/data/images"}, train={"batch_size": 9}, kubeflow=KUBEFLOW)
    with pytest.raises(UserError, match=r"train.batch_size \(9\) must be a multiple of 6, the devices of all workers"):
        compile_pipeline(config, tmp_path / "pipeline.yaml")
    assert not list(tmp_path.iterdir())


def test_vertex_ai_is_refused(tmp_path):
    config = Config(name="many", data={"path": "gs://b/images"}, kubeflow={"root": "gs://b/root", "trainer_workers": 2})
    with pytest.raises(UserError, match="trainer_workers: Vertex AI"):
        compile_pipeline(config, tmp_path / "pipeline.yaml", "vertex")


class Cluster(ThreadingHTTPServer):
    """Kubernetes' API in small: a JobSet's pods are processes of this machine."""

    def __init__(self, status=201):
        super().__init__(("127.0.0.1", 0), Handler)
        self.status = status
        self.manifest = None
        self.processes = []

    def start(self, manifest):
        self.manifest = manifest
        (container,) = job_of(manifest)["spec"]["template"]["spec"]["containers"]
        values = {item["name"]: item["value"] for item in container["env"] if "value" in item}
        cluster = json.loads(expand(values["TF_CONFIG"], {"WORKER_INDEX": "0"}))["cluster"]["worker"]
        for host, address in zip(cluster, free_addresses(len(cluster)), strict=True):
            values["TF_CONFIG"] = values["TF_CONFIG"].replace(host, address)
        for index in range(len(cluster)):
            known = {"WORKER_INDEX": str(index)}
            own = {name: expand(value, known) for name, value in values.items()}
            command = [sys.executable, *(expand(text, known) for text in container["command"][1:])]
            self.processes.append(subprocess.Popen(command, env={**os.environ, **own}, cwd=PROJECT))

    @property
    def conditions(self):
        statuses = [process.poll() for process in self.processes]
        if any(statuses):
            return [{"type": "Failed", "status": "True", "message": "a pod has failed"}]
        return [] if None in statuses else [{"type": "Completed", "status": "True"}]


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.server.status == 201:
            assert self.path == "/apis/jobset.x-k8s.io/v1alpha2/namespaces/team/jobsets"
            self.server.start(body)
        self._answer(self.server.status, body)

    def do_GET(self):
        assert self.path.endswith(f"/jobsets/{self.server.manifest['metadata']['name']}")
        self._answer(200, {**self.server.manifest, "status": {"conditions": self.server.conditions}})

    def _answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def cluster(monkeypatch, tmp_path):
    """Makes a cluster's API, that answers a new JobSet with a status, the one of the pod that this process is in."""
    servers = []

    def make(status=201):
        server = Cluster(status)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()

        def load():
            found = trainer_pods.client.Configuration()
            found.host = f"http://127.0.0.1:{server.server_port}"
            trainer_pods.client.Configuration.set_default(found)

        monkeypatch.setattr(trainer_pods.config, "load_incluster_config", load)
        return server

    (tmp_path / "namespace").write_text("team")
    monkeypatch.setattr(trainer_pods, "_NAMESPACE", tmp_path / "namespace")
    monkeypatch.setattr(trainer_pods, "_SECONDS", 0.2)
    monkeypatch.setenv("KFP_POD_NAME", "trainer")
    monkeypatch.setenv("KFP_POD_UID", "1-2")
    monkeypatch.setenv(trainer_pods.VARIABLE, json.dumps({"trainer_workers": 2}))
    yield make
    for server in servers:
        server.shutdown()
        server.server_close()
        for process in server.processes:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def transformed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("transformed")
    write_transformed(folder)
    return folder


@pytest.mark.extra
def test_the_pods_train_and_leave_the_model_where_the_task_is_to_put_it(cluster, transformed, tmp_path):
    server = cluster()
    trainer_pods.run_fn(FnArgs(**arguments(transformed, tmp_path / "run", tmp_path / "state" / "checkpoints")))
    assert (tmp_path / "run" / "model" / "saved_model.pb").exists()
    assert len((tmp_path / "run" / "log" / "history.csv").read_text().splitlines()) == 5
    assert server.manifest["metadata"]["ownerReferences"] == [
        {"apiVersion": "v1", "kind": "Pod", "name": "trainer", "uid": "1-2"}
    ]
    assert not [path for path in (tmp_path / "state").rglob("*") if path.is_file()]


@pytest.mark.parametrize(("status", "cure"), [(403, "apply deploy/trainer-workers.yaml"), (404, "install Kubeflow Trainer")])
def test_a_cluster_that_makes_no_jobsets_is_told_with_the_cure(status, cure, cluster, tmp_path):
    cluster(status)
    with pytest.raises(UserError, match=cure):
        trainer_pods._run_jobset(KubeflowConfig(trainer_workers=2), str(tmp_path / "arguments.json"))


def test_a_failed_jobset_fails_the_task_and_says_where_its_logs_are(cluster, tmp_path):
    cluster()
    with pytest.raises(RuntimeError, match=r"has failed: a pod has failed; see kubectl logs -n team -l jobset"):
        trainer_pods._run_jobset(KubeflowConfig(trainer_workers=2), str(tmp_path / "missing.json"))
