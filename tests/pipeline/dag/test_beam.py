"""The section `beam`: what it becomes for Apache Beam, and what is refused before anything starts."""

from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
import yaml
from apache_beam.options import pipeline_options
from apache_beam.testing.util import assert_that
from tfx_bsl.coders import batch_util

import components.spread  # noqa: F401 - its option is one of Beam's from then on
from base.errors import UserError
from pipeline.config.beam import BeamConfig
from pipeline.config.loading import load_config
from pipeline.dag.batch_bytes import bound_batches
from pipeline.dag.beam import check_engine, check_engine_of_containers, pipeline_args
from pipeline.kubeflow.compiler import compile_pipeline

DATAFLOW = {"runner": "dataflow", "project": "p", "region": "r", "temp_location": "gs://b/tmp", "sdk_container_image": "i:1"}
DASK = {"runner": "dask", "dask_scheduler": "tcp://dask:8786"}
CLUSTER = {"runner": "flink", "flink_master": "flink:8081", "environment": "docker", "sdk_container_image": "image:1"}


def options(**beam: Any) -> dict[str, Any]:
    """What Beam reads from the arguments; it knows all of them."""
    arguments = pipeline_args(BeamConfig(**beam))
    found = pipeline_options.PipelineOptions(arguments)
    known = found.get_all_options()
    assert {argument.split("=")[0].removeprefix("--") for argument in arguments} <= known.keys()
    return known


def test_without_an_engine_beam_works_in_the_components_process() -> None:
    assert pipeline_args(BeamConfig(options=["--direct_num_workers=1"])) == [
        "--runner=FnApiRunner",
        "--sdk_container_image=none",
        "--direct_num_workers=1",
    ]


@pytest.mark.parametrize(
    ("beam", "expected"),
    [
        ({"runner": "dask"}, {"runner": "FnApiRunner", "dask_scheduler": "here", "sdk_container_image": "none"}),
        (DASK, {"runner": "FnApiRunner", "dask_scheduler": "tcp://dask:8786"}),
        (
            {"runner": "flink", "parallelism": 2},
            {"runner": "FlinkRunner", "flink_version": "1.20", "environment_type": "LOOPBACK", "parallelism": 2},
        ),
        (
            CLUSTER,
            {
                "flink_master": "flink:8081",
                "environment_type": "DOCKER",
                "environment_config": "image:1",
                "sdk_container_image": "image:1",
            },
        ),
        (
            {
                "runner": "spark",
                "spark_master": "spark://spark:7077",
                "environment": "external",
                "worker_address": "localhost:50000",
            },
            {
                "runner": "SparkRunner",
                "spark_master_url": "spark://spark:7077",
                "environment_type": "EXTERNAL",
                "environment_config": "localhost:50000",
            },
        ),
        (
            {"runner": "portable", "job_endpoint": "localhost:8099"},
            {"runner": "PortableRunner", "job_endpoint": "localhost:8099", "environment_type": "LOOPBACK"},
        ),
        (DATAFLOW, {"runner": "DataflowRunner", "project": "p", "region": "r", "temp_location": "gs://b/tmp"}),
        (
            DATAFLOW | {"sdk_container_image": None, "setup_file": "pyproject.toml"},
            {"setup_file": str(Path.cwd() / "pyproject.toml")},
        ),
    ],
)
def test_an_engine_gets_its_options(beam: dict[str, Any], expected: dict[str, Any]) -> None:
    found = options(**beam)
    assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("beam", "message"),
    [
        ({"runner": "ray"}, "beam.runner: input should be 'local', 'dask', 'flink', 'spark', 'dataflow' or 'portable'"),
        (
            {"flink_master": "flink:8081"},
            "flink_master is of no use to runner local; remove it, or set runner to one of: flink",
        ),
        (CLUSTER | {"region": "r"}, "region is of no use to runner flink; remove it, or set runner to one of: dataflow"),
        (CLUSTER | {"flink_master": "flink"}, "beam.flink_master: string should match"),
        ({"runner": "flink", "flink_master": "flink:8081"}, "environment: say where the workers of a cluster run"),
        ({"runner": "flink", "flink_master": "flink:8081", "environment": "loopback"}, "a cluster elsewhere can't reach this"),
        ({"runner": "spark", "environment": "docker"}, "environment docker needs sdk_container_image"),
        ({"runner": "spark", "environment": "external"}, "environment external and worker_address: HOST:PORT need each other"),
        ({"runner": "flink", "sdk_container_image": "i"}, "sdk_container_image is for environment docker alone"),
        ({"runner": "portable"}, "runner portable needs job_endpoint"),
        (DASK | {"dask_scheduler": "dask:8786"}, "beam.dask_scheduler: string should match pattern '^tcp://"),
        (DASK | {"runner": "flink"}, "dask_scheduler is of no use to runner flink; remove it, or set runner to one of: dask"),
        (DASK | {"sdk_container_image": "i"}, "sdk_container_image is of no use to runner dask"),
        ({"runner": "dataflow", "region": "r"}, "runner dataflow needs project and temp_location as well"),
        (DATAFLOW | {"sdk_container_image": None}, "needs sdk_container_image or setup_file"),
        (DATAFLOW | {"temp_location": "/tmp"}, "beam.temp_location: string should match pattern '^gs://"),
        ({"options": ["--runner=FlinkRunner"]}, "options: --runner=FlinkRunner is what `runner` and `environment` are for"),
    ],
)
def test_what_does_not_fit_is_refused_when_the_configuration_is_read(
    beam: dict[str, Any], message: str, tmp_path: Path
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump({"name": "engines", "data": {"path": "images"}, "beam": beam}))
    with pytest.raises(UserError) as error:
        load_config(file)
    assert message in str(error.value)
    assert str(error.value).startswith(f"{file}: beam")


@pytest.mark.parametrize(
    ("beam", "path"),
    [
        ({}, "/data"),
        ({"runner": "portable", "job_endpoint": "localhost:8099"}, "/data"),
        ({"runner": "dask"}, "/data"),
        (DASK | {"dask_scheduler": "tcp://localhost:8786"}, "/data"),
        (DASK | {"shared_folders": ["/mnt/nfs"]}, "/mnt/nfs/data"),
        (
            {"runner": "flink", "flink_master": "localhost:8081", "environment": "external", "worker_address": "localhost:5"},
            "/data",
        ),
        (CLUSTER, "s3://bucket/data"),
        (CLUSTER | {"shared_folders": ["/mnt/nfs"]}, "/mnt/nfs/data"),
        (DATAFLOW, "gs://bucket/data"),
    ],
)
def test_paths_that_workers_reach_are_taken(beam: dict[str, Any], path: str, java: None) -> None:
    check_engine(BeamConfig(**beam), {"data.path": path})


@pytest.mark.parametrize(
    ("beam", "path", "message"),
    [
        (CLUSTER, "/data", "data.path: /data is on this machine, and workers of beam.runner flink run elsewhere; use gs://"),
        (DASK, "/data", "and workers of beam.runner dask run elsewhere; use gs:// or s3://, or a folder that all see"),
        (CLUSTER | {"flink_master": "localhost:8081"}, "/data", "run elsewhere"),  # containers have files of their own
        (CLUSTER | {"shared_folders": ["/mnt/nfs"]}, "/mnt/nfs-2", "run elsewhere"),
        (DATAFLOW, "data", "data.path: data is on this machine, and workers of beam.runner dataflow run elsewhere; use gs://"),
        (DATAFLOW, "s3://bucket/data", "Dataflow's workers read and write gs://, not s3://bucket/data"),
    ],
)
def test_paths_that_workers_can_not_reach_are_refused(beam: dict[str, Any], path: str, message: str, java: None) -> None:
    with pytest.raises(UserError) as error:
        check_engine(BeamConfig(**beam), {"data.path": path})
    assert message in str(error.value)


def test_missing_files_and_java_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="flink needs Java, which is not installed; install Java 17"):
        check_engine(BeamConfig(runner="flink"), {})
    check_engine(BeamConfig(runner="flink", job_endpoint="localhost:8099"), {})
    with pytest.raises(UserError, match=r"absent\.jar is no file; correct or remove it"):
        check_engine(BeamConfig(runner="spark", job_server_jar=str(tmp_path / "absent.jar")), {})
    (tmp_path / "setup.cfg").touch()
    with pytest.raises(UserError, match=r"beam\.setup_file: must be a pyproject\.toml or setup\.py"):
        check_engine(BeamConfig(runner="flink", setup_file=str(tmp_path / "setup.cfg")), {})


@pytest.mark.parametrize(
    ("beam", "data", "root"),
    [
        ({}, "/data/images", "minio://bucket/root"),
        ({"runner": "dask"}, "/data/images", "minio://bucket/root"),  # workers in the component's container
        (DASK, "s3://bucket/images", "gs://bucket/root"),
        ({"runner": "flink", "job_server_jar": "/opt/jobs.jar"}, "/data/images", "minio://bucket/root"),  # all in the image
        (CLUSTER, "s3://bucket/images", "gs://bucket/root"),
        (CLUSTER | {"shared_folders": ["/data"]}, "/data/images", "gs://bucket/root"),
        (
            {"runner": "flink", "flink_master": "flink:8081", "environment": "external", "worker_address": "localhost:5"},
            "gs://bucket/images",
            "gs://bucket/root",
        ),
        (DATAFLOW, "gs://bucket/images", "gs://bucket/root"),
    ],
)
def test_engines_that_containers_and_workers_reach_are_taken_without_java(
    beam: dict[str, Any], data: str, root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    check_engine_of_containers(BeamConfig(**beam), {"data.path": data}, root)


@pytest.mark.parametrize(
    ("beam", "data", "root", "message"),
    [
        (CLUSTER, "/data/images", "gs://b/r", "data.path: /data/images is in the component's container, and workers of"),
        (CLUSTER, "s3://b/images", "s3://b/r", "kubeflow.root: workers of beam.runner flink run elsewhere, and Kubeflow keeps"),
        (DATAFLOW, "s3://b/images", "gs://b/r", "Dataflow's workers read and write gs://"),
        (
            {"runner": "portable", "job_endpoint": "localhost:8099"},
            "/data/images",
            "gs://b/r",
            "beam.job_endpoint: localhost:8099 is the component's own container, where no engine is",
        ),
        (DASK, "s3://b/images", "s3://b/r", "kubeflow.root: workers of beam.runner dask run elsewhere, and Kubeflow keeps"),
        (
            DASK | {"dask_scheduler": "tcp://127.0.0.1:8786"},
            "s3://b/images",
            "gs://b/r",
            "beam.dask_scheduler: tcp://127.0.0.1:8",
        ),
        (CLUSTER | {"flink_master": "http://127.0.0.1:8081"}, "s3://b/images", "gs://b/r", "beam.flink_master: http://127"),
        (
            {"runner": "spark", "spark_master": "spark://localhost:7077"},
            "/data/images",
            "gs://b/r",
            "beam.spark_master: spark://localhost:7077 is the component's own container",
        ),
        (
            {"runner": "flink", "environment": "external", "worker_address": "localhost:50000"},
            "/data/images",
            "gs://b/r",
            "beam.worker_address: localhost:50000 is the component's own container, where no pool is",
        ),
        (
            {"runner": "flink", "job_server_jar": "jobs.jar"},
            "/data/images",
            "gs://b/r",
            "beam.job_server_jar: must be absolute, for it is a file of the image",
        ),
        (CLUSTER | {"setup_file": "/app/setup.cfg"}, "s3://b/images", "gs://b/r", "must be a pyproject.toml or setup.py"),
    ],
)
def test_engines_that_containers_or_workers_can_not_reach_are_refused(
    beam: dict[str, Any], data: str, root: str, message: str
) -> None:
    with pytest.raises(UserError) as error:
        check_engine_of_containers(BeamConfig(**beam), {"data.path": data}, root)
    assert message in str(error.value)


def test_compiling_checks_the_engine(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    kubeflow = {"state": "gs://bucket/state"}
    content = {"name": "engines", "data": {"path": "s3://bucket/images"}, "beam": CLUSTER, "kubeflow": kubeflow}
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match=r"kubeflow\.root: workers of beam.runner flink run elsewhere"):
        compile_pipeline(load_config(file), tmp_path / "pipeline.yaml")
    assert not (tmp_path / "pipeline.yaml").exists()


@pytest.fixture
def java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "java").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")


@pytest.mark.parametrize(("record_bytes", "records", "largest"), [(2**20, 10, 4), (10, 3000, 3000)])
def test_batches_of_records_end_at_four_mebibytes(record_bytes: int, records: int, largest: int) -> None:
    bound_batches()

    def check(sizes: list[int]) -> None:
        assert sum(sizes) == records
        assert max(sizes) == largest

    with beam.Pipeline("FnApiRunner") as pipeline:
        batches = pipeline | beam.Create([bytes(record_bytes)] * records) | batch_util.BatchRecords(None, None)
        assert_that(batches | beam.Map(len), check)
