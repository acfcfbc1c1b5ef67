"""The Trainer's task on Kubeflow, if several pods train: it starts them, and follows them to the model."""

import json
import logging
import os
import time
import uuid
from pathlib import Path
from typing import Any, Final

import urllib3
from kubernetes import client, config
from tfx.components.trainer.fn_args_utils import FnArgs
from tfx.dsl.io import fileio
from tfx.utils import io_utils

from base.errors import UserError
from models.checkpoints import checkpoint_folder
from models.packing import unpack
from models.settings import TrainerSettings
from models.training import arguments_of
from pipeline.config.kubeflow import KubeflowConfig
from pipeline.kubeflow.jobset import GROUP, VERSION, build_jobset

log = logging.getLogger(__name__)

VARIABLE: Final = "FPN_KUBEFLOW"  # has the section `kubeflow` in JSON
RUN_FN: Final = f"{__name__}.run_fn"
_NAMESPACE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_SECONDS: Final = 10.0  # between looks at the JobSet
_PATIENCE: Final = 60  # looks in a row that the API may leave without an answer
_OUTPUTS: Final = ("model_run_dir", "serving_model_dir")
_CURES: Final = {
    403: "the account of the Trainer's task may not make JobSets; apply deploy/trainer-workers.yaml",
    404: "the cluster has no JobSets; install Kubeflow Trainer 2",
}


def run_fn(fn_args: FnArgs) -> None:
    """As `models.training.run_fn`, in pods of a JobSet.

    The launcher's copies of the inputs are in this container alone. So they are copied to a folder below `kubeflow.state`,
    which the pods see. There the pods write, too.

    Raises:
      UserError: the cluster has no JobSets, or this task may not make them.
      RuntimeError: the training has failed.
    """
    own = arguments_of(fn_args)
    root = unpack(TrainerSettings, fn_args.custom_config).checkpoints
    trained = {key: value for key, value in own.items() if key not in _OUTPUTS}  # the same in each attempt, as its folder is
    folder = checkpoint_folder(os.path.join(os.path.dirname(root), "trainings"), **trained)
    if fileio.exists(folder):
        fileio.rmtree(folder)
    shared: dict[str, Any] = {key: os.path.join(folder, key) for key in ("transform_graph_path", *_OUTPUTS)}
    io_utils.copy_dir(own["transform_graph_path"], shared["transform_graph_path"])
    for key in ("train_files", "eval_files"):
        shared[key] = [_copy_files(pattern, os.path.join(folder, key, str(n))) for n, pattern in enumerate(own[key])]
    arguments = os.path.join(folder, "arguments.json")
    io_utils.write_string_file(arguments, json.dumps(own | shared))
    _run_jobset(KubeflowConfig.model_validate_json(os.environ[VARIABLE]), arguments)
    for key in _OUTPUTS:
        io_utils.copy_dir(shared[key], own[key])
    fileio.rmtree(folder)


def _copy_files(pattern: str, folder: str) -> str:
    """Copies all files beside those of a pattern; gives the pattern of the copies."""
    io_utils.copy_dir(os.path.dirname(pattern), folder)
    return os.path.join(folder, os.path.basename(pattern))


def _run_jobset(kubeflow: KubeflowConfig, arguments: str) -> None:
    """Makes the JobSet, and returns when it is complete."""
    config.load_incluster_config()
    api = client.CustomObjectsApi()
    namespace = _NAMESPACE.read_text()
    name = f"fpn-{uuid.uuid4().hex[:12]}"
    manifest = build_jobset(kubeflow, name, arguments)
    if "KFP_POD_UID" in os.environ:  # without this task, for one that is cancelled, the pods are of no use
        owner = {"apiVersion": "v1", "kind": "Pod", "name": os.environ["KFP_POD_NAME"], "uid": os.environ["KFP_POD_UID"]}
        manifest["metadata"]["ownerReferences"] = [owner]
    place = {"group": GROUP, "version": VERSION, "namespace": namespace, "plural": "jobsets"}
    try:
        api.create_namespaced_custom_object(**place, body=manifest)
    except client.ApiException as error:
        if cure := _CURES.get(error.status):
            raise UserError(f"kubeflow.trainer_workers: {cure}, or set it to 1") from error
        raise
    logs = f"kubectl logs -n {namespace} -l jobset.sigs.k8s.io/jobset-name={name} --prefix"
    log.info("%d pods train as JobSet %s; see %s", kubeflow.trainer_workers, name, logs)
    silent = 0
    while silent < _PATIENCE:
        time.sleep(_SECONDS)
        try:
            found = api.get_namespaced_custom_object(**place, name=name)
        except (client.ApiException, urllib3.exceptions.HTTPError):
            log.warning("no answer about JobSet %s", name)
            silent += 1
            continue
        silent = 0
        for condition in found.get("status", {}).get("conditions", []):
            if condition["status"] == "True" and condition["type"] == "Completed":
                return
            if condition["status"] == "True" and condition["type"] == "Failed":
                raise RuntimeError(f"JobSet {name} has failed: {condition.get('message')}; see {logs}")
    raise RuntimeError(f"JobSet {name}: the API of Kubernetes does not answer")
