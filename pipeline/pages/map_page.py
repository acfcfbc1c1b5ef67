"""One HTML page with a map of a data set: images that look alike to the model lie together."""

import datetime
import json
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from PIL import Image

from evaluation.neighbours import find_nearest
from images.dataset import source
from models import features
from pipeline.pages.page import write_page
from pipeline.pages.thumbnails import data_uri, read_originals, shrink, thumbnail
from pipeline.pushed.embeddings import Embedded

_SIDES: Final = (64, 48, 32, 24, 16)  # of an image on the sheets, pixels
_SHEET_PIXELS: Final = 6_000_000  # of all sheets together: about two megabytes
_TILES: Final = 32  # in a row and in a column of a sheet
_NEIGHBOURS: Final = 5  # that the page shows of an image
_MOST_PICTURES: Final = 60  # of outliers, and of pairs
_COORDINATES: Final = 4095  # largest


def write_map_page(
    embedded: Embedded,
    shown: np.ndarray,
    places: np.ndarray,
    splits: pd.Series | None,
    outliers: pd.DataFrame,
    pairs: pd.DataFrame,
    output: Path,
) -> None:
    """Writes the page; it needs no other file and no network.

    Args:
      embedded: the data set.
      shown: the images on the map, int64 [n], positions in `embedded.rows`.
      places: where they are, float [n, 2].
      splits: the split of each image of `embedded`; None if not known.
      outliers: as `neighbours.find_outliers` returns them, with `path`.
      pairs: near duplicates, as `neighbours.find_near_duplicates` returns them, with paths and labels.
      output: the HTML file; replaced if there is one.
    """
    rows = embedded.rows.iloc[shown]
    side = next((side for side in _SIDES if len(shown) * side**2 <= _SHEET_PIXELS), _SIDES[-1])
    worst, alike = outliers.head(_MOST_PICTURES), pairs.head(_MOST_PICTURES)
    names = dict.fromkeys([*rows["path"], *worst["path"], *alike["path_a"], *alike["path_b"]])
    large = {*worst["path"], *alike["path_a"], *alike["path_b"]}
    tiles: dict[str, Image.Image] = {}
    pictures: dict[str, str] = {}
    for name, encoded in read_originals(source.root_of(embedded.data), names, embedded.settings):
        tiles[name] = shrink(encoded, side)
        if name in large:
            pictures[name] = thumbnail(encoded)
    near, _ = find_nearest(embedded.vectors[shown], embedded.vectors[shown], _NEIGHBOURS + 1)
    content = {
        "data": embedded.data,
        "model": str(embedded.model),
        "when": datetime.datetime.now().strftime("%Y-%m-%d %H:%M"),
        "images": len(embedded.rows),
        "shown": len(shown),
        "missing": len(shown) - sum(name in tiles for name in rows["path"]),
        "outliers": [{**row, "picture": pictures.get(row["path"], "")} for row in worst.to_dict("records")],
        "all_outliers": len(outliers),
        "pairs": [
            {**row, **{f"picture_{one}": pictures.get(row[f"path_{one}"], "") for one in "ab"}}
            for row in alike.to_dict("records")
        ],
        "all_pairs": len(pairs),
        "points": _as_json(
            {
                "side": side,
                "across": _TILES,
                "sheets": _sheets([tiles.get(name) for name in rows["path"]], side),
                "path": rows["path"].tolist(),
                "x": places[:, 0].tolist(),
                "y": places[:, 1].tolist(),
                "probability": rows["probability"].round(3).tolist(),
                "near": [
                    [int(other) for other in others if other != number][:_NEIGHBOURS] for number, others in enumerate(near)
                ],
                "colours": _colours(embedded, shown, splits),
            }
        ),
    }
    write_page("map.html", output, content)


def _colours(embedded: Embedded, shown: np.ndarray, splits: pd.Series | None) -> dict[str, dict[str, Any]]:
    """What points can be coloured by: names, and the number of one for each point, -1 where it is not known."""
    rows = embedded.rows.iloc[shown]
    found = {"class": rows["true_label"], "answer": rows["label"]}
    known = rows["true_label"].notna()
    right = np.where(rows["true_label"] == rows["label"], "right", "wrong")
    if features.UNKNOWN not in embedded.classes:
        right = np.where(rows["label"] == features.UNKNOWN, "not answered", right)
    found["right or wrong"] = pd.Series(right, rows.index).where(known)
    if splits is not None:
        found["split"] = splits.iloc[shown]
    if not known.any():
        del found["class"], found["right or wrong"]
    return {name: _numbered(values) for name, values in found.items()}


def _numbered(values: pd.Series) -> dict[str, Any]:
    codes, names = pd.factorize(values, sort=True)
    return {"names": [str(name) or "(no class)" for name in names], "of": codes.tolist()}


def scale(places: np.ndarray) -> np.ndarray:
    """Places [n, 2] as integers from 0 to 4095, with equal scales of both axes."""
    places = places - places.min(axis=0, initial=np.inf)
    return np.rint(places * (_COORDINATES / max(float(places.max(initial=0)), 1e-9))).astype(np.int64)


def _sheets(tiles: list[Image.Image | None], side: int) -> list[str]:
    """Data URIs of pictures with `_TILES` x `_TILES` images each, row by row."""
    sheets = []
    for start in range(0, len(tiles), _TILES**2):
        some = tiles[start : start + _TILES**2]
        sheet = Image.new("RGB", (_TILES * side, -(-len(some) // _TILES) * side), "grey")
        for number, tile in enumerate(some):
            if tile:
                left, top = number % _TILES * side, number // _TILES * side
                sheet.paste(tile, (left + (side - tile.width) // 2, top + (side - tile.height) // 2))
        sheets.append(data_uri(sheet, "WEBP", 60))
    return sheets


def _as_json(points: dict[str, Any]) -> str:
    """JSON that may stand in a script element."""
    return json.dumps(points, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")
