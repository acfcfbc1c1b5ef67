"""Writes the table of metrics in docs/evaluation.md, from evaluation/metrics.py."""

from pathlib import Path

from evaluation.metrics import DEFINITIONS

PAGE = Path(__file__).parents[1] / "docs" / "evaluation.md"
_BEGIN, _END = "<!-- made by scripts/metrics_table.py -->\n", "<!-- end of the table -->\n"


def table() -> str:
    """A row a metric: name, what it is, its range with the better end, and which data it is for."""
    lines = ["| metric | what it is | range | for |", "| --- | --- | --- | --- |"]
    for name, metric in DEFINITIONS.items():
        least, most = f"{metric.least:g}", "∞" if metric.most == float("inf") else f"{metric.most:g}"
        ends = f"{least} to **{most}**" if metric.larger_is_better else f"**{least}** to {most}"
        data = (
            "all"
            if metric.of_multi_label and metric.of_single_label
            else "several labels"
            if metric.of_multi_label
            else "one label"
        )
        lines.append(f"| `{name}`{' †' if metric.of_class else ''} | {metric.summary} | {ends} | {data} |")
    return "\n".join(lines) + "\n"


def page(text: str) -> str:
    """The page with the table anew."""
    before, rest = text.split(_BEGIN)
    _, after = rest.split(_END)
    return before + _BEGIN + table() + _END + after


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
