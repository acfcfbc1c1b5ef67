"""`fpn labels`: images whose label is probably wrong, by a cross-validation: a table, a page, and corrections to edit."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from base.tables import read_table, write_table
from images.dataset import source
from images.dataset.row import split_page
from images.duplicates import DUPLICATES_FILE
from models import features
from pipeline.config.whole import Config
from pipeline.dag.component_settings import source_settings
from pipeline.local import crossval
from pipeline.records.results import CrossvalResult
from storage.files import replace_file

TABLE, CORRECTIONS, PAGE = "labels.csv", "corrections.csv", "labels.html"
FILES = {"table": TABLE, "corrections": CORRECTIONS, "page": PAGE}


@dataclass(frozen=True)
class LabelsResult:
    """What was found.

    Attributes:
      crossval: the cross-validation that it rests on.
      images: how many labels were looked at.
      issues: how many are probably wrong.
      folder: of TABLE, CORRECTIONS and PAGE; None if the cross-validation has failed.
    """

    crossval: CrossvalResult
    images: int = 0
    issues: int = 0
    folder: Path | None = None


def run(config: Config, output: Path, folds: int) -> LabelsResult:
    """Cross-validates, and looks at the answers to all images; writes TABLE, CORRECTIONS and PAGE into the run's folder.

    Args and errors as for `crossval.run`, whose cache is used: what has been cross-validated already is not trained again.
    """
    validated = crossval.run(config, output, folds)
    if validated.error:
        return LabelsResult(validated)
    from evaluation.label_issues import find_label_issues, join_predictions
    from evaluation.predictions import Predictions
    from pipeline.pages.labels_page import write_labels_page

    predictions = join_predictions([Predictions.read(fold["evaluation"]) for fold in validated.summary["runs"]])
    issues = find_label_issues(predictions)
    twins = _read_twins(Path(validated.examples_folder or "") / DUPLICATES_FILE)
    issues["twins"] = ["; ".join(f"{path} ({label})" for path, label in twins.get(path, [])) for path in issues["path"]]
    folder = Path(validated.summary["report"]).parent
    table = issues.assign(quality=issues["quality"].map("{:.4f}".format))
    _write(folder / TABLE, table.columns, table.itertuples(index=False))
    names = predictions.rows[features.FILENAME]
    _write(folder / CORRECTIONS, ("path", "label", "given", "quality"), _corrections(config, names, issues))
    write_labels_page(config, predictions, issues, twins, folder / CORRECTIONS, folder / PAGE)
    return LabelsResult(validated, len(predictions.rows), len(issues), folder)


def _read_twins(table: Path) -> dict[str, list[tuple[str, str]]]:
    """The duplicates of an image that have another label, by its name: their names and labels."""
    twins: dict[str, list[tuple[str, str]]] = {}
    if table.is_file():
        with table.open(encoding="utf-8", newline="") as file:
            for row in read_table(file):
                if "classes" in row["problem"]:
                    for one, other in ("ab", "ba"):
                        twins.setdefault(row[f"path_{one}"], []).append((row[f"path_{other}"], row[f"label_{other}"]))
    return twins


def _corrections(config: Config, names: Iterable[str], issues: pd.DataFrame) -> Iterator[tuple[str, str, str, str]]:
    """Lines of CORRECTIONS: what is suggested, and then the corrections in use of other images.

    All pages of a file have its label, so a file of several pages is suggested only if all of them are for one label.

    Args:
      config: the whole configuration.
      names: of all images that were looked at.
      issues: as `label_issues.find_label_issues` returns them.
    """
    used = _used_corrections(config)
    pages = Counter(split_page(name)[0] for name in names)
    of_file: dict[str, list[pd.Series]] = {}
    for _, row in issues.iterrows():
        of_file.setdefault(split_page(row["path"])[0], []).append(row)
    for file, rows in of_file.items():
        name = file if len(rows) > 1 else rows[0]["path"]
        if len(rows) == pages[file] and len({row["suggested"] for row in rows}) == 1:
            given, _ = used.pop(name, (rows[0]["label"], ""))
            yield name, rows[0]["suggested"], given, f"{min(row['quality'] for row in rows):.4f}"
    for name, (given, label) in used.items():
        yield name, label, given, ""


def _used_corrections(config: Config) -> dict[str, tuple[str, str]]:
    """The label that the data gives, and the one that `data.corrections` does, of each image where they differ."""
    if not config.data.corrections:
        return {}
    settings = source_settings(config.data)
    given, found = (
        {row.name: row for row in source.find_rows(config.data.path, which).rows}
        for which in (replace(settings, corrections=None), settings)
    )
    left_out = {name: (row.label, "") for name, row in given.items() if name not in found}
    return left_out | {
        name: (given[name].label, row.label)
        for name, row in found.items()
        if name in given and row.labels != given[name].labels
    }


def _write(path: Path, header: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    replace_file(str(path), lambda file: write_table(file, list(header), rows))
