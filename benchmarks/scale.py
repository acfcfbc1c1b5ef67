"""Time and memory of every component, for several numbers of images: do they grow as they should?

Each run is the whole pipeline in a process of its own, on small JPEG files that it brings to 32x32 pixels, for an epoch of a
small network.
"""

import argparse
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from benchmarks.components_run import run_components
from benchmarks.ingestion import write_images
from benchmarks.measurement import Figure, run_apart, warm
from pipeline.config.whole import Config

GROWTH = (5_000, 20_000, 80_000)  # images, of which the times are told
FEW, MANY = 5_000, 50_000  # images, of which the memory is compared
MOST_MEMORY = 1.15  # times that of the few
MEASURED = ("ImageExampleGen", "StatisticsGen", "Transform", "Trainer", "Evaluator")  # the others work on what these put out


def run(data: Path, work: Path) -> dict[str, Mapping[str, float]]:
    """Seconds and largest memory of each component."""
    config = Config.model_validate(
        {
            "name": "scale",
            "data": {"path": str(data / "train")},  # two class folders, dealt into splits by the pipeline
            "image": {"height": 32, "width": 32, "channels": 3},
            "model": {"backbone": "small_resnet10", "min_level": 2, "max_level": 4, "num_filters": 16},
            "train": {"epochs": 1, "batch_size": 64},
        }
    )
    measured = run_components(config, work)
    return {"seconds": measured.seconds, "peak": measured.peak}


Runs = dict[int, list[dict[str, dict[str, float]]]]  # by number of images, of each repeat


def measure(folder: Path, repeats: int) -> list[Figure]:
    """Of each component the fixed seconds, those a thousand images, and its memory for ten times the images."""
    runs: Runs = {}
    for repeat in range(repeats):
        for count in sorted({*GROWTH, FEW, MANY}):
            data = write_images(folder, "small", count)
            print(f"[{repeat + 1}/{repeats}] whole run on {count:,} images", flush=True)
            warm(data)
            with tempfile.TemporaryDirectory(prefix="run-", dir=folder) as work:
                runs.setdefault(count, []).append(run_apart("-m", "benchmarks.scale", data, work).result)
    return figures(runs)


def figures(runs: Runs) -> list[Figure]:
    """What is told of the runs."""
    found = []
    for name in MEASURED:
        seconds = {count: [one["seconds"][name] for one in runs[count]] for count in GROWTH}
        lines = [np.polyfit(GROWTH, times, 1) for times in zip(*seconds.values(), strict=True)]
        found.append(Figure(f"{name}: fixed part", "s", [float(fixed) for _, fixed in lines]))
        found.append(Figure(f"{name}: a thousand images more", "s", [1000 * float(slope) for slope, _ in lines]))
        for count, times in seconds.items():
            found.append(Figure(f"{name}: {count:,} images", "s", times, series=name, images=count))
    for name in MEASURED:
        for count, bar in ((MANY, MOST_MEMORY), (GROWTH[-1], None)):
            own, peer = ([one["peak"][name] / 2**20 for one in runs[images]] for images in (count, FEW))
            found.append(Figure(f"{name}: largest memory, {count:,} against {FEW:,} images", "MB", own, peer, bar))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="One run, as `measure` starts it.")
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    options = parser.parse_args()
    print(json.dumps(run(options.data, options.work)))


if __name__ == "__main__":
    main()
