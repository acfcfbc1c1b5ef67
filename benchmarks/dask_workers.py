"""What do more workers of Dask bring? Processor time on the workers and beside them, and a model of it for more machines.

    .venv/bin/python -m benchmarks.dask_workers

The pipeline up to Transform runs on clusters of several sizes, with few and with more images, after a first time that makes
all processes load what they need. Processor time is what counts: the workers and whatever else runs there share the cores.

docs/dask.json has the single runs, docs/scaling.md gets the table.
"""

import argparse
import json
import tempfile
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from base.local_files import write_text
from benchmarks.backbones import write_section
from benchmarks.components_run import run_components
from benchmarks.engines import dask
from benchmarks.ingestion import write_images
from benchmarks.measurement import machine, paragraph, table
from components.dask_cluster import connect
from images.shards import make_shards
from pipeline.config.whole import Config

SHARD = 64  # images, so that few of them are many shards
SIZE = {"height": 32, "width": 32, "channels": 1}


@dataclass(frozen=True)
class Run:
    """One run; all in seconds of processor time, but for `seconds`, which are the clock's.

    Attributes:
      workers: of the cluster.
      images: of the data set.
      seconds: of the whole run.
      spread: of all workers together.
      busiest: of the worker with the most.
      own: of the process that runs the components.
    """

    workers: int
    images: int
    seconds: float
    spread: float
    busiest: float
    own: float


def measure(workers: int, sizes: list[int], folder: Path) -> list[Run]:
    """Runs the sizes on a cluster of so many workers."""
    runs = []
    with tempfile.TemporaryDirectory(prefix="dask-", dir=folder) as work, dask(Path(work), workers) as beam:
        client = connect(str(beam.dask_scheduler))
        for number, images in enumerate((sizes[0], *sizes)):  # the first is to warm up
            data = {"path": str(write_images(folder, "small", images))}
            config = Config.model_validate({"name": "dask", "data": data, "image": SIZE, "beam": beam})
            before, own, began = client.run(time.process_time), time.process_time(), time.monotonic()
            with mock.patch("components.image_example_gen.executor.make_shards", partial(make_shards, most=SHARD)):
                run_components(config, Path(work) / str(number), "Transform")
            seconds, own = time.monotonic() - began, time.process_time() - own
            spent = [after - before[worker] for worker, after in client.run(time.process_time).items()]
            runs.append(Run(workers, images, *(round(value, 2) for value in (seconds, sum(spent), max(spent), own))))
            print(runs[-1], flush=True)
        client.close()
        connect.cache_clear()
    return runs[1:]


def fit(runs: list[Run]) -> tuple[float, float, float, float]:
    """Processor time by least squares: of the run itself, s and s an image; of the workers, s a worker and s an image."""
    images, workers = (np.array([getattr(run, name) for run in runs], float) for name in ("images", "workers"))
    own, *_ = np.linalg.lstsq(np.stack([np.ones_like(images), images], 1), [run.own for run in runs])
    spread, *_ = np.linalg.lstsq(np.stack([workers, images], 1), [run.spread for run in runs])
    return float(own[0]), float(own[1]), float(spread[0]), float(spread[1])


def section(results: dict[str, Any]) -> str:
    """The section of docs/scaling.md."""
    runs = [Run(**run) for run in results["runs"]]
    rows = [
        [str(run.workers), f"{run.images:,}", f"{run.spread:.1f}", f"{run.busiest:.1f}", f"{run.own:.1f}", f"{run.seconds:.0f}"]
        for run in runs
    ]
    header = ["workers", "images", "all workers, s", "busiest worker, s", "the run itself, s", "by the clock, s"]
    start, own, ready, spread = fit(runs)

    def minutes(workers: float) -> str:
        return f"{(start + ready + 1e6 * (own + spread / workers)) / 60:.0f}"

    intro = (
        f"ImageExampleGen to Transform on JPEG files of 128x128 pixels in shards of {SHARD}, resized to 32x32x1, by "
        f"`benchmarks/dask_workers.py` on {results['machine']}. All but the last column are processor time, because other "
        "programs ran on the two cores at the same time; for the same reason the last column shows no gain. All processes had "
        "loaded TensorFlow before. What two cores can show: the work is divided evenly, and more workers do not make it more, "
        f"but for the {ready:.0f} s that each takes to make ready."
    )
    model = (
        f"By least squares, an image takes {1000 * spread:.1f} ms on a worker and {1000 * own:.2f} ms in the run itself, which "
        f"takes {start:.0f} s for no image. If each worker has a core of its own, a million such images take "
        + ", ".join(f"{minutes(count)} minutes with {count} worker{'s' * (count > 1)}" for count in (1, 4, 16, 64))
        + f". However many there are, {minutes(np.inf)} minutes are left, the part of the run itself. This is a calculation: "
        "no run on more than one machine was made. It leaves out the network and the file system, which all workers share."
    )
    return f"{paragraph(intro)}\n\n{table(header, rows)}\n\n{paragraph(model)}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4], help="sizes of the cluster (1 2 4)")
    parser.add_argument("--images", type=int, nargs="+", default=[400, 4_000], help="numbers of images (400 4000)")
    parser.add_argument("--folder", type=Path, default=Path("output/benchmark_data"), help="for the images and outputs")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="folder for what is written (docs)")
    options = parser.parse_args()
    runs = [run for workers in options.workers for run in measure(workers, options.images, options.folder.resolve())]
    results = {"machine": machine(), "runs": [asdict(run) for run in runs]}
    write_text(options.docs / "dask.json", json.dumps(results, indent=1) + "\n")
    write_section(options.docs / "scaling.md", "Dask's workers", section(results))


if __name__ == "__main__":
    main()
