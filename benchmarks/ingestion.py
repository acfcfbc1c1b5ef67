"""How fast are ImageExampleGen and Transform, beside one plain tf.data loop?

The components run in the project's own pipeline under LocalDagRunner, up to Transform. The loop decodes and resizes with the
same functions, on all cores, and writes the image and label of Transform's records; a second one writes the files into records
too, as ImageExampleGen does. Each run is a process of its own that starts from nothing; before it, the files are read once, so
that every run finds them in the page cache. Runs of the loops and the pipeline take turns. The fixed start-up is what the same
takes on a handful of images.

The images are small JPEG and large PNG files. They are drawn once, and are the same each time: 80,000 small and 500 large ones
take about 4 GB, and the outputs of a run up to 10 GB for as long as it lasts.
"""

import argparse
import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Collection
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from base.local_files import new_folder
from benchmarks.components_run import run_components
from benchmarks.measurement import Figure, run_apart, warm
from pipeline.config.whole import Config

LEAST_SPEED = 0.7  # of the plain loop's images per second, beyond the start-up
LOOP_WITH_FILES = "loop with files"
HANDFUL = 12  # images, of which the start-up is measured
COMPONENTS = ("ImageExampleGen", "Transform")  # what is measured
BATCH, BATCH_WITH_FILES = 64, 16  # images that the loop hands over at once


@dataclass(frozen=True)
class Kind:
    """A sort of images: what the files are, and the network's size."""

    name: str
    width: int
    height: int
    suffix: str
    options: dict[str, Any]  # of Pillow
    side: int

    @property
    def image(self) -> dict[str, Any]:
        return {"height": self.side, "width": self.side, "channels": 3}


KINDS = {
    "small": Kind("JPEG", 128, 128, ".jpg", {"quality": 88}, side=96),
    "large": Kind("PNG", 2048, 1536, ".png", {"compress_level": 1}, side=224),
}


@dataclass(frozen=True)
class Run:
    """One process; seconds by component, or of "loop"."""

    side: str
    kind: str
    images: int
    seconds: dict[str, float]

    @property
    def total(self) -> float:
        """Seconds of what is measured."""
        return sum(self.seconds[name] for name in self.seconds if name in (*COMPONENTS, "loop"))


def draw_image(kind: Kind, number: int) -> Image.Image:
    """A coarse and a finer random field, both smooth, and mild noise: no two images are alike."""
    random = np.random.default_rng(number)
    pixels = np.full((kind.height, kind.width, 3), -64, np.int16)
    for cells, levels in ((6, 256), (16, 128)):
        coarse = random.integers(0, levels, (cells, cells, 3), dtype=np.uint8)
        pixels += np.asarray(Image.fromarray(coarse).resize((kind.width, kind.height), Image.Resampling.BICUBIC), np.int16)
    pixels += random.integers(-4, 5, pixels.shape, dtype=np.int8)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def file_name(kind: Kind, number: int) -> str:
    """Split, class and name: two classes, and one image of a hundred in each of eval and test, which a handful has too."""
    split = {0: "test", 1: "eval"}.get(number // 2 % 100, "train")
    return f"{split}/{'ab'[number % 2]}/{number:06d}{kind.suffix}"


def write_image(folder: Path, donor: Path | None, kind: Kind, number: int) -> None:
    path = folder / file_name(kind, number)
    if donor and (given := donor / file_name(kind, number)).exists():
        os.link(given, path)
    else:
        draw_image(kind, number).save(path, **kind.options)


def write_images(folder: Path, name: str, count: int) -> Path:
    """Writes the first `count` images of a kind, unless they are there; what another number of them has already is linked.

    Returns:
      Folder of train, eval and test with their class folders.
    """
    finished = folder / f"{name}-{count}"
    if finished.exists():
        return finished
    print(f"{finished}: writing {count:,} images", flush=True)
    donor = max(folder.glob(f"{name}-*[0-9]"), key=lambda path: int(path.name.rpartition("-")[2]), default=None)
    with new_folder(finished) as unfinished:
        for parent in {(unfinished / file_name(KINDS[name], number)).parent for number in range(HANDFUL)}:
            parent.mkdir(parents=True)
        with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as workers:
            write = partial(write_image, unfinished, donor, KINDS[name])
            for _ in workers.map(write, range(count), chunksize=max(1, min(500, count // 50))):
                pass
    return finished


def count_images(data: Path) -> int:
    return sum(path.is_file() for path in data.glob("*/*/*"))


def run_loop(data: Path, name: str, work: Path, with_files: bool = False) -> Run:
    """Reads, decodes, resizes and writes all images with tf.data, or also their files; `work` gets `loop` and `files`."""
    import tensorflow as tf

    from models import features
    from models.decoding import with_pixels
    from models.preprocessing import to_network_size
    from pipeline.config.data import ImageConfig
    from pipeline.dag.component_settings import image_settings

    image = image_settings(ImageConfig(**KINDS[name].image))

    def load(path: tf.Tensor) -> tuple[tf.Tensor, ...]:
        file = tf.io.read_file(path)
        pixels = with_pixels(file, lambda pixels, unit: to_network_size(pixels, unit, image))
        label = tf.cast(tf.strings.split(path, "/")[-2] == "b", tf.int64)
        return (pixels, label, file) if with_files else (pixels, label)

    def serialise(name: str, value: bytes, label: int) -> bytes:
        example = tf.train.Example()
        example.features.feature[name].bytes_list.value.append(value)
        example.features.feature[features.LABEL_INDEX].int64_list.value.append(label)
        return example.SerializeToString()

    before = time.perf_counter()
    files = tf.data.Dataset.list_files(f"{data}/*/*/*", shuffle=False)
    batches = (
        files.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=False)
        .batch(BATCH_WITH_FILES if with_files else BATCH)
        .prefetch(tf.data.AUTOTUNE)
    )
    with tf.io.TFRecordWriter(str(work / "loop")) as writer, tf.io.TFRecordWriter(str(work / "files")) as file_writer:
        for images, labels, *files in batches.as_numpy_iterator():
            for pixels, label in zip(images, labels, strict=True):
                writer.write(serialise(features.IMAGE, pixels.tobytes(), label))
            for file, label in zip(*files, labels, strict=True) if with_files else ():
                file_writer.write(serialise(features.ENCODED, file, label))
    side = LOOP_WITH_FILES if with_files else "loop"
    return Run(side, name, count_images(data), {"loop": time.perf_counter() - before})


def run_pipeline(data: Path, name: str, work: Path) -> Run:
    """Runs the project's pipeline up to Transform; `work` is its output folder, which must be empty."""
    config = Config.model_validate({"name": "ingestion", "data": {"path": str(data)}, "image": KINDS[name].image})
    measured = run_components(config, work, last="Transform")
    return Run("pipeline", name, count_images(data), measured.seconds)


SIDES: dict[str, Callable[[Path, str, Path], Run]] = {
    "loop": run_loop,
    LOOP_WITH_FILES: partial(run_loop, with_files=True),
    "pipeline": run_pipeline,
}


def measure_apart(side: str, name: str, data: Path, folder: Path) -> Run:
    """Runs one side in a process of its own, on files in the page cache."""
    warm(data)
    with tempfile.TemporaryDirectory(prefix="run-", dir=folder) as work:
        return Run(**run_apart("-m", "benchmarks.ingestion", side, name, data, work).result)


def run_in_turns(folder: Path, repeats: int, kind: str, images: int, sides: Collection[str]) -> list[Run]:
    """All repeats of all sides, on a handful and on so many images of a kind."""
    data = {count: write_images(folder, kind, count) for count in (HANDFUL, images)}
    runs: dict[tuple[int, str], list[Run]] = {(count, side): [] for count in data for side in sides}
    for repeat in range(repeats):
        for (count, side), made in runs.items():
            print(f"[{repeat + 1}/{repeats}] {side}, {count:,} {kind} images", flush=True)
            made.append(measure_apart(side, kind, data[count], folder))
            print(f"    {made[-1].total:.2f} s", flush=True)
    return [run for made in runs.values() for run in made]


def sizes(runs: list[Run], kind: str) -> list[int]:
    """The numbers of images, without the handful."""
    return sorted({run.images for run in runs if run.kind == kind} - {HANDFUL})


def figures(runs: list[Run]) -> list[Figure]:
    """The speed of each repeat beyond its start-up, against the loop, and against the loop that writes the files too."""

    def rates(side: str, kind: str, images: int) -> list[float]:
        few, all_ = (
            [run.total for run in runs if (run.side, run.kind, run.images) == (side, kind, count)]
            for count in (HANDFUL, images)
        )
        return [
            (images - HANDFUL) / (whole - start) if whole > start else math.nan for whole, start in zip(all_, few, strict=True)
        ]

    found = []
    for kind in KINDS:
        for images in sizes(runs, kind):
            sort = KINDS[kind]
            name = f"ImageExampleGen and Transform, {images:,} {sort.name} files of {sort.width}x{sort.height}"
            own = rates("pipeline", kind, images)
            found.append(Figure(name, "images/s", own, rates("loop", kind, images), LEAST_SPEED, at_least=True))
            if with_files := rates(LOOP_WITH_FILES, kind, images):
                found.append(Figure(f"{name}, the loop writing the files too", "images/s", own, with_files))
    return found


def measure(folder: Path, repeats: int, small: int, large: int) -> list[Figure]:
    """Speed of so many small and large images; 0 leaves the large ones out, and the loop that writes the files too."""
    counts = {"small": small, "large": large}
    sides = [side for side in SIDES if large or side != LOOP_WITH_FILES]
    return figures(
        [run for kind, count in counts.items() if count for run in run_in_turns(folder, repeats, kind, count, sides)]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="One run, as `measure` starts it.")
    parser.add_argument("side", choices=SIDES)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    options = parser.parse_args()
    print(json.dumps(asdict(SIDES[options.side](options.data, options.kind, options.work))))


if __name__ == "__main__":
    main()
