"""What it costs to list many files: `fpn init`, and the listing with which `fpn data` and `fpn run` begin.

    .venv/bin/python -m tests.sweeps.million [--folder /dev/shm] [10000 100000 1000000]

The files are hard links, 1,000 in each folder, without a manifest and with one. Promised: for a million files, init takes at
most 60 s and 1 GB, the listing at most 120 s, and the time per file is the same from 10,000 files on.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from PIL import Image

PROJECT: Final = Path(__file__).parents[2]
PER_FOLDER: Final = 1000
CLASSES: Final = 10
_LISTING: Final = (
    "import sys; from pipeline.config.loading import load_config; from pipeline.local.checks import read_data; "
    "print(len(read_data(load_config(sys.argv[1]))[0].rows))"
)


# Runs Python with the arguments and prints what it took. The peak of a process counts the memory of the one that forked it, so
# this small one does, and not a large one that runs tests.
_MEASURE: Final = (
    "import json, os, subprocess, sys; "
    "process = subprocess.Popen([sys.executable, *sys.argv[1:]], stdout=subprocess.DEVNULL); "
    "_, status, used = os.wait4(process.pid, 0); "
    "assert status == 0, sys.argv; "
    "print(json.dumps([used.ru_utime + used.ru_stime, used.ru_maxrss]))"
)


@dataclass(frozen=True)
class Cost:
    """What a process took: seconds, seconds of processor time, and bytes of memory at the peak."""

    seconds: float
    processor: float
    peak: int


def make_files(folder: Path, files: int) -> None:
    """Makes class folders with folders of `PER_FOLDER` hard links to an image of 8x8 pixels."""
    for number in range(files // PER_FOLDER):
        place = folder / f"class_{number % CLASSES}" / f"part {number:04d}"
        place.mkdir(parents=True)
        first = place / "image_000.png"
        Image.new("L", (8, 8), number % 256).save(first)
        for name in range(1, PER_FOLDER):
            os.link(first, place / f"image_{name:03d}.png")


def write_manifest(folder: Path) -> None:
    """Names all files, with a group for each ten and a column to slice by."""
    with open(folder / "manifest.csv", "w") as file:
        file.write("path,label,group,site\n")
        for number, path in enumerate(sorted(folder.rglob("*.png"))):
            name = path.relative_to(folder)
            file.write(f"{name},{name.parts[0]},p{number // 10},site_{number % 7}\n")


def cost_of(*arguments: str) -> Cost:
    """Runs Python with these arguments to its end, which must be a good one."""
    begin = time.monotonic()
    measured = subprocess.run([sys.executable, "-c", _MEASURE, *arguments], cwd=PROJECT, stdout=subprocess.PIPE, check=True)
    processor, peak = json.loads(measured.stdout)
    return Cost(time.monotonic() - begin, processor, peak * (1 if sys.platform == "darwin" else 1024))


def write_data(folder: Path, files: int, manifest: bool) -> None:
    """Makes that many files in the folder `data`, in place of those that were there."""
    data = folder / "data"
    shutil.rmtree(data, ignore_errors=True)
    make_files(data, files)
    if manifest:
        write_manifest(data)


def measure_init(folder: Path) -> Cost:
    """The cost of `fpn init` on the folder `data`, beside which it writes a new `config.yaml`."""
    config = folder / "config.yaml"
    config.unlink(missing_ok=True)
    return cost_of("-m", "pipeline.cli", "init", str(folder / "data"), "--output", str(config))


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--folder", default=tempfile.gettempdir())
    options = parser.parse_args()
    print(
        "    files           | fpn init: s  of processor  us per file  peak MB | listing: s  of processor  us per file  peak MB"
    )
    for files, manifest in ((files, manifest) for files in options.files for manifest in (False, True)):
        folder = Path(tempfile.mkdtemp(prefix="fpn-million-", dir=options.folder))
        try:
            write_data(folder, files, manifest)
            costs = [measure_init(folder), cost_of("-c", _LISTING, str(folder / "config.yaml"))]
        finally:
            shutil.rmtree(folder)
        cells = [
            f"{cost.seconds:11.1f} {cost.processor:13.1f} {1e6 * cost.processor / files:12.1f} {cost.peak / 1e6:8.0f}"
            for cost in costs
        ]
        print(f"{files:9,} {'manifest' if manifest else 'folders ':9} | {' |'.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
