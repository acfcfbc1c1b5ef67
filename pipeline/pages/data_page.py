"""One HTML page about the data: what was found and ingested, its classes, its images, and what is wrong with it.

Reads the index that ingestion writes beside the examples, and only a few of the images themselves.
"""

import datetime
import itertools
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from base.errors import UserError
from base.paths import short_path
from base.tables import read_table
from components.example_validator.comparison import FEWEST_IMAGES
from components.example_validator.executor import read_anomalies, read_distances
from images.dataset import source
from images.dataset.losses import Losses
from images.duplicates import DUPLICATES_FILE, describe_duplicates
from images.index import INDEX_FILE, REJECTED_FILE, SUMMARY_FILE
from models import features
from pipeline.config.whole import Config
from pipeline.dag.component_settings import file_settings
from pipeline.pages.histograms import draw_histogram
from pipeline.pages.page import write_page
from pipeline.pages.thumbnails import original, read_originals, sample_classes

_MOST_CLASSES: Final = 100  # in the table of classes: the largest and the smallest ones
_MOST_SHEETS: Final = 30  # classes with a contact sheet
_IMAGES_A_SHEET: Final = 12
_MOST_REJECTS: Final = 200
_MOST_PAIRS: Final = 12

_PROPERTIES: Final = {  # column -> name, unit, number format
    "height": ("Height", "pixels", "{:,.0f}"),
    "width": ("Width", "pixels", "{:,.0f}"),
    "aspect": ("Aspect", "width / height", "{:.2f}"),
    "mean": ("Brightness", "mean grey level, 0 to 1", "{:.3f}"),
    "std": ("Contrast", "standard deviation of the grey level", "{:.3f}"),
    "saturated": ("Saturated", "share of values at black or white", "{:.3f}"),
    "sharpness": ("Sharpness", "standard deviation of the Laplacian", "{:.3f}"),
    "bytes": ("File size", "bytes", "{:,.0f}"),
}
_COLUMNS: Final = ["label", "group", "split", "reason", "kind", "note", "format", *(set(_PROPERTIES) - {"aspect"})]


@dataclass(frozen=True)
class ClassCount:
    """Number of images of a class by split, in the order of the splits."""

    name: str
    counts: list[int]

    @property
    def total(self) -> int:
        return sum(self.counts)


def write_data_page(config: Config, examples: Path, anomalies: str, output: Path) -> None:
    """Writes the page; it needs no other file and no network.

    Args:
      config: the whole configuration.
      examples: folder of ingestion's examples, with the index of all files.
      anomalies: folder of the ExampleValidator's anomalies.
      output: the HTML file; replaced if there is one.

    Raises:
      UserError: the examples come from another ExampleGen than ImageExampleGen.
    """
    if not (examples / INDEX_FILE).exists():
        raise UserError(f"{examples}: no {INDEX_FILE} here; the page is of ImageExampleGen's examples alone")
    index = pd.read_parquet(examples / INDEX_FILE, columns=_COLUMNS)
    is_taken = index["reason"] == ""
    taken = index[is_taken].assign(aspect=lambda rows: rows["width"] / rows["height"])
    splits = [split for split in features.SPLITS if (taken["split"] == split).any()]
    classes = count_classes(taken, splits, config.data.multi_label)
    summary = json.loads((examples / SUMMARY_FILE).read_text(encoding="utf-8"))
    folder, settings = source.root_of(config.data.path), file_settings(config)
    originals = partial(read_originals, folder, settings=settings) if summary.get("originals") == "reference" else None
    shown = [item.name for item in classes[:_MOST_SHEETS]]
    sheets, stopped = sample_classes(examples / "Split-train", shown, _IMAGES_A_SHEET, originals)
    duplicates, lost = summary["duplicates"], summary.get("lost")
    content = {
        "config": config,
        "when": datetime.datetime.now().strftime("%Y-%m-%d %H:%M"),
        "found": len(index),
        "taken": len(taken),
        "size": int(taken["bytes"].sum()),
        "splits": [(name, len(rows), rows["group"].nunique()) for name, rows in _by_split(taken, splits)],
        "formats": _count(index["format"].replace("", "unknown")),
        "classes": _ends(classes),
        "classes_left_out": max(0, len(classes) - _MOST_CLASSES),
        "number_of_classes": len(classes),
        "balance": describe_balance(classes, splits),
        "properties": _properties(taken, splits),
        "sheets": sheets,
        "sheets_stopped": stopped,
        "lost": Losses(**lost).describe() if lost else "",
        "reasons": _count(index["kind"][~is_taken]),
        "rejects": _rows(examples / REJECTED_FILE, _MOST_REJECTS),
        "rejects_file": short_path(examples / REJECTED_FILE),
        "notes": _count(index["note"][index["note"] != ""]),
        "duplicates": duplicates,
        "duplicates_described": describe_duplicates(duplicates, short_path(examples / DUPLICATES_FILE)),
        "pairs": _pairs(examples / DUPLICATES_FILE, config),
        "duplicates_file": short_path(examples / DUPLICATES_FILE),
        "anomalies": read_anomalies(anomalies),
        "distances": sorted(read_distances(anomalies), key=lambda item: -item.value / item.threshold),
        "fewest_images": FEWEST_IMAGES,
    }
    write_page("data.html", output, content)


def count_classes(taken: pd.DataFrame, splits: list[str], multi_label: bool) -> list[ClassCount]:
    """Number of images by class and split, the largest class first; an image of several classes counts for each.

    Args:
      taken: the ingested images, with the columns label ("cat", "cat|dog", or "" for no class) and split.
      splits: names of the splits.
      multi_label: whether an image can have any number of classes.
    """
    names = [features.split_labels(text, multi_label) or [""] for text in taken["label"]]
    labels = taken.assign(label=names).explode("label")
    table = pd.crosstab(labels["label"], labels["split"]).reindex(columns=splits, fill_value=0)
    classes = [
        ClassCount(str(name), [int(count) for count in counts]) for name, counts in zip(table.index, table.values, strict=True)
    ]
    return sorted(classes, key=lambda item: (-item.total, item.name))


def describe_balance(classes: list[ClassCount], splits: list[str]) -> list[str]:
    """Sentences about the imbalance of the classes, and about classes that a split lacks."""
    largest, smallest = classes[0], classes[-1]
    if largest.total == smallest.total:
        sentences = [f"All {len(classes)} classes have {largest.total:,} images each."]
    else:
        ratio = largest.total / smallest.total
        sentences = [
            f"The largest class, {largest.name or '(no class)'}, has {ratio:.3g} times as many images as the smallest, "
            f"{smallest.name or '(no class)'}: {largest.total:,} and {smallest.total:,}."
        ]
    for number, split in enumerate(splits):
        if lacking := [item.name for item in classes if not item.counts[number]]:
            more = f" and {len(lacking) - 10:,} more" if len(lacking) > 10 else ""
            sentences.append(f"The {split} split has no image of {', '.join(lacking[:10])}{more}.")
    return sentences


def _by_split(taken: pd.DataFrame, splits: list[str]) -> list[tuple[str, pd.DataFrame]]:
    return [(split, taken[taken["split"] == split]) for split in splits]


def _count(values: pd.Series) -> list[tuple[str, int]]:
    """Values and how often they occur, the most frequent first."""
    return [(str(name), int(count)) for name, count in values.value_counts().items()]


def _ends(classes: list[ClassCount]) -> list[ClassCount]:
    half = _MOST_CLASSES // 2
    return classes if len(classes) <= _MOST_CLASSES else classes[:half] + classes[-half:]


def _properties(taken: pd.DataFrame, splits: list[str]) -> list[dict[str, Any]]:
    """The histogram of each property, and its least, median and largest value in each split as text."""
    properties = []
    for column, (name, unit, figure) in _PROPERTIES.items():
        values = {split: rows[column].to_numpy(np.float64) for split, rows in _by_split(taken, splits)}
        rows = [
            (split, *(figure.format(value) for value in np.quantile(numbers, (0, 0.5, 1)))) for split, numbers in values.items()
        ]
        varies = taken[column].nunique() > 1
        svg = draw_histogram(values, unit, name) if varies else ""
        properties.append({"name": name, "unit": unit, "svg": svg, "rows": rows})
    return properties


def _rows(table: Path, most: int) -> list[dict[str, str]]:
    if not table.exists():
        return []
    with table.open(encoding="utf-8", newline="") as file:
        return list(itertools.islice(read_table(file), most))


def _pairs(table: Path, config: Config) -> list[dict[str, Any]]:
    """The first pairs in the list of duplicates, which are the worst, with thumbnails."""
    folder = source.root_of(config.data.path)
    settings = file_settings(config)
    return [
        {
            **pair,
            **{f"picture_{side}": original(folder, pair[f"path_{side}"], settings) for side in "ab"},
        }
        for pair in _rows(table, _MOST_PAIRS)
    ]
