"""Lists of runs and of pushed versions."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from components.pusher.places import Version
    from pipeline.records.runs import Run


def render_runs(runs: list["Run"], title: str) -> RenderableType:
    """The runs of an output folder, one per row, the oldest first."""
    names = _two_metrics(name for run in runs for name in run.metrics)
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("run", no_wrap=True)
    for name in ("images", *names):
        table.add_column(name.replace("_", " "), justify="right", min_width=6)
    table.add_column("outcome", overflow="fold", min_width=11)
    table.add_column("what has changed", overflow="fold")
    for run in runs:
        outcome: str | Text = (
            "pushed " + Path(run.pushed).name if run.pushed else {True: "blessed", False: "not blessed", None: "-"}[run.blessed]
        )
        if run.failed or run.unfinished:
            outcome = Text(f"{run.failed} failed" if run.failed else f"unfinished: {run.unfinished}", "bold red")
        values = (f"{run.metrics[name]:.4f}" if name in run.metrics else "-" for name in names)
        table.add_row(run.run_id, str(run.images or "-"), *values, outcome, "\n".join(run.changes))
    return table


def render_versions(versions: list["Version"], folder: str) -> RenderableType:
    """The versions in a folder of pushed models, one per row, the oldest first."""
    records = {version.number: version.record for version in versions}
    names = _two_metrics(name for record in records.values() if record for name in record.metrics)
    table = Table(title=folder, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in ("version", "pushed (UTC)", "run"):
        table.add_column(column, no_wrap=True)
    for name in names:
        table.add_column(name.replace("_", " "), justify="right", min_width=6)
    table.add_column("")
    served = max((version.number for version in versions if not version.problem), default=None)
    for version in versions:
        number, record = version.number, version.record
        values = (f"{record.metrics[name]['value']:.4f}" if record and name in record.metrics else "-" for name in names)
        remarks = [Text(f"copy of {record.copy_of}")] if record and record.copy_of is not None else []
        if version.problem:
            remarks.append(Text(f"damaged: {version.problem}", "bold red"))
        if number == served:
            remarks.append(Text("served", "green"))
        when = record.time[:19].replace("T", " ") if record else "-"
        table.add_row(str(number), when, (record and record.run) or "-", *values, Text(", ").join(remarks))
    return table


# The first of these that a run has is shown beside the accuracy.
_MAIN_METRICS: Final = ("balanced_accuracy", "f1", "cross_entropy")


def _two_metrics(found: Iterable[str]) -> list[str]:
    known = list(dict.fromkeys(found))
    second = [name for name in (*_MAIN_METRICS, *known) if name in known and name != "accuracy"]
    return [name for name in ("accuracy", *second[:1]) if name in known]
