"""What does the Evaluator cost beside the model's answers, and what the page about them?

    .venv/bin/python -m benchmarks.evaluator

- Evaluator: seconds of the component on so many test images, against a bare loop that reads the same records and calls the
  same exported model on them in batches of the same size. Both are processes of their own that take turns. The start-up is
  what the same takes on a handful of images.
- page: seconds of writing the page about them, with its pictures, in the process that has evaluated, and by how much that
  process grows over what it held before.

Two networks: the small one of the embedded digits, whose answers cost next to nothing, and MobileNetV2 at 96 pixels. They are
trained for an epoch on a few images that are drawn here; the test images are these, over and over.

The exit status is 1 if a bar is missed.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from base.local_files import new_folder
from benchmarks.ingestion import HANDFUL, write_images
from benchmarks.measurement import Figure, figures_table, peak_memory, run_apart

MOST_TIME = 1.3  # times the bare loop beyond the start-up
MOST_PAGE_SECONDS, MOST_PAGE_BYTES = 30, 10**9
DRAWN = 600  # images
BATCH = 256
NETWORKS: dict[str, dict[str, Any]] = {
    "small_resnet10, 32x32x1": {
        "image": {"height": 32, "width": 32, "channels": 1},
        "model": {"backbone": "small_resnet10", "min_level": 2, "max_level": 4, "num_filters": 32},
    },
    "mobilenet_v2, 96x96x3": {
        "image": {"height": 96, "width": 96, "channels": 3},
        "model": {"backbone": "mobilenet_v2", "weights": "none", "min_level": 3, "max_level": 5, "num_filters": 64},
    },
}
SLICES = [["image/label"], ["image/mean"], ["image/label", "image/mean"]]


def prepare(network: str, folder: Path, data: Path) -> Path:
    """Trains a network, unless that is done: the output folder of the run."""
    number = list(NETWORKS).index(network)
    config = {
        "name": "evaluation",
        "data": {"path": str(data)},
        **NETWORKS[network],
        "train": {"epochs": 1, "batch_size": 32},
        "evaluate": {"slices": SLICES, "thresholds": [{"metric": "accuracy", "lower": 0.0}]},
    }
    output = folder / f"network-{number}"
    if not output.exists():
        print(f"{network}: training for an epoch", flush=True)
        with new_folder(output) as unfinished:
            (unfinished / "config.yaml").write_text(json.dumps(config))  # which is YAML, too
            command = [sys.executable, "-m", "pipeline.cli", "run", "--config", unfinished / "config.yaml"]
            subprocess.run([*command, "--output", unfinished / "run"], check=True, stdout=subprocess.DEVNULL)
    return output


def write_records(source: Path, images: int, folder: Path) -> None:
    """The examples over and over, each in a group of its own."""
    import tensorflow as tf

    from models import features

    records = list(tf.data.TFRecordDataset([str(path) for path in sorted(source.iterdir())]).as_numpy_iterator())
    folder.mkdir(parents=True)
    with tf.io.TFRecordWriter(str(folder / "data_tfrecord-00000-of-00001")) as writer:
        for number in range(images):
            example = tf.train.Example.FromString(records[number % len(records)])
            example.features.feature[features.GROUP].bytes_list.value[0] = str(number).encode()
            writer.write(example.SerializeToString())


def newest(folder: Path) -> Path:
    return max((path for path in folder.iterdir() if path.name.isdigit()), key=lambda path: int(path.name))


def loop(output: Path, images: int, work: Path) -> dict[str, float]:
    """Reads the records and asks the model, nothing else."""
    import tensorflow as tf

    write_records(newest(output / "run/artifacts/ImageExampleGen/examples") / "Split-train", images, work / "Split-test")
    start = time.perf_counter()
    predict = tf.saved_model.load(str(newest(output / "run/pushed"))).signatures["predict_examples"]
    files = [str(path) for path in (work / "Split-test").iterdir()]
    for batch in tf.data.TFRecordDataset(files).batch(BATCH).prefetch(1):
        predict(examples=batch)["probabilities"].numpy()
    return {"seconds": time.perf_counter() - start}


def evaluator(output: Path, images: int, work: Path) -> dict[str, float]:
    """Runs the component's executor on the same records."""
    from tfx.dsl.components.base import base_beam_executor
    from tfx.types import channel_utils, standard_artifacts

    from components.evaluator import executor
    from components.evaluator.component import ImageEvaluator
    from pipeline.config.evaluation import EvaluateConfig
    from pipeline.config.loading import load_config
    from pipeline.dag.eval_config import build_eval_config, evaluation_settings
    from pipeline.pages.evaluation_page import RunContext, write_evaluation_page

    def artifact(kind: Any, folder: Path) -> Any:
        made = kind()
        made.uri = str(folder)
        return made

    write_records(newest(output / "run/artifacts/ImageExampleGen/examples") / "Split-train", images, work / "Split-test")
    inputs = {
        "examples": [artifact(standard_artifacts.Examples, work)],
        "model": [artifact(standard_artifacts.Model, newest(output / "run/artifacts/Trainer/model"))],
    }
    inputs["examples"][0].split_names = '["test"]'
    settings = evaluation_settings(EvaluateConfig(slices=SLICES, batch_size=BATCH), False, ["test"], judged=True)
    component = ImageEvaluator(
        **{key: channel_utils.as_channel(value) for key, value in inputs.items()},
        eval_config=build_eval_config(settings),
        settings=settings,
        code="",
    )
    outputs = {
        "evaluation": [artifact(standard_artifacts.ModelEvaluation, work / "evaluation")],
        "blessing": [artifact(standard_artifacts.ModelBlessing, work / "blessing")],
    }
    context = base_beam_executor.BaseBeamExecutor.Context(
        beam_pipeline_args=["--runner=FnApiRunner", "--sdk_container_image=none"], tmp_dir=str(work / "tmp"), unique_id="1"
    )
    start = time.perf_counter()
    executor.Executor(context).Do(inputs, outputs, dict(component.exec_properties))
    done = time.perf_counter()
    memory = resident()
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far: proc(5)
    write_evaluation_page(
        load_config(output / "config.yaml"),
        work / "evaluation",
        work / "report.html",
        model=newest(output / "run/pushed"),
        context=RunContext(),
    )
    page = time.perf_counter() - done
    return {"seconds": done - start, "page": page, "page_bytes": peak_memory() - memory}


def resident() -> int:
    """Memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


SIDES: dict[str, Callable[[Path, int, Path], dict[str, float]]] = {"loop": loop, "Evaluator": evaluator}


def measure_apart(side: str, output: Path, images: int) -> dict[str, float]:
    """Runs one side in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="run-", dir=output.parent) as work:
        return run_apart("-m", "benchmarks.evaluator", "--measure", side, output, images, work).result


def measure_network(network: str, folder: Path, images: int, repeats: int) -> list[Figure]:
    """Of the Evaluator beyond the start-up, against the loop, and of the page."""
    output = prepare(network, folder, write_images(folder, "small", DRAWN))
    runs: dict[tuple[str, int], list[dict[str, float]]] = {}
    for repeat in range(repeats):
        print(f"[{repeat + 1}/{repeats}] evaluation of {images:,} images, {network}", flush=True)
        for side in SIDES:
            for count in (HANDFUL, images):
                runs.setdefault((side, count), []).append(measure_apart(side, output, count))
    beyond = {
        side: [whole["seconds"] - few["seconds"] for whole, few in zip(runs[side, images], runs[side, HANDFUL], strict=True)]
        for side in SIDES
    }
    pages = runs["Evaluator", images]
    name = f"{images:,} test images, {network}"
    return [
        Figure(f"Evaluator beyond the start-up, {name}", "s", beyond["Evaluator"], beyond["loop"], MOST_TIME),
        Figure(f"Evaluator on a handful, {network}", "s", [run["seconds"] for run in runs["Evaluator", HANDFUL]]),
        Figure(f"the page about them, {name}", "s", [run["page"] for run in pages], bar=MOST_PAGE_SECONDS),
        Figure(
            f"memory of making the page, {name}", "MB", [run["page_bytes"] / 1e6 for run in pages], bar=MOST_PAGE_BYTES / 1e6
        ),
    ]


def measure(folder: Path, repeats: int, images: int) -> list[Figure]:
    """The same of each network."""
    return [figure for network in NETWORKS for figure in measure_network(network, folder, images, repeats)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=10_000, help="test images (10,000)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each (3)")
    parser.add_argument("--folder", type=Path, default=Path("output/benchmark_data"), help="for the images and outputs")
    parser.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)  # what each process is started with
    options = parser.parse_args()
    if options.measure:
        side, output, images, work = options.measure
        print(json.dumps(SIDES[side](Path(output), int(images), Path(work))))
        return
    figures = measure(options.folder.resolve(), options.repeats, options.images)
    print(figures_table(figures))
    if not all(figure.is_met for figure in figures):
        raise SystemExit("bar missed")


if __name__ == "__main__":
    main()
