"""From ten thousand images to a million: do time and memory of every component grow as they should?

    .venv/bin/python -m benchmarks.million --counts 10000 50000 100000

Each run is the whole pipeline in a process of its own, on JPEG files of 16x16 pixels in tar shards of 10,000 (WebDataset), for
an epoch of a small network. Times are processor time, which other programs do not change much.
"""

import argparse
import io
import json
import os
import tarfile
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from benchmarks.components_run import run_components
from benchmarks.measurement import Figure, figures_table, run_apart, warm
from benchmarks.scale import MEASURED
from pipeline.config.whole import Config

COUNTS: Final = (10_000, 50_000, 300_000, 1_000_000)
SHARD, SIDE = 10_000, 16  # images of a tar file; pixels
FEW: Final = 50_000  # images, to whose memory that of the most is compared
MOST_MEMORY, MOST_BYTES = 1.15, 8 * 2**30  # times that of the few; of a laptop
MOST_GROWTH = 1.1  # an image's time at the upper end, to that at the lower end


def write_shard(folder: Path, number: int) -> Path:
    """A tar file of images of two classes, a dark and a light one; the same each time."""
    path = folder / f"{number:04d}.tar"
    if path.exists():
        return path
    random = np.random.default_rng(number)
    unfinished = path.with_suffix(".unfinished")
    with tarfile.open(unfinished, "w") as tar:
        for image in range(SHARD):
            label = image % 2
            pixels = random.integers(90 * label, 90 * label + 128, (4, 4, 3), np.uint8)
            file = io.BytesIO()
            Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
            for suffix, content in (("jpg", file.getvalue()), ("cls", str(label).encode())):
                member = tarfile.TarInfo(f"{number * SHARD + image:08d}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    unfinished.rename(path)
    return path


def run(data: Path, work: Path) -> dict[str, Any]:
    config = Config.model_validate(
        {
            "name": "million",
            "data": {"path": str(data)},
            "image": {"height": SIDE, "width": SIDE, "channels": 3},
            "model": {"backbone": "small_resnet10", "min_level": 2, "max_level": 3, "num_filters": 16},
            "train": {"epochs": 1, "batch_size": 256},
        }
    )
    return asdict(run_components(config, work))


def measure(folder: Path, counts: tuple[int, ...] = COUNTS) -> list[Figure]:
    runs = {}
    shards = folder / "shards"
    shards.mkdir(exist_ok=True)
    for count in sorted(counts):
        with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as workers:
            paths = list(workers.map(partial(write_shard, shards), range(count // SHARD)))
        with tempfile.TemporaryDirectory(prefix="million-", dir=folder) as place:
            data, work = Path(place, "data"), Path(place, "output")
            data.mkdir()
            work.mkdir()
            for path in paths:
                os.link(path, data / path.name)
            print(f"whole run on {count:,} images", flush=True)
            warm(data)
            runs[count] = run_apart("-m", "benchmarks.million", "--one", data, work).result
    return figures(runs)


def figures(runs: dict[int, dict[str, dict[str, float]]]) -> list[Figure]:
    """Of each component the time of an image more, at both ends of the counts, and its memory."""
    counts = sorted(runs)
    found = []
    for name in MEASURED:
        seconds = [runs[count]["processor"][name] for count in counts]
        for count, value in zip(counts, seconds, strict=True):
            found.append(Figure(f"{name}: {count:,} images of {SIDE}x{SIDE}", "processor s", [value]))
        upper, lower = ([1000 * (seconds[i + 1] - seconds[i]) / (counts[i + 1] - counts[i])] for i in (len(counts) - 2, 0))
        span = f"from {counts[-2]:,} to {counts[-1]:,} images, against {counts[0]:,} to {counts[1]:,}"
        found.append(Figure(f"{name}: an image more, {span}", "processor ms", upper, lower, MOST_GROWTH))
    for name in MEASURED:
        few, most = (runs[count]["peak"][name] / 2**20 for count in (FEW, counts[-1]))
        found.append(Figure(f"{name}: largest memory, {counts[-1]:,} against {FEW:,} images", "MB", [most], [few], MOST_MEMORY))
    largest = max(runs[counts[-1]]["peak"].values()) / 2**20
    return [*found, Figure(f"largest memory of all, {counts[-1]:,} images", "MB", [largest], bar=MOST_BYTES / 2**20)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS, help=f"multiples of {SHARD:,}, {FEW:,} among them")
    parser.add_argument("--folder", type=Path, default=Path("output/benchmark_data"))
    parser.add_argument("--one", type=Path, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(run(*options.one)))
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    print(figures_table(measure(options.folder.resolve(), tuple(options.counts))))


if __name__ == "__main__":
    main()
