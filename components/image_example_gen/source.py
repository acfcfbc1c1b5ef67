"""Finds the images of a data folder, their labels, groups and splits, without opening an image.

Imports no TensorFlow, so that a mistake in a data folder is told at once.
"""

import bisect
import csv
import difflib
import hashlib
import io
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Final

from apache_beam.io.filesystem import CompressionTypes, FileMetadata
from apache_beam.io.filesystems import FileSystems

from components.errors import UserError
from models import features

_SPLIT_NAMES: Final = {
    "train": "train",
    "training": "train",
    "eval": "eval",
    "val": "eval",
    "valid": "eval",
    "validation": "eval",
    "test": "test",
}


@dataclass(frozen=True)
class Row:
    """One image of the data set.

    Attributes:
      path: relative to the data folder.
      labels: names of its classes: one, or of multi-label data any number, sorted and without repeats.
      group: rows that share it are kept in one split; the path where the data has no groups.
      split: train, eval or test; in cross-validation fold_1, fold_2..., or test for what the data gives as such.
      meta: the manifest's extra columns.
    """

    path: str
    labels: tuple[str, ...]
    group: str
    split: str
    meta: dict[str, str | int | float] = field(default_factory=dict)
    reason: str = ""
    size: int = 0
    record: int | None = None

    @property
    def name(self) -> str:
        return self.path if self.record is None else f"{self.path}:{self.record}"

    @property
    def label(self) -> str:
        """The names as a manifest has them: "cat", or of multi-label data "cat|dog" or ""."""
        return features.LABEL_SEPARATOR.join(self.labels)


def list_files(folder: str) -> dict[str, FileMetadata]:
    """All files below a folder that are not hidden, by path relative to it, in alphabetical order.

    Args:
      folder: a local path, or one of Beam's file systems (gs://, s3://, hdfs://).

    Raises:
      UserError: there is no such folder.
    """
    root = folder.rstrip("/") + "/"
    try:
        found = list(FileSystems.get_filesystem(root)._list(root))
    except Exception as error:
        raise UserError(f"{folder}: can't be listed ({error}); give an existing folder of images as data.path") from error
    files = {item.path.removeprefix(root): item for item in found}
    files = {path: files[path] for path in sorted(files) if not any(part.startswith(".") for part in path.split("/"))}
    if not files:
        state = "holds no files" if FileSystems.exists(folder) else "no such folder"
        raise UserError(f"{folder}: {state}; give a folder of class folders, or one with a manifest, as data.path or --data")
    return files


def fingerprint(folder: str) -> str:
    """A digest of all files' names, sizes and times: it changes when the data does."""
    digest = hashlib.sha256()
    for path, item in list_files(folder).items():
        digest.update(f"{path}\0{item.size_in_bytes}\0{item.last_updated_in_seconds}\n".encode())
    return digest.hexdigest()


def split_names(settings: dict[str, Any]) -> tuple[str, ...]:
    """The splits that ingestion writes: train, eval and test, or as many folds as the settings' `folds` says."""
    folds = settings.get("folds")
    return tuple(f"fold_{number}" for number in range(1, folds + 1)) if folds else features.SPLITS


def read_rows(folder: str, settings: dict[str, Any]) -> list[Row]:
    """Lists the data set: by the folder's manifest if it has one, else by its class folders.

    Args:
      folder: the data folder; with class folders (`CLASS/...`), class folders in split folders (`train/CLASS/...`,
        `val` or `eval`, `test`), or a manifest.
      settings: `manifest`, `columns`, `splits` and `multi_label` of the configuration's `data` section. In cross-validation
        also `folds`, their number: the images given as train or eval, or without a split, are dealt to the folds by group;
        those given as test are in no fold.

    Returns:
      The rows, in an order that is random but the same on every run, so that no later shard holds one class only.

    Raises:
      UserError: the folder, the manifest or a split can't be used.
    """
    files = list_files(folder)
    listed = _from_manifest(folder, files, settings) if settings["manifest"] in files else _from_folders(folder, files)
    rows = _with_groups(listed)
    folds = settings.get("folds")
    rows = _with_folds(folder, rows, folds) if folds else _with_splits(rows, settings["splits"])

    labels = {label for row in rows if row.split in split_names(settings) for label in row.labels}
    if len(labels) < 2 and not settings["multi_label"]:
        raise UserError(f"{folder}: a classifier needs two classes or more, found only {', '.join(labels) or 'none'}")
    if not labels:
        raise UserError(f"{folder}: no image has a label; name the classes in the manifest's label column")
    if not settings["multi_label"]:
        _check_single(folder, labels)
    if not folds:
        _check_splits(folder, rows, labels)
    return sorted(rows, key=lambda row: _hash(row.path))


def _check_splits(folder: str, rows: list[Row], labels: set[str]) -> None:
    for split in features.SPLITS:
        if not any(row.split == split for row in rows):
            groups = len({row.group for row in rows})
            raise UserError(
                f"{folder}: the {split} split would be empty ({len(rows)} images in {groups} groups); "
                f"give it more hash buckets (data.splits.{split}), more data, or a split of its own"
            )
    unlearned = sorted(labels - {label for row in rows if row.split == "train" for label in row.labels})
    if unlearned:
        raise UserError(
            f"{folder}: the train split has no image of {', '.join(unlearned)}; "
            f"give it more hash buckets (data.splits.train), or add or remove images of the class"
        )


def _check_single(folder: str, labels: set[str]) -> None:
    for label in sorted(labels):
        if len(parts := _split_label(label)) > 1 and labels.intersection(parts):
            raise UserError(
                f"{folder}: the label {label} looks like {len(parts)} classes; "
                f"set data.multi_label to true, or rename the class if it is one"
            )


def _split_label(text: str) -> tuple[str, ...]:
    """ "dog | cat|dog" to ("cat", "dog")."""
    return tuple(sorted({part.strip() for part in text.split(features.LABEL_SEPARATOR)} - {""}))


def _from_folders(folder: str, files: Iterable[str]) -> list[Row]:
    parts = [path.split("/") for path in files]
    top_folders = {part[0] for part in parts if len(part) > 1}
    split_folders = {name for name in top_folders if name.lower() in _SPLIT_NAMES}
    if len(split_folders) > 1:
        if others := sorted(top_folders - split_folders):
            raise UserError(f"{folder}: has folders for splits, and others beside them ({', '.join(others)}); move those away")
        return [
            Row("/".join(part), labels=(part[1],), group="", split=_SPLIT_NAMES[part[0].lower()])
            for part in parts
            if len(part) > 2
        ]
    rows = [Row("/".join(part), labels=(part[0],), group="", split="") for part in parts if len(part) > 1]
    if not rows:
        raise UserError(
            f"{folder}: holds files but no class folders; put each image in a folder named as its class, or add a manifest"
        )
    return rows


def _from_manifest(folder: str, files: dict[str, FileMetadata], settings: dict[str, Any]) -> list[Row]:
    name = f"{folder.rstrip('/')}/{settings['manifest']}"
    with FileSystems.open(name, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        try:
            text = file.read().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise UserError(f"{name}: not UTF-8 text; save it as UTF-8 CSV") from error
    table = csv.DictReader(io.StringIO(text))
    columns = settings["columns"]
    found = list(table.fieldnames or [])
    if repeated := next((column for column in found if found.count(column) > 1), None):
        raise UserError(f"{name}: two columns are called {repeated}; rename one of them")
    for role in ("path", "label", "group", "split"):
        # A group and a split column are optional under their default names.
        if columns[role] not in found and not (role in ("group", "split") and columns[role] == role):
            near = difflib.get_close_matches(columns[role], found, n=1)
            hint = f"; is it {near[0]}?" if near else "."
            raise UserError(
                f"{name}: no column {columns[role]} for the {role}, found {', '.join(found) or 'none'}{hint} "
                f"Set data.columns.{role} or add the column"
            )

    rows = []
    lines: dict[str, int] = {}
    missing = []
    for line in _lines(name, table):
        number = table.line_num
        path = (line[columns["path"]] or "").strip().removeprefix("./")
        label = (line[columns["label"]] or "").strip()
        if None in line or None in line.values() or not path or not (label or settings["multi_label"]):
            required = "a path" if settings["multi_label"] else "a path and a label"
            raise UserError(f"{name}: line {number} needs one value for each column, and {required}; mend or remove it")
        if path in lines:
            raise UserError(f"{name}: lines {lines[path]} and {number} name the same file, {path}; keep one of them")
        lines[path] = number
        if path not in files:
            missing.append((number, path))
        given = (line.get(columns["split"]) or "").strip()
        if columns["split"] in found and given.lower() not in _SPLIT_NAMES:
            raise UserError(f"{name}: line {number} has the split {given or '(none)'}; use train, eval or test")
        rows.append(
            Row(
                path,
                _split_label(label) if settings["multi_label"] else (label,),
                group=(line.get(columns["group"]) or "").strip(),
                split=_SPLIT_NAMES.get(given.lower(), ""),
                meta={key: (value or "").strip() for key, value in line.items() if key not in columns.values()},
            )
        )
    if missing:
        number, path = missing[0]
        raise UserError(
            f"{name}: {len(missing)} of {len(rows)} files are missing, the first in line {number}: {path} "
            f"(paths are relative to the manifest's folder); add the files or remove the lines"
        )
    return rows


def _lines(name: str, table: csv.DictReader) -> Iterable[dict]:
    try:
        yield from table
    except csv.Error as error:
        raise UserError(f"{name}: line {table.line_num}: {error}; look for a quote that is not closed") from error


def _with_groups(rows: list[Row]) -> list[Row]:
    """Fills in a missing group with the row's path."""
    complete = []
    given_to: dict[str, str] = {}
    for row in rows:
        group = row.group or row.path
        if given_to.setdefault(group, row.split) != row.split:
            raise UserError(
                f"group {group} is in the splits {given_to[group]} and {row.split} (file {row.path}); "
                f"a group must stay in one, or the test measures what training has seen"
            )
        complete.append(replace(row, group=group))
    return complete


def _with_splits(rows: list[Row], buckets: dict[str, int]) -> list[Row]:
    """Fills in a missing split by the hash of the row's group."""
    given = {row.split for row in rows} - {""}
    # Data that comes with a train and a test split but without an eval split gets one out of train.
    spread = [split for split in features.SPLITS if not given or (split not in given and split == "eval") or split == "train"]
    bounds = list(itertools.accumulate(buckets[split] for split in spread))
    return [
        replace(row, split=spread[bisect.bisect(bounds, _hash(row.group) % bounds[-1])]) if row.split in ("", "train") else row
        for row in rows
    ]


def _with_folds(folder: str, rows: list[Row], folds: int) -> list[Row]:
    """Deals the groups to the folds, save those that are given as test.

    The largest group first, each goes to the fold that its classes fill least: the fold f that minimises the sum over the
    classes c of n[group, c] n[f, c] / n[c]^2, with which the squares of the folds' shares of each class grow least. Among
    equals it is the smallest fold. No fold stays empty, and all hold about as much of each class as groups
    allow, which the hash of a group does not give where groups are few.
    """
    groups: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        if row.split != "test":
            groups[row.group].update(row.labels or ("",))  # images of no class are to be spread like a class
    if len(groups) < folds:
        raise UserError(f"{folder}: {len(groups)} groups can't fill {folds} folds; give more groups, or fewer folds (--folds)")
    classes: Counter[str] = Counter()
    for counts in groups.values():
        classes.update(counts)
    filled: list[Counter[str]] = [Counter() for _ in range(folds)]
    totals = [0] * folds
    fold_of: dict[str, int] = {}
    for group in sorted(groups, key=lambda group: (-groups[group].total(), _hash(group))):
        weights = {label: count / classes[label] ** 2 for label, count in groups[group].items()}
        costs = [sum(weight * fold[label] for label, weight in weights.items()) for fold in filled]
        *_, least = min(zip(costs, totals, range(folds), strict=True))
        fold_of[group] = least
        filled[least].update(groups[group])
        totals[least] += groups[group].total()
    names = split_names({"folds": folds})
    return [row if row.split == "test" else replace(row, split=names[fold_of[row.group]]) for row in rows]


def _hash(text: str) -> int:
    return int(hashlib.sha256(text.encode()).hexdigest(), 16)
