"""How Kubernetes changes the values of a container, and which names it refuses for a pod's volumes."""

import posixpath
import re
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from base.errors import UserError

_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
# Volumes that Kubeflow Pipelines (2.17) and Argo put into each pod, and the folders where they are mounted.
_RESERVED_NAMES: Final = frozenset(
    f"{name}-scratch" for name in ("dot-cache", "dot-config", "dot-local", "gcs", "minio", "s3")
) | {"kfp-launcher", "tmp-dir-argo", "var-run-argo"}
_RESERVED_PATHS: Final = frozenset(
    ["/.cache", "/.config", "/.local", "/gcs", "/kfp-launcher", "/minio", "/s3", "/var/run/argo"]
)
_PROXIES: Final = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
# The launcher talks to Kubeflow's services, of which the object store is one, and to Kubernetes' API by its address.
_CLUSTER: Final = (
    "localhost",
    "127.0.0.1",
    ".kubeflow",
    ".svc",
    ".svc.cluster.local",
    "metadata-grpc-service",
    "minio-service",
    "ml-pipeline",
    "seaweedfs",
    "$(KUBERNETES_SERVICE_HOST)",
)


@dataclass(frozen=True)
class Mount:
    """A volume in a pod.

    Attributes:
      kind: "claim", "secret", "folder" (an empty one) or "config map".
      name: name of what is mounted; it is the volume's name, too.
      path: where it is mounted in the container.
    """

    kind: str
    name: str
    path: str


SHARED_MEMORY: Final = Mount("folder", "shared-memory", "/dev/shm")  # for the Trainer and the Tuner


def volume_errors(mounts: Iterable[Mount]) -> list[str]:
    """Why Kubernetes would refuse a pod with these volumes, one sentence per reason; empty if it accepts them.

    Kubeflow Pipelines names a pod's volume after the claim or the secret. A volume's name must be a DNS label, which allows
    less than a claim's name does. A pod merges volumes by name: one claim may be at several paths, but a claim and a secret
    must not have the same name. Mounts are merged by path.
    """
    mounts = list(mounts)
    errors = []
    volumes = sorted({(mount.name, mount.kind) for mount in mounts})
    for name, kind in volumes:
        if not _LABEL.fullmatch(name):
            errors.append(
                f"the {kind} {name!r} can't be mounted: Kubeflow Pipelines names the volume after it, and a volume's name has "
                "at most 63 lower-case letters, digits and hyphens, and no dots"
            )
        if name in _RESERVED_NAMES:
            errors.append(f"the {kind} {name!r} can't be mounted: Kubeflow Pipelines has a volume of this name in each pod")
    for name, times in sorted(Counter(name for name, _ in volumes).items()):
        if times > 1:
            kinds = " and ".join(f"a {kind}" for other, kind in volumes if other == name)
            errors.append(f"{name!r} names {kinds}, and a pod has one volume per name; rename one of them")
    for path, times in sorted(Counter(_normal(mount.path) for mount in mounts).items()):
        if times > 1:
            errors.append(f"{path} is the place of {times} volumes; give each its own path")
        if any(path == reserved or path.startswith(f"{reserved}/") for reserved in _RESERVED_PATHS):
            errors.append(f"{path} is a place that Kubeflow Pipelines mounts a folder of its own at; choose another path")
        if path == "/" or not path.startswith("/") or not path.isprintable() or ":" in path:
            errors.append(f"{path!r} must be an absolute path other than /, without a colon")
    return errors


def escaped(text: str) -> str:
    """Escapes a text, so that it arrives unchanged: Kubernetes turns `$$` into `$`, and replaces `$(NAME)`.

    Raises:
      UserError: the text has `{{`, which Argo replaces, and for which there is no escape.
    """
    if "{{" in text:
        shown = text[max(0, text.index("{{") - 20) :][:60]
        raise UserError(f"{shown!r}: double braces can't be in a value on Kubeflow, whose Argo fills in what they enclose")
    return text.replace("$", "$$")


def environment(variables: dict[str, str], secret_variables: Collection[str] = ()) -> dict[str, str]:
    """A pod's environment variables in the form that its specification needs.

    A proxy applies to the launcher as well, which runs in the same container and must reach the cluster's services without
    it. So if there is a proxy, these services are added to `NO_PROXY`.

    Args:
      variables: the variables that the container is to see.
      secret_variables: names of the variables that it gets from secrets.
    """
    found = {name: escaped(value) for name, value in variables.items()}
    if has_proxy(variables, secret_variables):
        given = ",".join(value for name, value in found.items() if name.upper() == "NO_PROXY")
        hosts = dict.fromkeys(host.strip() for host in (*given.split(","), *_CLUSTER) if host.strip())
        found |= dict.fromkeys(("NO_PROXY", "no_proxy"), "*" if "*" in hosts else ",".join(hosts))
    return found


def has_proxy(variables: dict[str, str], secret_variables: Collection[str] = ()) -> bool:
    """Whether one of these environment variables names a proxy."""
    named = [*(name for name, value in variables.items() if value), *secret_variables]
    return any(name.upper() in _PROXIES for name in named)


def _normal(path: str) -> str:
    return re.sub("^/+", "/", posixpath.normpath(path))
