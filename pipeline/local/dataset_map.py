"""`fpn map`: a data set by its embeddings: a map of it, outliers, near duplicates."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from base.errors import UserError
from base.local_files import user_errors_of_writing
from base.tables import write_table
from images.index import INDEX_FILE
from pipeline.pushed.embeddings import Embedded
from storage.files import replace_file

PAGE, OUTLIERS, PAIRS = "map.html", "outliers.csv", "pairs.csv"
_FEWEST: Final = 10  # images


@dataclass(frozen=True)
class MapResult:
    """What was found: numbers of images, of those on the map, of outliers, and of pairs of near duplicates."""

    images: int
    shown: int
    outliers: int
    pairs: int


def write_map(embedded: Embedded, output: Path, most: int, run: Path | None = None) -> MapResult:
    """Writes PAGE, OUTLIERS and PAIRS.

    Args:
      embedded: the data set.
      output: folder to write to.
      most: images on the map; of more, a random choice is shown.
      run: output folder of a pipeline's run over the same data, which tells the splits.

    Raises:
      UserError: there are too few images, `run` has none of them, or the folder can't be written.
    """
    from evaluation.neighbours import find_near_duplicates, find_outliers, place_on_map
    from pipeline.pages.map_page import scale, write_map_page

    rows, vectors = embedded.rows, embedded.vectors
    if len(rows) < _FEWEST:
        raise UserError(f"{embedded.data}: has {len(rows)} images; a map needs {_FEWEST} or more")
    splits = _read_splits(run, rows["path"]) if run else None
    with user_errors_of_writing(output, "--output"):
        output.mkdir(parents=True, exist_ok=True)
    shown = np.sort(np.random.default_rng(0).permutation(len(rows))[:most])
    labels = rows["true_label"].fillna(rows["label"])
    outliers = find_outliers(vectors, labels)
    outliers.insert(0, "path", rows["path"].to_numpy(object)[outliers["image"].to_numpy(np.int64)])
    pairs = find_near_duplicates(vectors)
    for one in "ab":
        found = pairs[one].to_numpy(np.int64)
        pairs[f"path_{one}"], pairs[f"label_{one}"] = rows["path"].to_numpy(object)[found], labels.to_numpy(object)[found]
    places = scale(place_on_map(vectors[shown]))
    with user_errors_of_writing(output, "--output"):
        write_map_page(embedded, shown, places, splits, outliers, pairs, output / PAGE)
        _write(output / OUTLIERS, outliers, ("path", "label", "distance", "ratio"))
        _write(output / PAIRS, pairs, ("path_a", "label_a", "path_b", "label_b", "cosine"))
    return MapResult(len(rows), len(shown), len(outliers), len(pairs))


def _read_splits(run: Path, paths: pd.Series) -> pd.Series:
    """The split of each image in the index of the latest run; None where the index does not have it."""
    from pipeline.records.outputs import read_outputs
    from pipeline.records.runs import find_evaluation, store_of_run

    found = find_evaluation(run).run
    store = store_of_run(found) if found else None
    folder = read_outputs(store).examples_folder if store else None
    if not folder or not (Path(folder) / INDEX_FILE).is_file():
        raise UserError(f"{run}: its index of images is gone; run it again, or leave out --run")
    index = pd.read_parquet(Path(folder) / INDEX_FILE, columns=["path", "split"]).set_index("path")["split"]
    splits = paths.map(index[index != ""])
    if splits.isna().all():
        raise UserError(f"{run}: has none of these images; give the run of the same data, or leave out --run")
    return splits


def _write(path: Path, table: pd.DataFrame, columns: Iterable[str]) -> None:
    rows: Iterable[Iterable[Any]] = (
        [f"{cell:.6g}" if isinstance(cell, float) else cell for cell in row]
        for row in table[list(columns)].itertuples(index=False)
    )
    replace_file(str(path), lambda file: write_table(file, list(columns), rows))
