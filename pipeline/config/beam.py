"""What runs the Beam pipelines of the data components."""

import re
from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.config.section import Count, HomePath, Section

Runner = Literal["local", "dask", "flink", "spark", "dataflow", "portable"]
FlinkVersion = Literal["1.19", "1.20", "2.0", "2.1", "2.2"]
Environment = Literal["loopback", "docker", "external"]

_BEAM_KEYS: dict[str, tuple[Runner, ...]] = {  # key of `beam` -> the runners that take it
    "dask_scheduler": ("dask",),
    "job_endpoint": ("flink", "spark", "portable"),
    "flink_master": ("flink",),
    "flink_version": ("flink",),
    "parallelism": ("flink",),
    "spark_master": ("spark",),
    "job_server_jar": ("flink", "spark"),
    "environment": ("flink", "spark", "portable"),
    "worker_address": ("flink", "spark", "portable"),
    "project": ("dataflow",),
    "region": ("dataflow",),
    "temp_location": ("dataflow",),
    "staging_location": ("dataflow",),
    "sdk_container_image": ("flink", "spark", "portable", "dataflow"),
    "setup_file": ("flink", "spark", "portable", "dataflow"),
    "shared_folders": ("dask", "flink", "spark", "portable"),
}
_HostPort = Annotated[str, Field(pattern=r"^(https?://)?[^/:\s]+:\d+$")]
_BucketPath = Annotated[str, Field(pattern=r"^gs://[^/]+")]


class BeamConfig(Section):
    """What runs the Beam pipelines of the data components."""

    runner: Runner = Field(
        "local", description="local: in the components' own process; or the engine, see [scaling.md](scaling.md)"
    )
    dask_scheduler: Annotated[str, Field(pattern=r"^tcp://[^/:\s]+:\d+$")] | None = Field(
        None, description="tcp://HOST:PORT of a Dask cluster's scheduler; workers on this machine's cores if not given"
    )
    job_endpoint: _HostPort | None = Field(
        None, description="HOST:PORT of a Beam job service that is there; for Flink and Spark Beam starts one if not given"
    )
    flink_master: _HostPort | None = Field(
        None, description="HOST:PORT of the Flink cluster's REST interface; an embedded cluster if not given"
    )
    flink_version: FlinkVersion = Field("1.20", description="of the Flink cluster")
    parallelism: Count | None = Field(
        None, description="parts that Flink works on at a time; the cluster's default if not given"
    )
    spark_master: Annotated[str, Field(pattern=r"^(local(\[.+\])?|spark://.+|yarn|k8s://.+)$")] | None = Field(
        None, description="URL of the Spark cluster, such as spark://HOST:7077; Spark in a process of this machine if not given"
    )
    job_server_jar: HomePath | None = Field(
        None, description="Beam's job server for Flink or Spark; Beam fetches the one of its own version if not given"
    )
    environment: Environment | None = Field(
        None,
        description="where workers run. loopback: in the component's process; docker: in containers of `sdk_container_image`; "
        "external: in the pool of workers at `worker_address`. loopback if not given and engine and component share a machine",
    )
    worker_address: _HostPort | None = Field(None, description="HOST:PORT of the pool of workers, as the engine sees it")
    project: str | None = Field(None, description="Google Cloud project, for Dataflow")
    region: str | None = Field(None, description="where Dataflow works, such as europe-west4")
    temp_location: _BucketPath | None = Field(None, description="folder for Dataflow's temporary files (gs://)")
    staging_location: _BucketPath | None = Field(
        None, description="folder for what Dataflow's workers are sent (gs://); in `temp_location` if not given"
    )
    sdk_container_image: str | None = Field(None, description="image with this project and its packages, for the workers")
    setup_file: HomePath | None = Field(
        None, description="the project's pyproject.toml: workers get the project built from it, and must have its packages"
    )
    shared_folders: list[str] = Field(
        [], description="folders that all workers see under the same path, such as a network file system"
    )
    options: list[str] = Field([], description="other options of Apache Beam, such as --sdk_worker_parallelism=2")

    @model_validator(mode="after")
    def _fits_the_runner(self) -> "BeamConfig":
        for key in sorted(self.model_fields_set & _BEAM_KEYS.keys()):
            if self.runner not in _BEAM_KEYS[key] and getattr(self, key) != type(self).model_fields[key].default:
                takers = ", ".join(_BEAM_KEYS[key])
                raise ValueError(f"{key} is of no use to runner {self.runner}; remove it, or set runner to one of: {takers}")
        for option in self.options:
            if option.partition("=")[0] in ("--runner", "--environment_type"):
                raise ValueError(f"options: {option} is what `runner` and `environment` are for; set these instead")
        if self.runner == "dataflow":
            missing = [key for key in ("project", "region", "temp_location") if not getattr(self, key)]
            if missing:
                raise ValueError(f"runner dataflow needs {' and '.join(missing)} as well")
            if bool(self.sdk_container_image) == bool(self.setup_file):
                raise ValueError("runner dataflow needs sdk_container_image or setup_file, one of them, to get this project")
        if self.runner == "portable" and not self.job_endpoint:
            raise ValueError("runner portable needs job_endpoint: HOST:PORT of the engine's job service")
        if self.runner in ("flink", "spark", "portable"):
            self._has_workers()
        return self

    def _has_workers(self) -> None:
        if self.environment is None and not self.engine_is_here:
            raise ValueError("environment: say where the workers of a cluster run: docker or external")
        if self.environment == "loopback" and not self.engine_is_here:
            raise ValueError("environment loopback: a cluster elsewhere can't reach this process; take docker or external")
        if self.environment == "docker" and not self.sdk_container_image:
            raise ValueError("environment docker needs sdk_container_image: an image with this project and its packages")
        if self.environment != "docker" and self.sdk_container_image:
            raise ValueError("sdk_container_image is for environment docker alone; remove it, or set that")
        if (self.environment == "external") != (self.worker_address is not None):
            raise ValueError("environment external and worker_address: HOST:PORT need each other")

    @property
    def engine_is_here(self) -> bool:
        """Whether the engine runs on the same machine as the components."""
        if self.runner == "local":
            return True
        if self.runner == "dataflow":
            return False
        spark = self.spark_master
        spark_address = spark.removeprefix("spark://") if spark and not spark.startswith("local") else None
        return all(map(is_here, (self.dask_scheduler, self.job_endpoint, self.flink_master, spark_address)))

    @property
    def workers_are_here(self) -> bool:
        """Whether workers see this machine's files."""
        return self.engine_is_here and self.environment != "docker" and is_here(self.worker_address)


def is_here(address: str | None) -> bool:
    """Whether HOST:PORT is an address of this machine; True for None."""
    if address is None:
        return True
    host = re.sub("^(https?|tcp)://", "", address).partition(":")[0]
    return host == "localhost" or host.startswith("127.")
