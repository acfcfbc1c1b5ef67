"""Histograms of image properties, a line for each split, as SVG that takes its colours from the page it stands in."""

import io
import re
from typing import Any, Final

import numpy as np

_BINS: Final = 40
_FEW_VALUES: Final = 12  # of a property with no more values than this, each has a bin of its own
_LONG_TAIL: Final = 20  # largest value over the median from which the axis is logarithmic
_LINES: Final = ("solid", "dashed", "dotted")  # told apart without colours, too

# Colour that matplotlib draws in -> CSS that the page's light and dark themes give a meaning.
_TEXT, _SPLITS = "#010203", ("#010204", "#010205", "#010206")
_CSS: Final = {_TEXT: "currentColor", **{colour: f"var(--split-{number})" for number, colour in enumerate(_SPLITS)}}


def bin_edges(values: np.ndarray) -> tuple[np.ndarray, bool]:
    """Edges of the bins over all values, and whether they are spread logarithmically.

    Args:
      values: [N], finite, not all the same; zeros count to the first bin of a logarithmic axis.
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
    """An SVG element: share of each split's images over the bins.

    Args:
      values: of each split, [N], finite; not all the same.
      unit: under the axis: "pixels".
      name: of the property, for screen readers.
    """
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter, MaxNLocator, PercentFormatter

    edges, is_logarithmic = bin_edges(np.concatenate(list(values.values())))
    colours = dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), _TEXT)
    style: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": name, "font.size": 11, "axes.axisbelow": True, **colours}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(4.4, 2.5), layout="constrained")
        axes = figure.subplots()
        for numbers, colour, line in zip(values.values(), _SPLITS, _LINES, strict=False):
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
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.15, color=_TEXT)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return _for_inlining(buffer.getvalue(), f"{name}: a line for each of {', '.join(values)}; the figures are in the table")


def _for_inlining(svg: str, description: str) -> str:
    """Without what only a file of its own needs, without links, and with the page's colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg)
    svg = re.sub(r'<g id="[^"]*">', "<g>", svg)  # the same in every figure, and nothing refers to them
    head = re.search(r'viewBox="[^"]*"', svg)
    assert head
    svg = f'<svg {head.group()} role="img" aria-label="{description}">' + svg[svg.index(">") + 1 :]
    for colour, css in _CSS.items():
        svg = svg.replace(colour, css)
    return svg
