"""The whole pipeline on a Dask cluster, of which a worker is killed, gives what a run in memory gives."""

import json
import re
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from dask_processes import Cluster, cluster
from executors import read_values
from few_digits import write_config
from PIL import Image

from evaluation.predictions import Predictions

pytestmark = pytest.mark.extra
SPANS = 4  # a shard each


def write_data(place: Path) -> None:
    random = np.random.default_rng(5)
    for span in range(SPANS):
        for name, level in (("bright", 140), ("dark", 110)):
            folder = place / f"day-{span}" / name
            folder.mkdir(parents=True)
            for number in range(30):
                pixels = np.clip(level + random.normal(0, 60, (16, 16)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")


def kill_one(found: Cluster, output: Path) -> None:
    """Kills the last worker as soon as a shard is finished."""
    while not list(output.rglob(".index-*.parquet")):
        time.sleep(0.01)
    found.workers[-1].kill()


@pytest.fixture(scope="module")
def runs(fpn: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Any]]:
    """By engine, the output folder and how the run ended."""
    place = tmp_path_factory.mktemp("place")
    write_data(place)
    write_config(place, data={"path": f"{place}/day-{{SPAN}}"}, train={"epochs": 2})
    found = {}
    with cluster(tmp_path_factory.mktemp("cluster"), 3) as workers:
        for name, beam in {"memory": {}, "dask": {"runner": "dask", "dask_scheduler": workers.address}}.items():
            output = place / name
            if beam:
                threading.Thread(target=kill_one, args=(workers, output), daemon=True).start()
            arguments = ["--config", place / "config.yaml", "--output", output, "--set", f"beam={json.dumps(beam)}", "--json"]
            found[name] = output, fpn("run", *arguments)
        assert workers.workers[-1].poll() is not None, "it was not killed in time"
    return found


def records(output: Path, component: str, key: str) -> dict[str, list[dict[str, list[Any]]]]:
    """File -> the values of its examples by feature."""
    folder = max((output / "artifacts" / component / key).iterdir(), key=lambda path: int(path.name))
    found = {}
    for path in sorted(path for path in folder.glob("Split-*/*") if path.is_file()):
        examples = tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
        found[str(path.relative_to(folder))] = list(map(read_values, examples))
    return found


def test_examples_and_metrics_are_those_of_the_run_in_memory(runs: dict[str, tuple[Path, Any]]) -> None:
    (expected_folder, expected), (folder, ended) = runs["memory"], runs["dask"]
    assert ended.status == expected.status == 0, ended.stderr
    assert "Dask with 3 workers" in ended.stderr
    assert f"WriteShard, shard {SPANS}/{SPANS}" in ended.stderr
    for component, key in (("ImageExampleGen", "examples"), ("Transform", "transformed_examples")):
        found = records(folder, component, key)
        assert found == records(expected_folder, component, key)
        assert len(found) >= SPANS
    assert ended.json["examples"] == expected.json["examples"]
    predictions, others = (Predictions.read(item.json["evaluation"]) for item in (ended, expected))
    np.testing.assert_array_equal(predictions.probabilities, others.probabilities)
    assert ended.json["metrics"] == expected.json["metrics"] != {}


def test_scoring_on_the_cores_of_this_machine_leaves_no_process_and_no_word(
    runs: dict[str, tuple[Path, Any]], fpn: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, _ = runs["memory"]
    monkeypatch.setenv("FPN_TEST", str(tmp_path))  # by which the processes are known
    scored = fpn("score", "--model", output / "pushed", "--data", output.parent / "day-0", "--output", tmp_path / "out",
                 "--set", "score.shard_images=10", "--set", "beam.runner=dask", "--json")  # fmt: skip
    assert scored.status == 0, scored.stderr
    assert re.fullmatch(r"Dask with \d+ workers?, see http://127\.0\.0\.1:\d+/status\n", scored.stderr), scored.stderr
    assert (scored.json["images"], scored.json["shards"]) == (60, 6)
    end = time.monotonic() + 10
    while left := processes(f"FPN_TEST={tmp_path}"):
        assert time.monotonic() < end, left
        time.sleep(0.1)


def processes(variable: str) -> list[str]:
    """The commands of the processes that have been started with a variable."""
    return [read(path.with_name("cmdline")) for path in Path("/proc").glob("[0-9]*/environ") if variable in read(path)]


def read(path: Path) -> str:
    try:
        return path.read_bytes().decode(errors="replace")
    except OSError:  # the process has ended
        return ""


def test_a_scheduler_that_is_gone_is_told_in_one_line(runs: dict[str, tuple[Path, Any]], fpn: Any) -> None:
    output, _ = runs["dask"]
    ended = fpn("run", "--config", output.parent / "config.yaml", "--output", output, "--set", "beam.runner=dask",
                "--set", "beam.dask_scheduler=tcp://127.0.0.1:9")  # fmt: skip
    assert ended.status == 2
    assert ended.stderr.splitlines()[-1].endswith("start a scheduler there, or correct it")
