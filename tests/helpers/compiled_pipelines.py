"""A small pipeline of three tasks, compiled by kfp itself, for tests of what becomes of such files."""

from pathlib import Path
from typing import Any

import yaml
from kfp import compiler, dsl

_IMAGE = "registry.example/fpn:1"


@dsl.container_component
def ingest(path: str, examples: dsl.Output[dsl.Dataset]):
    return dsl.ContainerSpec(image=_IMAGE, command=["ingest"], args=[path, examples.path])


@dsl.container_component
def train(examples: dsl.Input[dsl.Dataset], epochs: int, model: dsl.Output[dsl.Model]):
    return dsl.ContainerSpec(image=_IMAGE, command=["train"], args=[examples.path, epochs, model.path])


@dsl.container_component
def push(model: dsl.Input[dsl.Model], threshold: float):
    return dsl.ContainerSpec(image=_IMAGE, command=["push"], args=[model.path, threshold])


@dsl.pipeline(name="small", pipeline_root="s3://bucket/runs")
def small(data_path: str = "s3://bucket/images", epochs: int = 3, threshold: float = 0.5):
    ingested = ingest(path=data_path)
    trained = train(examples=ingested.outputs["examples"], epochs=epochs)
    pushed = push(model=trained.outputs["model"], threshold=threshold)
    for task in (ingested, trained, pushed):
        task.set_cpu_limit("1").set_memory_limit("1G")


def write_small(folder: Path) -> Path:
    """Compiles the pipeline to `pipeline.yaml`."""
    path = folder / "pipeline.yaml"
    compiler.Compiler().compile(small, str(path))
    return path


def read_documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def write_documents(path: Path, *documents: Any) -> Path:
    path.write_text(yaml.safe_dump_all(documents))
    return path
