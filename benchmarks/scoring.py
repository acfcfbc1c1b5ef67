"""Images a second and memory of `fpn score`, beside a bare loop over the same files with the same model.

    .venv/bin/python -m benchmarks.scoring --model output/digits/pushed

Both sides take a small and a large data set in one process, one after the other. What an image takes is the difference between
the two, by the clock and of all cores together; so loading the model, which is the same for any number, does not count.
"""

import argparse
import io
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image
from rich.console import Console

from pipeline.config.loading import load_config
from pipeline.pushed.pushed_model import find_version
from pipeline.pushed.scoring import score

_BATCH = 64


def write_pictures(folder: Path, count: int, size: int) -> None:
    """Grey PNG files of noise on a ramp, `size` pixels wide and high, of 100 different contents."""
    generator = np.random.default_rng(5)
    ramp = np.linspace(0, 200, size * size).reshape(size, size)
    files = []
    for _ in range(100):
        buffer = io.BytesIO()
        Image.fromarray((ramp + generator.integers(0, 8, (size, size))).astype(np.uint8)).save(buffer, "PNG")
        files.append(buffer.getvalue())
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:06d}.png").write_bytes(files[number % 100])


def bare(model: Path, data: Path) -> None:
    """All files in batches; the answers are dropped."""
    predict = tf.saved_model.load(str(find_version(model))).signatures["serving_default"]
    paths = sorted(data.iterdir())
    for start in range(0, len(paths), _BATCH):
        files = [path.read_bytes() for path in paths[start : start + _BATCH]]
        predict(image_bytes=tf.constant(files))["probabilities"].numpy()


def measure(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock, and of all cores together."""
    began, cores = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - began, time.process_time() - cores


def memory() -> float:
    """The most that this process has taken so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--images", type=int, nargs=2, default=[1000, 9000], help="the small and the large data set")
    parser.add_argument("--pixels", type=int, default=64, help="width and height")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    small, large = options.images
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for count in options.images:
            write_pictures(place / str(count), count, options.pixels)
        numbers = iter(range(10**6))

        def ours(data: Path) -> None:
            score(load_config(None, str(data)), options.model, f"{place}/out{next(numbers)}", Console(quiet=True))

        ours(place / str(small))  # loads all that is loaded once
        rates: dict[str, list[tuple[float, float]]] = {"bare loop": [], "fpn score": []}
        for _ in range(options.repeats):
            for name, side in (("bare loop", lambda data: bare(options.model, data)), ("fpn score", ours)):
                times = []
                for count in options.images:
                    times.append(measure(lambda data=place / str(count), side=side: side(data)))
                    print(f"{name}, {count} images: {times[-1][0]:.1f} s, memory so far {memory():.0f} MB", flush=True)
                clock, cores = (after - before for before, after in zip(*times, strict=True))
                rates[name].append(((large - small) / clock, (large - small) / cores))
        for name, found in rates.items():
            clock, cores = (statistics.median(values) for values in zip(*found, strict=True))
            print(f"{name}: {clock:.0f} images per second, {cores:.0f} per second of one core")
        ratios = [
            tuple(one / two for one, two in zip(ours_, bare_, strict=True))
            for bare_, ours_ in zip(*rates.values(), strict=True)
        ]
        clock, cores = (statistics.median(values) for values in zip(*ratios, strict=True))
        print(f"fpn score / bare loop: {clock:.2f} by the clock, {cores:.2f} by the cores' time")


if __name__ == "__main__":
    main()
