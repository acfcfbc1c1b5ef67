"""The plots of the pages about evaluation and monitoring."""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

from evaluation.diagnostics import Curve, Reliability
from models.calibration import CALIBRATION_BINS
from pipeline.pages.inline_svg import LINES, SERIES, TEXT, draw_svg, mark_curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SQUARE = (4.4, 4.0)  # inches


def draw_reliability(reliability: Reliability, multi_label: bool) -> str:
    """Draws the share of right answers over their confidence, and below it the number of answers."""

    def plot(figure: "Figure") -> None:
        edges = np.linspace(0, 1, CALIBRATION_BINS + 1)
        axes, below = figure.subplots(2, sharex=True, height_ratios=(4, 1))
        axes.plot((0, 1), (0, 1), color=TEXT, linestyle="dotted", linewidth=1, **mark_curve("diagonal"))
        full = reliability.counts > 0
        axes.bar(edges[:-1][full], reliability.right[full], 1 / CALIBRATION_BINS, align="edge", color=SERIES[0], alpha=0.35)
        means = reliability.confidence[full], reliability.right[full]
        axes.plot(*means, color=SERIES[0], marker="o", markersize=4, linewidth=1.5, **mark_curve("reliability"))
        axes.set_ylim(0, 1)
        axes.set_ylabel("share of \u201cyes\u201d" if multi_label else "right")
        below.bar(edges[:-1], reliability.counts, 1 / CALIBRATION_BINS, align="edge", color=SERIES[8])
        below.set_ylabel("answers")
        below.set_xlabel("probability of the class" if multi_label else "confidence")
        below.set_xlim(0, 1)

    return draw_svg(plot, "Reliability diagram: the figures are in the table below it", _SQUARE)


def draw_unusual(unusual: np.ndarray) -> str:
    """Draws the share of images, float [N], 0..100, in each twentieth of the percentiles; dotted, what the eval split has."""
    from matplotlib.ticker import PercentFormatter

    def plot(figure: "Figure") -> None:
        axes = figure.subplots()
        counts, edges = np.histogram(unusual, 20, (0, 100))
        axes.stairs(counts / len(unusual), edges, color=SERIES[0], fill=True, alpha=0.35, **mark_curve("unusual"))
        axes.axhline(1 / len(counts), color=TEXT, linestyle="dotted", linewidth=1, **mark_curve("eval split"))
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.set_xlim(0, 100)
        axes.set_xlabel("percentile of the eval split")
        axes.set_ylabel("test images")

    return draw_svg(plot, "How unusual the test images are: the share of images by percentile")


def draw_roc(curves: list[Curve]) -> str:
    """Draws the true positive rate over the false positive rate, one line per curve in the style of `curve_style`."""

    def plot(figure: "Figure") -> None:
        axes = figure.subplots()
        axes.plot((0, 1), (0, 1), color=TEXT, linestyle="dotted", linewidth=1, **mark_curve("chance"))
        _draw_lines(axes, curves)
        axes.set_xlabel("false positive rate")
        axes.set_ylabel("true positive rate (recall)")

    return draw_svg(plot, f"ROC: a curve for each of {', '.join(curve.name for curve in curves)}", _SQUARE)


def draw_precision_recall(curves: list[Curve]) -> str:
    """Draws precision over recall, one line per curve in the style of `curve_style`."""

    def plot(figure: "Figure") -> None:
        axes = figure.subplots()
        _draw_lines(axes, curves)
        axes.set_xlabel("recall")
        axes.set_ylabel("precision")

    return draw_svg(plot, f"Precision and recall: a curve for each of {', '.join(curve.name for curve in curves)}", _SQUARE)


def draw_risk(curve: Curve, chosen: tuple[float, float] | None) -> str:
    """Draws the risk by coverage, and the point of the threshold that was chosen: share answered and risk; None if none was."""

    def plot(figure: "Figure") -> None:
        axes = figure.subplots()
        axes.plot(curve.x, curve.y, color=SERIES[0], linewidth=1.8, **mark_curve(curve.name))
        if chosen:
            axes.plot(*chosen, color=SERIES[1], marker="o", markersize=8, linestyle="none", **mark_curve("chosen"))
        axes.set_xlim(0, 1.01)
        axes.set_ylim(0, max(1.1 * curve.y.max(), 0.01))
        axes.set_xlabel("share of images that are answered")
        axes.set_ylabel("share of wrong answers")

    return draw_svg(plot, "Risk by coverage: wrong answers among the most confident images", _SQUARE)


def curve_style(number: int) -> tuple[int, str]:
    """The number of a curve's colour among the page's series colours, and its line: solid, dashed or dotted."""
    return number % len(SERIES), LINES[number % len(LINES)]


def draw_training(name: str, epochs: list[float], curves: dict[str, list[float]]) -> str:
    """Draws a metric over the epochs.

    Args:
      name: name of the metric.
      epochs: numbers of the epochs.
      curves: for each split, one value per epoch.
    """
    from matplotlib.ticker import MaxNLocator

    def plot(figure: "Figure") -> None:
        axes = figure.subplots()
        marker = "o" if len(epochs) < 30 else None
        for (split, values), colour, line in zip(curves.items(), SERIES, LINES, strict=False):
            axes.plot(
                epochs, values, color=colour, linestyle=line, marker=marker, markersize=3, linewidth=1.8, **mark_curve(split)
            )
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.set_xlabel("epoch")
        axes.set_ylabel(name.replace("_", " "))

    return draw_svg(plot, f"{name.replace('_', ' ')} by epoch: a line for each of {', '.join(curves)}")


def _draw_lines(axes: "Axes", curves: list[Curve]) -> None:
    for number, curve in enumerate(curves):
        series, line = curve_style(number)
        axes.plot(curve.x, curve.y, color=SERIES[series], linestyle=line, linewidth=1.8, **mark_curve(curve.name))
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.02)


def draw_series(
    name: str, times: Sequence[datetime], values: np.ndarray, ranges: np.ndarray | None, band: np.ndarray | None
) -> str:
    """Draws a value over time.

    Args:
      name: of the value, for screen readers.
      times: N times.
      values: float [N]; NaN where there is none.
      ranges: float [2, N], ends of each value's interval; None if they have none.
      band: float [2, N], ends of what was to be expected; None if that is not known.
    """
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num

    days = np.array([date2num(time) for time in times])

    def plot(figure: "Figure") -> None:
        axes = figure.subplots()
        if band is not None:
            axes.fill_between(
                days, band[0], band[1], color=SERIES[8], alpha=0.25, step="mid", linewidth=0, **mark_curve("band")
            )
        axes.plot(days, values, color=SERIES[0], marker="o", markersize=3, linewidth=1.6, **mark_curve("values"))
        if ranges is not None:
            axes.vlines(days, ranges[0], ranges[1], color=SERIES[0], linewidth=1)
        locator = AutoDateLocator(maxticks=5)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))

    return draw_svg(plot, f"{name} over time: the figures are in the table", (4.4, 2.1))
