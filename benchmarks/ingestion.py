"""How fast are ImageExampleGen and Transform, and do their time and memory stay in proportion to the number of images?

    .venv/bin/python -m benchmarks.ingestion
    .venv/bin/python -m benchmarks.ingestion --only speed --repeats 5

- speed: images a second of the two components against one plain tf.data loop, on small JPEG and on large PNG files; and
  against the same loop that writes the files into records too, as ImageExampleGen does.
- memory: largest resident memory of the process while the components run, for two numbers of images.
- growth: seconds of the components for three numbers of images.

The components run in the project's own pipeline under LocalDagRunner, up to Transform. The loop decodes and resizes with the
same functions, on all cores, and writes the image and label of Transform's records. Each run is a process of its own that
starts from nothing; before it, the files are read once, so that every run finds them in the page cache. Runs of the loop and
the pipeline, and of the numbers of images, take turns; of times the shortest counts, of memory the largest. The fixed start-up
is what the same takes on a handful of images.

The images are written below --folder once, and are the same each time: 80,000 small and 500 large ones take about 4 GB, and
the outputs of a run up to 10 GB for as long as it lasts.

docs/data_speed.json has the single runs, docs/data_speed.md the tables; results of other code or of another machine are
dropped, and what is asked for is always measured anew. The exit status is 1 if a bar is missed.
"""

import argparse
import hashlib
import itertools
import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.components_run import run_components
from benchmarks.measurement import Figure, machine, peak_memory, run_apart, table, warm
from pipeline.code_digest import code_digest
from pipeline.config import Config
from pipeline.write_aside import new_folder, write_text

LEAST_SPEED = 0.7  # of the plain loop's images a second, beyond the start-up
MOST_MEMORY = 1.15  # times that of the smaller number of images
MOST_DEVIATION = 0.10  # of the times an image beyond the start-up
LOOP_WITH_FILES = "loop with files"
HANDFUL = 12  # images, of which the start-up is measured
COMPONENTS = ("ImageExampleGen", "Transform")  # what is measured
CODE = ("components.image_example_gen.component", "components.transform.component", "models.preprocessing")
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
    """One process; seconds and largest resident memory (bytes) by component, or of "loop"."""

    side: str
    kind: str
    images: int
    seconds: dict[str, float]
    peak: dict[str, int]

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
    donor = max(folder.glob(f"{name}-*"), key=lambda path: int(path.name.rpartition("-")[2]), default=None)
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
    from models.preprocessing import to_network_size, with_pixels
    from pipeline.config import ImageConfig

    image = ImageConfig(**KINDS[name].image).model_dump()

    def load(path: tf.Tensor) -> tuple[tf.Tensor, ...]:
        file = tf.io.read_file(path)
        pixels = with_pixels(file, lambda pixels, unit: to_network_size(pixels, unit, **image))
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
    return Run(side, name, count_images(data), {"loop": time.perf_counter() - before}, {"loop": peak_memory()})


def run_pipeline(data: Path, name: str, work: Path) -> Run:
    """Runs the project's pipeline up to Transform; `work` is its output folder, which must be empty."""
    config = Config.model_validate({"name": "ingestion", "data": {"path": str(data)}, "image": KINDS[name].image})
    seconds, peak = run_components(config, work, last="Transform")
    return Run("pipeline", name, count_images(data), seconds, peak)


SIDES: dict[str, Callable[[Path, str, Path], Run]] = {
    "loop": run_loop,
    LOOP_WITH_FILES: partial(run_loop, with_files=True),
    "pipeline": run_pipeline,
}


def measure_apart(side: str, name: str, data: Path, folder: Path) -> Run:
    """Runs one side in a process of its own, on files in the page cache."""
    warm(data)
    with tempfile.TemporaryDirectory(prefix="run-", dir=folder) as work:
        return Run(**run_apart("-m", "benchmarks.ingestion", "--measure", side, name, data, work).result)


class Bench:
    """Makes the runs that are asked for; those that several measurements need are made once."""

    def __init__(self, folder: Path, repeats: int) -> None:
        self._folder = folder
        self._repeats = repeats
        self._runs: dict[tuple[str, str, int], list[Run]] = {}

    def measure(self, kind: str, numbers: Iterable[int], sides: list[str]) -> list[Run]:
        """All repeats of all sides on a handful and on each number of images, in turns."""
        counts = sorted({HANDFUL, *numbers})
        data = {count: write_images(self._folder, kind, count) for count in counts}
        keys = [(side, kind, count) for count in counts for side in sides]
        for repeat in range(self._repeats):
            for side, _, count in keys:
                runs = self._runs.setdefault((side, kind, count), [])
                if len(runs) <= repeat:
                    print(f"[{repeat + 1}/{self._repeats}] {side}, {count:,} {kind} images", flush=True)
                    runs.append(measure_apart(side, kind, data[count], self._folder))
                    print(f"    {runs[-1].total:.2f} s", flush=True)
        return [run for key in keys for run in self._runs[key]]


def sizes(runs: list[Run], kind: str) -> list[int]:
    """The numbers of images, without the handful."""
    return sorted({run.images for run in runs if run.kind == kind} - {HANDFUL})


def fastest(runs: list[Run], side: str, kind: str, images: int) -> float:
    """Seconds of the fastest repeat."""
    return min(run.total for run in runs if (run.side, run.kind, run.images) == (side, kind, images))


def beyond_start_up(runs: list[Run], side: str, kind: str, images: int) -> float:
    """Seconds an image, of those beyond the handful; NaN where they are too few to take longer, and then no bar is met."""
    more = fastest(runs, side, kind, images) - fastest(runs, side, kind, HANDFUL)
    return more / (images - HANDFUL) if more > 0 else math.nan


@dataclass(frozen=True)
class Speed:
    """Images a second, and the seconds of the start-up, of both sides."""

    kind: str
    images: int
    rates: dict[str, float]
    rates_beyond: dict[str, float]
    start_up: dict[str, float]

    @property
    def ratio_beyond(self) -> float:
        """Of the pipeline to the loop that is the measure."""
        return self.rates_beyond["pipeline"] / self.rates_beyond["loop"]


def speeds(runs: list[Run]) -> list[Speed]:
    return [
        Speed(
            kind,
            images,
            {side: images / fastest(runs, side, kind, images) for side in SIDES},
            {side: 1 / beyond_start_up(runs, side, kind, images) for side in SIDES},
            {side: fastest(runs, side, kind, HANDFUL) for side in SIDES},
        )
        for kind in KINDS
        for images in sizes(runs, kind)
    ]


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
            found.append(
                Figure(f"{name}, the loop writing the files too", "images/s", own, rates(LOOP_WITH_FILES, kind, images))
            )
    return found


def measure(folder: Path, repeats: int, small: int, large: int) -> list[Figure]:
    """Speed of so many small and large images; 0 leaves the large ones out."""
    bench = Bench(folder, repeats)
    counts = {"small": small, "large": large}
    return figures([run for kind, count in counts.items() if count for run in bench.measure(kind, [count], list(SIDES))])


def peaks(runs: list[Run]) -> dict[int, dict[str, int]]:
    """Number of images -> component -> bytes, the largest of the repeats."""
    return {
        images: {
            name: max(run.peak[name] for run in runs if run.images == images)
            for name in next(run for run in runs if run.images == images).peak
        }
        for images in sizes(runs, "small")
    }


def growth_of_memory(runs: list[Run]) -> float:
    """Peak of the measured components at the largest number of images over that at the smallest."""
    highest = {images: max(peak[name] for name in COMPONENTS) for images, peak in peaks(runs).items()}
    return highest[max(highest)] / highest[min(highest)]


def deviation(runs: list[Run]) -> float:
    """By how much the longest time an image exceeds the shortest, over the numbers of images: 0.1 is 10 %."""
    times = [beyond_start_up(runs, "pipeline", "small", images) for images in sizes(runs, "small")]
    return float(np.max(times) / np.min(times) - 1)


def describe_speed(runs: list[Run]) -> tuple[str, bool]:
    """The tables of a section, and whether the bar is met."""
    found = speeds(runs)
    rows = []
    for item in found:
        kind = KINDS[item.kind]
        rows += [
            [
                f"{item.images:,} {kind.name}, {kind.width}x{kind.height}, to {kind.side}x{kind.side}x3",
                measure,
                f"{rates['pipeline']:,.1f}",
                *(
                    cell
                    for loop in ("loop", LOOP_WITH_FILES)
                    for cell in (f"{rates[loop]:,.1f}", f"{rates['pipeline'] / rates[loop]:.2f}")
                ),
            ]
            for measure, rates in (("whole", item.rates), ("beyond the start-up", item.rates_beyond))
        ]
    header = ["files", "time", "pipeline, images/s", "loop, images/s", "ratio", "loop with files, images/s", "ratio"]
    start_up = "; ".join(
        f"{KINDS[item.kind].name} {item.start_up['pipeline']:.1f} s, of the loop {item.start_up['loop']:.1f} s"
        for item in found
    )
    met = all(item.ratio_beyond >= LEAST_SPEED for item in found)
    text = (
        "The loop writes the image and label of Transform's records, those of the test split (1 %) too, and does not "
        "analyse. ImageExampleGen writes the files into records as well; so does the second loop, which says what that "
        "costs. The bar is on the first.\n\n"
        f"{table(header, rows)}\n\n"
        f"Start-up, of {HANDFUL} images: {start_up}.\n"
        f"Bar: at least {LEAST_SPEED} beyond the start-up, {verdict(met)}."
    )
    return text, met


def describe_memory(runs: list[Run]) -> tuple[str, bool]:
    """As `describe_speed`."""
    found = peaks(runs)
    names = ["ImageExampleGen", "StatisticsGen", "Transform"]  # the others have the statistics only
    rows = [[f"{images:,}", *(f"{peak[name] / 2**20:,.0f}" for name in names)] for images, peak in found.items()]
    ratio = growth_of_memory(runs)
    text = (
        "Largest resident memory in MB of the one process while each component runs, which includes what the ones before it "
        "have not given back.\n\n"
        f"{table(['images', *names], rows)}\n\n"
        f"Larger of {' and '.join(COMPONENTS)}: {ratio:.3f} times. Bar: at most {MOST_MEMORY}, {verdict(ratio <= MOST_MEMORY)}."
    )
    return text, ratio <= MOST_MEMORY


def describe_growth(runs: list[Run]) -> tuple[str, bool]:
    """As `describe_speed`."""
    counts = sizes(runs, "small")
    seconds = {images: fastest(runs, "pipeline", "small", images) for images in (HANDFUL, *counts)}
    rows = [
        [
            f"{images:,}",
            f"{seconds[images]:.1f}",
            f"{1000 * beyond_start_up(runs, 'pipeline', 'small', images):.3f}",
            f"{1000 * (seconds[images] - seconds[fewer]) / (images - fewer):.3f}",
        ]
        for fewer, images in itertools.pairwise((HANDFUL, *counts))
    ]
    found = deviation(runs)
    met = found <= MOST_DEVIATION
    header = ["images", "seconds", "seconds a thousand images beyond the start-up", "of those that the row above has not"]
    text = (
        f"Seconds of {' and '.join(COMPONENTS)} together. Start-up, of {HANDFUL} images: {seconds[HANDFUL]:.1f} s.\n\n"
        f"{table(header, rows)}\n\n"
        f"Largest deviation: {found:.1%}. Bar: at most {MOST_DEVIATION:.0%}, {verdict(met)}."
    )
    return text, met


def verdict(met: bool) -> str:
    return "met" if met else "**missed**"


SECTIONS: dict[str, tuple[str, Callable[[list[Run]], tuple[str, bool]]]] = {
    "speed": ("Speed", describe_speed),
    "memory": ("Memory", describe_memory),
    "growth": ("Growth of time", describe_growth),
}


def page(results: dict[str, dict[str, Any]]) -> str:
    """All of docs/data_speed.md."""
    first = next(iter(results.values()))
    parts = [
        "# Speed and memory of ingestion and Transform",
        f"On {first['machine']}. Each figure is of processes of their own with all files in the page cache: of times the "
        "fastest of the repeats, of memory the largest.\nMade by `benchmarks/ingestion.py`; the single runs are in "
        "[data_speed.json](data_speed.json).",
    ]
    for name, (title, describe) in SECTIONS.items():
        if name in results:
            parts += [f"## {title}", describe(results[name]["runs"])[0]]
    return "\n\n".join(parts) + "\n"


def digest() -> str:
    """Of the code that the figures depend on."""
    return hashlib.sha256("".join(map(code_digest, CODE)).encode()).hexdigest()[:16]


def read_results(path: Path) -> dict[str, dict[str, Any]]:
    """Section -> what is stored of it, without those of other code or of another machine."""
    stored = json.loads(path.read_text()) if path.exists() else {}
    current = {
        name: {**item, "runs": [Run(**run) for run in item["runs"]]}
        for name, item in stored.items()
        if (item["digest"], item["machine"]) == (digest(), machine())
    }
    for name in stored.keys() - current.keys():
        print(f"{path}: {name} is of other code or of another machine, and dropped")
    return current


def write_results(docs: Path, results: dict[str, dict[str, Any]]) -> None:
    stored = {name: {**item, "runs": [asdict(run) for run in item["runs"]]} for name, item in results.items()}
    write_text(docs / "data_speed.json", json.dumps(stored, indent=1) + "\n")
    write_text(docs / "data_speed.md", page(results))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="all if not given")
    parser.add_argument("--small", type=int, default=20_000, metavar="N", help="small images, for the speed (20,000)")
    parser.add_argument("--large", type=int, default=500, metavar="N", help="large images, for the speed (500); 0: none")
    parser.add_argument("--memory", type=int, nargs=2, default=[5_000, 50_000], metavar="N", help="small images (5,000 50,000)")
    parser.add_argument("--growth", type=int, nargs=3, default=[5_000, 20_000, 80_000], metavar="N", help="small images")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each (3)")
    parser.add_argument("--folder", type=Path, default=Path("output/benchmark_data"), help="for the images and outputs")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="folder for what is written (docs)")
    parser.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)  # what each process is started with
    options = parser.parse_args()
    if options.measure:
        side, kind, data, work = options.measure
        print(json.dumps(asdict(SIDES[side](Path(data), kind, Path(work)))))
        return
    if options.repeats < 1:
        parser.error("--repeats must be at least 1")
    if min(options.small, options.large or options.small, *options.memory, *options.growth) <= HANDFUL:
        parser.error(f"numbers of images must be above {HANDFUL}, of which the start-up is measured")

    bench = Bench(options.folder, options.repeats)
    both, one = list(SIDES), ["pipeline"]
    speed = {"small": [options.small], **({"large": [options.large]} if options.large else {})}
    wanted: dict[str, Callable[[], list[Run]]] = {
        "speed": lambda: [run for kind, numbers in speed.items() for run in bench.measure(kind, numbers, both)],
        "memory": lambda: bench.measure("small", options.memory, one),
        "growth": lambda: bench.measure("small", options.growth, one),
    }
    missed = []
    for name in options.only:
        result: dict[str, Any] = {"machine": machine(), "digest": digest(), "runs": wanted[name]()}
        write_results(options.docs, {**read_results(options.docs / "data_speed.json"), name: result})
        title, describe = SECTIONS[name]
        text, met = describe(result["runs"])
        missed += [] if met else [name]
        print(f"\n## {title}\n\n{text}\n", flush=True)
    if missed:
        raise SystemExit(f"bars missed: {', '.join(missed)}")


if __name__ == "__main__":
    main()
