"""docs/performance.md: the tables and pictures between its marks are made from docs/performance.json, the rest is written."""

import datetime
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from base.local_files import write_text
from benchmarks.measurement import Figure, figures_table, machine, paragraph

TITLES = {
    "start-up": "Start-up",
    "digits": "Whole run: the digits",
    "photographs": "Whole run: photographs, fine-tuned",
    "files": "Whole run: many small files",
    "ingestion": "Ingestion and Transform",
    "training-step": "Training step",
    "input-path": "Feeding a GPU",
    "evaluation": "Evaluation",
    "cores": "One core and two",
    "scale": "Growth with the number of images",
    "million": "Up to a million images",
}
_BEGIN, _END = "<!-- made by `make bench` -->\n", "<!-- end of what is made -->\n"


def store(docs: Path, name: str, figures: list[Figure], full: bool) -> None:
    """Puts a benchmark's figures into performance.json, with the machine, the day and the size, in place of its last ones."""
    path = docs / "performance.json"
    stored = _read(path)
    stored[name] = {
        "machine": machine(),
        "date": datetime.date.today().isoformat(),
        "full": full,
        "figures": [asdict(figure) for figure in figures],
    }
    docs.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(stored, indent=1) + "\n")


def write(docs: Path) -> None:
    """Makes the tables of performance.md and its pictures anew."""
    stored = _read(docs / "performance.json")
    path = docs / "performance.md"
    before, after = "# Performance\n\n", ""
    if path.exists():
        before, rest = path.read_text(encoding="utf-8").split(_BEGIN)
        after = rest.partition(_END)[2]
    (docs / "images").mkdir(exist_ok=True)
    figures = {name: [Figure(**figure) for figure in stored[name]["figures"]] for name in TITLES if name in stored}
    draw_ratios([figure for found in figures.values() for figure in found], docs / "images/performance.png")
    pictures = {}
    if grown := [figure for figure in figures.get("scale", []) if figure.images]:
        draw_growth(grown, docs / "images/growth.png")
        pictures["scale"] = "![Seconds of each component over the number of images](images/growth.png)\n\n"
    parts = ["![The ratio of each figure to its peer, and the bar that it is held to](images/performance.png)\n\n"]
    for name, title in TITLES.items():
        if name in stored:
            size = "full size" if stored[name]["full"] else "quick"
            told = f"{stored[name]['machine']}; {stored[name]['date']}, {size}."
            notes = "".join(paragraph(f"{figure.name}: {figure.note}.") + "\n\n" for figure in figures[name] if figure.note)
            parts.append(f"## {title}\n\n{told}\n\n{figures_table(figures[name])}\n\n{notes}{pictures.get(name, '')}")
    write_text(path, before + _BEGIN + "".join(parts) + _END + after)


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def draw_ratios(figures: list[Figure], path: Path) -> None:
    """A dot for the ratio (or value) over its bar, with the spread of the repeats; right of the line is missed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    held = [figure for figure in figures if figure.bar is not None and figure.peer]
    drawing, axes = pyplot.subplots(figsize=(9, 0.32 * len(held) + 1.2), layout="constrained")
    for row, figure in enumerate(reversed(held)):
        assert figure.bar is not None
        ratios = [part / figure.bar for part in figure.ratios]
        of_bar = figure.held / figure.bar
        if figure.at_least:
            ratios, of_bar = [1 / part for part in ratios], 1 / of_bar
        colour = "#2a7f62" if figure.is_met else "#b3372f"
        axes.plot((min(ratios), max(ratios)), (row, row), color=colour, linewidth=2)
        axes.plot(of_bar, row, "o", color=colour)
        axes.annotate(f"{figure.held:.2f} ({'≥' if figure.at_least else '≤'} {figure.bar:g})", (1.005, row), ha="left",
                      va="center", fontsize=8, xycoords=("axes fraction", "data"), annotation_clip=False)  # fmt: skip
    axes.axvline(1, color="#666666", linestyle="dotted")
    axes.set_yticks(range(len(held)), [figure.name for figure in reversed(held)], fontsize=8)
    axes.set_xlim(left=0)
    axes.set_xlabel("share of the bar: left of the line it is kept")
    axes.spines[["top", "right"]].set_visible(False)
    drawing.savefig(path, dpi=110)
    pyplot.close(drawing)


def draw_growth(figures: list[Figure], path: Path) -> None:
    """Seconds over the number of images, one line per component."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawing, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for name in dict.fromkeys(figure.series for figure in figures):
        points = [figure for figure in figures if figure.series == name]
        axes.plot([point.images for point in points], [point.held for point in points], marker="o", label=name)
    axes.set_xlabel("images")
    axes.set_ylabel("seconds")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    drawing.savefig(path, dpi=110)
    pyplot.close(drawing)
