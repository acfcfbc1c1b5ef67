"""A part of the embedded digits, for runs that take little more than loading TensorFlow."""

import csv
import shutil
from pathlib import Path
from typing import Any

import yaml

from pipeline.samples.digits import write_digits


def write_few_digits(folder: Path, count: int) -> None:
    """Writes the first so many digits, three pictures each, with their manifest; the rest lies beside the folder in `all`."""
    everything = folder.parent / "all"
    write_digits(everything)
    with (everything / "manifest.csv").open() as file:
        header, *rows = csv.reader(file)
    rows = [row for row in rows if int(row[3]) < count]
    for path, *_ in rows:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(everything / path, folder / path)
    with (folder / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def write_config(place: Path, *, stratify: bool = False, **sections: Any) -> None:
    """Writes `config.yaml` for few digits in `data`, and a small network; sections that are given replace those here."""
    config = {
        "name": "few-digits",
        "data": {"path": str(place / "data"), "splits": {"train": 6, "eval": 2, "test": 2, "stratify": stratify}},
        "image": {"height": 16, "width": 16, "channels": 1},
        "model": {"backbone": "small_resnet10", "max_level": 3, "num_filters": 8},
        "evaluate": {"thresholds": [{"metric": "accuracy", "lower": 0.0}]},
        "check": {"enabled": False},
    }
    (place / "config.yaml").write_text(yaml.safe_dump(config | sections))
