"""Labels that are probably wrong, by models that have not seen the images (confident learning, arXiv:1911.00068)."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import pandas as pd

from evaluation.predictions import Predictions
from models import features

COLUMNS: Final = ("path", "label", "suggested", "quality")
_FILTER: Final = "prune_by_class"  # on three data sets it found more than cleanlab's default, and a larger share was wrong


def join_predictions(parts: Sequence[Predictions]) -> Predictions:
    """The answers of several models, each to images of its own, as those of one model; the classes are sorted by name."""
    classes = sorted({name for part in parts for name in part.classes})
    position = {name: number for number, name in enumerate(classes)}
    probabilities = []
    for part in parts:
        ordered = np.zeros((len(part.rows), len(classes)), np.float32)
        ordered[:, [position[name] for name in part.classes]] = part.probabilities
        probabilities.append(ordered)
    rows = pd.concat([part.rows for part in parts], ignore_index=True)
    return Predictions(rows, classes, parts[0].multi_label, np.concatenate(probabilities))


def find_label_issues(predictions: Predictions) -> pd.DataFrame:
    """Finds labels that are probably wrong, with cleanlab.

    Args:
      predictions: out of sample: no model has been trained on an image that it answers here.

    Returns:
      A row for each such image, with `COLUMNS`, the worst first: its name; its label, and the one that the model suggests, as
      in a manifest; and the quality of the label, 0..1: the probability that the model gives it, in multi-label data the
      classes' qualities together. Images whose label is no class of the models are left out.
    """
    from cleanlab import filter as confident_learning
    from cleanlab.multilabel_classification import get_label_quality_scores as multi_label_quality
    from cleanlab.rank import get_label_quality_scores

    labels, answers, probabilities = predictions.labels, predictions.answers(), predictions.probabilities
    known = np.arange(len(labels)) if predictions.multi_label else np.flatnonzero(labels >= 0)
    if predictions.multi_label:
        if labels.shape[1] == 1:  # cleanlab takes two classes or more: to have this one, and to lack it
            labels, probabilities = (np.concatenate([values, 1 - values], axis=1) for values in (labels, probabilities))
        quality = multi_label_quality(_positions(labels), probabilities)
        told_apart = labels.min(axis=0) != labels.max(axis=0)  # it refuses a class that all images have, or none
        varying = _positions(labels[:, told_apart])
        is_issue = confident_learning.find_label_issues(
            varying, probabilities[:, told_apart], multi_label=True, filter_by=_FILTER, n_jobs=1
        )
    else:
        quality = get_label_quality_scores(labels[known], probabilities[known])
        is_issue = confident_learning.find_label_issues(labels[known], probabilities[known], filter_by=_FILTER, n_jobs=1)
    suggested = _texts(predictions.classes, answers, predictions.multi_label)
    table = pd.DataFrame(
        {
            "path": predictions.rows[features.FILENAME].iloc[known].to_numpy(object),
            "label": predictions.rows[features.LABEL].iloc[known].to_numpy(object),
            "suggested": suggested[known],
            "quality": quality,
        }
    )
    found = table[is_issue & (table["label"] != table["suggested"])]
    return found.sort_values("quality", kind="stable").reset_index(drop=True)


def _positions(labels: np.ndarray) -> list[list[int]]:
    """The classes of each image, from uint8 [N, classes], 0 or 1."""
    return [np.flatnonzero(row).tolist() for row in labels]


def _texts(classes: list[str], answers: np.ndarray, multi_label: bool) -> np.ndarray:
    """Labels as in a manifest, object [N]."""
    names = np.array(classes, object)
    if not multi_label:
        return names[answers]
    return np.array([features.join_labels(tuple(sorted(names[row.astype(bool)]))) for row in answers], object)
