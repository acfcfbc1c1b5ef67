"""The pods of a training on several machines of a cluster, as a JobSet; Kubeflow Trainer brings JobSets to a cluster."""

import json
from typing import Any, Final

from pipeline.config.kubeflow import KubeflowConfig, PodConfig
from pipeline.config.pods import SHARED_MEMORY, environment, escaped

GROUP: Final = "jobset.x-k8s.io"
VERSION: Final = "v1alpha2"
_JOB: Final = "worker"
_PORT: Final = 2222
_INDEX: Final = "WORKER_INDEX"
_RESTARTS: Final = 3  # of all pods, each time after one has failed
_NO_MESH: Final = {"sidecar.istio.io/inject": "false"}  # its proxy in a pod would outlive the training
_KEPT: Final = 86400  # seconds for which a JobSet, and its logs, can be looked at


def build_jobset(config: KubeflowConfig, name: str, arguments: str) -> dict[str, Any]:
    """`trainer_workers` pods, each with all that `pod_of("Trainer")` says, and a name in the cluster's network.

    If one fails, all are made anew, and the training goes on from its checkpoint.

    Args:
      config: of the cluster.
      name: of the JobSet.
      arguments: path of the file with what the first worker trains, as the pods see it.
    """
    count = config.trainer_workers
    pod = config.pod_of("Trainer")
    volumes, mounts = _volumes(config)
    container: dict[str, Any] = {
        "name": _JOB,
        "image": config.gpu_image if pod.gpus else config.image,
        "command": ["python", "-m", "models.worker", "--arguments", escaped(arguments)],
        "env": _variables(config, pod, [f"{name}-{_JOB}-0-{index}.{name}:{_PORT}" for index in range(count)]),
        "resources": _resources(pod),
        "volumeMounts": mounts,
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    if config.image_pull_policy:
        container["imagePullPolicy"] = config.image_pull_policy
    template = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "containers": [container],
        "volumes": volumes,
        "nodeSelector": pod.node_selector,
        "tolerations": [{key: value for key, value in item if value} for item in pod.tolerations],
        "imagePullSecrets": [{"name": secret} for secret in config.image_pull_secrets],
    }
    job = {
        "parallelism": count,
        "completions": count,
        "completionMode": "Indexed",
        "backoffLimit": 0,
        "template": {"metadata": {"labels": _NO_MESH}, "spec": template},
    }
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "JobSet",
        "metadata": {"name": name},
        "spec": {
            "network": {"enableDNSHostnames": True},
            "failurePolicy": {"maxRestarts": _RESTARTS},
            "ttlSecondsAfterFinished": _KEPT,
            "replicatedJobs": [{"name": _JOB, "replicas": 1, "template": {"spec": job}}],
        },
    }


def _variables(config: KubeflowConfig, pod: PodConfig, addresses: list[str]) -> list[dict[str, Any]]:
    index = {"fieldRef": {"fieldPath": "metadata.annotations['batch.kubernetes.io/job-completion-index']"}}
    task = f'{{"type": "worker", "index": $({_INDEX})}}'  # Kubernetes fills in a variable that is given before
    given = environment(pod.env, config.secret_variables)
    return [
        *({"name": key, "value": value} for key, value in given.items()),
        *(
            {"name": variable, "valueFrom": {"secretKeyRef": {"name": secret.name, "key": key}}}
            for secret in config.secrets
            for variable, key in secret.env.items()
        ),
        {"name": _INDEX, "valueFrom": index},
        {"name": "TF_CONFIG", "value": f'{{"cluster": {{"worker": {json.dumps(addresses)}}}, "task": {task}}}'},
    ]


def _resources(pod: PodConfig) -> dict[str, Any]:
    resources = {
        "requests": {"cpu": pod.cpu_request, "memory": pod.memory_request},
        "limits": {"cpu": pod.cpu_limit, "memory": pod.memory_limit},
    }
    if pod.gpus:
        resources["limits"][pod.gpu_resource] = str(pod.gpus)
    return resources


def _volumes(config: KubeflowConfig) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A pod's volumes, and where they are mounted."""
    volumes = {item.claim: {"persistentVolumeClaim": {"claimName": item.claim}} for item in config.volumes}
    mounts = [{"name": item.claim, "mountPath": item.path} for item in config.volumes]
    for secret in config.secrets:
        if secret.path:
            volumes[secret.name] = {"secret": {"secretName": secret.name}}
            mounts.append({"name": secret.name, "mountPath": secret.path})
    if config.shared_memory:
        volumes[SHARED_MEMORY.name] = {"emptyDir": {"medium": "Memory", "sizeLimit": config.shared_memory}}
        mounts.append({"name": SHARED_MEMORY.name, "mountPath": SHARED_MEMORY.path})
    return [{"name": name, **volume} for name, volume in volumes.items()], mounts
