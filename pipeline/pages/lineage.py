"""Draws a run's components and artifacts as SVG."""

import html
import itertools
from collections import defaultdict
from typing import Final

import numpy as np
from scipy import optimize

from pipeline.records.lineage import Lineage, Node

_HEIGHT, _GAP, _BETWEEN = 42, 10, 30  # pixels: height of a box, gap within a layer, gap between layers
_LETTER: Final = 7.0  # pixels: width of a letter in a name
_LONGEST: Final = 24  # letters of a name, at most
_SWEEPS: Final = 24  # down and up through the layers, to find the order with the fewest crossings

Point = tuple[float, float]
Pair = tuple[int, int]


def draw_lineage(lineage: Lineage) -> str:
    """Draws an SVG element, from top to bottom: components as boxes, artifacts as round boxes.

    Text and lines have the page's colour, and the drawing uses --raised, --paper, --faint and --bad if the page defines them.
    It has its natural size: a page should let a wide drawing scroll.
    """
    width = _LETTER * min(_LONGEST, max(len(node.name) for node in lineage.nodes)) + 20
    places, routes = lay_out(lineage, width)
    points = [point for route in [places, *routes] for point in route]
    left, right = min(x for x, _ in points) - width / 2 - 2, max(x for x, _ in points) + width / 2 + 2
    top, bottom = min(y for _, y in points) - _HEIGHT / 2 - 2, max(y for _, y in points) + _HEIGHT / 2 + 2
    size = f"{right - left:.0f}", f"{bottom - top:.0f}"
    return "".join(
        [
            f'<svg viewBox="{left:.0f} {top:.0f} {size[0]} {size[1]}" width="{size[0]}" height="{size[1]}" '
            'role="img" aria-labelledby="lineage-title lineage-desc" font-family="system-ui, sans-serif" text-anchor="middle">',
            '<title id="lineage-title">Lineage of the run</title>',
            f'<desc id="lineage-desc">{html.escape(describe(lineage))}</desc>',
            '<defs><marker id="lineage-arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            'orient="auto">'
            '<path d="M0 0.5L8 4L0 7.5z" fill="currentColor"/></marker></defs>',
            '<g fill="none" stroke="currentColor" opacity="0.45">',
            *map(_line, routes),
            "</g>",
            *(_box(node, *place, width) for node, place in zip(lineage.nodes, places, strict=True)),
            "</svg>",
        ]
    )


def describe(lineage: Lineage) -> str:
    """Describes the drawing in words, one sentence per component, for people who can't see it."""
    sentences = []
    for number, node in enumerate(lineage.nodes):
        if node.state:
            used = [lineage.nodes[start].name for start, end in lineage.edges if end == number]
            made = [lineage.nodes[end].name for start, end in lineage.edges if start == number]
            sentences.append(
                f"{node.name} ({node.state})"
                + (f" read {', '.join(used)}" if used else "")
                + (" and" if used and made else "")
                + (f" gave {', '.join(made)}" if made else "")
                + "."
            )
    return " ".join(sentences)


def lay_out(lineage: Lineage, width: float) -> tuple[list[Point], list[list[Point]]]:
    """Places the boxes in layers, each box below all boxes that it was made from.

    The steps are those of Sugiyama et al. 1981, "Methods for visual understanding of hierarchical system structures". Edges
    from the same box share the points at which they pass layers, so that they look like one line with branches.

    Args:
      lineage: with at least one node, and without cycles.
      width: width of a box, in pixels.

    Returns:
      The centre of each node, and for each edge a list of points from top to bottom: the centre of its start, one point in
      each layer that it passes, and the centre of its end; all in pixels.
    """
    layer_of = _layers(len(lineage.nodes), lineage.edges)
    passing: dict[Pair, int] = {}  # (start of an edge, layer that it passes) -> the point there
    chains = []
    for start, end in lineage.edges:
        passed = [(start, layer) for layer in range(layer_of[start] + 1, layer_of[end])]
        chains.append([start, *(passing.setdefault(key, len(lineage.nodes) + len(passing)) for key in passed), end])
    layer_of += [layer for _, layer in passing]
    lines = sorted({pair for chain in chains for pair in itertools.pairwise(chain)})
    columns = _columns(_order(layer_of, lines), lines, [width] * len(lineage.nodes) + [0.0] * len(passing))
    if columns[0] > np.mean(columns):  # the first component goes to the left, where a narrow window begins
        columns = -columns
    places = [(float(x), float(layer * (_HEIGHT + _BETWEEN))) for x, layer in zip(columns, layer_of, strict=True)]
    return places[: len(lineage.nodes)], [[places[number] for number in chain] for chain in chains]


def _layers(count: int, edges: list[Pair]) -> list[int]:
    """The layer of each node, 0 at the top; edges lead downwards and pass as few layers as possible."""
    rows = np.zeros((len(edges), count))
    for row, (start, end) in zip(rows, edges, strict=True):
        row[[start, end]] = 1, -1
    # The simplex method ends in a corner, and all corners of these constraints are whole numbers.
    solution = optimize.linprog(-rows.sum(axis=0), rows, -np.ones(len(edges)), bounds=(0, None), method="highs-ds")
    assert solution.success, solution.message
    return [round(layer) for layer in solution.x]


def _order(layer_of: list[int], lines: list[Pair]) -> list[list[int]]:
    """The points of each layer from left to right, with few crossings.

    Each point goes to the mean position of the points that it is joined to; then neighbours swap places where that helps.
    """
    above, below = defaultdict(list), defaultdict(list)
    for start, end in lines:
        below[start].append(end)
        above[end].append(start)
    layers = [[number for number, found in enumerate(layer_of) if found == layer] for layer in range(max(layer_of) + 1)]
    place = {number: index for layer in layers for index, number in enumerate(layer)}

    def arrange(layer: list[int], numbers: list[int]) -> None:
        layer[:] = numbers
        place.update({number: index for index, number in enumerate(layer)})

    def crossings(left: int, right: int, *joined: dict[int, list[int]]) -> int:
        return sum(place[one] > place[other] for near in joined for one in near[left] for other in near[right])

    best, fewest = layers, float("inf")
    for sweep in range(_SWEEPS):
        near = (above, below)[sweep % 2]
        for layer in layers if near is above else reversed(layers):
            arrange(layer, sorted(layer, key=lambda n: np.mean([place[other] for other in near[n]] or [place[n]])))
        for layer in layers:
            for index, (left, right) in enumerate(itertools.pairwise(layer)):
                if crossings(right, left, above, below) < crossings(left, right, above, below):
                    arrange(layer, [*layer[:index], right, left, *layer[index + 2 :]])
        total = sum(crossings(*pair, below) for layer in layers for pair in itertools.combinations(layer, 2))
        if total < fewest:
            best, fewest = [list(layer) for layer in layers], total
    return best


def _columns(layers: list[list[int]], lines: list[Pair], widths: list[float]) -> np.ndarray:
    """Horizontal positions: they keep the order in each layer, and put points as close to those they are joined to as fits.

    As in Gansner et al. 1993, "A technique for drawing directed graphs", section 4.2, the sum of the lines' horizontal lengths
    is least. Lines between two points that are not boxes have more weight, so that long lines run straight.
    """
    count, apart = len(widths), [pair for layer in layers for pair in itertools.pairwise(layer)]
    rows, limits = np.zeros((2 * len(lines) + len(apart), count + len(lines))), np.zeros(2 * len(lines) + len(apart))
    for number, (one, two) in enumerate(lines):  # |x1 - x2| <= length, the variable `count + number`
        for row, sign in ((2 * number, 1), (2 * number + 1, -1)):
            rows[row, [one, two, count + number]] = sign, -sign, -1
    for row, (one, two) in enumerate(apart, start=2 * len(lines)):
        rows[row, [one, two]] = 1, -1
        limits[row] = -((widths[one] + widths[two]) / 2 + _GAP)
    weights = [(1, 2, 8)[(not widths[one]) + (not widths[two])] for one, two in lines]
    solution = optimize.linprog([0.0] * count + weights, rows, limits, bounds=(0, None))
    assert solution.success, solution.message
    return solution.x[:count]


def _line(route: list[Point]) -> str:
    """A line from below one box to above another, past the boxes of the layers between them."""
    (x, y), *others = route
    y += _HEIGHT / 2
    path = f"M{x:.1f} {y:.1f}"
    for number, (next_x, centre) in enumerate(others, start=1):
        next_y = centre - _HEIGHT / 2
        middle = (y + next_y) / 2
        path += f"C{x:.1f} {middle:.1f} {next_x:.1f} {middle:.1f} {next_x:.1f} {next_y:.1f}"
        x, y = next_x, next_y
        if number < len(others):
            y += _HEIGHT
            path += f"V{y:.1f}"
    return f'<path d="{path}" marker-end="url(#lineage-arrow)"/>'


def _box(node: Node, x: float, y: float, width: float) -> str:
    name = node.name if len(node.name) <= _LONGEST else node.name[: _LONGEST - 1] + "…"
    colour = "var(--bad, currentColor)" if node.state in ("failed", "unfinished") else "currentColor"
    dashes = ' stroke-dasharray="5 3"' if node.state == "from the cache" else ""
    fill = "var(--raised, transparent)" if node.state else "var(--paper, transparent)"
    what = f"{node.name}: " + (
        f"execution {node.number} of {node.kind}, {node.state}" if node.state else f"{node.kind} {node.number}"
    )
    detail = f"{node.state or node.kind} #{node.number}"
    return (
        f"<g><title>{html.escape(what)}</title>"
        f'<rect x="{x - width / 2:.1f}" y="{y - _HEIGHT / 2:.1f}" width="{width:.1f}" height="{_HEIGHT}" '
        f'rx="{3 if node.state else _HEIGHT / 2}" fill="{fill}" stroke="{colour}"{dashes}/>'
        f'<text x="{x:.1f}" y="{y - 3:.1f}" font-size="12.5" font-weight="{600 if node.state else 400}" fill="{colour}">'
        f"{html.escape(name)}</text>"
        f'<text x="{x:.1f}" y="{y + 13:.1f}" font-size="11" fill="var(--faint, currentColor)">{html.escape(detail)}</text>'
        "</g>"
    )
