"""How much faster two cores are than one: ingestion, analysis, evaluation and scoring of many small images.

Whole runs in processes of their own, bound to one or two cores before TensorFlow counts them. What the same takes on few images
is taken off, so that start-up does not count. Training is a few steps: it only makes a model for what follows.

A machine may gain less from its second core, because the two share a real one, or with others: `alone` measures what two
processes gain that share nothing.
"""

import argparse
import io
import json
import os
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from benchmarks.components_run import run_components
from benchmarks.ingestion import write_images
from benchmarks.measurement import Figure, run_apart, warm
from pipeline.config.whole import Config

FEW, MANY = 500, 20_000  # images
LEAST_GAIN = 1.7  # times as fast on two cores
ALONE_SECONDS = 5.0
MEASURED: Final = {
    "ImageExampleGen": "ingestion",
    "Transform": "Transform",
    "Evaluator": "Evaluator",
    "BulkInferrer": "scoring of images that are ingested",
}


def run(data: Path, work: Path, cores: int) -> dict[str, dict[str, float]]:
    """Seconds and processor time of each component on the first so many cores."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    images = str(data / "train")  # two class folders, dealt into splits by the pipeline
    config = Config.model_validate(
        {
            "name": "cores",
            "data": {"path": images, "splits": {"train": 2, "eval": 1, "test": 7}},
            "image": {"height": 64, "width": 64, "channels": 3},
            "model": {"backbone": "small_resnet10", "num_filters": 32},
            "train": {"steps": 10, "batch_size": 64},
            "evaluate": {"thresholds": [{"metric": "accuracy", "lower": 0.0}]},
            "score": {"path": images},
        }
    )
    measured = run_components(config, work)
    return {"seconds": measured.seconds, "processor": measured.processor}


def alone(core: int) -> float:
    """Images/s that a process decodes on a core, of one JPEG file of 128x128."""
    os.sched_setaffinity(0, [core])
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)).save(file, "JPEG")
    start, count = time.perf_counter(), 0
    while (seconds := time.perf_counter() - start) < ALONE_SECONDS:
        Image.open(io.BytesIO(file.getvalue())).load()
        count += 1
    return count / seconds


def measure(folder: Path, repeats: int) -> list[Figure]:
    """The gain of two cores, by component; none on a machine of one."""
    if len(os.sched_getaffinity(0)) < 2:
        return []
    runs: dict[tuple[int, int], list[Mapping[str, Mapping[str, float]]]] = {}
    one, two = [], []
    for repeat in range(repeats):
        with ProcessPoolExecutor(2) as processes:
            cores = sorted(os.sched_getaffinity(0))[:2]
            one.append(processes.submit(alone, cores[0]).result())
            two.append(sum(processes.map(alone, cores)))
        for count in (FEW, MANY):
            data = write_images(folder, "small", count)
            warm(data)
            for number in (1, 2):
                print(f"[{repeat + 1}/{repeats}] {count:,} images, cores: {number}", flush=True)
                with tempfile.TemporaryDirectory(prefix="run-", dir=folder) as work:
                    runs.setdefault((count, number), []).append(run_apart("-m", "benchmarks.cores", data, work, number).result)
    return [Figure("this machine: two processes that share nothing, against one", "images/s", two, one), *figures(runs)]


def figures(runs: Mapping[tuple[int, int], list[Mapping[str, Mapping[str, float]]]]) -> list[Figure]:
    """Images per second beyond the start-up, on two cores and on one; and processor time for an image on both.

    Args:
      runs: by number of images and of cores, what `run` gave in each repeat.
    """

    def beyond(cores: int, what: str, component: str) -> list[float]:
        pairs = zip(runs[MANY, cores], runs[FEW, cores], strict=True)
        return [(many[what][component] - few[what][component]) / (MANY - FEW) for many, few in pairs]

    found = []
    for component, name in MEASURED.items():
        one, two = ([1 / max(seconds, 1e-9) for seconds in beyond(cores, "seconds", component)] for cores in (1, 2))
        found.append(Figure(f"{name}, two cores against one", "images/s", two, one, LEAST_GAIN, at_least=True))
    for component, name in MEASURED.items():
        one, two = ([1000 * seconds for seconds in beyond(cores, "processor", component)] for cores in (1, 2))
        found.append(Figure(f"{name}, two cores against one", "processor ms/image", two, one))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("cores", type=int)
    options = parser.parse_args()
    print(json.dumps(run(options.data, options.work / "output", options.cores)))


if __name__ == "__main__":
    main()
