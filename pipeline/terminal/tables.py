"""Evaluations and the results of a run as text in a terminal."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from base.paths import short_path
from images.dataset.losses import Losses
from pipeline.records.results import trial_rows

if TYPE_CHECKING:
    from components.model_formats.results import FormatResult
    from evaluation.drift import Check
    from evaluation.results import Evaluation, Flips, GroupResult, Metric, Slice
    from pipeline.records.comparison import ComparedEvaluations
    from pipeline.records.notes import Note
    from pipeline.records.results import RunResult, Trial

SLICE_METRICS: Final = 4  # 100 columns have no room for more, with their intervals
_MARKS: Final = "better, worse: the interval of the difference leaves out zero"
_PASSED = {True: Text("passed", "green"), False: Text("failed", "bold red")}


def render_evaluation(evaluation: "Evaluation", with_slices: bool = True) -> RenderableType:
    """All metrics on all test images, a few of them by slice, groups, warnings, and the thresholds' verdicts."""
    parts: list[RenderableType] = [_overall_table(evaluation)]
    if with_slices and len(evaluation.slices) > 1:
        names = slice_metrics(evaluation)
        parts.append(_slice_table(evaluation, names))
        if evaluation.compared:
            parts.append(_difference_table(evaluation.slices, names, "the served model"))
    if evaluation.group:
        parts.append(_group_table(evaluation.group) if with_slices else Text(describe_group(evaluation.group)))
    if evaluation.verdicts:
        parts.append(_verdict_table(evaluation))
    return Group(*parts, *(Text(f"Warning: {line}", "bold yellow") for line in describe_shortcuts(evaluation)))


def describe_group(group: "GroupResult") -> str:
    """A line about the groups: how many there are, how they are answered, how many answers are right."""
    name, metric = next(iter(group.metrics.items()))
    return f"{group.groups} groups, answered by {group.rule}: {name} {_value(metric)}"


def slice_metrics(evaluation: "Evaluation") -> list[str]:
    """Metrics to show for each slice, few because they are wide: those that thresholds name, then the first of the others."""
    judged = (verdict.metric for verdict in evaluation.verdicts)
    return [name for name in dict.fromkeys([*judged, *evaluation.overall]) if name in evaluation.overall][:SLICE_METRICS]


def describe_shortcuts(evaluation: "Evaluation") -> list[str]:
    """One line per property of the files that gives a class away."""
    return [
        f"{item.rule} tells {item.label} from the other classes with a balanced accuracy of {_value(item.score)}, "
        "without a look at the picture"
        for item in evaluation.shortcuts
    ]


def describe_flips(flips: "Flips", before: str = "the served model") -> str:
    """A line about the images that one of two models answers right and the other wrong."""
    return f"{flips.fixed} images that {before} has wrong are right now; {flips.broken} the other way round"


def render_comparison(compared: "ComparedEvaluations") -> RenderableType:
    """All metrics on all images side by side, and the differences of a few of them by slice."""
    (first, second), overall = compared.names, compared.slices[0]
    table = table_of_figures(f"{first}, compared with {second}", "metric", "value", "compared with", "difference")
    for name, comparison in overall.comparisons.items():
        table.add_row(
            name, _value(overall.metrics[name]), f"{comparison.baseline:.4f}", _difference(name, comparison.difference)
        )
    lines = [*compared.notes, *([describe_flips(compared.flips, second)] if compared.flips else [])]
    parts: list[RenderableType] = [table, *([Text(_MARKS, "dim")] if compared.flips else []), *map(Text, lines)]
    if len(compared.slices) > 1:
        parts.append(_difference_table(compared.slices, list(overall.comparisons)[:SLICE_METRICS], second))
    return Group(*parts)


def table_of_figures(title: str, first: str, *columns: str) -> Table:
    """A table of figures: names in the first column, which may be folded."""
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column(first, overflow="fold", min_width=min(12, len(first)))
    for column in columns:
        table.add_column(column.replace("_", " "), justify="right")
    return table


def _overall_table(evaluation: "Evaluation") -> RenderableType:
    overall = evaluation.slices[0]
    compared = ["served", "difference"] if evaluation.compared else []
    table = table_of_figures(f"Test split, {_sizes(overall)}", "metric", "value", *compared)
    for name, metric in overall.metrics.items():
        cells = [name, _value(metric)]
        if evaluation.compared:
            comparison = overall.comparisons.get(name)
            cells += [f"{comparison.baseline:.4f}", _difference(name, comparison.difference)] if comparison else ["-", "-"]
        table.add_row(*cells)
    lines = [Text(evaluation.intervals.capitalize(), "dim")]
    if evaluation.flips:
        lines.append(Text(_MARKS, "dim"))
        lines.append(Text(describe_flips(evaluation.flips)))
    return Group(table, *lines)


def _slice_table(evaluation: "Evaluation", names: list[str]) -> RenderableType:
    table = table_of_figures("Slices", "slice", "images", *names)
    for item in evaluation.slices:
        cells = [_cell(item.metrics.get(name)) for name in names]
        if item.too_small:
            cells[0] = "too few"
        table.add_row(item.name, str(item.examples), *cells, style="dim" if item.too_small else None, end_section=not item.key)
    return table


def _difference_table(slices: list["Slice"], names: list[str], before: str) -> RenderableType:
    table = table_of_figures(f"Difference to {before}", "slice", "images", *names)
    for item in slices:
        found = item.comparisons
        cells = [_difference(name, found[name].difference, "\n") if name in found else "-" for name in names]
        if item.too_small:
            cells[0] = "too few"
        table.add_row(item.name, str(item.examples), *cells, style="dim" if item.too_small else None, end_section=not item.key)
    return table


def _group_table(group: "GroupResult") -> RenderableType:
    table = table_of_figures(f"{group.groups} groups, answered by {group.rule}", "metric", "value")
    for name, metric in group.metrics.items():
        table.add_row(name, _value(metric))
    return table


def _verdict_table(evaluation: "Evaluation") -> RenderableType:
    table = Table(title="Rules" if evaluation.default_note else "Thresholds", title_justify="left", title_style="bold")
    for column in ("metric", "slice", "must be", "is", "verdict"):
        table.add_column(column, justify="right" if column == "is" else "left", overflow="fold")
    for item in evaluation.verdicts:
        measured = _value(item.measured) if item.measured else "not measured"
        found = f"\n{item.found}" if item.found else ""
        table.add_row(item.metric, item.slice, item.requirement, measured + found, _PASSED[item.passed])
    return Group(table, Text(evaluation.default_note)) if evaluation.default_note else table


def _sizes(item: "Slice") -> str:
    return f"{item.examples} images" + (f" of {item.groups} groups" if item.groups < item.examples else "")


def _cell(metric: "Metric | None") -> str:
    return _value(metric, "\n") if metric else "-"


def _value(metric: "Metric", separator: str = " ") -> str:
    if metric.lower is None or metric.upper is None:
        return f"{metric.value:.4f}"
    return f"{metric.value:.4f}{separator}[{metric.lower:.3f}, {metric.upper:.3f}]"


def _difference(name: str, metric: "Metric", separator: str = " ") -> str:
    """The difference with its sign, and with a word if the interval leaves out zero."""
    from evaluation.metrics import METRICS

    text = f"{metric.value:+.4f}"
    if metric.lower is None or metric.upper is None:
        return text
    if metric.lower > 0 or metric.upper < 0:
        text += " better" if (metric.lower > 0) == METRICS[name].larger_is_better else " worse"
    return f"{text}{separator}[{metric.lower:+.3f}, {metric.upper:+.3f}]"


def render_training(training: dict[str, Any]) -> Text:
    """Lines about the start, the epochs and the calibration, as far as `outputs.read_training` has found them."""
    lines = []
    if start := training.get("warm_start"):
        changed = [f"; {kind}: {', '.join(start[kind])}" for kind in ("added", "removed") if start[kind]]
        lines.append(f"Started from {short_path(start['model'])}, {start['kept']} classes kept{''.join(changed)}")
    if epochs := training.get("epochs"):
        best = (
            f"; best eval loss {training['best_loss']:.3f} in epoch {training['best_epoch']}" if training["best_epoch"] else ""
        )
        lines.append(f"Trained {epochs} epoch{'s' if epochs > 1 else ''}{best}")
    if calibration := training.get("calibration"):
        lines.append(
            f"Calibration on the eval split: temperature {calibration['temperature']:.2f}, expected calibration error "
            f"{calibration['ece_before']:.3f} -> {calibration['ece_after']:.3f}"
        )
    if sets := training.get("sets"):
        each = " for each class" if sets["by_class"] else ""
        lines.append(sets["problem"] or f"Sets of classes: hold the true one with a probability of {sets['coverage']:g}{each}")
    if abstention := training.get("abstention"):
        sure = (
            f"Answers above a confidence of {abstention['threshold']:.3f} alone" if abstention["threshold"] else "All answers"
        )
        lines.append(
            abstention["problem"]
            or f"{sure}: at most {abstention['risk']:.1%} are wrong, with a confidence of {abstention['confidence']:g}"
        )
    return Text("\n".join(lines), end="\n" if lines else "")


def render_formats(results: list["FormatResult"]) -> RenderableType:
    """The SavedModel beside its other formats: size, latency of one image, metrics, and why a format was not shipped.

    Args:
      results: of each format, the SavedModel first.
    """
    names = list(results[0].metrics)
    table = table_of_figures(
        "Formats, on the test split; latency of one image, network alone", "format", "MB", "ms", *names, "shipped"
    )
    for item in results:
        latency = "-" if item.latency_ms is None else f"{item.latency_ms:.2f}"
        figures = [f"{item.metrics[name]:.4f}" if name in item.metrics else "-" for name in names]
        table.add_row(
            item.name, f"{item.bytes / 1e6:.2f}", latency, *figures, "yes" if item.shipped else Text("no", "bold red")
        )
    failures = [f"{item.name} is not shipped: {reason}" for item in results for reason in item.failed]
    return Group(table, *(Text(line, "bold red") for line in failures))


def describe_classes(splits: dict[str, dict[str, int]]) -> str:
    """A line about how the images are spread over the classes: for each split, the smallest and the largest class.

    Args:
      splits: number of images by split and label, with at least one split and one label each.
    """
    parts = []
    for split, counts in splits.items():
        (least, few), *_, (most, many) = sorted([*counts.items(), *counts.items()], key=lambda item: item[1])
        parts.append(f"{split} {few} ({least}) to {many} ({most})")
    return f"Images a class, of {len(set().union(*splits.values()))}: {', '.join(parts)}"


def render_trials(trials: list["Trial"], objective: str) -> RenderableType:
    """The trials of a search, best first; `objective` is the name of the score."""
    table = Table(title="Trials, best first", title_justify="left", title_style="bold")
    header, *rows = trial_rows(trials, objective)
    for name, value in zip(header, rows[0], strict=True):
        table.add_column(name, justify="left" if isinstance(value, str) else "right", overflow="fold")
    for row in rows:
        table.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row))
    return table


def print_summary(result: "RunResult", console: Console) -> None:
    """Prints a run's result: overall metrics, verdicts, images, and where the model was pushed, or why it was not."""
    summary = result.summary
    if result.trials:
        console.print(render_trials(result.trials, summary["tuning"]["objective"]))
    if result.evaluation:
        console.print(render_evaluation(result.evaluation, with_slices=False))
    console.print(render_training(summary["training"]))
    if result.formats:
        console.print(render_formats(result.formats))
    print_notes(result.notes, console)
    if summary["examples"]:
        console.print("Images: " + ", ".join(f"{name} {count}" for name, count in summary["examples"].items()))
        console.print(describe_classes(summary["classes"]))
    if summary.get("check"):
        console.print(describe_check(summary["check"]))
    if summary["blessed"]:
        how = "is served already as" if summary.get("already_served") else "pushed to"
        console.print(Text.assemble(("Blessed", "green"), f", {how} {short_path(summary['pushed_model'])}"))
        if summary.get("scores"):
            console.print(f"Answers to the images of score.path in {short_path(summary['scores'])}")
    elif result.evaluation and not result.error:
        console.print(Text.assemble(("Not blessed", "bold red"), ", not pushed:"))
        for verdict in result.evaluation.verdicts:
            if not verdict.passed:
                console.print(f"  {verdict}")
        for reason in (summary.get("check") or {}).get("reasons", ()):
            console.print(f"  check: {reason}")
    if summary["report"]:
        console.print(f"All of it, with pictures: {short_path(summary['report'])}")


def print_notes(notes: Iterable["Note"], console: Console) -> None:
    for note in notes:
        for line in note.lines():
            console.print(line)


def describe_check(check: dict[str, Any]) -> str:
    """A line about the answers of the exported model.

    Args:
      check: the fields of `components.model_check.results.CheckResult`.
    """
    parts = [
        text.format(**check["measured"])
        for name, text in (
            ("load_seconds", "loaded in {load_seconds:.1f} s"),
            ("latency_p50_ms", "one image in {latency_p50_ms:.1f} ms (99 of 100 in {latency_p99_ms:.1f} ms)"),
            ("image_ms", "in batches of 64 in {image_ms:.2g} ms"),
            ("memory_mb", "{memory_mb:.0f} MB at most"),
        )
        if name in check["measured"]
    ]
    if check["largest_difference"] is not None:
        parts.append(f"probabilities within {check['largest_difference']:.1g} of the Evaluator's")
    return f"Check {'passed' if check['passed'] else 'failed'}: " + (", ".join(parts) or "nothing was answered")


def print_scores(summary: dict[str, Any], console: Console) -> None:
    """Prints the result of `fpn score`; see `scoring.score` for the summary."""
    groups = summary["groups"] or {"labels": {}}
    table = table_of_figures("Answers", "class", "images", *(["groups"] if summary["groups"] else []))
    for name in dict.fromkeys([*summary["labels"], *groups["labels"]]):
        counts = [summary["labels"].get(name, 0), *([groups["labels"].get(name, 0)] if summary["groups"] else [])]
        table.add_row(name, *map(str, counts))
    console.print(table)
    if summary["groups"]:
        console.print(f"Groups: {groups['count']}, by the {groups['rule']}")
    if summary["rejected"]:
        reason, count = next(iter(summary["reasons"].items()))
        console.print(f"Rejected: {summary['rejected']}, most of them ({count}): {reason}")
    if summary["lost"]:
        console.print(Losses(**summary["lost"]).describe())
    kept = f", {summary['shards_kept']} of {summary['shards']} files were there already" if summary["shards_kept"] else ""
    console.print(f"{summary['images']} images in {summary['seconds']:.1f} s{kept}; tables in {summary['output']}")


def print_checks(checks: "Sequence[Check]", rows: int, console: Console) -> None:
    """Prints the checks of `fpn monitor`, and a line for those that were not made.

    Args:
      checks: all of them, judged.
      rows: number of answers that they are about.
      console: where to.
    """
    table = Table("check", "value", "p", "", title=f"{rows:,} answers")
    for check in checks:
        if check.p is not None:
            table.add_row(check.name, f"{check.value:.4f}", f"{check.p:.2g}", _PASSED[not check.failed])
    console.print(table)
    for check in checks:
        if check.p is None:
            console.print(f"{check.name}: not made: {check.note}")
