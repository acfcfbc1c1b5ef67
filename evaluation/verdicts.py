"""Judges a model by thresholds."""

import math
from collections.abc import Iterable, Sequence
from typing import Final

from base.errors import UserError
from evaluation import default_rules
from evaluation.groups import GROUP_METRICS
from evaluation.metrics import DEFINITIONS, METRICS, PROMISES, check_metrics, default_metrics
from evaluation.predictions import Predictions
from evaluation.results import GroupResult, Metric, Slice, Verdict, slice_name
from evaluation.settings import SHORTCUT, Threshold
from evaluation.shortcuts import find_shortcuts

_MAX_NAMED: Final = 5  # largest number of slices in the text of a verdict
_CHANCE: Final = 0.5  # score of a property that tells nothing
_ROUNDING: Final = 1e-9  # tolerance, because 0.9 - 0.92 is slightly less than -0.02


def check_thresholds(
    thresholds: Iterable[Threshold], multi_label: bool, section: str = "evaluate", promises: Sequence[str] = ()
) -> None:
    """Checks the metrics of thresholds.

    Args:
      thresholds: the thresholds.
      multi_label: whether an image can have any number of classes.
      section: section of the configuration that has the thresholds, for the error.
      promises: those metrics of `metrics.PROMISES` that the model has.

    Raises:
      UserError: a metric is unknown, does not fit the data, or is not defined for groups in a threshold on groups.
    """
    thresholds = list(thresholds)
    more = (SHORTCUT, *promises) if section == "evaluate" else ()
    check_metrics([threshold.metric for threshold in thresholds], multi_label, section, more)
    for threshold in thresholds:
        if threshold.metric in PROMISES and threshold.change is not None:
            raise UserError(
                f"{section}.thresholds: {threshold.metric} takes lower and upper alone: the served model may promise nothing"
            )
        if threshold.of == "groups" and threshold.metric not in GROUP_METRICS:
            fits = "of_multi_label" if multi_label else "of_single_label"
            known = [name for name in GROUP_METRICS if getattr(METRICS[name], fits)]
            raise UserError(f"{section}.thresholds: {threshold.metric} is no metric of groups; those are {', '.join(known)}")


def needed_metrics(
    names: Sequence[str] | None, thresholds: Iterable[Threshold], multi_label: bool, promises: Sequence[str] = ()
) -> list[str]:
    """Names of the metrics to compute: the given ones, or all that fit the data, and those of the thresholds or of the default.

    Args:
      names: `evaluate.metrics`; None or empty for all.
      thresholds: the thresholds.
      multi_label: whether an image can have any number of classes.
      promises: metrics of `metrics.PROMISES`, which are always measured.
    """
    judged = [threshold.metric for threshold in thresholds] or [default_rules.METRIC]
    wanted = dict.fromkeys([*(names or default_metrics(multi_label)), *promises, *judged])
    return [name for name in wanted if name != SHORTCUT]


def needed_slices(slices: Iterable[Sequence[str]], thresholds: Iterable[Threshold]) -> list[list[str]]:
    """Features of the slices that only the thresholds need.

    Args:
      slices: features of the slices that are measured anyway, as `evaluate.slices`.
      thresholds: the thresholds.
    """
    known = {frozenset(features) for features in slices}
    needed = []
    for threshold in thresholds:
        if threshold.features and frozenset(threshold.features) not in known:
            known.add(frozenset(threshold.features))
            needed.append(threshold.features)
    return needed


def judge(
    thresholds: Iterable[Threshold],
    slices: Sequence[Slice],
    group: GroupResult | None,
    predictions: Predictions | None = None,
    baseline: str = "the served model",
) -> list[Verdict]:
    """Judges a model by thresholds.

    The value of the metric decides, not its interval. A threshold is not passed if its metric can't be measured. Without a
    baseline model, thresholds on the change give no verdict.

    Args:
      thresholds: `evaluate.thresholds`; a threshold can give two verdicts, on the value and on the change.
      slices: results for slices, all images first.
      group: results for groups; None if every group has one image.
      predictions: the images, for thresholds on shortcuts; None if there are no such thresholds.
      baseline: how the verdicts call the baseline model.

    Returns:
      The verdicts, in the order of the thresholds.
    """
    compared = any(item.comparisons for item in slices)
    verdicts = []
    for threshold in thresholds:
        if threshold.metric == SHORTCUT:
            assert predictions is not None
            assert threshold.upper is not None
            verdicts.append(_judge_shortcuts(predictions, threshold.upper))
            continue
        larger_is_better = DEFINITIONS[threshold.metric].larger_is_better
        lower, upper, change = threshold.lower, threshold.upper, threshold.change
        if lower is not None or upper is not None:
            verdicts.append(_verdict(threshold, slices, group, lower, upper, against=""))
        if change is not None and compared:
            lower, upper = (change, None) if larger_is_better else (None, change)
            verdicts.append(_verdict(threshold, slices, group, lower, upper, against=baseline))
    return verdicts


def _judge_shortcuts(predictions: Predictions, upper: float) -> Verdict:
    """Passed if no shortcut is stronger than `upper`, also where there are too few images to tell."""
    failed = find_shortcuts(predictions, upper + _ROUNDING)
    # A size in bytes may be above `upper` and not be reported, see `find_shortcuts`.
    known = failed or [item for item in find_shortcuts(predictions, _CHANCE) if item.score.value <= upper + _ROUNDING]
    where = "the files"
    if not known:
        return Verdict(SHORTCUT, where, Metric(_CHANCE), True, "no property of the files gives a class away", upper=upper)
    strongest = known[0]
    found = f"{strongest.rule} tells {strongest.label} from the other classes"
    return Verdict(SHORTCUT, where, strongest.score, not failed, found, upper=upper)


def _verdict(
    threshold: Threshold,
    slices: Sequence[Slice],
    group: GroupResult | None,
    lower: float | None,
    upper: float | None,
    against: str,
) -> Verdict:
    name, is_change = threshold.metric, bool(against)
    if threshold.of == "groups":
        where = "groups"
        measured, found = _group_metric(name, group)
    elif threshold.worst_of:
        where = f"worst of {', '.join(threshold.worst_of)}"
        measured, found = _worst_metric(name, threshold.worst_of, slices, is_change)
    else:
        key = tuple(sorted(threshold.slice.items()))
        where = slice_name(key)
        item = next((item for item in slices if item.key == key), None)
        measured, found = _slice_metric(name, item, is_change)
    passed = measured is not None and _holds(measured.value, lower, upper)
    return Verdict(name, where, measured, passed, found, lower, upper, against)


def _holds(value: float, lower: float | None, upper: float | None) -> bool:
    return (lower is None or value >= lower - _ROUNDING) and (upper is None or value <= upper + _ROUNDING)


def _group_metric(name: str, group: GroupResult | None) -> tuple[Metric | None, str]:
    if group is None:
        return None, "every group has one image"
    measured = _none_if_nan(group.metrics.get(name))
    return measured, "" if measured else "not defined on them"


def _slice_metric(name: str, item: Slice | None, is_change: bool) -> tuple[Metric | None, str]:
    """The measured value and "", or None and the reason why there is none."""
    if item is None or item.examples == 0:
        return None, "no images"
    if item.too_small:
        return None, f"{item.examples} image{'s' * (item.examples > 1)}, fewer than evaluate.min_slice_size"
    if is_change:
        measured = _none_if_nan(item.comparisons[name].difference) if name in item.comparisons else None
    else:
        measured = _none_if_nan(item.metrics.get(name))
    return measured, "" if measured else "not defined on it"


def _worst_metric(name: str, features: Sequence[str], slices: Sequence[Slice], is_change: bool) -> tuple[Metric | None, str]:
    """The worst value among the slices by these features, and a text that names its slice and those without a value."""
    members = [item for item in slices if item.key and {feature for feature, _ in item.key} == set(features)]
    if not members:
        return None, "no images"
    measured: list[tuple[Metric, str]] = []
    too_small: list[str] = []
    undefined: list[str] = []
    for item in members:
        metric, _ = _slice_metric(name, item, is_change)
        if metric:
            measured.append((metric, item.name))
        else:
            (too_small if item.too_small else undefined).append(item.name)
    notes = []
    worst: Metric | None = None
    if measured:
        worst_of = min if DEFINITIONS[name].larger_is_better else max
        worst, where = worst_of(measured, key=lambda pair: pair[0].value)
        notes.append(f"worst: {where}")
    notes += [
        f"{why}: {_list_names(names)}" for why, names in (("too few images", too_small), ("not defined", undefined)) if names
    ]
    return worst, "; ".join(notes)


def _none_if_nan(metric: Metric | None) -> Metric | None:
    return None if metric is None or math.isnan(metric.value) else metric


def _list_names(names: list[str]) -> str:
    return ", ".join(names[:_MAX_NAMED]) + (f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else "")
