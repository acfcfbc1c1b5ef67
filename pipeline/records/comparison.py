"""Two evaluations side by side, on the test images that both have seen."""

from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from base.paths import short_path
from evaluation import intervals
from evaluation.flips import flips
from evaluation.metrics import PROMISES
from evaluation.predictions import PREDICTIONS_FILE, Predictions
from evaluation.results import Comparison, Evaluation, Flips, Metric, Slice, SliceKey, read_evaluation
from evaluation.slicing import slice_images
from models import features
from pipeline.config.evaluation import EvaluateConfig
from pipeline.config.loading import load_config
from pipeline.records.reproduction import CONFIG_FILE
from pipeline.records.runs import FoundEvaluation


@dataclass(frozen=True)
class ComparedEvaluations:
    """One evaluation's metrics, and how far they are from another's.

    Attributes:
      names: short names of the two evaluations.
      slices: all images first; metrics of the first evaluation, with comparisons to the second.
      flips: images that one of the two answers right and the other wrong; None if the images can't be paired.
      notes: which images were compared, one line per note.
    """

    names: tuple[str, str]
    slices: list[Slice]
    flips: Flips | None
    notes: list[str] = field(default_factory=list)


def compare(first: FoundEvaluation, second: FoundEvaluation) -> ComparedEvaluations:
    """Compares two evaluations on the images that both have tested, matched by file name.

    If there are no such images, only the metrics are compared, without intervals.

    Args:
      first: the evaluation in question.
      second: the evaluation to compare it with; a difference is the first's value minus the second's.
    """
    names = _name(first), _name(second)
    evaluations = read_evaluation(str(first.folder)), read_evaluation(str(second.folder))
    if not all((item.folder / PREDICTIONS_FILE).exists() for item in (first, second)):
        return _compare_metrics_alone(names, *evaluations, "the predictions are not there")
    predictions = [Predictions.read(str(item.folder)) for item in (first, second)]
    if predictions[0].multi_label != predictions[1].multi_label or set(predictions[0].classes) != set(predictions[1].classes):
        return _compare_metrics_alone(names, *evaluations, "the classes differ")
    paired, images, notes = pair(*predictions)
    if not len(images):
        return _compare_metrics_alone(names, *evaluations, "no test image is in both")
    settings = _settings(first)
    found = _slices_of(evaluations[0], predictions[0].rows, settings)
    left_out = {name for item in evaluations[0].slices if item.key not in found for name, _ in item.key}
    if left_out:
        notes.append(f"Left out: slices by {', '.join(sorted(left_out))}, whose buckets are not known without the run")
    metrics = [name for name in evaluations[0].overall if name in evaluations[1].overall and name not in PROMISES]
    slices = [
        _compare_slice(item, paired, np.flatnonzero(np.isin(images, found[item.key])), metrics, settings)
        for item in evaluations[0].slices
        if item.key in found
    ]
    return ComparedEvaluations(names, slices, flips(paired), notes)


def pair(first: Predictions, second: Predictions) -> tuple[Predictions, np.ndarray, list[str]]:
    """The images that are in both, with the first's answers as the candidate's and the second's as the baseline's.

    Args:
      first: predictions with the same classes as the second, in any order.
      second: the other predictions.

    Returns:
      The common images, their positions in the first, and lines that say how many are left out.
    """
    keys = [_keys(item.rows) for item in (first, second)]
    position = pd.Series(np.arange(len(keys[1])), keys[1]).reindex(keys[0])
    here = np.flatnonzero(position.notna())
    there = position.to_numpy()[here].astype(np.int64)
    labels = [item.rows[features.LABEL].to_numpy()[rows] for item, rows in ((first, here), (second, there))]
    same = labels[0] == labels[1]
    notes = []
    counts = len(here), len(first.rows) - len(here), len(second.rows) - len(here)
    if any(counts[1:]):
        notes.append(
            "The test images differ: {} are in both and compared, {} in the first alone, {} in the second".format(*counts)
        )
    else:
        notes.append(f"The same {counts[0]} test images")
    if not same.all():
        notes.append(f"Left out: {np.sum(~same)} images that have another label in the second")
    here, there = here[same], there[same]
    order = [second.classes.index(name) for name in first.classes]
    rows, probabilities = first.rows.iloc[here].reset_index(drop=True), first.probabilities[here]
    return replace(first, rows=rows, probabilities=probabilities, baseline=second.probabilities[there][:, order]), here, notes


def _name(found: FoundEvaluation) -> str:
    """The run's name, such as "digits/2026-01-01T12-00-00"; if the run is unknown, the folder."""
    return "/".join((found.run.parents[1].name, found.run.name)) if found.run else short_path(found.folder)


def _keys(rows: pd.DataFrame) -> pd.MultiIndex:
    """File names as keys, numbered where several images have the same name."""
    names = rows[features.FILENAME].reset_index(drop=True)
    return pd.MultiIndex.from_arrays([names, names.groupby(names).cumcount()])


def _settings(found: FoundEvaluation) -> EvaluateConfig:
    """The run's settings; the defaults if its configuration is not there."""
    path = found.run / CONFIG_FILE if found.run else None
    return load_config(path, recorded=True).evaluate if path and path.exists() else EvaluateConfig()


def _slices_of(evaluation: Evaluation, rows: pd.DataFrame, settings: EvaluateConfig) -> dict[SliceKey, np.ndarray]:
    """The rows of each slice, for those of the evaluation's slices that the settings reproduce."""
    specs = dict.fromkeys(tuple(name for name, _ in item.key) for item in evaluation.slices if item.key)
    found = slice_images(rows, specs, settings.buckets, evaluation.multi_label)
    return {item.key: found[item.key] for item in evaluation.slices if len(found.get(item.key, ())) == item.examples}


def _compare_slice(item: Slice, paired: Predictions, images: np.ndarray, names: list[str], settings: EvaluateConfig) -> Slice:
    groups = len(np.unique(paired.groups[images]))
    if item.key and len(images) < settings.min_slice_size:
        return Slice(item.key, len(images), groups, metrics={}, too_small=True)
    assert paired.baseline is not None
    comparisons = intervals.estimate_difference(
        names,
        paired.labels[images],
        paired.probabilities[images],
        paired.baseline[images],
        paired.groups[images],
        settings.confidence_intervals,
    )
    metrics = {name: Metric(found.baseline + found.difference.value) for name, found in comparisons.items()}
    return Slice(item.key, len(images), groups, metrics=metrics, comparisons=comparisons)


def _compare_metrics_alone(names: tuple[str, str], first: Evaluation, second: Evaluation, why: str) -> ComparedEvaluations:
    others = {item.key: item for item in second.slices}
    slices = []
    for item in first.slices:
        if other := others.get(item.key):
            comparisons = {
                name: Comparison(other.metrics[name].value, Metric(metric.value - other.metrics[name].value))
                for name, metric in item.metrics.items()
                if name in other.metrics
            }
            slices.append(replace(item, comparisons=comparisons, by_class={}))
    sizes = f"{first.slices[0].examples} and {second.slices[0].examples} test images"
    return ComparedEvaluations(names, slices, None, [f"Not paired, for {why}: {sizes}, differences without intervals"])
