"""Images a second and memory of `fpn score`, beside a bare loop over the same files with the same model.

    .venv/bin/python -m benchmarks.scoring --model output/digits/pushed

Each side runs in a process of its own, in turns; times are those of the answers alone, without loading TensorFlow.
"""

import argparse
import io
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

_SIDES = ("bare", "score")


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


def measure(side: str, model: Path, data: Path, output: Path) -> dict[str, Any]:
    """Seconds, and the largest resident memory in bytes, of this process."""
    import tensorflow as tf

    from pipeline.pushed_model import find_version

    version = find_version(model)
    paths = sorted(data.iterdir())
    if side == "bare":
        predict = tf.saved_model.load(str(version)).signatures["serving_default"]
        predict(image_bytes=tf.constant([paths[0].read_bytes()]))
        began = time.perf_counter()
        for start in range(0, len(paths), 64):
            predict(image_bytes=tf.constant([path.read_bytes() for path in paths[start : start + 64]]))["probabilities"].numpy()
        seconds = time.perf_counter() - began
    else:
        from rich.console import Console

        import components.bulk_inferrer.shards  # noqa: F401  imports are not measured
        from pipeline.config import load_config
        from pipeline.scoring import score

        began = time.perf_counter()
        score(load_config(None, str(data)), model, str(output), Console(quiet=True))
        seconds = time.perf_counter() - began
    return {"seconds": seconds, "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--images", type=int, nargs="+", default=[4000, 16000], help="sizes of the data set")
    parser.add_argument("--pixels", type=int, default=64, help="width and height")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--one", nargs=3, metavar=("SIDE", "DATA", "OUTPUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        side, data, output = options.one
        print(json.dumps(measure(side, options.model, Path(data), Path(output))))
        return
    with tempfile.TemporaryDirectory() as place:
        for count in options.images:
            data = Path(place) / str(count)
            write_pictures(data, count, options.pixels)
            found: dict[str, list[dict[str, Any]]] = {side: [] for side in _SIDES}
            for repeat in range(options.repeats):
                for side in _SIDES:
                    arguments = ["--model", str(options.model), "--one", side, str(data), f"{place}/{count}-{repeat}"]
                    command = [sys.executable, "-m", "benchmarks.scoring", *arguments]
                    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
                    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
                    found[side].append(json.loads(done.stdout.splitlines()[-1]))
            for side, runs in found.items():
                rates = sorted(count / run["seconds"] for run in runs)
                memory = max(run["memory"] for run in runs) / 2**20
                print(
                    f"{count:7d} images  {side:6s} {statistics.median(rates):7.0f} images/s ({rates[0]:.0f} to {rates[-1]:.0f})"
                    f"  {memory:6.0f} MB"
                )
            ratios = [bare["seconds"] / ours["seconds"] for bare, ours in zip(found["bare"], found["score"], strict=True)]
            print(f"{count:7d} images  score / bare {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
