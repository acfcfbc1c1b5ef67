"""One HTML page about what a model is asked where it is used: the verdict of each check, and how it went over time."""

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from evaluation.drift import LEVEL, Check
from evaluation.results import Metric
from pipeline.pages.page import write_page
from pipeline.pages.plots import draw_series
from pipeline.pushed.drift import name_of
from pipeline.pushed.reference import Reference
from pipeline.pushed.traffic import NUMBERS, Traffic

JUDGED: Final = "accuracy"
_MOST_CLASSES: Final = 8
_DEVIATIONS: Final = 3.0  # standard errors that the band reaches to either side: 99.7 % of the means of a normal distribution
_HOURS_UP_TO: Final = datetime.timedelta(days=3)


def write_monitor_page(
    captured: Path, known: Reference, traffic: Traffic, checks: Sequence[Check], metrics: dict[str, Metric], output: Path
) -> None:
    """Writes the page; it needs no other file and no network.

    Args:
      captured: folder of the captured requests.
      known: the model's reference.
      traffic: what was captured.
      checks: all checks, judged.
      metrics: of the labelled rows; empty if there are none.
      output: the HTML file; replaced if there is one.
    """
    hours = traffic.hours
    by_hour = hours.index[-1] - hours.index[0] <= _HOURS_UP_TO
    starts = hours.index.floor("h" if by_hour else "D")
    sums = hours.groupby(starts).sum()
    series = [_series("Images", sums["rows"], "{:,.0f}"), *_means(sums, known)]
    if metrics:
        series.insert(1, _accuracy(sums.index, by_hour, traffic, known))
    content = {
        "model": str(known.version),
        "captured": str(captured),
        "when": datetime.datetime.now().strftime("%Y-%m-%d %H:%M"),
        "rows": traffic.rows,
        "others": traffic.others,
        "first": hours.index[0].strftime("%Y-%m-%d"),
        "last": hours.index[-1].strftime("%Y-%m-%d"),
        "checks": sorted(checks, key=lambda check: (not check.failed, check.p is None)),
        "failed": [check.name for check in checks if check.failed],
        "made": sum(check.p is not None for check in checks),
        "level": LEVEL,
        "metrics": [(name, metric, known.metrics.get(name)) for name, metric in metrics.items()],
        "labelled": len(traffic.times),
        "unit": "hour" if by_hour else "day",
        "times": [time.strftime("%Y-%m-%d %H:%M" if by_hour else "%Y-%m-%d") for time in sums.index],
        "series": series,
    }
    write_page("monitor.html", output, content)


def _means(sums: pd.DataFrame, known: Reference) -> list[dict[str, Any]]:
    """Means by period, each with the band in which nearly all such means of the reference lie."""
    rows = sums["rows"]
    answers = known.answers
    confidence = answers.probabilities.max(axis=1) if answers else None
    found = [_series("Confidence", sums["confidence"] / rows, "{:.3f}", _band(confidence, rows))]
    labels = sums.filter(like="label/").sum().sort_values(ascending=False).index[:_MOST_CLASSES]
    for column in labels:
        label = column.removeprefix("label/")
        is_it = (answers.rows["label"] == label).to_numpy(float) if answers else None
        found.append(_series(f"Share of {label or '(no class)'}", sums[column] / rows, "{:.3f}", _band(is_it, rows)))
    for name in NUMBERS:
        values = known.images[name].dropna().to_numpy(float) if known.images is not None else None
        found.append(_series(name_of(name).capitalize(), sums[name] / rows, "{:,.4g}", _band(values, rows)))
    return found


def _accuracy(times: pd.Index, by_hour: bool, traffic: Traffic, known: Reference) -> dict[str, Any]:
    periods = traffic.times.dt.floor("h" if by_hour else "D")
    found = [traffic.measure([JUDGED], (periods == time).to_numpy()) if (periods == time).any() else {} for time in times]
    metrics = [item.get(JUDGED, Metric(np.nan)) for item in found]
    ends = np.array([[np.nan if end is None else end for end in (item.lower, item.upper)] for item in metrics]).T
    evaluated = known.metrics.get(JUDGED)
    band = np.array([[evaluated.lower], [evaluated.upper]], float) * np.ones(len(times)) if evaluated else None
    return _series(
        f"{JUDGED.capitalize()} of the labelled", pd.Series([item.value for item in metrics], times), "{:.3f}", band, ends
    )


def _band(values: np.ndarray | None, rows: pd.Series) -> np.ndarray | None:
    """The band of the mean of as many of these values as each period has rows, float [2, N]; None without values."""
    if values is None or not len(values):
        return None
    reach = _DEVIATIONS * values.std() / np.sqrt(rows.to_numpy())
    return values.mean() + np.stack([-reach, reach])


def _series(
    name: str, values: pd.Series, figure: str, band: np.ndarray | None = None, ranges: np.ndarray | None = None
) -> dict[str, Any]:
    """A picture, and texts for the table: each value, with a mark where it is outside the band."""
    numbers = values.to_numpy(float)
    outside = np.zeros(len(numbers), bool) if band is None else (numbers < band[0]) | (numbers > band[1])
    return {
        "name": name,
        "svg": draw_series(name, list(values.index), numbers, ranges, band),
        "cells": [("" if np.isnan(value) else figure.format(value), far) for value, far in zip(numbers, outside, strict=True)],
    }
