"""What a run was made of, as a drawing: components and artifacts, from ML Metadata."""

import html
import itertools
from dataclasses import dataclass
from typing import Final

import igraph
import numpy as np
from ml_metadata.proto import metadata_store_pb2
from scipy import optimize

from components.errors import UserError
from pipeline.metadata_store import Store
from pipeline.runs import pipeline_runs, read_nodes

_Event: Final = metadata_store_pb2.Event
_INPUTS: Final = (_Event.INPUT, _Event.DECLARED_INPUT)
_STATES: Final = {
    metadata_store_pb2.Execution.COMPLETE: "done",
    metadata_store_pb2.Execution.CACHED: "from the cache",
    metadata_store_pb2.Execution.FAILED: "failed",
    metadata_store_pb2.Execution.RUNNING: "unfinished",
}
_HEIGHT, _GAP, _BETWEEN = 42, 10, 30  # pixels: of a box, between what is side by side, between layers
_LETTER: Final = 7.0  # pixels: width of a letter of a name
_LONGEST: Final = 24  # letters

Point = tuple[float, float]


@dataclass(frozen=True)
class Node:
    """A box of the drawing.

    Attributes:
      name: of the component, or the output's name: "model".
      kind: of the execution or the artifact: "Trainer", "Model".
      number: its id in the store.
      state: of a component, see `_STATES`; empty for an artifact.
    """

    name: str
    kind: str
    number: int
    state: str = ""


@dataclass(frozen=True)
class Lineage:
    """Components and artifacts of a run; an edge leads from one node to another, by their positions."""

    nodes: list[Node]
    edges: list[tuple[int, int]]


def draw_lineage(store: Store, run_id: str | None = None) -> str:
    """The drawing as an SVG element, from top to bottom: components as boxes, artifacts as round ones.

    It takes text and lines in the page's colour, and --raised, --paper, --faint and --bad where the page defines them. It
    has its natural size: a page lets a wide one scroll.

    Args:
      store: that the run is recorded in.
      run_id: name of the run's folder; the latest run if not given.

    Raises:
      UserError: there is no such run.
    """
    return _draw(read_lineage(store, run_id))


def read_lineage(store: Store, run_id: str | None = None) -> Lineage:
    """What `draw_lineage` draws; artifacts that come from earlier runs, such as the last blessed model, included."""
    opened = store.open()
    runs = [(began, context) for began, context in pipeline_runs(store, opened) if run_id is None or began >= run_id]
    if not runs:
        raise UserError(f"no run {run_id or ''} in the metadata store".replace("  ", " "))
    names = read_nodes(store, opened)
    executions = sorted(opened.get_executions_by_context(runs[-1 if run_id is None else 0][1]), key=lambda item: item.id)
    events = opened.get_events_by_execution_ids([item.id for item in executions])
    made = {event.artifact_id for event in events if event.type == _Event.OUTPUT}
    artifacts = {item.id: item for item in opened.get_artifacts_by_id({event.artifact_id for event in events})}

    nodes: list[Node] = []
    positions: dict[tuple[str, int], int] = {}
    for execution in executions:
        name, kind = names[execution.id].partition(".")[2], execution.type.rpartition(".")[2]
        positions["execution", execution.id] = len(nodes)
        nodes.append(Node(name, kind, execution.id, _STATES.get(execution.last_known_state, "unknown")))
    for event in sorted(events, key=lambda event: event.type != _Event.OUTPUT):  # an output's name, before an input's
        artifact = artifacts[event.artifact_id]
        if ("artifact", artifact.id) not in positions:
            key = next((step.key for step in event.path.steps if step.key), artifact.type)
            positions["artifact", artifact.id] = len(nodes)
            nodes.append(Node(key, artifact.type, artifact.id))
    edges = []
    for event in events:
        execution_node, artifact_node = positions["execution", event.execution_id], positions["artifact", event.artifact_id]
        # A resolver's events are all of one type, be it what it was given in this run or what it has found in earlier ones.
        is_input = event.type in _INPUTS or (event.type != _Event.OUTPUT and event.artifact_id in made)
        edges.append((artifact_node, execution_node) if is_input else (execution_node, artifact_node))
    return Lineage(nodes, list(dict.fromkeys(edges)))


def describe(lineage: Lineage) -> str:
    """The drawing in words, for those who can't see it: a sentence a component."""
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


def _draw(lineage: Lineage) -> str:
    width = _LETTER * min(_LONGEST, max(len(node.name) for node in lineage.nodes)) + 20
    places, routes = lay_out(lineage, width)
    points = [*places, *(point for route in routes for point in route)]
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
            *map(_line, routes),
            *(_box(node, *place, width) for node, place in zip(lineage.nodes, places, strict=True)),
            "</svg>",
        ]
    )


def lay_out(lineage: Lineage, width: float) -> tuple[list[Point], list[list[Point]]]:
    """Places the boxes in layers, each below all that it was made from.

    Args:
      lineage: with at least one node.
      width: of a box, in pixels.

    Returns:
      The centre of each node, and of each edge the centres of its ends with the points between them, one in each layer that
      it passes, from top to bottom; pixels.
    """
    graph = igraph.Graph(len(lineage.nodes), lineage.edges, directed=True)
    layout = graph.layout_sugiyama(hgap=1, vgap=1, maxiter=1000)
    points: list[Point] = [tuple(point) for point in layout]
    chains: list[list[int]] = []
    for (start, end), via in zip(lineage.edges, layout.edge_routing, strict=True):
        chains.append([start, *range(len(points), len(points) + len(via)), end])
        points += [tuple(point) for point in via]
    columns = _columns(points, chains, [width] * len(lineage.nodes) + [0.0] * (len(points) - len(lineage.nodes)))
    if columns[0] > np.mean(columns):  # the first component to the left, where a narrow window begins
        columns = -columns
    places = [(float(x), y * (_HEIGHT + _BETWEEN)) for x, (_, y) in zip(columns, points, strict=True)]
    return places[: len(lineage.nodes)], [[places[number] for number in chain] for chain in chains]


def _columns(points: list[Point], chains: list[list[int]], widths: list[float]) -> np.ndarray:
    """Where things are from left to right: in the order that they have, as close to what they are joined to as there is room.

    As in Gansner et al. 1993, "A technique for drawing directed graphs", section 4.2: the least sum of the lines' horizontal
    lengths, with those between two points of a chain counting more, so that long lines run straight.
    """
    pairs = [(one, two) for chain in chains for one, two in itertools.pairwise(chain)]
    apart = []
    for _, layer in itertools.groupby(
        sorted(range(len(points)), key=lambda number: points[number][::-1]), lambda n: points[n][1]
    ):
        apart += list(itertools.pairwise(layer))
    count = len(points)
    rows, limits = np.zeros((2 * len(pairs) + len(apart), count + len(pairs))), np.zeros(2 * len(pairs) + len(apart))
    for number, (one, two) in enumerate(pairs):  # |x1 - x2| <= length, the variable `count + number`
        for row, sign in ((2 * number, 1), (2 * number + 1, -1)):
            rows[row, [one, two, count + number]] = sign, -sign, -1
    for row, (one, two) in enumerate(apart, start=2 * len(pairs)):
        rows[row, [one, two]] = 1, -1
        limits[row] = -((widths[one] + widths[two]) / 2 + _GAP)
    weights = [(1, 2, 8)[(not widths[one]) + (not widths[two])] for one, two in pairs]
    solution = optimize.linprog([0.0] * count + weights, rows, limits, bounds=(0, None))
    assert solution.success, solution.message
    return solution.x[:count]


def _line(route: list[Point]) -> str:
    """From below one box to above another, past the boxes of the layers between them."""
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
    return f'<path d="{path}" fill="none" stroke="currentColor" stroke-opacity="0.45" marker-end="url(#lineage-arrow)"/>'


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
