"""Can a GPU be fed? From records of 224x224 pixels to augmented batches, without the network, stage by stage.

    .venv/bin/python -m benchmarks.input_path

One core and two have a process each, which may use no others. In it the stages take turns; one with a + holds those before it.
A turn is an epoch that is not counted, then `EPOCHS` that are. The peer is what one writes with `tf.data` and layers of Keras:
the same changes with the same strengths, in a chain. The exit status is 1 if a bar is missed.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.measurement import Figure, figures_table, run_apart

SHAPE, BATCH, EXAMPLES, FILES, EPOCHS, TURNS = (224, 224, 3), 64, 512, 4, 2, 3
GPU = 3_000  # images/s of 224 px that a modern GPU takes in the training of a ResNet50
MOST_CORES = 16  # to feed it
MOVES = {"shift": 0.1, "zoom": 0.1, "rotation": 0.03}
DEFAULT = {
    "flip": "horizontal",
    **MOVES,
    "contrast": 0.1,
}  # what `fpn init` writes for photographs, and the flip that it offers
SHUFFLED, IN_MEMORY = "+ shuffled", "shuffled batches from the cache in memory"
WHOLE, CACHED, PEER = "+ contrast: the whole path", "the whole path from the cache in memory", "peer"
FITTED = "the mean over both numbers of cores, for the processor time of an image hardly depends on them"
CALCULATED = "the fitted cost times the images that they take in a second; no GPU and no more cores were there to measure it"
SERIAL = "one thread shuffles and batches; this is a second through that thread's own time for an image"


def build_stages(records: list[str]) -> dict[str, Any]:
    """A function for each stage that makes endless batches."""
    import tensorflow as tf

    from benchmarks.step_time import CLASS_NAMES
    from models import training
    from models.augmentation import build_augmentation
    from pipeline.config.network import AugmentConfig
    from pipeline.dag.component_settings import augment_settings

    def read() -> tf.data.Dataset:
        return training.read_images(records, SHAPE, CLASS_NAMES)

    def batches(cache_bytes: int = 0, **changes: Any) -> Callable[[], tf.data.Dataset]:
        augment = build_augmentation(augment_settings(AugmentConfig(**changes)), seed=0)
        make = training.build_batches(
            read(), examples=EXAMPLES, batch_size=BATCH, seed=0, cache_bytes=cache_bytes, augment=augment
        )
        return lambda: make(0)

    return {
        "records read": lambda: tf.data.TFRecordDataset(records).batch(BATCH).repeat(),
        "+ parsed, in batches": lambda: read().batch(BATCH).repeat(),
        SHUFFLED: batches(),
        "+ flip": batches(flip="horizontal"),
        "+ shift, zoom, rotation": batches(flip="horizontal", **MOVES),
        WHOLE: batches(**DEFAULT),
        IN_MEMORY: batches(cache_bytes=2**30),
        CACHED: batches(cache_bytes=2**30, **DEFAULT),
        PEER: lambda: plain_batches(records),
    }


def plain_batches(records: list[str]) -> Any:
    import keras
    import tensorflow as tf

    from models import features

    changes = keras.Sequential(
        [
            keras.layers.RandomFlip("horizontal"),
            keras.layers.RandomTranslation(0.1, 0.1),
            keras.layers.RandomZoom(0.1),
            keras.layers.RandomRotation(0.03),
            keras.layers.RandomContrast(0.1),
        ]
    )
    spec = {name: tf.io.FixedLenFeature([], tf.string) for name in (features.PIXELS, features.LABEL)}

    def parse(record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        example = tf.io.parse_single_example(record, spec)
        label = tf.strings.to_number(example[features.LABEL], tf.int64)
        return tf.reshape(tf.io.decode_raw(example[features.PIXELS], tf.uint8), SHAPE), label

    data = tf.data.TFRecordDataset(records).map(parse, tf.data.AUTOTUNE).shuffle(EXAMPLES).batch(BATCH).repeat()
    return data.map(lambda images, labels: (changes(images, training=True), labels), tf.data.AUTOTUNE).prefetch(
        tf.data.AUTOTUNE
    )


def run(records: list[str], cores: int) -> dict[str, dict[str, float]]:
    """For each stage, medians of the turns: milliseconds of processor time an image, all threads' and the busiest one's, and
    images/s.
    """
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])  # before TensorFlow counts them
    turns: dict[str, list[dict[str, float]]] = {}
    for name, build in list(build_stages(records).items()) * TURNS:
        batches = iter(build())
        for _ in range(EXAMPLES // BATCH):
            next(batches)
        before, start = thread_times(), time.perf_counter()
        for _ in range(EPOCHS * EXAMPLES // BATCH):
            next(batches)
        seconds, images = time.perf_counter() - start, EPOCHS * EXAMPLES
        spent = [1000 * (end - before.get(thread, 0.0)) / images for thread, end in thread_times().items()]
        turns.setdefault(name, []).append({"all": sum(spent), "busiest": max(spent), "rate": images / seconds})
        del batches  # and with it the threads that read on
    return {name: {key: statistics.median(turn[key] for turn in each) for key in each[0]} for name, each in turns.items()}


def thread_times() -> dict[str, float]:
    """Seconds of processor time of each thread of this process."""
    return {task.name: int((task / "schedstat").read_text().split()[0]) / 1e9 for task in Path("/proc/self/task").iterdir()}


def measure(folder: Path, repeats: int) -> list[Figure]:
    """Both numbers of cores in turns."""
    records = [folder / f"input_path-{number}.tfrecord" for number in range(FILES)]
    if not records[-1].exists():
        from benchmarks.step_time import write_records

        for path in records:
            write_records(str(path), EXAMPLES // FILES, SHAPE)
    counts = [cores for cores in (1, 2) if cores <= len(os.sched_getaffinity(0))]
    runs: dict[int, list[Any]] = {cores: [] for cores in counts}
    for number in range(repeats):
        for cores in counts:
            print(f"input path on {cores} of the cores, {number + 1} of {repeats}", flush=True)
            runs[cores].append(run_apart("-m", "benchmarks.input_path", "--cores", cores, "--records", *records).result)
    return figures(runs)


def figures(runs: dict[int, list[dict[str, dict[str, float]]]]) -> list[Figure]:
    """Processor time by stage, images/s beside the peer's, and the cores that GPUs need.

    Args:
      runs: by number of cores, what `run` gave in each repeat.
    """
    found = []
    for cores, repeats in runs.items():
        where = f"{cores} core{'s' if cores > 1 else ''}"
        for stage in repeats[0]:
            if stage != PEER:
                peer = [each[PEER]["all"] for each in repeats] if stage == WHOLE else []
                found.append(Figure(f"{stage}, {where}", "processor ms/image", [each[stage]["all"] for each in repeats], peer))
    for cores, repeats in runs.items():
        where = f"{cores} core{'s' if cores > 1 else ''}"
        whole, cached, peer = ([each[stage]["rate"] for each in repeats] for stage in (WHOLE, CACHED, PEER))
        found.append(Figure(f"records to augmented batches, {where}", "images/s", whole, peer, 1.0, at_least=True))
        found.append(Figure(f"{CACHED}, {where}", "images/s", cached))
    costs = [statistics.fmean(each[WHOLE]["all"] for each in repeat) for repeat in zip(*runs.values(), strict=True)]
    found.append(Figure("the whole path, as fitted", "processor ms/image", costs, note=FITTED))
    for gpus in (1, 8):
        fed = f"cores that feed {gpus} GPU{'s' if gpus > 1 else ''} of {GPU:,} images/s"
        needed = [gpus * GPU * cost / 1000 for cost in costs]
        found.append(Figure(fed, "cores", needed, bar=gpus * MOST_CORES, note=CALCULATED if gpus == 1 else ""))
    for stage, source in ((SHUFFLED, "records"), (IN_MEMORY, "the cache in memory")):
        most = [1000 / each[stage]["busiest"] for each in runs[max(runs)]]
        found.append(
            Figure(f"most that one process can read from {source}", "images/s", most, note=SERIAL if stage == SHUFFLED else "")
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("output/benchmark_data"))
    parser.add_argument("--records", nargs=FILES, help=argparse.SUPPRESS)
    parser.add_argument("--cores", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.records:
        print(json.dumps(run(options.records, options.cores)))
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    found = measure(options.folder.resolve(), options.repeats)
    print(figures_table(found))
    if not all(figure.is_met for figure in found):
        raise SystemExit("a bar is missed")


if __name__ == "__main__":
    main()
