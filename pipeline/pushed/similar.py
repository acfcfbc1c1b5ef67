"""`fpn similar`: the images of an embedded data set that are nearest to others."""

from dataclasses import dataclass
from pathlib import Path

from base.errors import UserError
from pipeline.pushed.embeddings import Embedded, embed_files
from pipeline.pushed.pushed_model import Failure


@dataclass(frozen=True)
class Similar:
    """An image of the data set near another.

    Attributes:
      path: its name in the data set.
      label: its class, or the answer where that is not known.
      cosine: of the two embeddings, -1..1.
    """

    path: str
    label: str
    cosine: float


def find_similar(embedded: Embedded, images: list[str], number: int) -> tuple[dict[str, list[Similar]], list[Failure]]:
    """Finds the nearest images to each of some.

    Args:
      embedded: the data set.
      images: names of images in the data set, or other files, which are embedded now.
      number: how many to find for each; an image is not its own neighbour.

    Returns:
      The neighbours of each image, the nearest first, and the files that can't be read.
    """
    from evaluation.neighbours import find_nearest

    if not len(embedded.rows):
        raise UserError(f"{embedded.data}: no image has been embedded")
    position = {name: place for place, name in enumerate(embedded.rows["path"])}
    known = [name for name in images if name in position]
    others, vectors, failures = embed_files(embedded.model, [Path(name) for name in images if name not in position])
    if not known and not others:
        return {}, failures
    import numpy as np

    own = [position[name] for name in known] + [None] * len(others)
    queries = [embedded.vectors[position[name]] for name in known] + list(vectors)
    places, cosines = find_nearest(embedded.vectors, np.stack(queries), number + 1)
    labels = embedded.rows["true_label"].fillna(embedded.rows["label"])
    found = {}
    for name, itself, some, near in zip([*known, *map(str, others)], own, places, cosines, strict=True):
        others_of = [(place, cosine) for place, cosine in zip(some, near, strict=True) if place != itself]
        found[name] = [
            Similar(embedded.rows["path"].iloc[place], labels.iloc[place], round(float(cosine), 6))
            for place, cosine in others_of[:number]
        ]
    return found, failures
