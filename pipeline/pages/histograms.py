"""Histograms of image properties, with one line per split."""

from typing import TYPE_CHECKING, Final

import numpy as np

from pipeline.pages.inline_svg import LINES, SERIES, draw_svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BINS: Final = 40
_FEW_VALUES: Final = 12  # if a property has no more values than this, each value has its own bin
_LONG_TAIL: Final = 20  # if the largest value over the median exceeds this, the axis is logarithmic


def bin_edges(values: np.ndarray) -> tuple[np.ndarray, bool]:
    """Edges of the bins over all values, and whether they are spaced logarithmically.

    Args:
      values: [N], finite, not all the same; zeros belong to the first bin of a logarithmic axis.
    """
    distinct = np.unique(values)
    positive = distinct[distinct > 0]
    if distinct[0] >= 0 and distinct[-1] > _LONG_TAIL * max(float(np.median(values)), positive[0]):
        return np.geomspace(positive[0], positive[-1], _BINS + 1), True
    if len(distinct) <= _FEW_VALUES:
        middles = (distinct[1:] + distinct[:-1]) / 2
        return np.array([2 * distinct[0] - middles[0], *middles, 2 * distinct[-1] - middles[-1]]), False
    return np.linspace(distinct[0], distinct[-1], _BINS + 1), False


def draw_histogram(values: dict[str, np.ndarray], unit: str, name: str) -> str:
    """Draws an SVG element: the share of each split's images in each bin.

    Args:
      values: values of each split, [N], finite; not all the same.
      unit: text under the axis, such as "pixels".
      name: name of the property, for screen readers.
    """
    from matplotlib.ticker import EngFormatter, MaxNLocator, PercentFormatter

    edges, is_logarithmic = bin_edges(np.concatenate(list(values.values())))

    def plot(figure: "Figure") -> None:
        axes = figure.subplots()
        for numbers, colour, line in zip(values.values(), SERIES, LINES, strict=False):
            counts, _ = np.histogram(np.clip(numbers, edges[0], edges[-1]), edges)
            axes.stairs(counts / max(len(numbers), 1), edges, color=colour, linestyle=line, linewidth=1.8)
        if is_logarithmic:
            axes.set_xscale("log")
        else:
            axes.xaxis.set_major_locator(MaxNLocator(5))
        if unit == "bytes":
            axes.xaxis.set_major_formatter(EngFormatter(unit="B"))
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.set_ylim(bottom=0)
        axes.set_xlabel(unit + (", logarithmic" if is_logarithmic else ""))
        axes.set_ylabel("images")

    return draw_svg(plot, f"{name}: a line for each of {', '.join(values)}; the figures are in the table")
