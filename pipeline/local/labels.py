"""`fpn labels`: images whose label is probably wrong, by a cross-validation: a table, a page, and corrections to edit.

The models that are cross-validated are whole networks, or linear ones on the embeddings of a pushed model.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from base.errors import UserError
from base.tables import read_table
from components.label_check.tables import CORRECTIONS, TABLE, used_corrections, write_tables
from images.dataset import source
from images.duplicates import DUPLICATES_FILE
from models import features
from pipeline.config.whole import Config
from pipeline.dag.component_settings import source_settings
from pipeline.local import crossval
from pipeline.pushed.embeddings import read_embedded
from pipeline.records.results import CrossvalResult

if TYPE_CHECKING:
    from evaluation.predictions import Predictions

PAGE: Final = "labels.html"
_FEWEST_FOLDS: Final = 2
FILES = {"table": TABLE, "corrections": CORRECTIONS, "page": PAGE}


@dataclass(frozen=True)
class LabelsResult:
    """What was found.

    Attributes:
      crossval: the cross-validation of the network that it rests on; None if it was one of linear models.
      images: how many labels were looked at.
      issues: how many are probably wrong.
      folder: of TABLE, CORRECTIONS and PAGE; None if the cross-validation has failed.
    """

    crossval: CrossvalResult | None
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
    from evaluation.label_issues import join_predictions
    from evaluation.predictions import Predictions

    predictions = join_predictions([Predictions.read(fold["evaluation"]) for fold in validated.summary["runs"]])
    twins = _read_twins(Path(validated.examples_folder or "") / DUPLICATES_FILE)
    folder = Path(validated.summary["report"]).parent
    return LabelsResult(validated, len(predictions.rows), _write_found(config, predictions, twins, folder), folder)


def run_on_embeddings(config: Config, scores: Path, folds: int) -> LabelsResult:
    """The same in seconds: cross-validates linear models on embeddings; writes into the folder of the answers.

    Args:
      config: the whole configuration.
      scores: what `fpn score --embeddings` has written of the same data.
      folds: number of folds, 2 or more.

    Raises:
      UserError: the data or the configuration can't be used.
    """
    if folds < _FEWEST_FOLDS:
        raise UserError(f"--folds {folds}: give 2 or more")
    embedded = read_embedded(scores)
    if Path(source.root_of(embedded.data)).resolve() != Path(source.root_of(config.data.path)).resolve():
        raise UserError(f"{scores}: has answers to {embedded.data}, and data.path is {config.data.path}; score that")
    from evaluation.probes import cross_validate, find_learnable

    known = embedded.rows["true_label"].notna().to_numpy()
    columns = {"path": features.FILENAME, "group": features.GROUP, "true_label": features.LABEL}
    rows = embedded.rows.loc[known, list(columns)].rename(columns=columns).reset_index(drop=True)
    learnable = find_learnable(rows, embedded.multi_label, folds)
    rows = rows[learnable].reset_index(drop=True)
    if rows[features.LABEL].nunique() < 2:
        raise UserError(
            f"{embedded.data}: too few classes have labelled images of {folds} groups or more; "
            "give fewer --folds, or label more images"
        )
    vectors = embedded.vectors[known][learnable]
    predictions = cross_validate(vectors, rows, embedded.classes, embedded.multi_label, folds)
    return LabelsResult(None, len(rows), _write_found(config, predictions, {}, scores), scores)


Twins = dict[str, list[tuple[str, str]]]


def _write_found(config: Config, predictions: "Predictions", twins: Twins, folder: Path) -> int:
    """Writes TABLE, CORRECTIONS and PAGE; returns how many labels are probably wrong.

    Args:
      config: the whole configuration.
      predictions: of models that have not seen the images.
      twins: names and labels of the duplicates of an image that have another label, by its name.
      folder: to write to.
    """
    from evaluation.label_issues import find_label_issues
    from pipeline.pages.labels_page import write_labels_page

    issues = find_label_issues(predictions)
    issues["twins"] = ["; ".join(f"{path} ({label})" for path, label in twins.get(path, [])) for path in issues["path"]]
    used = used_corrections(config.data.path, source_settings(config.data))
    write_tables(issues, predictions.rows[features.FILENAME], used, str(folder))
    write_labels_page(config, predictions, issues, twins, folder / CORRECTIONS, folder / PAGE)
    return len(issues)


def _read_twins(table: Path) -> Twins:
    """The duplicates of an image that have another label, by its name: their names and labels."""
    twins: Twins = {}
    if table.is_file():
        with table.open(encoding="utf-8", newline="") as file:
            for row in read_table(file):
                if "classes" in row["problem"]:
                    for one, other in ("ab", "ba"):
                        twins.setdefault(row[f"path_{one}"], []).append((row[f"path_{other}"], row[f"label_{other}"]))
    return twins
