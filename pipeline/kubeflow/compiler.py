"""Compiles the pipeline into the file that Kubeflow Pipelines (2.x) or Vertex AI Pipelines runs.

TFX's compiler makes the tasks and their connections. This module adds what open-source Kubeflow Pipelines needs beyond that:
runtime parameters with defaults, resources, images, the container's own entry point, and the second document with settings
that only Kubernetes has. It also adds two tasks that report what exists outside the run, so that the backend's cache notices
changes there: Lookup, the first task, reports the data and the last statistics; Baseline, after the training, reports the
model that is served where the run pushes to. The Pusher is never taken from the cache, either.
"""

import copy
import importlib
import json
import os
from pathlib import Path
from typing import Any, Final

import yaml

from base.errors import UserError
from base.local_files import write_text
from images.dataset.source import root_of
from pipeline.config.choices import ComponentName, PipelineName, Target
from pipeline.config.kubeflow import KubeflowConfig, PodConfig, quantity
from pipeline.config.network import BLESSED
from pipeline.config.pods import SHARED_MEMORY, environment, escaped, has_proxy
from pipeline.config.whole import Config
from pipeline.dag.beam import check_engine_of_containers
from pipeline.dag.component_settings import base_model_folder
from pipeline.dag.workers import check_workers
from pipeline.kubeflow.monitor import MONITOR, build_spec

COMMAND: Final = ["python", "-m", "pipeline.kubeflow.entrypoint"]
LOOKUP: Final[ComponentName] = "Lookup"
BASELINE: Final[ComponentName] = "Baseline"
# Runtime parameter -> its type, and for each task that takes it, as far as the pipeline has it, the key of the task's input.
_RUNTIME_PARAMETERS: Final[dict[str, tuple[str, dict[ComponentName, str]]]] = {
    "data_path": ("STRING", {"ImageExampleGen": "input_base", "LabelCheck": "data"}),
    "train_epochs": ("NUMBER_INTEGER", {"Trainer": "train_epochs"}),
    "thresholds": ("STRING", {"Evaluator": "thresholds"}),
}
# Task that looks up -> its outputs: the task that takes each one, where it is part of the cache key, and the key of the input.
_LOOKED_UP: Final[dict[ComponentName, dict[str, tuple[ComponentName, str]]]] = {
    LOOKUP: {
        "data_fingerprint": ("ImageExampleGen", "input_fingerprint"),
        "last_statistics": ("ExampleValidator", "last_statistics"),
    },
    BASELINE: {"baseline": ("Evaluator", "baseline")},
}
# Of Lookup, too, if training starts from an earlier model.
_BASE_MODEL: Final[dict[str, tuple[ComponentName, str]]] = {"base_model": ("Trainer", "base_model")}
_READERS: Final[tuple[ComponentName, ...]] = ("ExampleValidator", "Evaluator")
_TRAINING: Final[tuple[ComponentName, ...]] = ("Tuner", "Trainer")
_SCORE_INGESTION: Final[ComponentName] = "ScoreExampleGen"
_PLACEHOLDER: Final = "{{$"
_INVOCATION: Final = "{{$}}"  # the launcher puts the ExecutorInput in its place


def compile_pipeline(
    config: Config, output: Path, target: Target = "kubeflow", pipeline: PipelineName = "training"
) -> list[str]:
    """Writes a compiled pipeline. Needs no cluster and no credentials, and opens no data.

    Args:
      config: the whole configuration.
      output: file to write: for Kubeflow, YAML with two documents; for Vertex AI, one YAML document, or a whole PipelineJob if
        the name ends with .json.
      target: where it will run.
      pipeline: which one.

    Returns:
      What the user should know about the compiled pipeline, as sentences.

    Raises:
      UserError: containers or Beam's workers can't reach a path, or the file's name does not fit.
    """
    suffixes = (".yaml", ".yml", ".json") if target == "vertex" else (".yaml", ".yml")
    if output.suffix not in suffixes:
        raise UserError(f"{output}: give --output a name that ends in {' or '.join(suffixes)}")
    job = build_job(config, target) if pipeline == "training" else build_monitor(config, target)
    if output.suffix == ".json":
        text = json.dumps(job, indent=2) + "\n"
    else:
        documents = [job["pipelineSpec"]]
        if target == "kubeflow":
            documents.append({"platforms": {"kubernetes": {"deploymentSpec": {"executors": _platform(config, job)}}}})
        text = yaml.dump_all(documents, Dumper=_Dumper, allow_unicode=True, width=120)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_text(output, text)
    except OSError as error:
        raise UserError(f"{output}: can't be written ({error.strerror}); give another --output") from error
    return _notes(config, target)


def _notes(config: Config, target: Target) -> list[str]:
    settings = config.kubeflow
    if target == "vertex":
        left_out = [key for key in ("secrets", "volumes", "image_pull_secrets") if getattr(settings, key)]
        return [f"kubeflow.{key}: left out, for Vertex AI knows none" for key in left_out]
    pods = [settings.pod, *map(settings.pod_of, settings.components)]
    if any(has_proxy(pod.env, settings.secret_variables) for pod in pods):
        return [
            "a proxy is set: NO_PROXY also names the services of the cluster, which Kubeflow's launcher must reach by itself; "
            "add the host of your own object store to it if that is not behind the proxy"
        ]
    return []


def build_job(config: Config, target: Target = "kubeflow") -> dict[str, Any]:
    """The compiled pipeline as a PipelineJob in JSON; see `compile_pipeline`."""
    data_path = _data_path(config)
    _check_paths(config, data_path)
    state = state_folder(config)
    read = {"data.path": data_path, "score.path": config.score.path}
    check_engine_of_containers(config.beam, {key: root_of(path) for key, path in read.items() if path}, config.kubeflow.root)
    if target == "vertex" and not config.kubeflow.root.startswith("gs://"):
        raise UserError(f"kubeflow.root: Vertex AI writes to gs:// alone, is {config.kubeflow.root}")
    if target == "vertex" and config.kubeflow.trainer_workers > 1:
        raise UserError("kubeflow.trainer_workers: Vertex AI Pipelines has no JobSets; set it to 1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")  # nothing is computed here
    runner = importlib.import_module("tfx.orchestration.kubeflow.v2.kubeflow_v2_dag_runner")
    if config.kubeflow.trainer_workers > 1:
        check_workers(config, config.kubeflow.trainer_workers * max(1, config.kubeflow.pod_of("Trainer").gpus))
    from components.earlier_runs.state_folder import pushed_folder
    from pipeline.dag.pipeline import NEVER_CACHED, create_pipeline

    push_folder = config.push.path or pushed_folder(state)
    pipeline = create_pipeline(config, pipeline_root=config.kubeflow.root, push_folder=push_folder, state=state)
    pipeline.enable_cache = config.kubeflow.cache
    settings = runner.KubeflowV2DagRunnerConfig(
        default_image=config.kubeflow.image, default_commands=COMMAND, use_pipeline_spec_2_1=True
    )
    job = runner.KubeflowV2DagRunner(settings).run(pipeline, write_out=False)
    spec = job["pipelineSpec"]
    spec["defaultPipelineRoot"] = config.kubeflow.root
    if target == "kubeflow":
        _add_lookups(spec, state, push_folder, base_model_folder(config, push_folder))
    else:  # what they find outside of the run is not part of their cache keys
        for task in (*_READERS, *(["Trainer"] if config.train.warm_start else [])):
            spec["root"]["dag"]["tasks"][task].pop("cachingOptions", None)
    for task in NEVER_CACHED:
        spec["root"]["dag"]["tasks"][task]["cachingOptions"] = {}
    if config.score.path and target == "kubeflow":
        spec["root"]["dag"]["tasks"][_SCORE_INGESTION]["cachingOptions"] = {}  # no cache: nothing notices new images
    _add_parameters(spec, config, data_path)
    _name_types(spec)
    for name, component in spec["components"].items():
        container = spec["deploymentSpec"]["executors"][component["executorLabel"]]["container"]
        # The backend knows a component by its container: if two are equal, it takes the first component for both.
        container["args"] += ["--component", name]
        if target == "vertex" or config.beam.runner != "local":
            container["args"].append("--direct_gcs")
        _finish_arguments(container, component, config.data.sample if name != _SCORE_INGESTION else None)
        _finish_driver(container, target)
        if name == "Trainer" and config.kubeflow.trainer_workers > 1:
            container["args"] += ["--trainer_pods", config.kubeflow.model_dump_json()]
        _equip(container, config.kubeflow.task_pod_of(name), config.kubeflow, target)
    if target == "kubeflow":
        _escape_values(spec)
    values = {name: item["defaultValue"] for name, item in spec["root"]["inputDefinitions"]["parameters"].items()}
    job["runtimeConfig"] = {"gcsOutputDirectory": config.kubeflow.root, "parameterValues": values}
    return job


def build_monitor(config: Config, target: Target = "kubeflow") -> dict[str, Any]:
    """The compiled pipeline that monitors what `config` pushes, as `build_job` gives it."""
    if target != "kubeflow":
        raise UserError("--pipeline monitor: runs on Kubeflow Pipelines alone, for Vertex AI has no volumes")
    state = state_folder(config)
    from components.earlier_runs.state_folder import pushed_folder

    name = f"{config.name}-monitor"
    spec = build_spec(name, config.kubeflow.root, config.push.path or pushed_folder(state), f"{state}/captured")
    for executor in spec["deploymentSpec"]["executors"].values():
        _equip(executor["container"], config.kubeflow.pod_of(MONITOR), config.kubeflow, target)
    _escape_values(spec)
    return {"pipelineSpec": spec}


def _equip(container: dict[str, Any], pod: PodConfig, settings: KubeflowConfig, target: Target) -> None:
    """Gives a container its image, resources and environment."""
    container["image"] = settings.gpu_image if pod.gpus else settings.image
    container["resources"] = _resources(pod, target)
    variables = environment(pod.env, settings.secret_variables) if target == "kubeflow" else pod.env
    if variables:
        container["env"] = [{"name": key, "value": value} for key, value in variables.items()]


def state_folder(config: Config) -> str:
    """The folder for what must outlive a run: `NAME` below `kubeflow.state`.

    Raises:
      UserError: containers can't reach the folder, or it disappears with them.
    """
    settings = config.kubeflow
    folder = settings.state or (
        f"{settings.root.partition('?')[0].rstrip('/')}/state" if settings.root.startswith("gs://") else None
    )
    if folder is None:
        raise UserError(
            "kubeflow.state: is missing; name a folder on one of kubeflow.volumes, or gs://, for pushed models and checkpoints"
        )
    if not folder.startswith("gs://"):
        _check_volume("kubeflow.state", folder, settings)
    return f"{folder.rstrip('/')}/{config.name}"


def _check_volume(key: str, folder: str, settings: KubeflowConfig) -> None:
    if not any(_is_below(folder, volume.path) for volume in settings.volumes):
        known = ", ".join(volume.path for volume in settings.volumes) or "none"
        raise UserError(f"{key}: must be on one of kubeflow.volumes ({known}) or gs://, is {folder}")


class _Dumper(yaml.SafeDumper):
    """Quotes texts that begin like a number: the backend reads some of them, such as 1e3, as numbers, but Python does not."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="'" if text[:1] in "+-.0123456789" else None)


_Dumper.add_representer(str, _represent_text)


def _is_below(path: str, folder: str) -> bool:
    inner, outer = os.path.normpath(path), os.path.normpath(folder)
    return os.path.isabs(path) and os.path.commonpath([inner, outer]) == outer


def _data_path(config: Config) -> str:
    path = config.data.path
    # Each container that reads a built-in data set first writes it.
    return f"/tmp/{path}" if config.data.sample and not _is_reachable(path) else path


def _check_paths(config: Config, data_path: str) -> None:
    """Finds paths that containers can't reach, and a folder for pushed models that goes with them."""
    needed = [
        ("data.path", data_path),
        ("data.schema", config.data.schema_file),
        ("score.path", config.score.path),
        ("train.teacher", config.train.teacher),
        ("train.warm_start", config.train.warm_start if config.train.warm_start != BLESSED else None),
    ]
    for name, weights in config.networks():
        preset = name.partition("hub:")[2]
        if "/" in preset or os.path.exists(preset):  # and not a name that keras-hub knows
            needed.append(("model.backbone", preset))
        if weights not in ("none", "imagenet", "preset"):
            needed.append(("model.weights", weights))
    for key, value in needed:
        if value and not _is_reachable(value):
            raise UserError(f"{key}: must be absolute, on one of kubeflow.volumes, or a URI such as gs://; is {value}")
    pushed = config.push.path
    if pushed and "://" not in pushed:
        _check_volume("push.path", pushed, config.kubeflow)


def _is_reachable(path: str) -> bool:
    return "://" in root_of(path) or os.path.isabs(path)


def _add_lookups(spec: dict[str, Any], state: str, push_folder: str, base_model: str | None) -> None:
    """Adds the tasks Lookup and Baseline, and passes their outputs to the tasks that depend on what they find."""
    from components.image_example_gen.executor import unpack_settings
    from models.packing import pack

    components, tasks = spec["components"], spec["root"]["dag"]["tasks"]
    ingestion = tasks["ImageExampleGen"]["inputs"]["parameters"]
    settings = unpack_settings({key: item["runtimeValue"]["constant"] for key, item in ingestion.items()})
    data = {
        "input_base": {"componentInputParameter": "data_path"},
        "settings": {"runtimeValue": {"constant": pack(settings)}},
        "state": {"runtimeValue": {"constant": state}},
    }
    looked_up = _LOOKED_UP[LOOKUP]
    if base_model:
        data["base_model"] = {"runtimeValue": {"constant": base_model}}
        looked_up = looked_up | _BASE_MODEL
    _add_lookup(spec, LOOKUP, {"parameters": data}, looked_up)
    model = {"taskOutputArtifact": {"producerTask": "Trainer", "outputArtifactKey": "model"}}
    folder = {"push_folder": {"runtimeValue": {"constant": push_folder}}}
    _add_lookup(spec, BASELINE, {"parameters": folder, "artifacts": {"model": model}}, _LOOKED_UP[BASELINE])
    components[BASELINE]["inputDefinitions"]["artifacts"] = {
        "model": copy.deepcopy(components["Trainer"]["outputDefinitions"]["artifacts"]["model"])
    }
    tasks[BASELINE]["dependentTasks"] = ["Trainer"]


def _add_lookup(
    spec: dict[str, Any], name: ComponentName, inputs: dict[str, Any], outputs: dict[str, tuple[ComponentName, str]]
) -> None:
    components, tasks = spec["components"], spec["root"]["dag"]["tasks"]
    label = f"{name}_executor"
    components[name] = {
        "executorLabel": label,
        "inputDefinitions": {"parameters": {key: {"parameterType": "STRING"} for key in inputs["parameters"]}},
        "outputDefinitions": {"parameters": {key: {"parameterType": "STRING"} for key in outputs}},
    }
    tasks[name] = {
        "taskInfo": {"name": name},
        "componentRef": {"name": name},
        "cachingOptions": {},  # no cache: it must look each time
        "inputs": inputs,
    }
    spec["deploymentSpec"]["executors"][label] = {
        "container": {"command": COMMAND, "args": ["--lookup", "--json_serialized_invocation_args", _INVOCATION]}
    }
    for output, (task, key) in outputs.items():
        components[task]["inputDefinitions"]["parameters"][key] = {"parameterType": "STRING"}
        tasks[task]["inputs"]["parameters"][key] = {"taskOutputParameter": {"producerTask": name, "outputParameterKey": output}}
        tasks[task]["dependentTasks"] = sorted({*tasks[task].get("dependentTasks", []), name})


def _add_parameters(spec: dict[str, Any], config: Config, data_path: str) -> None:
    """Declares the runtime parameters; TFX's compiler would declare them without defaults."""
    thresholds = [threshold.model_dump(exclude_defaults=True) for threshold in config.evaluate.thresholds or ()]
    defaults = {"data_path": data_path, "train_epochs": config.train.epochs, "thresholds": json.dumps(thresholds)}
    declared = {}
    for name, (kind, takers) in _RUNTIME_PARAMETERS.items():
        declared[name] = {"parameterType": kind, "defaultValue": defaults[name]}
        for task, key in takers.items():
            if task not in spec["components"]:
                continue
            spec["components"][task]["inputDefinitions"]["parameters"][key] = {"parameterType": kind}
            spec["root"]["dag"]["tasks"][task]["inputs"]["parameters"][key] = {"componentInputParameter": name}
    spec["root"]["inputDefinitions"] = {"parameters": declared}


def _name_types(spec: dict[str, Any]) -> None:
    """Gives artifact types by title, the only form that kfp's own readers understand."""
    for component in spec["components"].values():
        for side in ("inputDefinitions", "outputDefinitions"):
            for artifact in component.get(side, {}).get("artifacts", {}).values():
                title = yaml.safe_load(artifact["artifactType"]["instanceSchema"])["title"]
                artifact["artifactType"] = {"schemaTitle": title, "schemaVersion": "0.0.1"}


def _finish_arguments(container: dict[str, Any], component: dict[str, Any], sample: str | None) -> None:
    """Gives the entry point the component's inputs, and the name of a data set that the pipeline writes by itself."""
    arguments = container["args"]
    flag = "--json_serialized_inputs_spec_args"
    if flag in arguments:
        arguments[arguments.index(flag) + 1] = json.dumps(component["inputDefinitions"], sort_keys=True)
    if sample and "input_base" in component.get("inputDefinitions", {}).get("parameters", {}):
        arguments += ["--sample", sample]


def _finish_driver(container: dict[str, Any], target: Target) -> None:
    """Sets up the ExampleGen's driver, which Vertex AI runs before it asks its cache; Kubeflow Pipelines has no drivers."""
    if "lifecycle" not in container:
        return
    if target == "kubeflow":
        del container["lifecycle"]
    else:
        container["lifecycle"]["preCacheCheck"] = {"command": [*COMMAND, "--driver"], "args": container["args"]}


def _escape_values(spec: dict[str, Any]) -> None:
    """Escapes values in the containers' arguments, where Kubernetes would change `$$` and `$(NAME)`."""
    for task in spec["root"]["dag"]["tasks"].values():
        for parameter in task["inputs"].get("parameters", {}).values():
            if isinstance(value := parameter.get("runtimeValue", {}).get("constant"), str):
                parameter["runtimeValue"]["constant"] = escaped(value)
    for parameter in spec["root"]["inputDefinitions"]["parameters"].values():
        if isinstance(parameter["defaultValue"], str):
            parameter["defaultValue"] = escaped(parameter["defaultValue"])
    for executor in spec["deploymentSpec"]["executors"].values():
        container = executor["container"]
        container["args"] = [text if text.startswith(_PLACEHOLDER) else escaped(text) for text in container["args"]]


def _resources(pod: PodConfig, target: Target) -> dict[str, Any]:
    """Resources of a container: as numbers (of cores, and of 10^9 bytes), and for Kubeflow Pipelines also as quantities.

    Older backends of Kubeflow Pipelines read the numbers.
    """
    resources: dict[str, Any] = {}
    for bound in ("request", "limit"):
        cpu, memory = getattr(pod, f"cpu_{bound}"), getattr(pod, f"memory_{bound}")
        resources[f"cpu{bound.title()}"] = quantity(cpu)
        resources[f"memory{bound.title()}"] = quantity(memory) / 1e9
        if target == "kubeflow":
            resources[f"resourceCpu{bound.title()}"] = cpu
            resources[f"resourceMemory{bound.title()}"] = memory
    if pod.gpus:
        resources["accelerator"] = {"type": pod.gpu_resource, "count": str(pod.gpus)}
        if target == "kubeflow":
            resources["accelerator"] |= {"resourceType": pod.gpu_resource, "resourceCount": str(pod.gpus)}
    return resources


def _platform(config: Config, job: dict[str, Any]) -> dict[str, Any]:
    """The second document's settings by executor: nodes, secrets, volumes."""
    settings = config.kubeflow
    executors = {}
    for name, component in job["pipelineSpec"]["components"].items():
        pod = settings.task_pod_of(name)
        found: dict[str, Any] = {}
        if pod.node_selector:
            found["nodeSelector"] = {"labels": pod.node_selector}
        if pod.tolerations:
            found["tolerations"] = [{key: value for key, value in item if value} for item in pod.tolerations]
        found["secretAsEnv"] = [
            {
                **_names("secretName", "secretNameParameter", secret.name),
                "keyToEnv": [{"secretKey": key, "envVar": variable} for variable, key in secret.env.items()],
            }
            for secret in settings.secrets
            if secret.env
        ]
        found["secretAsVolume"] = [
            {**_names("secretName", "secretNameParameter", secret.name), "mountPath": secret.path}
            for secret in settings.secrets
            if secret.path
        ]
        found["pvcMount"] = [
            {**_names("constant", "pvcNameParameter", volume.claim), "mountPath": volume.path} for volume in settings.volumes
        ]
        if settings.shared_memory and name in _TRAINING:
            shared = {"volumeName": SHARED_MEMORY.name, "mountPath": SHARED_MEMORY.path, "medium": "Memory"}
            found["emptyDirMounts"] = [{**shared, "sizeLimit": settings.shared_memory}]
        if settings.image_pull_policy:
            found["imagePullPolicy"] = settings.image_pull_policy
        found["imagePullSecret"] = [
            _names("secretName", "secretNameParameter", secret) for secret in settings.image_pull_secrets
        ]
        executors[component["executorLabel"]] = {key: value for key, value in found.items() if value}
    return {label: found for label, found in executors.items() if found}


def _names(old_key: str, new_key: str, name: str) -> dict[str, Any]:
    """A name in two forms: the old key is for backends before 2.5, the new key for later ones."""
    return {old_key: name, new_key: {"runtimeValue": {"constant": name}}}
