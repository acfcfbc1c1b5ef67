"""Folders of handwritten digits in every layout that docs/data.md has a recipe for, written by the libraries of these layouts.

The pictures of the digits 3 and 8 are called cat and dog here, 60 of each, so that the folders look like those in the recipes.
"""

import csv
import io
import json
import os
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from PIL import Image
from pyarrow import parquet
from sklearn.datasets import load_digits

CLASSES: Final = ("cat", "dog")
COUNTS: Final = {"train": 36, "val": 12, "test": 12}  # of each class
PER_CLASS: Final = sum(COUNTS.values())
_SPLITS: Final = {"train": "train", "val": "eval", "test": "test"}


@dataclass(frozen=True)
class Picture:
    """A picture: its class, the name of its file, the split that it would be in, the PNG file."""

    label: str
    name: str
    split: str
    content: bytes


@dataclass(frozen=True)
class Layout:
    """How to write a layout, and what must be found in it: number of images by split ("": the data gives none) and class."""

    write: Callable[[Path], None]
    found: dict[tuple[str, str], int]
    overrides: tuple[str, ...] = ()
    data: str = "images"


LAYOUTS: Final[dict[str, Layout]] = {}
NO_SPLITS: Final = {("", label): PER_CLASS for label in CLASSES}
IN_SPLITS: Final = {(_SPLITS[split], label): count for split, count in COUNTS.items() for label in CLASSES}
TRAIN_AND_TEST: Final = {
    (split, label): count
    for split, count in (("train", PER_CLASS - COUNTS["test"]), ("test", COUNTS["test"]))
    for label in CLASSES
}


def layout(recipe: str, found: dict[tuple[str, str], int], *overrides: str, data: str = "images") -> Callable[[Any], Any]:
    """Registers what writes the folder of a recipe."""

    def register(write: Callable[[Path], None]) -> Callable[[Path], None]:
        LAYOUTS[recipe] = Layout(write, found, overrides, data)
        return write

    return register


@cache
def pictures() -> tuple[Picture, ...]:
    digits = load_digits()
    made = []
    for digit, label in zip((3, 8), CLASSES, strict=True):
        scans = digits.images[digits.target == digit][:PER_CLASS]
        splits = [split for split, count in COUNTS.items() for _ in range(count)]
        for number, (scan, split) in enumerate(zip(scans, splits, strict=True)):
            content = io.BytesIO()
            Image.fromarray((scan * 255 / 16).astype(np.uint8)).resize((32, 32)).save(content, "PNG")
            made.append(Picture(label, f"{label}_{number:02d}.png", split, content.getvalue()))
    return tuple(made)


def save(path: Path, content: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def save_all(folder: Path, place: Callable[[Picture], str]) -> None:
    for picture in pictures():
        save(folder / place(picture), picture.content)


def table(path: Path, header: str, rows: Iterator[tuple[Any, ...]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header.split(",")] * bool(header) + list(rows))


@layout("Class folders", NO_SPLITS)
def _(folder: Path) -> None:
    save_all(folder, lambda picture: f"{picture.label}/{picture.name}")


@layout("Folders with splits", TRAIN_AND_TEST)
def _(folder: Path) -> None:
    names = {"train": "Training", "val": "Training", "test": "Testing"}
    save_all(folder, lambda picture: f"{names[picture.split]}/{picture.label}/{picture.name}")


@layout("One folder around everything", IN_SPLITS)
def _(folder: Path) -> None:
    save_all(folder, lambda picture: f"archive/archive/seg_{picture.split}/{picture.label}/{picture.name}")
    for litter in (
        "Thumbs.db",
        "archive/.DS_Store",
        "__MACOSX/archive/._cat_00.png",
        "archive/archive/seg_train/cat/._cat_00.png",
    ):
        save(folder / litter, "litter")


@layout("Images without labels beside a labelled train folder", NO_SPLITS)
def _(folder: Path) -> None:
    save_all(folder, lambda picture: f"train/{picture.label}/{picture.name}")
    for number, picture in enumerate(pictures()[:9]):
        save(folder / f"test/{number}.png", picture.content)


@layout("Folders that can be read in two ways", IN_SPLITS, "data.layout=class/split")
def _(folder: Path) -> None:
    save_all(folder, lambda picture: f"{picture.label}/{picture.split}/{picture.name}")


@layout("A zip or tar archive", IN_SPLITS)
def _(folder: Path) -> None:
    for split in COUNTS:
        save(folder / f"{split}.zip", "")
        with zipfile.ZipFile(folder / f"{split}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for picture in pictures():
                if picture.split == split:
                    archive.writestr(f"{picture.label}/{picture.name}", picture.content)


@layout("A compressed tar archive", IN_SPLITS, data="images.tar.gz")
def _(folder: Path) -> None:
    with tarfile.open(folder, "w:gz") as archive:
        for picture in pictures():
            _add(archive, f"pets/{picture.split}/{picture.label}/{picture.name}", picture.content)


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


@layout("A manifest", NO_SPLITS, "data.columns.group=patient", "data.columns.types={age: integer}")
def _(folder: Path) -> None:
    save_all(folder, lambda picture: f"scans/{picture.name}")
    rows = (
        (f"scans/{picture.name}", picture.label, f"p{number // 2}", ("north", "south")[number % 2], 30 + number % 50)
        for number, picture in enumerate(pictures())
    )
    table(folder / "manifest.csv", "path,label,patient,site,age", rows)


@layout("A table beside a folder of images", NO_SPLITS)
def _(folder: Path) -> None:
    save_all(folder, lambda picture: f"pictures/{picture.name}")
    table(folder / "labels.csv", "id,label", ((picture.name.removesuffix(".png"), picture.label) for picture in pictures()))


@layout("Hugging Face's imagefolder", IN_SPLITS)
def _(folder: Path) -> None:
    for split in COUNTS:
        lines = [{"file_name": one.name, "label": one.label} for one in pictures() if one.split == split]
        save(folder / split / "metadata.jsonl", "".join(f"{json.dumps(line)}\n" for line in lines))
    save_all(folder, lambda picture: f"{picture.split}/{picture.name}")


@layout("Parquet files that hold the images", IN_SPLITS)
def _(folder: Path) -> None:
    label = {"_type": "ClassLabel", "names": list(CLASSES)}
    info = {"info": {"features": {"image": {"_type": "Image"}, "label": label}}}
    for split, word in (("train", "train"), ("val", "validation"), ("test", "test")):
        chosen = [picture for picture in pictures() if picture.split == split]
        columns = {
            "image": [{"bytes": picture.content, "path": picture.name} for picture in chosen],
            "label": [CLASSES.index(picture.label) for picture in chosen],
        }
        path = folder / f"data/{word}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(pa.table(columns).replace_schema_metadata({"huggingface": json.dumps(info)}), path)


@layout("WebDataset's tar files", IN_SPLITS)
def _(folder: Path) -> None:
    folder.mkdir(parents=True)
    for split in COUNTS:
        with tarfile.open(folder / f"pets-{split}-000000.tar", "w") as archive:
            for number, picture in enumerate(one for one in pictures() if one.split == split):
                _add(archive, f"{number:06d}.png", picture.content)
                _add(archive, f"{number:06d}.cls", picture.label.encode())


@layout("TFRecord files", {(split, str(CLASSES.index(label))): count for (split, label), count in IN_SPLITS.items()})
def _(folder: Path) -> None:
    def example(picture: Picture) -> dict[str, Any]:
        one_hot = [int(label == picture.label) for label in CLASSES]
        return {"image/encoded": picture.content, "image/class/label": one_hot}

    for split in COUNTS:
        _write_records(folder / f"{split}-00000-of-00001.tfrecord.gz", split, example, "GZIP")


@layout("A TensorFlow Datasets directory", IN_SPLITS)
def _(folder: Path) -> None:
    words = {"train": "train", "val": "validation", "test": "test"}
    kinds = {
        "image": {
            "pythonClassName": "tensorflow_datasets.core.features.image_feature.Image",
            "image": {"encodingFormat": "png"},
        },
        "label": {
            "pythonClassName": "tensorflow_datasets.core.features.class_label_feature.ClassLabel",
            "classLabel": {"numClasses": str(len(CLASSES))},
        },
    }
    for home in (folder / "pets/1.0.0", folder / "pets/1.10.0"):
        for split, word in words.items():
            path = home / f"pets-{word}.tfrecord-00000-of-00001"
            _write_records(path, split, lambda one: {"image": one.content, "label": CLASSES.index(one.label)})
        splits = [
            {
                "name": word,
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "shardLengths": [str(COUNTS[split] * len(CLASSES))],
            }
            for split, word in words.items()
        ]
        info = {"fileFormat": "tfrecord", "name": "pets", "version": home.name, "splits": splits}
        save(home / "dataset_info.json", json.dumps(info))
        name = "tensorflow_datasets.core.features.features_dict.FeaturesDict"
        save(home / "features.json", json.dumps({"pythonClassName": name, "featuresDict": {"features": kinds}}))
        save(home / "label.labels.txt", "\n".join(CLASSES) + "\n")


def _write_records(path: Path, split: str, example: Callable[[Picture], dict[str, Any]], compression: str = "") -> None:
    import tensorflow as tf

    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path), compression) as writer:
        for picture in pictures():
            if picture.split == split:
                found = tf.train.Features()
                for name, value in example(picture).items():
                    if isinstance(value, bytes):
                        found.feature[name].bytes_list.value.append(value)
                    else:
                        found.feature[name].int64_list.value.extend(value if isinstance(value, list) else [value])
                writer.write(tf.train.Example(features=found).SerializeToString())


@layout("Vertex AI's import files", IN_SPLITS)
def _(folder: Path) -> None:
    save_all(folder, lambda picture: f"pets/{picture.label}/{picture.name}")
    uses = {"train": "training", "val": "validation", "test": "test"}
    rows = ((uses[one.split], f"gs://my-bucket/pets/{one.label}/{one.name}", one.label) for one in pictures())
    table(folder / "import.csv", "", rows)


@layout("COCO", IN_SPLITS)
def _(folder: Path) -> None:
    save_all(folder, lambda picture: f"{picture.split}2017/{picture.name}")
    for split in COUNTS:
        chosen = [picture for picture in pictures() if picture.split == split]
        content = {
            "info": {"description": "pets", "version": "1.0", "year": 2017},
            "licenses": [],
            "images": [
                {"license": 1, "file_name": one.name, "height": 32, "width": 32, "id": id} for id, one in enumerate(chosen, 1)
            ],
            "annotations": [
                {"segmentation": [[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]], "area": 9.0, "iscrowd": 0, "image_id": id}
                | {"bbox": [1.0, 2.0, 3.0, 4.0], "category_id": 17 + CLASSES.index(one.label), "id": id}
                for id, one in enumerate(chosen, 1)
            ],
            "categories": [
                {"supercategory": "animal", "id": 17 + number, "name": label} for number, label in enumerate(CLASSES)
            ],
        }
        save(folder / f"annotations/instances_{split}2017.json", json.dumps(content))


@layout("Label Studio", NO_SPLITS)
def _(folder: Path) -> None:
    def stored(picture: Picture) -> str:
        return f"upload/1/{zlib.crc32(picture.name.encode()):08x}-{picture.name}"

    save_all(folder, stored)
    tasks = []
    for number, picture in enumerate(pictures(), 1):
        choice = {"from_name": "choice", "to_name": "image", "type": "choices", "value": {"choices": [picture.label]}}
        answer = {"id": number, "completed_by": 1, "result": [choice], "was_cancelled": False, "ground_truth": False}
        place = stored(picture)
        tasks.append(
            {"id": number, "annotations": [answer], "file_upload": os.path.basename(place), "data": {"image": f"/data/{place}"}}
        )
    save(folder / "project-1.json", json.dumps(tasks))


@layout("CVAT and Datumaro", IN_SPLITS)
def _(folder: Path) -> None:
    save_all(folder, lambda picture: f"images/{picture.split}/{picture.name}")
    found = [
        f'<image id="{number}" name="{one.name}" subset="{one.split}" task_id="1" width="32" height="32">'
        f'<tag label="{one.label}" source="manual"></tag></image>\n'
        for number, one in enumerate(pictures())
    ]
    head = '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n<meta></meta>\n'
    save(folder / "annotations.xml", head + "".join(found) + "</annotations>\n")


@layout("Spans", NO_SPLITS, data="images/day-{SPAN}")
def _(folder: Path) -> None:
    save_all(folder.parent, lambda picture: f"day-{1 + (picture.split == 'test')}/{picture.label}/{picture.name}")


def count(rows: list[Any]) -> Counter[tuple[str, str]]:
    """Number of rows by split and class."""
    return Counter((row.split, row.label) for row in rows)
