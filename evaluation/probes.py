"""Answers of linear models on embeddings to images that they have not seen: a cross-validation that costs seconds."""

from typing import Final

import numpy as np
import pandas as pd

from evaluation.predictions import Predictions
from models import features

_INVERSE_PENALTY: Final = 0.01  # wrong labels are not to be learned by heart


def find_learnable(rows: pd.DataFrame, multi_label: bool, folds: int) -> np.ndarray:
    """Which images have a label that every fold can be answered with, bool [N].

    Each of the image's classes must be in images of `folds` groups or more; an image without a class only fits multi-label
    data. A model that has not seen a class would call each of its labels wrong.

    Args: see `cross_validate`.
    """
    labels = [features.split_labels(text, multi_label) for text in rows[features.LABEL]]
    groups = rows[features.GROUP].to_numpy(object)
    learnable = np.array([multi_label or bool(found) for found in labels], bool)
    while True:
        groups_of: dict[str, set[str]] = {}
        for row in np.flatnonzero(learnable):
            for label in labels[row]:
                groups_of.setdefault(label, set()).add(groups[row])
        rare = {label for label, found in groups_of.items() if len(found) < folds}
        if not rare:
            return learnable
        learnable &= np.array([rare.isdisjoint(found) for found in labels], bool)


def cross_validate(
    vectors: np.ndarray, rows: pd.DataFrame, classes: list[str], multi_label: bool, folds: int, seed: int = 0
) -> Predictions:
    """Answers each image by a logistic regression on the embeddings of the other folds.

    Images of a group are in one fold, and the folds have the classes in about equal shares. For multi-label data there is a
    regression for each class, and shares are those of the sets of classes.

    Args:
      vectors: float32 [N, d].
      rows: with features.FILENAME, features.GROUP and features.LABEL ("cat", or for multi-label data "a|b" or "").
      classes: names of the classes.
      multi_label: whether an image can have any number of classes.
      folds: number of folds, 2 or more.
      seed: of the folds.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probabilities = np.zeros((len(rows), len(classes)), np.float32)
    predictions = Predictions(rows, classes, multi_label, probabilities)
    sets, _ = pd.factorize(rows[features.LABEL])
    if np.bincount(sets).max() < folds:  # then scikit-learn deals none
        sets = np.zeros_like(sets)
    dealt = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    for seen, new in dealt.split(vectors, sets, predictions.groups):
        regression = LogisticRegression(C=_INVERSE_PENALTY, max_iter=300)
        labels = predictions.labels[seen]
        known = np.flatnonzero(labels.max(axis=0)) if multi_label else np.unique(labels)
        if multi_label:
            model = make_pipeline(StandardScaler(), OneVsRestClassifier(regression)).fit(vectors[seen], labels[:, known])
        elif len(known) > 1:
            model = make_pipeline(StandardScaler(), regression).fit(vectors[seen], labels)
        else:
            probabilities[new, known] = 1
            continue
        probabilities[np.ix_(new, known)] = model.predict_proba(vectors[new])
    return predictions
