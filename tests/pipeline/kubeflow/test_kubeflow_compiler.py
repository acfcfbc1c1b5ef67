"""The compiled pipeline, and what its containers do before TFX's own entry point."""

import argparse
import json
from pathlib import Path

import pytest
import yaml
from google.protobuf import json_format
from kfp import components as kfp_components
from kfp.pipeline_spec import pipeline_spec_pb2
from kubeflow_pods import build_pod, pod_errors, shared_implementations
from kubernetes_rules import expand
from saved_models import save_model

from base.errors import UserError
from components.pusher.record import Record
from components.pusher.versions import push
from models.packing import as_dict, pack
from pipeline.config.data import DataConfig
from pipeline.config.evaluation import EvaluateConfig
from pipeline.config.kubeflow import KubeflowConfig, PodConfig
from pipeline.config.loading import load_config
from pipeline.config.whole import Config
from pipeline.dag.component_settings import base_model_folder, source_settings, trainer_settings
from pipeline.dag.eval_config import evaluation_settings
from pipeline.kubeflow.compiler import compile_pipeline
from pipeline.kubeflow.entrypoint import _Locations, _prepare, _take_runtime_parameters, main
from pipeline.kubeflow.file import read_pipeline_file
from pipeline.kubeflow.lint import lint

KUBEFLOW = {
    "image": "registry/fpn:cpu",
    "gpu_image": "registry/fpn:gpu",
    "root": "s3://bucket/root",
    "state": "/data/state",
    "volumes": [{"claim": "fpn-data", "path": "/data"}],
    "secrets": [{"name": "keys", "env": {"AWS_ACCESS_KEY_ID": "id"}}, {"name": "files", "path": "/secrets"}],
    "pod": {"env": {"LEVEL": "1e3"}, "memory_request": "1Gi"},
    "components": {
        "Trainer": {
            "gpus": 2,
            "cpu_limit": 8,
            "memory_limit": "16Gi",
            "node_selector": {"gpu": "a100"},
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
            "env": {"NCCL_DEBUG": "INFO"},
        },
        "Tuner": {"gpus": 1},
    },
}


VOLUMES = "[{claim: fpn-data, path: /data}]"


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "config.yaml"
    content = {
        "name": "few-digits",
        "data": {"path": "/data/images"},
        "metadata": "postgresql://fpn:s3cret@db.example/runs",
        "tune": {"enabled": True, "space": {"train.learning_rate": [0.001, 0.01]}},
        "export": {"formats": ["int8"]},
        "labels": {"enabled": True},
        "evaluate": {"thresholds": [{"metric": "accuracy", "lower": 0.9}]},
        "kubeflow": KUBEFLOW,
    }
    path.write_text(json.dumps(content))
    return path


@pytest.fixture(scope="module")
def compiled(config):
    path = config.with_name("pipeline.yaml")
    compile_pipeline(load_config(config), path)
    return path


@pytest.fixture(scope="module")
def documents(compiled):
    spec, platform = yaml.safe_load_all(compiled.read_text())
    return spec, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


def test_the_metadata_server_of_runs_on_this_machine_is_not_in_the_file(compiled):
    for text in ("s3cret", "db.example"):
        assert text not in compiled.read_text()


def containers(spec):
    executors = spec["deploymentSpec"]["executors"]
    return {name: executors[item["executorLabel"]]["container"] for name, item in spec["components"].items()}


def test_strict_readers_take_the_file(compiled):
    spec, platform = yaml.safe_load_all(compiled.read_text())
    json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
    json_format.ParseDict(spec["deploymentSpec"], pipeline_spec_pb2.PipelineDeploymentConfig())
    json_format.ParseDict(platform, pipeline_spec_pb2.PlatformSpec())
    assert kfp_components.load_component_from_file(str(compiled)).pipeline_spec.schema_version == "2.1.0"
    assert [str(breach) for breach in lint(compiled)] == []


def test_every_component_has_its_resources_image_and_environment(documents):
    found = containers(documents[0])
    assert set(found) == {
        "Lookup",
        "Baseline",
        "ImageExampleGen",
        "StatisticsGen",
        "SchemaGen",
        "ExampleValidator",
        "Transform",
        "Tuner",
        "Trainer",
        "Evaluator",
        "ModelCheck",
        "ModelFormats",
        "LabelCheck",
        "Pusher",
    }
    for name, container in found.items():
        assert container["command"] == ["python", "-m", "pipeline.kubeflow.entrypoint"]
        assert container["image"] == f"registry/fpn:{'gpu' if name in ('Trainer', 'Tuner') else 'cpu'}"
        assert container["resources"]["resourceMemoryRequest"] == "1Gi"
        assert container["resources"]["memoryRequest"] == pytest.approx(1.073741824)
        assert {"name": "LEVEL", "value": "1e3"} in container["env"]
        assert "lifecycle" not in container
    resources = found["Trainer"]["resources"]
    assert (resources["resourceCpuLimit"], resources["cpuLimit"], resources["resourceMemoryLimit"]) == ("8", 8, "16Gi")
    gpus = {"type": "nvidia.com/gpu", "count": "2", "resourceType": "nvidia.com/gpu", "resourceCount": "2"}
    assert resources["accelerator"] == gpus
    assert {"name": "NCCL_DEBUG", "value": "INFO"} in found["Trainer"]["env"]
    assert found["ImageExampleGen"]["resources"]["resourceCpuLimit"] == "4"


def test_the_second_document_has_what_kubernetes_alone_knows(documents):
    executors = documents[1]
    for found in executors.values():
        assert [(item["constant"], item["mountPath"]) for item in found["pvcMount"]] == [("fpn-data", "/data")]
        (secret,) = found["secretAsEnv"]
        assert (secret["secretName"], secret["keyToEnv"]) == ("keys", [{"secretKey": "id", "envVar": "AWS_ACCESS_KEY_ID"}])
        assert [(item["secretName"], item["mountPath"]) for item in found["secretAsVolume"]] == [("files", "/secrets")]
    trainer = executors["Trainer_executor"]
    assert trainer["nodeSelector"] == {"labels": {"gpu": "a100"}}
    assert trainer["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    (shared,) = trainer["emptyDirMounts"]
    assert (shared["mountPath"], shared["medium"], shared["sizeLimit"]) == ("/dev/shm", "Memory", "1Gi")
    assert "emptyDirMounts" not in executors["Transform_executor"]
    assert len(executors) == 14


SHAPES = {
    "plain": {},
    "all": {
        "tune": {"enabled": True, "space": {"train.learning_rate": [0.001, 0.01]}},
        "export": {"formats": ["int8", "onnx"]},
        "labels": {"enabled": True},
        "score": {"path": "/data/new"},
    },
    "curated schema": {"data": {"path": "/data/images", "schema": "/data/schema.pbtxt"}},
    "score": {"score": {"path": "/data/new"}},
    "sample": {"data": {"path": "data/digits", "sample": "digits"}},
    "no check": {"check": {"enabled": False}},
    "labels": {"labels": {"enabled": True, "folds": 3}},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_backend_runs_every_component_as_it_is(shape, tmp_path):
    """It knows a component by its container alone."""
    content = {"name": "few-digits", "data": {"path": "/data/images"}, "kubeflow": KUBEFLOW, **SHAPES[shape]}
    (tmp_path / "config.yaml").write_text(json.dumps(content))
    path = tmp_path / "pipeline.yaml"
    compile_pipeline(load_config(tmp_path / "config.yaml"), path)
    spec = next(yaml.safe_load_all(path.read_text()))
    for name, (component, container) in shared_implementations(spec).items():
        assert component == spec["components"][name]
        assert container == containers(spec)[name]
    assert [str(breach) for breach in lint(path)] == []


EVERY_KEY = {
    "image": "registry/fpn:cpu",
    "gpu_image": "registry/fpn:gpu",
    "root": "s3://bucket/root",
    "state": "/data/state",
    "cache": True,
    "trainer_workers": 1,
    "pod": {
        "cpu_request": "500m",
        "cpu_limit": 2,
        "memory_request": "1Gi",
        "memory_limit": "3G",
        "gpus": 1,
        "gpu_resource": "amd.com/gpu",
        "node_selector": {"pool": "gpu"},
        "tolerations": [{"key": "gpu", "value": "yes", "effect": "NoSchedule"}, {"operator": "Exists"}],
        "env": {"HTTPS_PROXY": "http://proxy:3128", "LEVEL": 1, "PRICE": "5$$ $(HOME)"},
    },
    "components": {"Trainer": {"gpus": 2, "memory_limit": "8Gi", "env": {"NCCL_DEBUG": "INFO"}}},
    "secrets": [
        {"name": "keys.team", "env": {"AWS_ACCESS_KEY_ID": "id"}},
        {"name": "files", "path": "/secrets", "env": {"TOKEN": "token"}},
    ],
    "volumes": [{"claim": "fpn-data", "path": "/data"}, {"claim": "fpn-data", "path": "/more"}],
    "shared_memory": "2Gi",
    "image_pull_policy": "Always",
    "image_pull_secrets": ["registry.keys"],
}


def test_pods_of_every_key_are_valid(tmp_path):
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    assert set(EVERY_KEY) == set(KubeflowConfig.model_fields)
    assert set(EVERY_KEY["pod"]) == set(PodConfig.model_fields)
    content = {"name": "few-digits", "data": {"path": "/data/images"}, "kubeflow": EVERY_KEY}
    (tmp_path / "config.yaml").write_text(json.dumps(content))
    (note,) = compile_pipeline(load_config(tmp_path / "config.yaml"), tmp_path / "pipeline.yaml")
    assert note.startswith("a proxy is set: NO_PROXY also names the services of the cluster")
    spec, platform = yaml.safe_load_all((tmp_path / "pipeline.yaml").read_text())
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    for name, (component, container) in shared_implementations(spec).items():
        pod = build_pod(name.lower(), container, component, "{}", executors[component["executorLabel"]])
        kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)
        assert pod_errors(pod["spec"]) == []
        (main,) = pod["spec"]["containers"]
        variables = {item["name"]: expand(item.get("value", ""), {"HOME": "/root"}) for item in main["env"]}
        assert variables["PRICE"] == "5$$ $(HOME)"
        assert ".svc.cluster.local" in variables["NO_PROXY"]
        assert main["resources"]["limits"]["amd.com/gpu"] == ("2" if name == "Trainer" else "1")


def test_texts_reach_the_components_as_they_were_written(tmp_path):
    path = "/data/$$ and $(HOME)"
    content = {"name": "few-digits", "data": {"path": path}, "kubeflow": KUBEFLOW}
    (tmp_path / "config.yaml").write_text(json.dumps(content))
    compile_pipeline(load_config(tmp_path / "config.yaml"), tmp_path / "pipeline.yaml")
    file = read_pipeline_file(tmp_path / "pipeline.yaml")
    assert expand(file.values()["data_path"], {"HOME": "/root"}) == path
    assert expand(file.values(["data_path=/x/$$"])["data_path"], {}) == "/x/$$"
    spec = next(yaml.safe_load_all((tmp_path / "pipeline.yaml").read_text()))
    for container in containers(spec).values():
        assert [text for text in container["args"] if "$" in text] == ["{{$}}"]


def test_a_name_of_63_characters_is_compiled(config, tmp_path):
    compile_pipeline(load_config(config, overrides=[f"name={'x' * 63}"]), tmp_path / "pipeline.yaml")
    assert lint(tmp_path / "pipeline.yaml") == []


def test_images_to_be_scored_must_be_where_an_engines_workers_are(config, tmp_path):
    overrides = [
        "beam={runner: dataflow, project: p, region: r, temp_location: gs://b/t, sdk_container_image: i}",
        "data.path=gs://b/images",
        "kubeflow.root=gs://b/root",
        "score.path=/data/new",
    ]
    with pytest.raises(UserError, match=r"score\.path: /data/new is in the component's container"):
        compile_pipeline(load_config(config, overrides=overrides), tmp_path / "pipeline.yaml")


def test_vertex_ai_is_told_to_have_no_secrets(config, tmp_path):
    notes = compile_pipeline(load_config(config, overrides=["kubeflow.root=gs://bucket/root"]), tmp_path / "job.json", "vertex")
    assert notes == [f"kubeflow.{key}: left out, for Vertex AI knows none" for key in ("secrets", "volumes")]


def test_the_compiled_digits_are_at_most_45_kb(tmp_path):
    config = load_config(Path("configs/digits.yaml"), overrides=["kubeflow.state=/data/state", f"kubeflow.volumes={VOLUMES}"])
    compile_pipeline(config, tmp_path / "pipeline.yaml")
    assert (tmp_path / "pipeline.yaml").stat().st_size <= 45_000


def test_runtime_parameters_have_the_configurations_values(documents):
    spec = documents[0]
    parameters = spec["root"]["inputDefinitions"]["parameters"]
    assert {name: item["defaultValue"] for name, item in parameters.items()} == {
        "data_path": "/data/images",
        "train_epochs": 10,
        "thresholds": '[{"metric": "accuracy", "lower": 0.9}]',
    }
    assert spec["defaultPipelineRoot"] == "s3://bucket/root"
    takers = [
        name
        for name, task in spec["root"]["dag"]["tasks"].items()
        if {"componentInputParameter": "data_path"} in task["inputs"].get("parameters", {}).values()
    ]
    assert takers == ["ImageExampleGen", "LabelCheck", "Lookup"]


def test_all_but_the_lookups_may_come_from_the_cache_and_depend_on_what_it_found(documents, config):
    tasks = documents[0]["root"]["dag"]["tasks"]
    assert [name for name, task in tasks.items() if not task["cachingOptions"]] == ["Baseline", "Lookup", "Pusher"]
    readers = {
        name: parameter["taskOutputParameter"]["outputParameterKey"]
        for name, task in tasks.items()
        for parameter in task["inputs"]["parameters"].values()
        if "taskOutputParameter" in parameter
    }
    expected = {"ImageExampleGen": "data_fingerprint", "ExampleValidator": "last_statistics", "Evaluator": "baseline"}
    assert readers == expected
    path = config.with_name("uncached.yaml")
    compile_pipeline(load_config(config, overrides=["kubeflow.cache=false"]), path)
    assert "enableCache" not in path.read_text()


@pytest.fixture(scope="module")
def start(config):
    """The configuration with a start from an earlier model."""

    def start(*overrides: str) -> Config:
        return load_config(config, overrides=["tune.enabled=false", *overrides])

    return start


@pytest.mark.parametrize(("named", "folder"), [("blessed", "/data/state/few-digits/pushed"), ("/data/models", "/data/models")])
def test_the_trainer_depends_on_the_model_that_it_starts_from(config, start, named, folder):
    path = config.with_name("warm.yaml")
    compile_pipeline(start(f"train.warm_start={named}"), path)
    assert lint(path) == []
    tasks = next(yaml.safe_load_all(path.read_text()))["root"]["dag"]["tasks"]
    assert tasks["Lookup"]["inputs"]["parameters"]["base_model"]["runtimeValue"]["constant"] == folder
    given = tasks["Trainer"]["inputs"]["parameters"]
    assert given["base_model"]["taskOutputParameter"] == {"producerTask": "Lookup", "outputParameterKey": "base_model"}
    assert json.loads(given["custom_config"]["runtimeValue"]["constant"])["base_model"] == folder
    assert "Lookup" in tasks["Trainer"]["dependentTasks"]
    with pytest.raises(UserError, match=r"train\.warm_start: must be absolute"):
        compile_pipeline(start("train.warm_start=pushed/1"), path)


def test_vertex_ai_does_not_cache_a_training_that_starts_from_a_model(config, start):
    path = config.with_name("warm.json")
    compile_pipeline(start("kubeflow.root=gs://bucket/root", "train.warm_start=blessed"), path, "vertex")
    assert not json.loads(path.read_text())["pipelineSpec"]["root"]["dag"]["tasks"]["Trainer"].get("cachingOptions")


def test_the_trainers_container_starts_from_what_lookup_has_found(start, tmp_path):
    def found(named: str, looked_up: str | None) -> str | None:
        configuration = start(f"train.warm_start={named}")
        trainer = trainer_settings(configuration, "", base_model_folder(configuration, str(tmp_path / "pushed")))
        parameters = {"train_epochs": 3, "custom_config": pack(trainer)} | ({"base_model": looked_up} if looked_up else {})
        _take_runtime_parameters(parameters)
        assert parameters.keys() == {"custom_config"}
        return json.loads(parameters["custom_config"])["base_model"]

    assert found("blessed", "none") is None
    assert found("blessed", "/data/pushed/17 abc") == found("/data/pushed", "/data/pushed/17 abc") == "/data/pushed/17"
    assert found("blessed", None) is None  # on Vertex AI, where the container looks itself
    version = push(save_model(tmp_path / "model", "a"), str(tmp_path / "pushed"), Record(), None)
    assert found("blessed", None) == version.path
    with pytest.raises(UserError, match=r"train\.warm_start: /data/pushed: no SavedModel here"):
        found("/data/pushed", "none")


def test_a_sample_data_set_is_written_where_it_is_read(config):
    path = config.with_name("sample.yaml")
    overrides = ["data.path=data/digits", "data.sample=digits"]
    compile_pipeline(load_config(config, overrides=overrides), path)
    spec = next(yaml.safe_load_all(path.read_text()))
    assert spec["root"]["inputDefinitions"]["parameters"]["data_path"]["defaultValue"] == "/tmp/data/digits"
    written = [name for name, container in containers(spec).items() if container["args"][-2:] == ["--sample", "digits"]]
    assert written == ["ImageExampleGen", "Lookup"]


def test_vertex_ai_gets_one_document_with_its_driver(config):
    path = config.with_name("job.json")
    compile_pipeline(load_config(config, overrides=["kubeflow.root=gs://bucket/root"]), path, "vertex")
    job = json.loads(path.read_text())
    json_format.ParseDict(job, pipeline_spec_pb2.PipelineJob())
    assert job["runtimeConfig"]["gcsOutputDirectory"] == "gs://bucket/root"
    assert job["runtimeConfig"]["parameterValues"]["train_epochs"] == 10
    found = containers(job["pipelineSpec"])
    assert "--driver" in found["ImageExampleGen"]["lifecycle"]["preCacheCheck"]["command"]
    assert found["Trainer"]["resources"]["accelerator"] == {"type": "nvidia.com/gpu", "count": "2"}
    assert not {"Lookup", "Baseline"} & set(found)
    with pytest.raises(UserError, match=r"kubeflow\.root: Vertex AI writes to gs://"):
        compile_pipeline(load_config(config), path, "vertex")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.path=images", r"data\.path: must be absolute"),
        ("data.schema=schema.pbtxt", r"data\.schema: must be absolute"),
        ("model.weights=weights.h5", r"model\.weights: must be absolute"),
        ("train.teacher=pushed/1", r"train\.teacher: must be absolute"),
        ("kubeflow.state=null", r"kubeflow\.state: is missing"),
        ("kubeflow.state=/elsewhere", r"kubeflow\.state: must be on one of kubeflow\.volumes \(/data\)"),
        ("kubeflow.pod.cpu_request=9", r"kubeflow\.pod: cpu_request \(9\) must not be above cpu_limit \(4\)"),
        ("kubeflow.components.Trainr={gpus: 1}", "Trainr"),
        ("kubeflow.volumes=[{claim: fpn.data, path: /data}]", r"volumes and secrets: the claim 'fpn.data' can't be mounted"),
        ("kubeflow.volumes=[{claim: keys, path: /data}, {claim: files, path: /x}]", "'files' names a claim and a secret"),
        ("kubeflow.volumes=[{claim: shared-memory, path: /data}]", "'shared-memory' names a claim and a folder"),
        ("kubeflow.secrets=[{name: My_Keys, path: /keys}]", r"kubeflow\.secrets\.0\.name"),
        ("kubeflow.pod.env.AWS_ACCESS_KEY_ID=x", "AWS_ACCESS_KEY_ID comes from a secret and from elsewhere as well"),
        ("kubeflow.pod.env={A=B: x}", r"kubeflow\.pod\.env"),
        ("kubeflow.pod.tolerations=[{operator: Exists, value: x}]", "operator Exists takes no value"),
        ("kubeflow.pod.tolerations=[{value: x}]", "operator Equal needs a key"),
        (f"name={'x' * 64}", "name: .*at most 63 characters"),
        ("kubeflow.state=state", r"kubeflow\.state: must be on one of kubeflow\.volumes \(/data\)"),
        ("kubeflow.state=s3://bucket/state", r"kubeflow\.state: must be on one of kubeflow\.volumes"),
        ("push.path=models", r"push\.path: must be on one of kubeflow\.volumes \(/data\) or gs://, is models"),
        ("push.path=/elsewhere/models", r"push\.path: must be on one of kubeflow\.volumes"),
        ("data.path=/data/{{workflow.name}}", "double braces can't be in a value on Kubeflow"),
        ("kubeflow.root=s3:///p", r"kubeflow\.root"),
        ("kubeflow.root=minio://b/$(X)", r"kubeflow\.root"),
        ("kubeflow.image=", r"kubeflow\.image"),
        ("kubeflow.secrets=[{name: keys, env: {A: a b/c}}]", r"kubeflow\.secrets\.0\.env"),
        ("kubeflow.secrets=[{name: keys, env: {NO_PROXY: x}}]", "NO_PROXY can't come from a secret; write it into pod.env"),
        ("kubeflow.components.Trainer={memory_limit: 1Mi}", r"components\.Trainer: memory_request \(1Gi\) must not be above"),
    ],
)
def test_what_can_not_work_in_a_cluster_is_said_at_once(config, tmp_path, override, message):
    with pytest.raises(UserError, match=message):
        compile_pipeline(load_config(config, overrides=[override]), tmp_path / "pipeline.yaml")


@pytest.mark.parametrize("log", ["executor-logs", "executor-logs-0"])
def test_types_are_filled_in_the_log_is_dropped_and_uris_become_paths(tmp_path, log):
    uri = "s3://bucket/root/run/Trainer/1"
    invocation = {
        "inputs": {"artifacts": {"examples": {"artifacts": [{"uri": "minio://b/x", "type": {"instanceSchema": ""}}]}}},
        "outputs": {
            "artifacts": {
                "model": {"artifacts": [{"uri": f"{uri}/model", "type": {"schemaTitle": "tfx.Model"}}]},
                log: {"artifacts": [{"uri": f"{uri}/executor-logs-0"}]},
            },
            "outputFile": "/tmp/kfp_outputs/output_metadata.json",
        },
    }
    inputs_spec = {"artifacts": {"examples": {"artifactType": {"schemaTitle": "tfx.Examples"}}}}
    locations = _Locations(argparse.Namespace(local_root=str(tmp_path), direct_gcs=False))
    work = _prepare(invocation, inputs_spec, locations)
    (examples,) = invocation["inputs"]["artifacts"]["examples"]["artifacts"]
    assert examples == {"uri": str(tmp_path / "minio/b/x"), "type": {"schemaTitle": "tfx.Examples"}}
    assert list(invocation["outputs"]["artifacts"]) == ["model"]
    (model,) = invocation["outputs"]["artifacts"]["model"]["artifacts"]
    local = tmp_path / "s3/bucket/root/run/Trainer/1"
    assert model["uri"] == str(local / "model")
    assert (local / "model").is_dir()
    assert Path(work).parent == local
    assert locations.remote({"uri": model["uri"], "of": [examples["uri"], 1]}) == {
        "uri": f"{uri}/model",
        "of": ["minio://b/x", 1],
    }
    assert locations.local("gs://bucket/x") == str(tmp_path / "gcs/bucket/x")
    assert locations.remote(str(tmp_path / "gcs/bucket/x")) == "gs://bucket/x"
    direct = _Locations(argparse.Namespace(local_root=str(tmp_path), direct_gcs=True))
    assert direct.local("gs://bucket/x") == direct.remote("gs://bucket/x") == "gs://bucket/x"


def test_runtime_parameters_reach_the_executors():
    config = Config.model_validate({"name": "x", "data": {"path": "."}, "train": {"epochs": 10, "seed": 1}})
    given = as_dict(trainer_settings(config, checkpoints="/state/checkpoints"))
    trainer = {"custom_config": json.dumps(given), "train_epochs": 3.0}
    _take_runtime_parameters(trainer)
    assert json.loads(trainer.pop("custom_config")) == {**given, "train": {**given["train"], "epochs": 3}}
    assert not trainer
    section = EvaluateConfig(metrics=["accuracy"], slices=[])
    settings = pack(evaluation_settings(section, False, ["test"], judged=True))
    wanted = [{"metric": "f1", "lower": 0.5, "slice": {"meta/site": "a"}}]
    evaluator = {"settings": settings, "thresholds": json.dumps(wanted), "baseline": "none"}
    _take_runtime_parameters(evaluator)
    changed = json.loads(evaluator["settings"])
    assert changed["thresholds"][0]["lower"] == 0.5
    assert (changed["metrics"], changed["slices"]) == (["accuracy", "balanced_accuracy", "f1"], [["meta/site"]])
    assert "meta/site" in evaluator["eval_config"]
    evaluator = {"settings": json.dumps(changed), "thresholds": "[]"}
    _take_runtime_parameters(evaluator)  # the default again
    assert json.loads(evaluator["settings"]) == {**changed, "thresholds": []}
    for name, wrong in (("train_epochs", 0), ("thresholds", "accuracy"), ("thresholds", '[{"metric": "accuracy"}]')):
        with pytest.raises(UserError, match=f"^{name}: "):
            _take_runtime_parameters({"settings": settings, name: wrong})


def test_a_mistake_in_the_input_is_the_last_line_of_the_log(tmp_path, capfd):
    settings = pack(source_settings(DataConfig(path="")))
    parameters = {"input_base": "/no/such/folder", "settings": settings, "state": str(tmp_path)}
    invocation = {
        "inputs": {"parameterValues": parameters},
        "outputs": {"parameters": {"data_fingerprint": {"outputFile": str(tmp_path / "fingerprint")}}},
    }
    assert main(["--lookup", "--json_serialized_invocation_args", json.dumps(invocation)]) == 2
    assert capfd.readouterr().err.splitlines()[-1].startswith("fpn: /no/such/folder: no such folder; give a folder")


def test_images_to_be_answered_get_tasks_of_their_own(config):
    path = config.with_name("scored.yaml")
    compile_pipeline(load_config(config, overrides=["score.path=/data/new"]), path)
    spec = next(yaml.safe_load_all(path.read_text()))
    tasks = spec["root"]["dag"]["tasks"]
    assert tasks["ScoreExampleGen"]["inputs"]["parameters"]["input_base"] == {"runtimeValue": {"constant": "/data/new"}}
    assert tasks["ScoreExampleGen"]["cachingOptions"] == {}  # nobody looks whether images were added
    producers = {
        key: item["taskOutputArtifact"]["producerTask"] for key, item in tasks["BulkInferrer"]["inputs"]["artifacts"].items()
    }
    assert producers["examples"] == "ScoreExampleGen"
    assert producers["model_blessing"] == "Evaluator"
    assert containers(spec)["BulkInferrer"]["resources"]["resourceCpuLimit"] == "4"
    assert [str(breach) for breach in lint(path)] == []
    with pytest.raises(UserError, match=r"score\.path: must be absolute"):
        compile_pipeline(load_config(config, overrides=["score.path=new"]), path)


def test_the_baseline_is_the_served_model_other_than_the_candidate(tmp_path):
    invocation = {
        "inputs": {
            "parameterValues": {"push_folder": str(tmp_path / "pushed")},
            "artifacts": {"model": {"artifacts": [{"uri": "s3://bucket/model"}]}},
        },
        "outputs": {"parameters": {"baseline": {"outputFile": str(tmp_path / "found" / "baseline")}}},
    }
    arguments = ["--lookup", "--json_serialized_invocation_args", json.dumps(invocation), "--local_root", str(tmp_path)]
    found = []
    pushed = []
    for folder, weights in (("s3/bucket/model/Format-Serving", "new"), ("old", "old"), ("new", "new")):
        for name, text in (("variables/variables.index", weights), ("assets/labels", "cat"), ("saved_model.pb", "graph")):
            (tmp_path / folder / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / name).write_text(text)
        if not folder.startswith("s3"):
            pushed.append(push(str(tmp_path / folder), str(tmp_path / "pushed"), Record(), None))
        assert main(arguments) == 0
        found.append((tmp_path / "found" / "baseline").read_text())
    first = f"{pushed[0].path} {pushed[0].record.digest}"
    assert found == ["none", first, first]
