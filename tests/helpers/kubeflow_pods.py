"""The pods that Kubeflow Pipelines 2.17 makes of a compiled file, after its driver (backend/src/v2/driver/k8s.go, container.go)
and its Argo compiler (backend/src/v2/compiler/argocompiler/argo.go, container.go)."""

import hashlib
import json
import re
from typing import Any

Spec = dict[str, Any]

LAUNCHER = ["/kfp-launcher/launch"]
_SCRATCH = {
    "gcs": "/gcs",
    "s3": "/s3",
    "minio": "/minio",
    "dot-local": "/.local",
    "dot-cache": "/.cache",
    "dot-config": "/.config",
}


def shared_implementations(spec: Spec) -> dict[str, tuple[Spec, Spec]]:
    """By component what the backend runs for it: a component's specification and a container.

    Both are kept by a hash of the container alone, and what comes first stays, in the order of the tasks' names.
    """
    tasks = spec["root"]["dag"]["tasks"]
    kept: dict[str, tuple[Spec, Spec]] = {}
    found = {}
    for name in [tasks[task]["componentRef"]["name"] for task in sorted(tasks)]:
        component = spec["components"][name]
        container = spec["deploymentSpec"]["executors"][component["executorLabel"]]["container"]
        digest = hashlib.sha256(json.dumps(container, sort_keys=True).encode()).hexdigest()
        found[name] = kept.setdefault(digest, (component, container))
    return found


def build_pod(name: str, container: Spec, component: Spec, executor_input: str, kubernetes: Spec) -> Spec:
    """A task's pod, as the API of Kubernetes is given it.

    Args:
      name: of the pod.
      container, component: as `shared_implementations` has them.
      executor_input: in JSON.
      kubernetes: the executor's part of the file's second document.
    """
    launcher = [*LAUNCHER, "--executor_input", executor_input, "--component_spec", json.dumps(component), "--pod_name"]
    main: Spec = {
        "name": "main",
        "image": container["image"],
        "command": [*launcher, "$(KFP_POD_NAME)", "--"],
        "args": [*container["command"], *container["args"]],
        "resources": _resources(container["resources"]),
        "env": [{"name": "KFP_POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        "volumeMounts": [{"name": f"{key}-scratch", "mountPath": path} for key, path in _SCRATCH.items()],
    }
    main["volumeMounts"].append({"name": "kfp-launcher", "mountPath": "/kfp-launcher"})
    volumes: list[Spec] = [{"name": f"{key}-scratch", "emptyDir": {}} for key in (*_SCRATCH, "kfp")]
    volumes[-1]["name"] = "kfp-launcher"
    pod: Spec = {"restartPolicy": "Never", "containers": [main]}
    env = [{"name": item["name"], "value": item["value"]} for item in container.get("env", [])]
    more, mounts = [], []
    for item in kubernetes.get("pvcMount", []):
        claim = _name(item, "pvcNameParameter")
        more.append({"name": claim, "persistentVolumeClaim": {"claimName": claim}})
        mounts.append({"name": claim, "mountPath": item["mountPath"]})
    for item in kubernetes.get("secretAsVolume", []):
        secret = _name(item, "secretNameParameter")
        more.append({"name": secret, "secret": {"secretName": secret, "optional": False}})
        mounts.append({"name": secret, "mountPath": item["mountPath"]})
    for item in kubernetes.get("emptyDirMounts", []):
        more.append({"name": item["volumeName"], "emptyDir": {"medium": item["medium"], "sizeLimit": item["sizeLimit"]}})
        mounts.append({"name": item["volumeName"], "mountPath": item["mountPath"]})
    for item in kubernetes.get("secretAsEnv", []):
        secret = _name(item, "secretNameParameter")
        for pair in item["keyToEnv"]:
            env.append({"name": pair["envVar"], "valueFrom": {"secretKeyRef": {"name": secret, "key": pair["secretKey"]}}})
    if "imagePullPolicy" in kubernetes:
        main["imagePullPolicy"] = kubernetes["imagePullPolicy"]
    if "nodeSelector" in kubernetes:
        pod["nodeSelector"] = kubernetes["nodeSelector"]["labels"]
    if "tolerations" in kubernetes:
        pod["tolerations"] = kubernetes["tolerations"]
    if "imagePullSecret" in kubernetes:
        pod["imagePullSecrets"] = [{"name": _name(item, "secretNameParameter")} for item in kubernetes["imagePullSecret"]]
    main["env"] = _merged(main["env"], env, "name")
    main["volumeMounts"] = _merged(main["volumeMounts"], mounts, "mountPath")
    pod["volumes"] = _merged(volumes, more, "name")
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": pod}


def pod_errors(spec: Spec) -> list[str]:
    """What the API of Kubernetes refuses in a pod's specification and no schema says (pkg/apis/core/validation)."""
    errors = []
    names = [volume["name"] for volume in spec.get("volumes", [])]
    errors += [f"volume {name}: must be unique" for name in sorted(set(names)) if names.count(name) > 1]
    for volume in spec.get("volumes", []):
        if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", volume["name"]):
            errors.append(f"volume {volume['name']}: must be a DNS label")
        if len(volume) != 2:
            errors.append(f"volume {volume['name']}: may not specify more than one volume type")
    for container in spec["containers"]:
        paths = [mount["mountPath"] for mount in container.get("volumeMounts", [])]
        errors += [f"{path}: must be unique" for path in sorted(set(paths)) if paths.count(path) > 1]
        errors += [f"{mount['name']}: not found" for mount in container.get("volumeMounts", []) if mount["name"] not in names]
        for variable in container.get("env", []):
            if len(variable) != 2:
                errors.append(f"variable {variable['name']}: may not be specified when `value` is not empty")
            if not re.fullmatch(r"[-._a-zA-Z][-._a-zA-Z0-9]*", variable["name"]):
                errors.append(f"variable {variable['name']}: invalid name")
    for toleration in spec.get("tolerations", []):
        if toleration.get("operator") == "Exists" and toleration.get("value"):
            errors.append("toleration: value must be empty when `operator` is 'Exists'")
        if not toleration.get("key") and toleration.get("operator") != "Exists":
            errors.append("toleration: operator must be Exists when `key` is empty")
    return errors


def _name(item: Spec, parameter: str) -> str:
    return item[parameter]["runtimeValue"]["constant"]


def _resources(given: Spec) -> Spec:
    found: Spec = {"limits": {}, "requests": {}}
    for bound, title in (("limits", "Limit"), ("requests", "Request")):
        for what in ("Cpu", "Memory"):
            if quantity := given.get(f"resource{what}{title}"):
                found[bound][what.lower()] = quantity
    if accelerator := given.get("accelerator"):
        found["limits"][accelerator["resourceType"]] = accelerator["resourceCount"]
    return found


def _merged(base: list[Spec], patch: list[Spec], key: str) -> list[Spec]:
    """A strategic merge: items of one key become one."""
    found = {item[key]: dict(item) for item in base}
    for item in patch:
        found.setdefault(item[key], {}).update(item)
    return list(found.values())
