"""Builds the image and runs a compiled pipeline in it: each task in a container, by kfp's own DockerRunner on podman.

    sudo apt install podman mmdebstrap        # Debian 12 or later
    sudo PYTHONPATH=. .venv/bin/python tests/containers/run.py --folder /var/tmp/fpn-containers

It makes a base of Debian 13 from its packages, builds the target `cpu` of deploy/Dockerfile on it, writes the digits to a
folder that stands for the volume, compiles configs/digits.yaml for two epochs, runs the file by `kfp.local`, and the same
pipeline on this machine for comparison. It looks at what the tasks have left, for kfp.local takes a container that crashed for
one that succeeded. Needs root, 25 GB in the folder and about a quarter of an hour. The target `gpu` is not built: its
packages take several GB more, and nothing could run it here.

Where packages come through a proxy or by certificates of your own, tell the build, for example
`--build-option=--volume=/usr/local/share/ca-certificates:/usr/local/share/ca-certificates:ro` or `--build-option=--env=...`.
"""

import argparse
import contextlib
import gc
import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import kfp
import yaml
from kfp import local
from kfp.local.executor_input_utils import get_local_task_resource_name

from base.redirection import output_to
from components.pusher.versions import list_versions
from evaluation.results import read_evaluation
from pipeline.samples.digits import write_digits

PROJECT = Path(__file__).parents[2]
BASE = "localhost/fpn-base:trixie"
EPOCHS = 2
IMAGE = "localhost/fpn-pipeline:cpu"
# Less than what a container gets by itself: a host's own limits may be lower, and cgroups not ours to write.
CONTAINERS_CONF = """\
[containers]
cgroups = "disabled"
default_ulimits = ["nofile=4096:4096", "nproc=16384:16384"]
netns = "host"
"""


class Podman:
    """podman with all it keeps below one folder; where the host has no cgroup2, in a mount namespace that has."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.socket = folder / "podman.sock"
        (folder / "tmp").mkdir(parents=True, exist_ok=True)
        (folder / "containers.conf").write_text(CONTAINERS_CONF)
        self._environment = {
            **os.environ,
            "CONTAINERS_CONF": str(folder / "containers.conf"),
            "TMPDIR": str(folder / "tmp"),
        }

    def command(self, *arguments: str) -> list[str]:
        kept = [f"--root={self._folder / 'storage'}", f"--runroot={self._folder / 'run'}", "--cgroup-manager=cgroupfs"]
        command = ["podman", *kept, *arguments]
        if Path("/sys/fs/cgroup/cgroup.controllers").exists():
            return command
        mount = "mount -t tmpfs none /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && exec "
        return ["unshare", "--mount", "sh", "-c", mount + shlex.join(command)]

    def run(self, *arguments: str, **options: Any) -> str:
        return subprocess.run(
            self.command(*arguments), env=self._environment, check=True, text=True, stdout=subprocess.PIPE, **options
        ).stdout

    @contextlib.contextmanager
    def service(self) -> Iterator[None]:
        """The API of Docker on `socket`, and in the environment."""
        address = f"unix://{self.socket}"
        command = self.command("system", "service", "--time=0", address)
        self.socket.unlink(missing_ok=True)
        with subprocess.Popen(command, env=self._environment) as process:
            os.environ["DOCKER_HOST"] = address
            try:
                while not self.socket.exists():
                    if process.poll() is not None:
                        raise SystemExit("podman's service has ended")
                    time.sleep(0.1)
                yield
            finally:
                process.terminate()


def build(podman: Podman, base: str | None, options: list[str]) -> None:
    """Makes the image, and says how long it took and how large it is."""
    if not base and BASE not in podman.run("images", "--format={{.Repository}}:{{.Tag}}").split():
        started = time.monotonic()
        with subprocess.Popen(["mmdebstrap", "--quiet", "--variant=minbase", "trixie", "-"], stdout=subprocess.PIPE) as made:
            podman.run("import", "-", BASE, stdin=made.stdout)
        if made.returncode:
            raise SystemExit("mmdebstrap has failed")
        print(f"base made in {time.monotonic() - started:.0f} s", flush=True)
    started = time.monotonic()
    known = ["--file=deploy/Dockerfile", "--target=cpu", f"--tag={IMAGE}", f"--build-arg=BASE={base or BASE}"]
    podman.run("build", *known, "--isolation=chroot", *options, ".", cwd=PROJECT)
    size = int(podman.run("image", "inspect", "--format={{.Size}}", IMAGE))
    print(f"image built in {time.monotonic() - started:.0f} s, {size / 1e9:.2f} GB", flush=True)


def check_image() -> None:
    """What docs/kubeflow.md says of it."""
    client = docker.from_env()

    def said(command: str, **options: Any) -> str:
        return client.containers.run(IMAGE, ["sh", "-c", command], remove=True, **options).decode().strip()

    assert said("id -u; id -g") == "10001\n0"
    assert said("command -v g++ gcc cc make uv || echo none") == "none"
    assert "usage: fpn" in client.containers.run(IMAGE, remove=True).decode()
    # A cluster may choose the user's number; launchers make folders below these.
    assert said("touch /gcs/x /minio/x /s3/x ~/x /tmp/x && echo written", user="20001:0") == "written"
    print(said("pip check; python --version"), flush=True)


class Watch(threading.Thread):
    """Follows the engine's containers: their exit statuses are in its events alone, for kfp has them removed.

    Attributes:
      tasks: seconds and exit status by the task's name, of those that have ended.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.tasks: dict[str, tuple[float, int]] = {}
        self._client = docker.from_env()
        self._events = self._client.events(decode=True, filters={"type": "container"})

    def run(self) -> None:
        started: dict[str, tuple[str, int]] = {}
        for event in self._events:
            container, now = event["id"], event["timeNano"]
            if event["Action"] == "start":
                command = self._client.containers.get(container).attrs["Config"]["Cmd"]
                invocation = json.loads(command[command.index("--json_serialized_invocation_args") + 1])
                started[container] = Path(invocation["outputs"]["outputFile"]).parent.name, now
            elif event["Action"] == "die":
                name, since = started[container]
                self.tasks[name] = (now - since) / 1e9, int(event["Actor"]["Attributes"]["exitCode"])


def run_file(file: Path, folder: Path, arguments: dict[str, Any]) -> Path:
    """Runs a compiled pipeline and checks that each task has succeeded and has left its outputs.

    Args:
      file: the pipeline.
      folder: for `bucket`, in place of the pipeline root, and for the volumes, by the names of their claims.
      arguments: runtime parameters.

    Returns:
      The run's folder in the bucket.
    """
    spec, platform = yaml.safe_load_all(file.read_text())
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values()
    claims = {(mount["constant"], mount["mountPath"]) for executor in executors for mount in executor["pvcMount"]}
    bucket = folder / "bucket"
    for place in (bucket, *(folder / claim for claim, _ in claims)):
        place.mkdir(parents=True, exist_ok=True)
        place.chmod(0o777)  # any user's, as storage classes make it
    watch = Watch()
    watch.start()
    mounts = [docker.types.Mount(path, str(folder / claim), type="bind") for claim, path in claims]
    local.init(runner=local.DockerRunner(mounts=mounts), pipeline_root=str(bucket), raise_on_error=True)
    print(f"the tasks run; their logs: {folder / 'tasks.log'}", flush=True)
    with output_to(folder / "tasks.log"):
        kfp.components.load_component_from_file(str(file))(**arguments)

    (run,) = bucket.iterdir()
    for name, task in spec["root"]["dag"]["tasks"].items():
        place = get_local_task_resource_name(task["componentRef"]["name"])
        seconds, status = watch.tasks[place]
        print(f"{name:20} {seconds:6.1f} s  exit status {status}", flush=True)
        assert status == 0, name
        outputs = spec["components"][task["componentRef"]["name"]]["outputDefinitions"]
        for output in (*outputs.get("artifacts", {}), *outputs.get("parameters", {})):
            assert (run / place / output).exists(), f"{name} has left no {output}"
    print(f"{len(watch.tasks)} containers, {sum(seconds for seconds, _ in watch.tasks.values()):.0f} s", flush=True)
    return run


def fpn(*arguments: Any) -> None:
    command = [sys.executable, "-m", "pipeline.cli", *map(str, arguments)]
    subprocess.run(command, cwd=PROJECT, env={**os.environ, "PYTHONPATH": str(PROJECT)}, check=True)


def run_digits(folder: Path) -> None:
    """From pictures on a volume to a pushed model, in containers and on this machine, with the same metrics."""
    volume = folder / "fpn-data"
    write_digits(volume / "digits")
    config = ["--config", PROJECT / "configs/digits.yaml", "--set", "data.sample=null"]
    on_cluster = {
        "data.path": "/data/digits",
        "kubeflow.image": IMAGE,
        "kubeflow.state": "/data/state",
        "kubeflow.volumes": "[{claim: fpn-data, path: /data}]",
    }
    overrides = [item for key, value in on_cluster.items() for item in ("--set", f"{key}={value}")]
    fpn("compile", *config, *overrides, "--output", folder / "pipeline.yaml")
    fpn("lint", folder / "pipeline.yaml")
    thresholds = json.dumps([{"metric": "accuracy", "lower": 0.3}])
    run = run_file(folder / "pipeline.yaml", folder, {"train_epochs": EPOCHS, "thresholds": thresholds})
    (version,) = list_versions(str(volume / "state/digits/pushed"))
    assert version.record

    here = [f"data.path={volume / 'digits'}", f"train.epochs={EPOCHS}", f"evaluate.thresholds={thresholds}"]
    started = time.monotonic()
    fpn("run", *config, *(item for value in here for item in ("--set", value)), "--output", folder / "here")
    print(f"the same on this machine: {time.monotonic() - started:.0f} s", flush=True)
    expected = read_evaluation(str(next((folder / "here").glob("artifacts/**/Evaluator/evaluation/*")))).overall
    metrics = read_evaluation(str(run / get_local_task_resource_name("Evaluator") / "evaluation")).overall
    for name, metric in metrics.items():
        print(f"{name:24} {metric.value!r:22} here {expected[name].value!r}")
    worst = max(abs(metric.value - expected[name].value) for name, metric in metrics.items())
    print(f"{len(metrics)} metrics, largest difference {worst:.2g}", flush=True)
    assert metrics.keys() == expected.keys()
    assert worst < 1e-6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="new or of an earlier call; removed at the end")
    parser.add_argument("--base", help="an image of Debian 13 that podman can fetch, in place of one made here")
    parser.add_argument("--build-option", action="append", default=[], help="option for podman build; may be repeated")
    parser.add_argument("--keep", action="store_true", help="keep the folder; the next call builds only what has changed")
    options = parser.parse_args()
    podman = Podman(options.folder.resolve())
    build(podman, options.base, options.build_option)
    shutil.rmtree(options.folder / "results", ignore_errors=True)
    with podman.service():
        check_image()
        run_digits(options.folder.resolve() / "results")
    if not options.keep:
        podman.run("rmi", "--all", "--force")
        shutil.rmtree(options.folder)
    gc.freeze()  # the interpreter's last collection may crash on TensorFlow's remains


if __name__ == "__main__":
    main()
