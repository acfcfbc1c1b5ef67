"""`fpn label-next`: the images of a pool whose labels would teach the model the most."""

import csv
import io
import itertools
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image
from rich.console import Console

from base.errors import UserError
from base.local_files import user_errors_of_writing, write_text
from base.tables import write_table
from images.dataset import source
from images.dataset.row import split_page
from models import features
from pipeline.config.whole import Config
from pipeline.pages.next_page import Card, write_next_page
from pipeline.pages.thumbnails import read_originals, thumbnail
from pipeline.pushed.embeddings import Embedded, read_embedded
from pipeline.pushed.labelling_tools import Suggestion, cvat_annotations, label_studio_interface, label_studio_tasks
from pipeline.pushed.scoring import score
from storage.files import replace_file

_MOST_PICTURES: Final = 200
_COLUMNS: Final = ("path", "label", "suggested", "probability", "uncertainty")


@dataclass(frozen=True)
class NextResult:
    """What was chosen.

    Attributes:
      images: number of images in the pool that have an answer.
      rejected: number of files without one.
      unlabelled: number of images without a label that the model knows.
      chosen: number of images that were chosen.
      files: paths of the files written.
    """

    images: int
    rejected: int
    unlabelled: int
    chosen: int
    files: dict[str, str]


def label_next(
    config: Config,
    model: Path,
    number: int,
    output: Path,
    console: Console,
    *,
    overwrite: bool = False,
    public_key: Path | None = None,
) -> NextResult:
    """Answers the images of `config.data.path` as `fpn score` does, and chooses some of those that have no label.

    Writes beside `output`, with its name and other suffixes: the answers (`.scores/`), a page, and files for labelling tools.

    Args:
      config: as for `scoring.score`.
      model: as for `scoring.score`.
      number: how many to choose.
      output: the list, a table with the columns `_COLUMNS`; `label` is empty, to be filled in.
      console: for progress.
      overwrite: whether labels that were filled in, and answers of other data, may be lost.
      public_key: as for `scoring.score`.

    Raises:
      UserError: as `scoring.score`; no image lacks a label; the list is there and has labels; or a file can't be written.
    """
    if not overwrite:
        _check_list(output)
    scores = output.with_suffix(".scores")
    summary = score(config, model, str(scores), console, overwrite=overwrite, public_key=public_key)
    embedded = read_embedded(scores)
    from evaluation.selection import choose_next, uncertainty

    unlabelled = np.flatnonzero(embedded.rows["true_label"].isna())
    if not len(unlabelled):
        raise UserError(
            f"{embedded.data}: all images have a label, by their folders or a table; give a folder of images without"
        )
    some = embedded.probabilities[unlabelled]
    chosen = unlabelled[choose_next(some, embedded.vectors[unlabelled], number, embedded.multi_label)]
    unsure = uncertainty(embedded.probabilities[chosen], embedded.multi_label)
    rows = embedded.rows.iloc[chosen]
    answers = answers_without_abstaining(embedded, chosen)
    rows = rows.assign(label=rows["label"].where(rows["label"] != features.UNKNOWN, answers))
    cells = zip(rows["path"], rows["label"], rows["probability"], unsure, strict=True)
    table = [(path, "", label, f"{share:.4f}", f"{doubt:.4f}") for path, label, share, doubt in cells]
    files = {"list": output, "page": output.with_suffix(".html")}
    with user_errors_of_writing(output, "--output"):
        sizes = _write_page(embedded, chosen, unsure, files["page"])
        suggestions = [
            Suggestion(path, features.split_labels(label, embedded.multi_label), float(share), *sizes[path])
            for path, label, share in zip(rows["path"], rows["label"], rows["probability"], strict=True)
            if path in sizes
        ]
        folder = Path(source.root_of(embedded.data)).resolve().name
        texts = {
            "label_studio": (".label_studio.json", label_studio_tasks(suggestions, folder, str(embedded.model))),
            "label_studio_interface": (".label_studio.xml", label_studio_interface(embedded.classes, embedded.multi_label)),
            "cvat": (".cvat.xml", cvat_annotations(suggestions, embedded.classes)),
        }
        for name, (suffix, text) in texts.items():
            files[name] = output.with_suffix(suffix)
            write_text(files[name], text)
        replace_file(str(output), lambda file: write_table(file, _COLUMNS, table))
    written = {name: str(path) for name, path in files.items()}
    return NextResult(len(embedded.rows), summary["rejected"], len(unlabelled), len(chosen), written)


def answers_without_abstaining(embedded: Embedded, chosen: np.ndarray) -> list[str]:
    """The labels of the rows, int [N], for a model that never answers features.UNKNOWN."""
    probabilities = embedded.probabilities[chosen]
    if not embedded.multi_label:
        return [embedded.classes[number] for number in probabilities.argmax(axis=1)]
    return [features.join_labels(itertools.compress(embedded.classes, row)) for row in probabilities >= 0.5]


def _check_list(path: Path) -> None:
    """Raises UserError if there is a folder, another table, or a list with labels, which took somebody's time."""
    if path.is_dir():
        raise UserError(f"--output {path}: is a folder; give the name of a table, such as {path / 'next.csv'}")
    if path.exists():
        with path.open(encoding="utf-8", newline="", errors="replace") as file:
            table = csv.DictReader(file)
            is_list = tuple(table.fieldnames or ()) == _COLUMNS
            filled = sum(bool((row["label"] or "").strip()) for row in table) if is_list else 0
        if filled or not is_list:
            what = f"has {filled} labels already" if is_list else "is another table, or was changed"
            raise UserError(f"{path}: {what}; give another --output, or --overwrite to lose it")


def _write_page(embedded: Embedded, chosen: np.ndarray, unsure: np.ndarray, page: Path) -> dict[str, tuple[int, int]]:
    """Writes the page; returns width and height of each image that is the only one of its file and can be read."""
    rows = embedded.rows.iloc[chosen]
    pages = Counter(split_page(name)[0] for name in embedded.rows["path"])
    shown = dict.fromkeys(rows["path"].head(_MOST_PICTURES))
    pictures, sizes = {}, {}
    for name, encoded in read_originals(source.root_of(embedded.data), rows["path"], embedded.settings):
        if Path(source.root_of(embedded.data), name).is_file() and pages.get(name, 1) == 1:
            with Image.open(io.BytesIO(encoded)) as image:
                sizes[name] = image.size
        if name in shown:
            pictures[name] = thumbnail(encoded)
    cards = []
    for position, doubt in zip(chosen[: len(shown)], unsure, strict=False):
        path = embedded.rows["path"].iloc[position]
        shares = embedded.probabilities[position]
        best = [(embedded.classes[number], float(shares[number])) for number in np.argsort(-shares)[:3]]
        cards.append(Card(path, pictures.get(path, ""), best, float(doubt)))
    write_next_page(embedded, cards, len(chosen), page)
    return sizes
