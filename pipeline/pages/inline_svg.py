"""Draws with matplotlib into SVG elements that take their colours from the page around them."""

import html
import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LINES: Final = ("solid", "dashed", "dotted")  # distinguishable without colours, too

# Colours to draw with -> CSS variables that the page's light and dark themes define.
TEXT: Final = "#010203"
SERIES: Final = tuple(f"#0102{number:02x}" for number in range(16, 26))
_CSS: Final = {TEXT: "currentColor", **{colour: f"var(--series-{number})" for number, colour in enumerate(SERIES)}}

_CURVE: Final = "curve:"


def draw_svg(plot: "Callable[[Figure], None]", description: str, size: tuple[float, float] = (4.4, 2.5)) -> str:
    """Draws an SVG element without links, in the page's colours.

    Args:
      plot: draws into a figure, in the colours TEXT and SERIES. Curves that it marks by `mark_curve` can be found in the
        element.
      description: what the picture shows, for screen readers.
      size: width and height in inches of 72 units.
    """
    import matplotlib
    from matplotlib.figure import Figure

    colours = dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), TEXT)
    style: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": description, "font.size": 11, "axes.axisbelow": True}
    with matplotlib.rc_context(style | colours):
        figure = Figure(figsize=size, layout="constrained")
        plot(figure)
        for axes in figure.axes:
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(axis="y", alpha=0.15, color=TEXT)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return _for_inlining(buffer.getvalue(), description)


def mark_curve(name: str) -> dict[str, Any]:
    """Keyword argument for matplotlib's drawing functions that gives the element `data-curve="name"`."""
    return {"gid": _CURVE + name}


def _for_inlining(svg: str, description: str) -> str:
    """Removes links and what only a separate file needs, and puts in the page's colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg)
    svg = re.sub(rf'<g id="{_CURVE}([^"]*)">', r'<g data-curve="\1">', svg)
    svg = re.sub(r'<g id="[^"]*">', "<g>", svg)  # ids that repeat in every figure and that nothing refers to
    head = re.search(r'viewBox="[^"]*"', svg)
    assert head
    svg = f'<svg {head.group()} role="img" aria-label="{html.escape(description)}">' + svg[svg.index(">") + 1 :]
    for colour, css in _CSS.items():
        svg = svg.replace(colour, css)
    return svg
