"""Checks a compiled pipeline against the rules of Kubeflow Pipelines' backend, which reports many only when tasks start."""

import graphlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from kfp.kubernetes import kubernetes_executor_config_pb2
from kfp.pipeline_spec import pipeline_spec_pb2

from pipeline.config.pods import Mount, volume_errors
from pipeline.kubeflow.file import read_documents

_PIPELINE_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
_LONGEST_NAME = 114  # a version's name is 13 characters longer, and the server takes 127 at most
_TASK_NAME = re.compile(r"[a-zA-Z0-9][-a-zA-Z0-9]*")
_SCHEMA_TITLE = re.compile(r"[A-Za-z]\w*\.[A-Z]\w*")
_ROOT_URI = re.compile(r"(s3|minio|gs)://[^/\s]+\S*")
_PLACEHOLDER = re.compile(r"\{\{\$\.(inputs|outputs)\.(parameters|artifacts)\[['\"]([^'\"]+)['\"]\]")
_TYPE = pipeline_spec_pb2.ParameterType
_KINDS = {  # type of a parameter -> kind of google.protobuf.Value
    _TYPE.NUMBER_DOUBLE: "number_value",
    _TYPE.NUMBER_INTEGER: "number_value",
    _TYPE.STRING: "string_value",
    _TYPE.BOOLEAN: "bool_value",
    _TYPE.LIST: "list_value",
    _TYPE.STRUCT: "struct_value",
}


@dataclass(frozen=True)
class Breach:
    """A rule that the file breaks.

    Attributes:
      rule: name of the rule.
      place: keys in the file that lead to the place, such as "root.dag.tasks.Trainer".
      message: what is wrong, and what would be right.
    """

    rule: str
    place: str
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.rule}: {self.message}"


def lint(path: Path) -> list[Breach]:
    """All breaches in a compiled pipeline; none if the backend would accept it.

    Raises:
      UserError: the file can't be read, or is not YAML.
    """
    documents = read_documents(path)
    if any("pipelineSpec" in item or "pipeline_spec" in item for item in documents):
        message = "the file is a PipelineJob, as for Vertex AI; the backend takes a PipelineSpec in YAML"
        return [Breach("document", "pipelineSpec", message)]
    specs = [item for item in documents if "pipelineInfo" in item or "root" in item]
    platforms = [item for item in documents if "platforms" in item]
    if len(specs) != 1 or len(platforms) > 1 or len(specs) + len(platforms) != len(documents):
        message = f"{len(documents)} documents; there must be one with pipelineInfo and root, and at most one with platforms"
        return [Breach("document", path.name, message)]
    spec, breaches = _parse(specs[0], pipeline_spec_pb2.PipelineSpec(), "")
    if spec is None:
        return breaches
    raw = json_format.MessageToDict(spec.deployment_spec)
    deployment, found = _parse(raw, pipeline_spec_pb2.PipelineDeploymentConfig(), "deploymentSpec")
    breaches += found
    platform = None
    if platforms:
        platform, found = _parse(platforms[0], pipeline_spec_pb2.PlatformSpec(), "platforms")
        breaches += found
    if deployment is not None:
        breaches += _Checker(spec, deployment, platform).check()
    return breaches


def _parse(content: dict[str, Any], message: Any, place: str) -> tuple[Any, list[Breach]]:
    """Parses a protocol buffer as far as it can be read, and returns with it the breaches that a strict reader finds."""
    try:
        return json_format.ParseDict(content, message), []
    except json_format.ParseError as error:
        breach = Breach("protobuf", place or "PipelineSpec", " ".join(str(error).split())[:300])
    message.Clear()
    try:
        return json_format.ParseDict(content, message, ignore_unknown_fields=True), [breach]
    except json_format.ParseError:
        return None, [breach]


class _Checker:
    """Walks a pipeline once and collects breaches."""

    def __init__(self, spec: Any, deployment: Any, platform: Any) -> None:
        self._spec = spec
        self._deployment = deployment
        self._platform = platform
        self._found: list[Breach] = []

    def check(self) -> list[Breach]:
        spec = self._spec
        if spec.schema_version != "2.1.0":
            self._add("schema-version", "schemaVersion", f"must be 2.1.0, is {spec.schema_version or 'missing'}")
        name = spec.pipeline_info.name
        if not _PIPELINE_NAME.fullmatch(name):
            self._add("pipeline-name", "pipelineInfo.name", f"must be lower-case letters, digits and hyphens, is {name!r}")
        if len(name) > _LONGEST_NAME:
            message = f"has {len(name)} characters; at most {_LONGEST_NAME} leave room for the name of a version"
            self._add("pipeline-name", "pipelineInfo.name", message)
        root = spec.default_pipeline_root
        if not _ROOT_URI.fullmatch(root):
            fault = f"is {root!r}" if root else "is missing"
            self._add("pipeline-root", "defaultPipelineRoot", f"{fault}; set it to a URI such as s3://bucket/folder")
        if spec.root.WhichOneof("implementation") != "dag":
            self._add("root", "root", "has no dag of tasks")
        else:
            self._check_runtime_parameters()
            self._check_dag("root", spec.root)
        for key, component in spec.components.items():
            self._check_component(f"components.{key}", component)
        for key, executor in self._deployment.executors.items():
            self._check_executor(key, executor)
        self._check_containers_differ()
        self._check_platform()
        return self._found

    def _add(self, rule: str, place: str, message: str) -> None:
        self._found.append(Breach(rule, place, message))

    def _check_runtime_parameters(self) -> None:
        for name, parameter in self._spec.root.input_definitions.parameters.items():
            place = f"root.inputDefinitions.parameters.{name}"
            kind = parameter.parameter_type
            if kind not in _KINDS:
                self._add("runtime-parameter", place, "has no parameterType")
            elif parameter.HasField("default_value") and parameter.default_value.WhichOneof("kind") != _KINDS[kind]:
                self._add("runtime-parameter", place, f"its defaultValue is not of type {_TYPE.ParameterTypeEnum.Name(kind)}")

    def _check_dag(self, place: str, component: Any) -> None:
        tasks = component.dag.tasks
        if not tasks:
            self._add("root", f"{place}.dag", "has no tasks")
        upstream: dict[str, set[str]] = {}
        for name, task in tasks.items():
            where = f"{place}.dag.tasks.{name}"
            if not _TASK_NAME.fullmatch(name):
                self._add("task-name", where, "must be letters, digits and hyphens, and not begin with a hyphen")
            if name.endswith("-driver") and name.removesuffix("-driver") in tasks:
                self._add("task-name", where, "is the name that the backend gives the driver of another task")
            if task.HasField("artifact_iterator"):
                self._add("task", where, "iterates over artifacts, which the backend can't")
            upstream[name] = self._check_task(where, task, tasks, component)
        try:
            graphlib.TopologicalSorter(upstream).prepare()
        except graphlib.CycleError as error:
            cycle = error.args[1]
            self._add("cycle", f"{place}.dag.tasks.{cycle[-1]}", f"needs itself: {' needs '.join(reversed(cycle))}")

    def _check_task(self, place: str, task: Any, tasks: Any, parent: Any) -> set[str]:
        """Returns the existing tasks that this task needs."""
        needed = set(task.dependent_tasks)
        for name in task.dependent_tasks:
            if name not in tasks:
                self._add("producer", f"{place}.dependentTasks", f"there is no task {name}")
        reference = task.component_ref.name
        component = self._spec.components.get(reference)
        if component is None:
            self._add("component", f"{place}.componentRef", f"there is no component {reference!r}")
        for name, item in task.inputs.parameters.items():
            where = f"{place}.inputs.parameters.{name}"
            kind = item.WhichOneof("kind")
            if kind == "task_output_parameter":
                producer = item.task_output_parameter.producer_task
                self._check_producer(where, tasks, producer, "parameters", item.task_output_parameter.output_parameter_key)
                needed.add(producer)
            elif kind == "component_input_parameter":
                self._check_parent(where, parent, "parameters", item.component_input_parameter)
            elif kind == "runtime_value":
                self._check_value(where, item.runtime_value, component, name)
            elif kind is None:
                self._add("parameter", where, "has no value")
            if component is not None and name not in component.input_definitions.parameters:
                self._add("parameter", where, f"component {reference} has no such parameter")
        for name, item in task.inputs.artifacts.items():
            where = f"{place}.inputs.artifacts.{name}"
            kind = item.WhichOneof("kind")
            if kind == "task_output_artifact":
                producer = item.task_output_artifact.producer_task
                self._check_producer(where, tasks, producer, "artifacts", item.task_output_artifact.output_artifact_key)
                needed.add(producer)
            elif kind == "component_input_artifact":
                self._check_parent(where, parent, "artifacts", item.component_input_artifact)
            else:
                self._add("artifact", where, "has no producer")
            if component is not None and name not in component.input_definitions.artifacts:
                self._add("artifact", where, f"component {reference} has no such input")
        if component is not None:
            self._check_supplied(place, task, component)
        return needed & set(tasks)

    def _check_supplied(self, place: str, task: Any, component: Any) -> None:
        iterated = task.parameter_iterator.item_input if task.HasField("parameter_iterator") else ""
        for name, parameter in component.input_definitions.parameters.items():
            needless = parameter.is_optional or parameter.HasField("default_value") or name == iterated
            if not needless and name not in task.inputs.parameters:
                self._add("parameter", f"{place}.inputs.parameters.{name}", "is not supplied")
        for name, artifact in component.input_definitions.artifacts.items():
            if not artifact.is_optional and name not in task.inputs.artifacts:
                self._add("artifact", f"{place}.inputs.artifacts.{name}", "is not supplied")

    def _check_producer(self, place: str, tasks: Any, producer: str, what: str, key: str) -> None:
        if producer not in tasks:
            self._add("producer", place, f"there is no task {producer!r}")
            return
        reference = tasks[producer].component_ref.name
        component = self._spec.components.get(reference)
        if component is not None and key not in getattr(component.output_definitions, what):
            self._add("producer", place, f"task {producer} puts out no {what.removesuffix('s')} {key!r}")

    def _check_parent(self, place: str, parent: Any, what: str, key: str) -> None:
        if key not in getattr(parent.input_definitions, what):
            self._add("runtime-parameter", place, f"there is no runtime {what.removesuffix('s')} {key!r}")

    def _check_value(self, place: str, value: Any, component: Any, name: str) -> None:
        if value.WhichOneof("value") != "constant":
            self._add(
                "parameter", place, f"{value.WhichOneof('value') or 'an empty value'} is of an older schema; write constant"
            )
        elif component is not None and name in component.input_definitions.parameters:
            kind = component.input_definitions.parameters[name].parameter_type
            given = value.constant.WhichOneof("kind")
            text = given == "string_value" and "{{$" in value.constant.string_value  # a placeholder, or an expression
            if kind in _KINDS and given != _KINDS[kind] and not text:
                self._add("parameter", place, f"the constant is not of type {_TYPE.ParameterTypeEnum.Name(kind)}")

    def _check_component(self, place: str, component: Any) -> None:
        for direction in ("input", "output"):
            for name, artifact in getattr(component, f"{direction}_definitions").artifacts.items():
                self._check_type(f"{place}.{direction}Definitions.artifacts.{name}", artifact.artifact_type)
        kind = component.WhichOneof("implementation")
        if kind == "dag":
            self._check_dag(place, component)
        elif kind is None:
            self._add("component", place, "has neither executorLabel nor dag")
        elif component.executor_label not in self._deployment.executors:
            self._add("executor", f"{place}.executorLabel", f"there is no executor {component.executor_label!r}")
        else:
            self._check_placeholders(place, component, self._deployment.executors[component.executor_label])

    def _check_type(self, place: str, artifact_type: Any) -> None:
        if not _SCHEMA_TITLE.fullmatch(artifact_type.schema_title):
            kind = artifact_type.WhichOneof("kind")
            fault = f"is {artifact_type.schema_title!r}" if kind == "schema_title" else f"{kind or 'nothing'} is given instead"
            self._add("artifact-type", place, f"needs a schemaTitle such as tfx.Model; {fault}")

    def _check_placeholders(self, place: str, component: Any, executor: Any) -> None:
        container = executor.container
        for text in (*container.command, *container.args, *(item.value for item in container.env)):
            for direction, what, name in _PLACEHOLDER.findall(text):
                if name not in getattr(getattr(component, f"{direction.removesuffix('s')}_definitions"), what):
                    self._add("placeholder", place, f"its executor reads {direction}.{what}['{name}'], which is not declared")

    def _check_executor(self, label: str, executor: Any) -> None:
        place = f"deploymentSpec.executors.{label}"
        kind = executor.WhichOneof("spec")
        if kind == "container":
            container = executor.container
            if not re.fullmatch(r"\S+", container.image):
                self._add("image", f"{place}.container.image", f"must name an image, is {container.image!r}")
            if not container.command:
                self._add(
                    "command", f"{place}.container.command", "is empty; the backend does not take the image's entry point"
                )
            self._check_resources(f"{place}.container.resources", container.resources)
        elif kind == "importer":
            self._check_importer(label, place, executor.importer)
        else:
            known = {"resolver": "a resolver, which the backend can't run", "custom_job": "a custom job of Vertex AI"}
            self._add("executor", place, f"is {known.get(kind, 'empty')}; it must be a container or an importer")

    def _check_containers_differ(self) -> None:
        """Since version 2.3 the backend knows a component by its container: equal containers are one component to it."""
        first: dict[bytes, str] = {}
        for name, component in sorted(self._spec.components.items()):
            executor = self._deployment.executors.get(component.executor_label)
            if executor is None or not executor.HasField("container"):
                continue
            container = executor.container.SerializeToString(deterministic=True)
            other = first.setdefault(container, name)
            if not _are_alike(component, self._spec.components[other]):
                message = (
                    f"its container is equal to that of component {other}, which the backend would run in its place; "
                    "let them differ, such as by an argument with the component's name"
                )
                self._add("equal-containers", f"components.{name}", message)

    def _check_importer(self, label: str, place: str, importer: Any) -> None:
        self._check_type(f"{place}.importer.typeSchema", importer.type_schema)
        if importer.artifact_uri.WhichOneof("value") not in ("constant", "runtime_parameter"):
            self._add("importer", f"{place}.importer.artifactUri", "must be a constant or a runtimeParameter")
        for key, component in self._spec.components.items():
            outputs = component.output_definitions
            if component.executor_label == label and (len(outputs.artifacts) != 1 or outputs.parameters):
                self._add(
                    "importer", f"components.{key}.outputDefinitions", "an importer puts out one artifact and nothing else"
                )

    def _check_resources(self, place: str, resources: Any) -> None:
        for what in ("cpu", "memory"):
            names = [f"{prefix}{what}_{bound}" for prefix in ("", "resource_") for bound in ("limit", "request")]
            if not any(getattr(resources, name) for name in names):
                self._add("resources", place, f"has no limit or request of {what}")
        accelerator = resources.accelerator
        if resources.HasField("accelerator"):
            if not (accelerator.type or accelerator.resource_type):
                self._add("resources", f"{place}.accelerator", "has no type, such as nvidia.com/gpu")
            if not (accelerator.count or accelerator.resource_count):
                self._add("resources", f"{place}.accelerator", "has no count")

    def _check_platform(self) -> None:
        if self._platform is None:
            return
        for platform, content in self._platform.platforms.items():
            place = f"platforms.{platform}"
            if platform != "kubernetes":
                self._add("platform", place, "is not known; the backend reads kubernetes alone")
            for name, executor in content.deployment_spec.executors.items():
                where = f"{place}.deploymentSpec.executors.{name}"
                if name not in self._deployment.executors:
                    self._add("platform", where, "there is no such executor")
                if platform == "kubernetes":
                    empty = kubernetes_executor_config_pb2.KubernetesExecutorConfig()
                    config, found = _parse(json_format.MessageToDict(executor), empty, where)
                    self._found += found
                    for message in volume_errors(_mounts(config)) if config is not None else []:
                        self._add("volume", where, message)


def _are_alike(component: Any, other: Any) -> bool:
    """Whether two components with equal containers may replace each other."""
    return component.input_definitions == other.input_definitions and component.output_definitions == other.output_definitions


def _mounts(config: Any) -> list[Mount]:
    """A pod's mounts whose names are in the file; other names are known only when the pod starts."""
    named = [
        *(("claim", item.constant or _constant(item.pvc_name_parameter), item.mount_path) for item in config.pvc_mount),
        *(
            ("secret", item.secret_name or _constant(item.secret_name_parameter), item.mount_path)
            for item in config.secret_as_volume
        ),
        *(
            ("config map", item.config_map_name or _constant(item.config_map_name_parameter), item.mount_path)
            for item in config.config_map_as_volume
        ),
        *(("folder", item.volume_name, item.mount_path) for item in config.empty_dir_mounts),
    ]
    return [Mount(kind, name, path) for kind, name, path in named if name]


def _constant(parameter: Any) -> str:
    return parameter.runtime_value.constant.string_value
