"""Where and how the pipeline runs on Kubeflow Pipelines."""

from collections import Counter
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from pipeline.config.choices import ComponentName
from pipeline.config.pods import SHARED_MEMORY, Mount, volume_errors
from pipeline.config.section import Count, Section, WholeNumber


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Text = Annotated[str, BeforeValidator(_as_text)]
Cpu = Annotated[str, BeforeValidator(_as_text), Field(pattern=r"^\d+(\.\d+)?m?$")]
Memory = Annotated[str, BeforeValidator(_as_text), Field(pattern=r"^\d+(\.\d+)?(k|M|G|T|Ki|Mi|Gi|Ti)?$")]
_UNITS = {"": 1, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def quantity(text: str) -> float:
    """A Kubernetes quantity as a number: "500m" is 0.5 cores, "2Gi" is 2**31 bytes."""
    number = text.rstrip("mkMGTi")
    return float(number) * _UNITS[text[len(number) :]]


TolerationOperator = Literal["Equal", "Exists"]
TaintEffect = Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"]
ImagePullPolicy = Literal["Always", "IfNotPresent", "Never"]
Word = Annotated[str, Field(pattern=r"^\S+$")]
SecretKey = Annotated[str, Field(pattern=r"^[-._a-zA-Z0-9]+$")]
VariableName = Annotated[str, Field(pattern=r"^[-._a-zA-Z][-._a-zA-Z0-9]*$")]
ObjectName = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$")]  # a claim's or a secret's


class TolerationConfig(Section):
    """A taint of nodes; pods may run on these nodes all the same."""

    key: str = Field("", description="of the taint; any if not given")
    operator: TolerationOperator = Field("Equal", description="how the value is compared")
    value: str = Field("", description="of the taint")
    effect: TaintEffect = Field("", description="of the taint; any if not given")

    @model_validator(mode="after")
    def _is_one_of_kubernetes(self) -> "TolerationConfig":
        if self.operator == "Exists" and self.value:
            raise ValueError(f"operator Exists takes no value, is {self.value!r}")
        if self.operator == "Equal" and not self.key:
            raise ValueError("operator Equal needs a key; operator Exists without one stands for every taint")
        return self


class PodConfig(Section):
    """What a component's container gets, and where it runs."""

    cpu_request: Cpu = Field("1", description="cores that a node must have free, such as 500m")
    cpu_limit: Cpu = Field("4", description="cores at most")
    memory_request: Memory = Field("4Gi", description="memory that a node must have free")
    memory_limit: Memory = Field("8Gi", description="memory at most")
    gpus: WholeNumber = Field(0, description="GPUs; with any, the container is made of `kubeflow.gpu_image`")
    gpu_resource: Word = Field(
        "nvidia.com/gpu", description="name of the GPUs' resource; on Vertex AI, of the accelerator's type"
    )
    node_selector: dict[str, str] = Field({}, description="labels that a node must have")
    tolerations: list[TolerationConfig] = Field(
        [], description="taints of nodes that don't matter: key, operator, value, effect"
    )
    env: dict[VariableName, Text] = Field(
        {}, description="environment variables; a component's own are added to these; with a proxy, NO_PROXY gets the cluster"
    )

    @model_validator(mode="after")
    def _requests_fit_limits(self) -> "PodConfig":
        for name in ("cpu", "memory"):
            request, limit = (getattr(self, f"{name}_{end}") for end in ("request", "limit"))
            if quantity(request) > quantity(limit):
                raise ValueError(f"{name}_request ({request}) must not be above {name}_limit ({limit})")
        return self


class OwnPodConfig(Section):
    """What one component's container gets, as far as it differs from `pod`."""

    cpu_request: Cpu | None = None
    cpu_limit: Cpu | None = None
    memory_request: Memory | None = None
    memory_limit: Memory | None = None
    gpus: WholeNumber | None = None
    gpu_resource: Word | None = None
    node_selector: dict[str, str] | None = None
    tolerations: list[TolerationConfig] | None = None
    env: dict[VariableName, Text] = Field({})


class SecretConfig(Section):
    """A secret of the cluster, given to containers in environment variables or as files."""

    name: ObjectName = Field(description="of the secret")
    env: dict[VariableName, SecretKey] = Field(
        {}, description="environment variables, each with the key in the secret that it takes"
    )
    path: str | None = Field(None, description="folder in which the keys are files")

    @model_validator(mode="after")
    def _is_used(self) -> "SecretConfig":
        if not self.env and not self.path:
            raise ValueError(f"the secret {self.name} needs env: {{VARIABLE: key}}, or path")
        return self


class VolumeConfig(Section):
    """A persistent volume claim that all containers see."""

    claim: ObjectName = Field(description="name of the claim")
    path: Annotated[str, Field(pattern="^/.+")] = Field(description="folder in the containers")


class KubeflowConfig(Section):
    """Where and how the pipeline runs on Kubeflow Pipelines."""

    image: Word = Field("fpn-pipeline:cpu", description="container image of the project")
    gpu_image: Word = Field("fpn-pipeline:gpu", description="the same for components with GPUs")
    root: Annotated[str, Field(pattern=r"^(s3|minio|gs)://[^/\s?#$]+(/[^\s#$]*)?$")] = Field(
        "minio://mlpipeline/v2/artifacts", description="place for what components put out: s3://, minio:// or gs://"
    )
    state: str | None = Field(
        None,
        description="folder for what outlives a run (pushed models, checkpoints, statistics), on one of `volumes` "
        "or gs://; below `root` if that is gs://",
    )
    cache: bool = Field(True, description="take the results of unchanged components from earlier runs")
    pod: PodConfig = PodConfig()
    components: dict[ComponentName, OwnPodConfig] = Field(
        {}, description="by component, such as Trainer, the keys of `pod` that differ"
    )
    trainer_workers: Count = Field(
        1, description="pods that train together, each as `components.Trainer` says; they need JobSets, see docs/scaling.md"
    )
    secrets: list[SecretConfig] = Field([], description="secrets for all containers: name, and env: {VARIABLE: key} or path")
    volumes: list[VolumeConfig] = Field([], description="persistent volume claims for all containers: claim and path")
    shared_memory: Memory | None = Field("1Gi", description="of the Trainer and the Tuner, part of their memory limit")
    image_pull_policy: ImagePullPolicy | None = Field(None, description="when nodes fetch the image; by its tag if not given")
    image_pull_secrets: list[ObjectName] = Field([], description="secrets with access to the registry of the image")

    def pod_of(self, component: str) -> PodConfig:
        """What a component's container gets: the values of `pod`, replaced by the component's own where there are any.

        Raises:
          ValueError: the values don't fit together.
        """
        own = self.components.get(component)  # type: ignore[call-overload]
        if own is None:
            return self.pod
        given = {key: value for key, value in own.model_dump().items() if value is not None}
        return PodConfig.model_validate({**self.pod.model_dump(), **given, "env": {**self.pod.env, **own.env}})

    def task_pod_of(self, component: str) -> PodConfig:
        """What the container of a component's task gets; several pods train beside that of the Trainer's task."""
        return self.pod if component == "Trainer" and self.trainer_workers > 1 else self.pod_of(component)

    @property
    def secret_variables(self) -> list[str]:
        """Names of the environment variables that come from secrets."""
        return [variable for secret in self.secrets for variable in secret.env]

    @model_validator(mode="after")
    def _pods_are_valid(self) -> "KubeflowConfig":
        """Rejects what Kubernetes would reject when a pod starts."""
        mounts = [Mount("claim", volume.claim, volume.path) for volume in self.volumes]
        mounts += [Mount("secret", secret.name, secret.path) for secret in self.secrets if secret.path]
        if self.shared_memory:
            mounts.append(SHARED_MEMORY)
        if errors := volume_errors(mounts):
            raise ValueError(f"volumes and secrets: {errors[0]}")
        named = [*self.pod.env, *(name for own in self.components.values() for name in own.env)]
        known = Counter([*set(named), *self.secret_variables])
        for name in known:
            if known[name] > 1:
                raise ValueError(
                    f"the environment variable {name} comes from a secret and from elsewhere as well; keep one of them"
                )
            if name.upper() == "NO_PROXY" and name in self.secret_variables:
                raise ValueError(f"the environment variable {name} can't come from a secret; write it into pod.env")
        return self

    @model_validator(mode="after")
    def _pods_fit(self) -> "KubeflowConfig":
        for component in self.components:
            try:
                self.pod_of(component)
            except ValidationError as error:
                raise ValueError(f"components.{component}: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from error
        return self
