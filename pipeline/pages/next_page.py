"""One HTML page with the images to label next."""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.pages.page import write_page
from pipeline.pushed.embeddings import Embedded


@dataclass(frozen=True)
class Card:
    """An image: its path, its picture as a data URI or "", the most probable classes, and how unsure the model is, 0..1."""

    path: str
    picture: str
    best: Sequence[tuple[str, float]]
    uncertainty: float


def write_next_page(embedded: Embedded, cards: Sequence[Card], chosen: int, output: Path) -> None:
    """Writes the page; it needs no other file and no network.

    Args:
      embedded: the pool.
      cards: the images to show, the least sure first.
      chosen: number of all that were chosen.
      output: the HTML file; replaced if there is one.
    """
    content = {
        "data": embedded.data,
        "model": str(embedded.model),
        "when": datetime.datetime.now().strftime("%Y-%m-%d %H:%M"),
        "images": len(embedded.rows),
        "chosen": chosen,
        "cards": cards,
    }
    write_page("next.html", output, content)
