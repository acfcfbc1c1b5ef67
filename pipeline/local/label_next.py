"""`fpn label-next`: the images of a pool whose labels would teach the model the most."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image
from rich.console import Console

from base.errors import UserError
from base.local_files import write_text
from base.tables import write_table
from images.dataset import source
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
    """What was chosen: numbers of images in the pool, of those without a label, and of those chosen; and the files written."""

    images: int
    unlabelled: int
    chosen: int
    files: dict[str, str]


def label_next(config: Config, model: Path, number: int, output: Path, console: Console) -> NextResult:
    """Answers the images of `config.data.path` as `fpn score` does, and chooses some of those that have no label.

    Writes beside `output`, with its name and other suffixes: the answers (`.scores/`), a page, and files for labelling tools.

    Args:
      config: as for `scoring.score`.
      model: as for `scoring.score`.
      number: how many to choose.
      output: the list, a table with the columns `_COLUMNS`; `label` is empty, to be filled in.
      console: for progress.

    Raises:
      UserError: as `scoring.score`; or no image lacks a label.
    """
    scores = output.with_suffix(".scores")
    score(config, model, str(scores), console)
    embedded = read_embedded(scores)
    from evaluation.selection import choose_next, uncertainty

    unlabelled = np.flatnonzero(embedded.rows["true_label"].isna())
    if not len(unlabelled):
        raise UserError(f"{embedded.data}: all images have a label; give a folder of images without")
    some = embedded.probabilities[unlabelled]
    chosen = unlabelled[choose_next(some, embedded.vectors[unlabelled], number, embedded.multi_label)]
    unsure = uncertainty(embedded.probabilities[chosen], embedded.multi_label)
    rows = embedded.rows.iloc[chosen]
    cells = zip(rows["path"], rows["label"], rows["probability"], unsure, strict=True)
    table = [(path, "", label, f"{share:.4f}", f"{doubt:.4f}") for path, label, share, doubt in cells]
    replace_file(str(output), lambda file: write_table(file, _COLUMNS, table))
    files = {"list": output, "page": output.with_suffix(".html")}
    sizes = _write_page(embedded, chosen, unsure, files["page"])
    suggestions = [
        Suggestion(path, features.split_labels(label, embedded.multi_label), float(share), *sizes[path])
        for path, label, share in zip(rows["path"], rows["label"], rows["probability"], strict=True)
        if path in sizes
    ]
    texts = {
        "label_studio": (".label_studio.json", label_studio_tasks(suggestions, str(embedded.model))),
        "label_studio_interface": (".label_studio.xml", label_studio_interface(embedded.classes, embedded.multi_label)),
        "cvat": (".cvat.xml", cvat_annotations(suggestions, embedded.classes)),
    }
    for name, (suffix, text) in texts.items():
        files[name] = output.with_suffix(suffix)
        write_text(files[name], text)
    return NextResult(len(embedded.rows), len(unlabelled), len(chosen), {name: str(path) for name, path in files.items()})


def _write_page(embedded: Embedded, chosen: np.ndarray, unsure: np.ndarray, page: Path) -> dict[str, tuple[int, int]]:
    """Writes the page; returns width and height of each image that is a file of its own and can be read."""
    rows = embedded.rows.iloc[chosen]
    shown = dict.fromkeys(rows["path"].head(_MOST_PICTURES))
    pictures, sizes = {}, {}
    for name, encoded in read_originals(source.root_of(embedded.data), rows["path"], embedded.settings):
        if Path(source.root_of(embedded.data), name).is_file():
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
