"""Cross-validations as tables."""

from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.table import Table

from base.paths import short_path
from pipeline.terminal.tables import SLICE_METRICS, print_notes, table_of_figures

if TYPE_CHECKING:
    from pipeline.records.results import CrossvalResult, SliceSpread, Spread


def render_crossval(slices: list["SliceSpread"], by_fold: bool = True) -> RenderableType:
    """Renders a cross-validation: all examples by fold, and mean and standard deviation of a few metrics in every slice.

    Args:
      slices: all examples first.
      by_fold: whether to show each fold's values for every slice, too.
    """
    names = list(slices[0].metrics)[:SLICE_METRICS]
    tables = [_folds_table(slices[0]), _slices_table(slices, names)]
    if by_fold:
        tables += [_metric_table(name, slices) for name in names]
    return Group(*tables)


def _folds_table(overall: "SliceSpread") -> Table:
    folds = [f"fold {number + 1}" for number in range(len(overall.examples))]
    table = table_of_figures("All test images, fold by fold", "metric", "mean", "sd", *folds)
    table.add_row("images", "", "", *map(str, overall.examples), end_section=True)
    for name, metric in overall.metrics.items():
        table.add_row(name, *_spread_cells(metric))
    return table


def _slices_table(slices: list["SliceSpread"], names: list[str]) -> Table:
    table = table_of_figures("Mean ± standard deviation over the folds", "slice", "images", *names)
    for item in slices:
        found = (item.metrics.get(name) for name in names)
        values = [f"{_number(metric.mean)} ± {_number(metric.sd)}" if metric else "-" for metric in found]
        table.add_row(item.name, str(sum(item.examples)), *values, end_section=item is slices[0])
    return table


def _metric_table(name: str, slices: list["SliceSpread"]) -> Table:
    folds = [f"fold {number + 1}" for number in range(len(slices[0].examples))]
    table = table_of_figures(f"{name}, fold by fold", "slice", "mean", "sd", *folds)
    for item in slices:
        cells = _spread_cells(item.metrics[name]) if name in item.metrics else []
        table.add_row(item.name, *cells, end_section=item is slices[0])
    return table


def _spread_cells(metric: "Spread") -> list[str]:
    return [_number(value) for value in (metric.mean, metric.sd, *metric.folds)]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def print_crossval(result: "CrossvalResult", console: Console) -> None:
    """Prints the result of a cross-validation, and where the rest is written."""
    if result.slices:
        console.print()
        console.print(render_crossval(result.slices, by_fold=False))
    print_notes(result.notes, console)
    if result.slices:
        console.print(f"Every slice fold by fold: {short_path(result.summary['report'])}", soft_wrap=True)
