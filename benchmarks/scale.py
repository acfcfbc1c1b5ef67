"""Time and memory of every component, for several numbers of images: do they grow as they should?

Each run is the whole pipeline in a process of its own, on small JPEG files that it brings to 32x32 pixels, for an epoch of a
small network.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.components_run import run_components
from benchmarks.ingestion import write_images
from benchmarks.measurement import Figure, run_apart, warm
from pipeline.config import Config

MOST_MEMORY = 1.15  # times that of the smaller number of images
MEASURED = ("ImageExampleGen", "StatisticsGen", "Transform", "Trainer", "Evaluator")  # the others work on what these put out


def run(data: Path, work: Path) -> dict[str, dict[str, float]]:
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
    seconds, peak = run_components(config, work)
    return {"seconds": seconds, "peak": peak}


def measure(folder: Path, repeats: int, counts: list[int]) -> list[Figure]:
    """Of each component the fixed seconds, those a thousand images, and its memory for the last number over the first."""
    runs: dict[int, list[dict[str, dict[str, float]]]] = {}
    for repeat in range(repeats):
        for count in counts:
            data = write_images(folder, "small", count)
            print(f"[{repeat + 1}/{repeats}] whole run on {count:,} images", flush=True)
            warm(data)
            with tempfile.TemporaryDirectory(prefix="run-", dir=folder) as work:
                runs.setdefault(count, []).append(run_apart("-m", "benchmarks.scale", data, work).result)
    figures = []
    for name in MEASURED:
        lines = [np.polyfit(counts, [runs[count][repeat]["seconds"][name] for count in counts], 1) for repeat in range(repeats)]
        figures.append(Figure(f"{name}: fixed part", "s", [float(fixed) for _, fixed in lines]))
        figures.append(Figure(f"{name}: a thousand images more", "s", [1000 * float(slope) for slope, _ in lines]))
        for count in counts:
            seconds = [one["seconds"][name] for one in runs[count]]
            figures.append(Figure(f"{name}: {count:,} images", "s", seconds, series=name, images=count))
    few, many = counts[0], counts[-1]
    for name in MEASURED:
        own, peer = ([one["peak"][name] / 2**20 for one in runs[count]] for count in (many, few))
        figures.append(Figure(f"{name}: largest memory, {many:,} against {few:,} images", "MB", own, peer, MOST_MEMORY))
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description="One run, as `measure` starts it.")
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    options = parser.parse_args()
    print(json.dumps(run(options.data, options.work)))


if __name__ == "__main__":
    main()
