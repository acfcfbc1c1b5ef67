"""A whole run, from image files to a pushed model, against the plain script of `benchmarks.plain_keras`.

Both train the same network for the same epochs, on the same files in train, eval and test folders. What the same takes on a
handful of images is set apart as the start-up.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from base.local_files import new_folder
from benchmarks import ingestion
from benchmarks.measurement import PROJECT, Ended, Figure, run_apart, warm
from pipeline.config.evaluation import ThresholdConfig
from pipeline.config.loading import dump_config, load_config
from pipeline.config.whole import Config
from pipeline.samples.known import SAMPLES

MOST_TIME = 1.25  # times the peer's, beyond the start-up
MOST_START_UP = 25.0  # seconds
HANDFUL = 4  # images of each class in each split


@dataclass(frozen=True)
class Workload:
    """Images, and what is trained on them.

    Attributes:
      name: what it is called in the tables.
      data: train, eval and test folders with a folder a class.
      config: of both sides.
    """

    name: str
    data: Path
    config: Config


def digits(folder: Path, epochs: int) -> Workload:
    """The embedded digits, with their configuration."""
    config = load_config(PROJECT / "configs/digits.yaml", overrides=[f"train.epochs={epochs}"])
    SAMPLES["digits"](folder / "digits")
    # Of one drawing in three sizes, the names differ after the underscore.
    data = deal(folder / "digits", folder / "digits-dealt", group_of=lambda name: name.partition("_")[0])
    return Workload(f"digits, {config.train.epochs} epochs", data, config)


def sign_digits(folder: Path) -> Workload | None:
    """Photographs, fine-tuned from ImageNet weights; None where data or weights are not there."""
    config = load_config(PROJECT / "configs/sign_digits.yaml", overrides=["data.originals=reference"])
    source, weights = (PROJECT / path for path in (config.data.path, config.model.weights))
    if not source.is_dir() or not weights.is_file():
        return None
    config = config.model_copy(update={"model": config.model.model_copy(update={"weights": str(weights.resolve())})})
    return Workload("sign_digits, fine-tuned", deal(source, folder / "sign_digits-dealt"), config)


def jpegs(folder: Path, count: int) -> Workload:
    """Small JPEG files, for an epoch of a small network."""
    config = Config.model_validate(
        {
            "name": "jpegs",
            "data": {"path": ".", "originals": "reference"},
            "image": {"height": 64, "width": 64, "channels": 3},
            "augment": {"shift": 0.1},
            "model": {"backbone": "small_resnet10", "min_level": 2, "max_level": 4, "num_filters": 32},
            "train": {"epochs": 1, "batch_size": 64},
        }
    )
    return Workload(f"{count:,} JPEG files, 1 epoch", ingestion.write_images(folder, "small", count), config)


def deal(source: Path, folder: Path, group_of: Callable[[str], str] = str) -> Path:
    """Links the files of class folders into train, eval and test (7 : 1 : 2), those of a group together.

    Args:
      source: the class folders.
      folder: for the links, which are made unless it is there.
      group_of: a file's name, without its suffix, to its group; each file is one by itself if not given.
    """
    if folder.exists():
        return folder
    with new_folder(folder) as unfinished:
        for path in sorted(source.glob("*/*.*")):
            bucket = int(hashlib.sha256(group_of(path.stem).encode()).hexdigest(), 16) % 10
            split = "train" if bucket < 7 else "eval" if bucket < 8 else "test"
            link(path, unfinished / split / path.parent.name / path.name)
    return folder


def handful(data: Path) -> Path:
    """Links the first images of each class in each split."""
    folder = data.with_name(f"{data.name}-handful")
    if not folder.exists():
        with new_folder(folder) as unfinished:
            for classes in sorted(data.glob("*/*")):
                for path in sorted(classes.iterdir())[:HANDFUL]:
                    link(path, unfinished / path.relative_to(data))
    return folder


def link(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    os.link(path.resolve(), target)


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below; one with several names counts once."""
    found = [path.stat() for path in folder.rglob("*") if path.is_file()]
    return sum({(status.st_dev, status.st_ino): status.st_size for status in found}.values())


class Sides:
    """Runs both sides on some of a workload's images."""

    def __init__(self, workload: Workload, work: Path) -> None:
        self._workload = workload
        self._work = work
        self._config = work / "config.yaml"
        # The files of the folders say nothing to slice by.
        any_model = [ThresholdConfig(metric="accuracy", lower=0.0)]
        evaluate = workload.config.evaluate.model_copy(update={"slices": [["image/label"]], "thresholds": any_model})
        self._config.write_text(dump_config(workload.config.model_copy(update={"evaluate": evaluate})))

    def peer(self, data: Path, *options: str) -> Ended:
        """Its output has the seconds of its parts."""
        with tempfile.TemporaryDirectory(dir=self._work) as output:
            command = ["-m", "benchmarks.plain_keras", data, "--config", self._config, "--output", f"{output}/model"]
            return run_apart(*command, *options)

    def project(self, data: Path) -> tuple[Ended, int]:
        """Its output is the run's summary; and the bytes of all artifacts."""
        with tempfile.TemporaryDirectory(dir=self._work) as output:
            command = ["-m", "pipeline.cli", "run", "--config", self._config, "--data", data, "--output", output, "--json"]
            return run_apart(*command, statuses=(0, 3)), folder_bytes(Path(output, "artifacts"))


def seconds(runs: list[Ended]) -> list[float]:
    return [ended.seconds for ended in runs]


def difference(whole: list[Ended], few: list[Ended]) -> list[float]:
    """Seconds beyond those of the handful, of each repeat."""
    return [one.seconds - other.seconds for one, other in zip(whole, few, strict=True)]


def measure(workload: Workload, repeats: int, in_memory: bool = False) -> list[Figure]:
    """Time beyond the start-up, the start-up, and the bytes on disk; in_memory adds a peer that holds all images at once."""
    few = handful(workload.data)
    warm(workload.data)
    peer_few: list[Ended] = []
    peer_all: list[Ended] = []
    memory_few: list[Ended] = []
    memory_all: list[Ended] = []
    own_few: list[Ended] = []
    own_all: list[Ended] = []
    sizes: list[int] = []
    with tempfile.TemporaryDirectory(prefix="whole-run-", dir=workload.data.parent) as work:
        sides = Sides(workload, Path(work))
        for repeat in range(repeats):
            print(f"[{repeat + 1}/{repeats}] {workload.name}", flush=True)
            peer_few.append(sides.peer(few))
            own_few.append(sides.project(few)[0])
            peer_all.append(sides.peer(workload.data))
            ended, size = sides.project(workload.data)
            own_all.append(ended)
            sizes.append(size)
            if in_memory:
                memory_few.append(sides.peer(few, "--in-memory"))
                memory_all.append(sides.peer(workload.data, "--in-memory"))
    image = workload.config.image
    pixels = sum(path.is_file() for path in workload.data.rglob("*")) * image.height * image.width * image.channels
    beyond = difference(own_all, own_few)
    same_work = [ended.result["seconds"]["train"] + ended.result["seconds"]["export"] for ended in peer_few]
    overhead = [ended.seconds - same for ended, same in zip(own_few, same_work, strict=True)]
    accuracy = [ended.result["metrics"]["accuracy"]["value"] for ended in own_all]
    figures = [
        Figure(
            f"{workload.name}: whole run beyond the start-up",
            "s",
            beyond,
            difference(peer_all, peer_few),
            MOST_TIME,
        ),
        Figure(f"{workload.name}: whole run", "s", seconds(own_all), seconds(peer_all)),
        Figure(f"{workload.name}: whole run on a handful", "s", seconds(own_few), seconds(peer_few)),
        Figure(
            f"{workload.name}: start-up, of imports and components",
            "s",
            overhead,
            bar=MOST_START_UP,
            note="the run on a handful, less the time in which the peer trains and exports on it",
        ),
        Figure(f"{workload.name}: test accuracy", "", accuracy, [ended.result["accuracy"] for ended in peer_all]),
        Figure(
            f"{workload.name}: bytes of all artifacts, to those of the pixels that the network takes",
            "MB",
            [size / 1e6 for size in sizes],
            [pixels / 1e6],
        ),
    ]
    if in_memory:
        figures.append(
            Figure(
                f"{workload.name}: against all images in one array, beyond the start-up",
                "s",
                beyond,
                difference(memory_all, memory_few),
            )
        )
    return figures
