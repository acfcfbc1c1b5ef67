"""Compares the images that a model was sent, and its answers to them, with its reference."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import numpy as np
import pandas as pd

from evaluation.drift import FEWEST, Check, compare_embeddings, compare_numbers, compare_outliers, compare_shares, compare_tails
from models import features
from pipeline.pushed.reference import SUMMARIES, Answers, Reference

Test = Callable[[Any, Any], tuple[float, float]]  # of newer and older rows, to the distance and the p-value

_EMBEDDED: Final = 1000  # rows whose embeddings are compared, as the time grows with the square
_SHARE: Final = "largest difference of a share"
_TAIL: Final = "more of the farthest 5 %, as a share"
_MMD: Final = "squared maximum mean discrepancy"
_CDF: Final = "Kolmogorov-Smirnov distance"
_CATEGORIES: Final = ("format", "channels")
_NAMES: Final = {"mean": "brightness", "std": "contrast", "bytes": "file size"}


def compare(images: pd.DataFrame, answers: Answers, reference: Reference) -> list[Check]:
    """Makes all checks that need no labels; `evaluation.drift.judge` says which of them fail.

    Args:
      images: summaries of the images, with the columns `SUMMARIES`.
      answers: to the same images, in random order.
      reference: of the model that has answered.
    """
    tests: list[tuple[str, str, Test, Callable[[Answers], Any]]] = [
        ("answers: classes", _SHARE, compare_shares, lambda item: item.rows["label"]),
        (
            "answers: unknown",
            _SHARE,
            compare_shares,
            lambda item: np.where(item.rows["label"] == features.UNKNOWN, features.UNKNOWN, "known"),
        ),
        ("answers: confidence", _CDF, compare_numbers, lambda item: item.probabilities.max(axis=1)),
        ("answers: unusual", _TAIL, compare_tails, lambda item: item.rows["unusual"].dropna()),
        ("embeddings: distribution", _MMD, compare_embeddings, lambda item: item.embeddings[:_EMBEDDED]),
        ("embeddings: far from all", _TAIL, compare_outliers, lambda item: item.embeddings),
    ]
    checks = [Check(name, "", note=reason) for name, reason in reference.missing.items()]
    if reference.images is not None:
        checks += _compare_images(images, reference.images)
    if known := reference.answers:
        checks += [_check(name, measure, test, of(answers), of(known)) for name, measure, test, of in tests]
    return checks


def _compare_images(images: pd.DataFrame, known: pd.DataFrame) -> list[Check]:
    """Compares the summaries of images; the values are TFDV's distances, the p-values those of two-sample tests.

    Args:
      images: with the columns `SUMMARIES`.
      known: those of training images.
    """
    checks = []
    distances = _distances(images, known) if min(len(images), len(known)) >= FEWEST else {}
    for name, feature in SUMMARIES.items():
        newer, older = (table[name].dropna() for table in (images, known))
        measure, value = distances.get(feature, (_CDF, None))
        if name in _CATEGORIES:
            found = _check(f"images: {name_of(name)}", _SHARE, compare_shares, newer.astype(str), older.astype(str))
        else:
            found = _check(f"images: {name_of(name)}", measure, compare_numbers, newer, older)
        checks.append(found if found.p is None or value is None else replace(found, measure=measure, value=value))
    return checks


def name_of(column: str) -> str:
    """What a column of `SUMMARIES` is called."""
    return _NAMES.get(column, column)


def _check(name: str, measure: str, test: Test, newer: Any, known: Any) -> Check:
    """Makes a check of two columns; if it can't be made, a note says why."""
    if not (np.size(newer) and np.size(known)):
        return Check(name, measure, note="there are none on one side")
    if min(len(newer), len(known)) < FEWEST:
        return Check(name, measure, note=f"too few: {len(newer):,} and {len(known):,} images; each must be {FEWEST} or more")
    values = {*np.unique(newer).tolist(), *np.unique(known).tolist()}
    if len(values) == 1:  # it can't fail, so the others need not be corrected for it
        return Check(name, measure, note=f"always {values.pop()}")
    value, p = test(newer, known)
    return Check(name, measure, value, p)


def _distances(images: pd.DataFrame, known: pd.DataFrame) -> dict[str, tuple[str, float]]:
    """Measure and value of TFDV's distance for each feature, as ExampleValidator computes them between runs."""
    import tensorflow_data_validation as tfdv

    from components.example_validator.comparison import MEASURES, with_thresholds

    new, old = (
        tfdv.generate_statistics_from_dataframe(table[list(SUMMARIES)].rename(columns=SUMMARIES), n_jobs=1)
        for table in (images, known)
    )
    schema = with_thresholds(tfdv.infer_schema(old), "drift_comparator", 0.0, new, old)
    found = tfdv.validate_statistics(new, schema, previous_statistics=old).drift_skew_info
    return {info.path.step[0]: (MEASURES[item.type], item.value) for info in found for item in info.drift_measurements}
