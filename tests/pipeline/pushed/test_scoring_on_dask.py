"""Ingestion and `fpn score` on a Dask cluster: what a run in memory gives."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import executors
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from dask_processes import Cluster, cluster
from pyarrow import parquet
from rich.console import Console
from tfx.dsl.components.base import base_beam_executor

from components.dask_cluster import connect
from pipeline.config.loading import load_config
from pipeline.pushed.scoring import score


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    connect.cache_clear()
    with cluster(tmp_path_factory.mktemp("cluster"), 2) as found:
        yield found


def answers(output: Path) -> pd.DataFrame:
    return parquet.read_table(output / "scores").to_pandas().set_index("path").sort_index()


def test_scores_are_those_in_memory_and_paths_those_of_this_process(
    two: Cluster, exported: Any, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pictures.parent)  # which is not the workers' folder
    found: dict[str, tuple[Path, dict[str, Any]]] = {}
    for name, overrides in {"memory": [], "dask": ["beam.runner=dask", f"beam.dask_scheduler={two.address}"]}.items():
        config = load_config(None, pictures.name, ["score.shard_images=3", *overrides])
        output = tmp_path / name
        with (tmp_path / f"{name}.txt").open("w") as screen:
            found[name] = output, score(config, Path(exported.path), str(output), Console(file=screen))
    (output, summary), (expected, other) = found["dask"], found["memory"]
    assert summary | {"seconds": 0, "output": ""} == other | {"seconds": 0, "output": ""}
    assert summary["shards"] > 2
    table, reference = answers(output), answers(expected)
    np.testing.assert_array_equal(np.stack(table.pop("probabilities")), np.stack(reference.pop("probabilities")))
    pd.testing.assert_frame_equal(table, reference)
    assert (tmp_path / "dask.txt").read_text().startswith("Dask with 2 workers, see http://127.0.0.1:")


def test_ingestion_gives_what_it_gives_in_memory(
    two: Cluster, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_memory = executors.ingest(pictures, tmp_path / "memory", labelled=False, max_rejected=1.0, duplicates="group")
    arguments = ["--runner=FnApiRunner", "--sdk_container_image=none", f"--dask_scheduler={two.address}"]
    context = base_beam_executor.BaseBeamExecutor.Context(
        beam_pipeline_args=arguments, tmp_dir=str(tmp_path / "tmp"), unique_id="1"
    )
    monkeypatch.setattr(executors, "context", lambda output, number: context)
    on_dask = executors.ingest(pictures, tmp_path / "dask", labelled=False, max_rejected=1.0, duplicates="group")
    files = {name: sorted(Path(item.uri).rglob("*")) for name, item in (("memory", in_memory), ("dask", on_dask))}
    names = [[path.relative_to(tmp_path / name) for path in paths] for name, paths in files.items()]
    assert names[0] == names[1]
    for path, other in ((path, other) for path, other in zip(*files.values(), strict=True) if path.is_file()):
        if "tfrecord" in path.name:  # processes write the features of an example in different orders
            found, expected = (read_records(item) for item in (other, path))
            assert len(found) == 7
            assert found == expected
        else:
            assert path.read_bytes() == other.read_bytes(), path


def read_records(path: Path) -> list[dict[str, list[Any]]]:
    return [executors.read_values(record) for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator()]
