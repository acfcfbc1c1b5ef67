"""`fpn labels`: images whose label is probably wrong, by a cross-validation: a table, a page, and corrections to edit."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from base.tables import read_table, write_table
from images.duplicates import DUPLICATES_FILE
from pipeline.config.whole import Config
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
    _write(folder / TABLE, issues)
    corrections = issues.assign(label=issues["suggested"], given=issues["label"])
    _write(folder / CORRECTIONS, corrections[["path", "label", "given", "quality"]])
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


def _write(path: Path, table: pd.DataFrame) -> None:
    rows = table.assign(quality=table["quality"].map("{:.4f}".format)).itertuples(index=False)
    replace_file(str(path), lambda file: write_table(file, list(table.columns), rows))
