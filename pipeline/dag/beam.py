"""The configuration's section `beam` as Apache Beam's options, and checks of an engine before anything starts."""

import os
import shutil
from collections.abc import Mapping

from base.errors import UserError
from base.paths import absolute
from components import dask_cluster
from pipeline.config.beam import BeamConfig, is_here

# Without the name of an image, every Beam component would pack all of TFX for the workers, even if there are no containers.
_NO_IMAGE = "--sdk_container_image=none"


def pipeline_args(beam: BeamConfig) -> list[str]:
    """The options of every component that runs Beam."""
    if beam.runner in ("local", "dask"):
        # Not Beam's default runner, which first tries to fetch a binary.
        return ["--runner=FnApiRunner", _NO_IMAGE, *_options(dask_scheduler=dask_scheduler(beam)), *beam.options]
    if beam.runner == "dataflow":
        arguments = _options(
            runner="DataflowRunner",
            project=beam.project,
            region=beam.region,
            temp_location=beam.temp_location,
            staging_location=beam.staging_location,
            sdk_container_image=beam.sdk_container_image,
            setup_file=_absolute(beam.setup_file),
        )
        return [*arguments, *beam.options]
    image = beam.sdk_container_image
    arguments = _options(
        runner={"flink": "FlinkRunner", "spark": "SparkRunner", "portable": "PortableRunner"}[beam.runner],
        job_endpoint=beam.job_endpoint,
        environment_type=(beam.environment or "loopback").upper(),
        environment_config=image or beam.worker_address,
        setup_file=_absolute(beam.setup_file),
    )
    if beam.runner == "flink":
        arguments += _options(
            flink_version=beam.flink_version,
            flink_master=beam.flink_master,
            parallelism=beam.parallelism,
            flink_job_server_jar=_absolute(beam.job_server_jar),
        )
    if beam.runner == "spark":
        arguments += _options(spark_master_url=beam.spark_master, spark_job_server_jar=_absolute(beam.job_server_jar))
    return [*arguments, f"--sdk_container_image={image}" if image else _NO_IMAGE, *beam.options]


def dask_scheduler(beam: BeamConfig) -> str | None:
    """As for `dask_cluster.connect`; None for other runners."""
    return (beam.dask_scheduler or dask_cluster.HERE) if beam.runner == "dask" else None


def _options(**values: str | int | None) -> list[str]:
    return [f"--{name}={value}" for name, value in values.items() if value is not None]


def _absolute(path: str | None) -> str | None:
    return path and absolute(path)


def check_engine(beam: BeamConfig, paths: Mapping[str, str]) -> None:
    """Finds what would stop the engine, before anything has started.

    Args:
      beam: the configuration's section.
      paths: what workers read or write, by the setting that gives it ("data.path").

    Raises:
      UserError: a file or Java is missing, or workers can't reach a path.
    """
    if beam.runner == "local":
        return
    for key in ("setup_file", "job_server_jar"):
        file = getattr(beam, key)
        if file and "://" not in file and not os.path.isfile(file):
            raise UserError(f"beam.{key}: {file} is no file; correct or remove it")
    _check_setup_file(beam)
    if beam.runner in ("flink", "spark") and not beam.job_endpoint and not shutil.which("java"):
        raise UserError(
            f"beam.runner: {beam.runner} needs Java, which is not installed; "
            "install Java 17 (openjdk-17-jre-headless on Debian), or give beam.job_endpoint"
        )
    for key, path in paths.items():
        _check_reach(beam, key, path, "on this machine")


def check_engine_of_containers(beam: BeamConfig, paths: dict[str, str], root: str) -> None:
    """Finds, while a pipeline of containers is compiled, what would stop its Beam engine.

    Java and Beam's job server must be in the image; this can't be checked here.

    Args:
      beam: the configuration's section.
      paths: what workers read, as a container sees it, by the setting that gives it ("data.path").
      root: URI below which they write.

    Raises:
      UserError: an address or a file belongs to the machine that compiles, or workers can't reach a path.
    """
    if beam.runner == "local":
        return
    for key in ("setup_file", "job_server_jar"):
        file = getattr(beam, key)
        if file and "://" not in file and not os.path.isabs(file):
            raise UserError(f"beam.{key}: must be absolute, for it is a file of the image; is {file}")
    _check_setup_file(beam)
    for key in ("dask_scheduler", "job_endpoint", "flink_master", "spark_master"):
        address = getattr(beam, key)
        if address and is_here(address.removeprefix("spark://")):
            raise UserError(
                f"beam.{key}: {address} is the component's own container, where no engine is; name the engine's host"
            )
    if beam.worker_address and beam.engine_is_here and is_here(beam.worker_address):
        raise UserError(
            f"beam.worker_address: {beam.worker_address} is the component's own container, where no pool is; "
            "remove it and beam.environment, or name the pool's host"
        )
    for key, path in paths.items():
        _check_reach(beam, key, path, "in the component's container")
    if not beam.workers_are_here and not root.startswith("gs://"):
        raise UserError(
            f"kubeflow.root: workers of beam.runner {beam.runner} run elsewhere, and Kubeflow keeps what is on {root} "
            "as files in the component's container; use gs://"
        )


def _check_setup_file(beam: BeamConfig) -> None:
    if beam.setup_file and os.path.basename(beam.setup_file) not in ("pyproject.toml", "setup.py"):
        raise UserError(f"beam.setup_file: must be a pyproject.toml or setup.py, is {beam.setup_file}")


def _check_reach(beam: BeamConfig, key: str, path: str, place: str) -> None:
    if "://" in path:
        if beam.runner == "dataflow" and not path.startswith("gs://"):
            raise UserError(f"{key}: Dataflow's workers read and write gs://, not {path}; copy it to a bucket")
        return
    if beam.workers_are_here:
        return
    folder = os.path.abspath(path)
    if any(os.path.commonpath([folder, os.path.abspath(shared)]) == os.path.abspath(shared) for shared in beam.shared_folders):
        return
    cure = (
        "use gs://"
        if beam.runner == "dataflow"
        else "use gs:// or s3://, or a folder that all see, named in beam.shared_folders"
    )
    raise UserError(f"{key}: {path} is {place}, and workers of beam.runner {beam.runner} run elsewhere; {cure}")
