"""One HTML page about a model: the verdict, metrics by slice, which classes it confuses, and how to make it again."""

import itertools
import math
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from base.tables import read_table
from evaluation.diagnostics import (
    Curve,
    average_curve,
    count_binary,
    count_confusions,
    measure_reliability,
    trace_curves,
    trace_risk,
)
from evaluation.metrics import DEFINITIONS, PROMISES
from evaluation.predictions import Predictions
from evaluation.results import Evaluation, Metric, Slice, Verdict, read_evaluation, slice_order
from evaluation.settings import SHORTCUT
from models import features
from models.calibration import CALIBRATION_BINS
from pipeline.config.evaluation import CardConfig, CheckConfig
from pipeline.config.loading import dump_config
from pipeline.config.whole import Config
from pipeline.pages.gallery import Cell, Gallery, choose_by_cell, least_sure, worst_mistakes
from pipeline.pages.page import write_page
from pipeline.pages.plots import (
    curve_style,
    draw_precision_recall,
    draw_reliability,
    draw_risk,
    draw_roc,
    draw_training,
    draw_unusual,
)
from pipeline.pushed.explanation import format_share

_MOST_MATRIX: Final = 25  # classes in a confusion matrix
_MOST_PAIRS: Final = 40  # pairs of confused classes
_MOST_CLASSES: Final = 300  # in the table of classes
_MOST_CELLS: Final = 4000  # cells in a table of slices: slices times metrics
_LARGEST_SCALE: Final = 2  # largest bound of a metric that an axis reaches to: the Brier score's
_MOST_CURVES: Final = 10
_WORST_CURVES: Final = 4  # shown with the mean, if there are more curves than that
_CARDS: Final = 12  # of mistakes, and as many of the least sure images
_FLIPS: Final = 12  # pictures, each way
_UNUSUAL: Final = 12  # pictures of unusual images
_LABELS: Final = 30  # labels that are probably wrong
_OUTCOMES: Final = ("right", "wrongly found", "missed", "rightly not found")  # of count_binary


@dataclass(frozen=True)
class RunContext:
    """What only the run knows; the page leaves out what is empty.

    Attributes:
      run_id: the time of its start.
      when: the time of the run, in words.
      summary: as in `summary.json`: "training", "examples", "classes", "components", "formats", "labels".
      training: rows of `models.callbacks.HISTORY_FILE`.
      lineage: the run's artifacts and executions, an SVG element.
      command: the command that repeats the run.
      versions: versions of the packages that matter.
      digest: digest of the configuration.
      notes: lines about what a person should know, such as leaks and anomalies.
    """

    run_id: str = ""
    when: str = ""
    summary: dict[str, Any] = field(default_factory=dict)
    training: Sequence[dict[str, Any]] = ()
    lineage: str = ""
    command: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    digest: str = ""
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Axis:
    """The range on which the bars of a metric are drawn, and where the bars begin; None for the low end."""

    low: float
    high: float
    start: float | None = None

    def place(self, value: float) -> float:
        """The place of a value in % of the axis; the nearer end if the value is outside."""
        return round(100 * min(max((value - self.low) / (self.high - self.low), 0), 1), 2)


@dataclass(frozen=True)
class MetricRow:
    """A row of a table: what was measured, and the value of each of the table's metrics, or None."""

    name: str
    images: int
    groups: int
    metrics: list[Metric | None]
    too_small: bool = False


@dataclass(frozen=True)
class MetricTable:
    """Metrics by slice or class.

    Attributes:
      metrics: names of the metrics.
      axes: one axis for each metric.
      rows: the rows to show, which may be only the first ones.
      all: number of all rows.
      with_groups: whether images share groups.
    """

    metrics: list[str]
    axes: list[Axis]
    rows: list[MetricRow]
    all: int
    with_groups: bool


def write_evaluation_page(
    config: Config, evaluation: Path, output: Path, *, model: Path | None = None, context: RunContext
) -> None:
    """Writes the page; it needs no other file and no network.

    Args:
      config: the whole configuration; images are read from `data.path`, and those that are not there are not shown.
      evaluation: folder of an Evaluator's metrics and predictions.
      output: the HTML file; replaced if there is one.
      model: the SavedModel, to draw where it sees evidence; nothing is drawn if not given.
      context: what only the run knows.
    """
    found, predictions = read_evaluation(str(evaluation)), Predictions.read(str(evaluation))
    gallery = Gallery(config, predictions)
    mistakes = worst_mistakes(predictions, _CARDS)
    unsure = [item for item in least_sure(predictions, 2 * _CARDS) if item not in mistakes][:_CARDS]
    cards, no_overlays = gallery.cards([*mistakes, *unsure], model)
    content = {
        "config": config,
        "context": context,
        "evaluation": found,
        "overall": found.slices[0],
        "default_note": found.default_note,
        "judged_by": "rules" if found.default_note else "thresholds",
        "verdicts": [(verdict, _scale(verdict)) for verdict in found.verdicts],
        "definitions": DEFINITIONS,
        "metric_axes": {name: _axis(name, [metric]) for name, metric in found.overall.items()},
        "slices": _slice_table(found.overall, found.slices[1:]),
        "confusion": _confusion(predictions, gallery),
        "classes": _class_table(predictions, found.slices[0]),
        "reliability": _reliability(predictions),
        "unusual": _unusual(predictions, gallery, config),
        "promises": _promises(found, predictions, context.summary.get("training") or {}),
        "curves": _curves(predictions),
        "training": _training_plots(context.training),
        "mistakes": cards[: len(mistakes)],
        "unsure": cards[len(mistakes) :],
        "no_overlays": no_overlays,
        "group_matrix": _matrix(np.array(found.group.confusion), found.group.classes)
        if found.group and found.group.confusion and len(found.group.classes) <= _MOST_MATRIX
        else None,
        "differences": _difference_table(found),
        "flips": _flipped_images(predictions, gallery),
        "check_rows": _check_rows(context.summary.get("check"), config.check),
        "formats": context.summary.get("formats", []),
        "wrong_labels": _wrong_labels(context.summary.get("labels"), gallery),
        "data": _data(context.summary),
        "card": [(name, key.description or "", getattr(config.card, name)) for name, key in CardConfig.model_fields.items()],
        "yaml": dump_config(config),
    }
    filters: dict[str, Callable[..., Any]] = {
        "words": _words,
        "share": format_share,
        "metric": _text,
        "interval": _interval,
        "signed": "{:+.4f}".format,
        "change": _change,
    }
    write_page("evaluation.html", output, content, filters)


def _check_rows(check: dict[str, Any] | None, limits: CheckConfig) -> list[tuple[str, str, str]]:
    """The measurements of the exported model's check: name, value and limit, as texts."""
    if check is None:
        return []
    measured = check["measured"]
    rows = [
        (name, f"{measured[key]:.3g} {unit}", f"{limit:g} {unit}" if limit is not None else "")
        for key, name, unit, limit in (
            ("load_seconds", "Loading", "s", limits.max_load_seconds),
            ("first_answer_seconds", "First answer", "s", None),
            ("latency_p50_ms", "One image, 50 of 100 requests within", "ms", None),
            ("latency_p99_ms", "One image, 99 of 100 requests within", "ms", limits.max_latency_ms),
            ("image_ms", "Each image of a batch of 64", "ms", None),
            ("memory_mb", "Memory of the process, TensorFlow included", "MB", limits.max_memory_mb),
        )
        if key in measured
    ]
    if check["largest_difference"] is not None:
        largest = f"{check['largest_difference']:.1e}"
        rows.append(("Largest difference to a probability of the Evaluator", largest, f"{check['max_difference']:.1e}"))
    return rows


def _words(name: str) -> str:
    return name.replace("_", " ")


def _text(value: float) -> str:
    return "not defined" if math.isnan(value) else f"{value:.4f}"


def _interval(metric: Metric) -> str:
    return "" if metric.lower is None or metric.upper is None else f"{metric.lower:.3f} to {metric.upper:.3f}"


def _change(difference: Metric, name: str) -> str:
    """ "better" or "worse" if the interval leaves out zero, else ""."""
    if difference.lower is None or difference.upper is None or difference.lower <= 0 <= difference.upper:
        return ""
    return "better" if (difference.lower > 0) == DEFINITIONS[name].larger_is_better else "worse"


def _ends(metrics: Iterable[Metric]) -> list[float]:
    """All finite values and interval bounds."""
    values = [value for metric in metrics for value in (metric.value, metric.lower, metric.upper)]
    return [value for value in values if value is not None and math.isfinite(value)]


def _axis(name: str, metrics: Iterable[Metric]) -> Axis:
    """The metric's possible values; up to 1 or the largest value, if the metric is nearly always far below its bound."""
    definition = DEFINITIONS[name]
    most = definition.most if definition.most <= _LARGEST_SCALE else max(1.0, *_ends(metrics))
    return Axis(definition.least, most, 0 if definition.least < 0 else None)


def _scale(verdict: Verdict) -> Axis:
    """The part of a threshold's axis around bounds and value."""
    bounds = [bound for bound in (verdict.lower, verdict.upper) if bound is not None]
    axis = _around(bounds + (_ends([verdict.measured]) if verdict.measured else []), 0.25)
    if verdict.metric == SHORTCUT:
        return Axis(max(axis.low, 0.0), min(axis.high, 1.0))
    if verdict.against or verdict.metric not in DEFINITIONS:  # judge_answers has verdicts on what is no metric
        return axis
    definition = DEFINITIONS[verdict.metric]
    return Axis(max(axis.low, definition.least), min(axis.high, definition.most))


def _around(values: list[float], share: float, start: float | None = None) -> Axis:
    """From the least to the largest value, extended on both sides by a share of that range."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    margin = share * (high - low) or 0.05
    return Axis(low - margin, high + margin, start)


def _slice_table(overall: dict[str, Metric], slices: list[Slice]) -> MetricTable:
    names = list(dict.fromkeys(name for item in slices for name in item.metrics))
    rows = [
        MetricRow(item.name, item.examples, item.groups, [item.metrics.get(name) for name in names], item.too_small)
        for item in slices
    ]
    return _table(names, rows, [overall[name].value if name in overall else None for name in names])


def _difference_table(evaluation: Evaluation) -> MetricTable:
    """Differences from the baseline on all images, then in the slices."""
    names = list(evaluation.slices[0].comparisons)
    rows = [
        MetricRow(
            item.name,
            item.examples,
            item.groups,
            [item.comparisons[name].difference if name in item.comparisons else None for name in names],
            item.too_small,
        )
        for item in evaluation.slices
    ]
    return _table(names, rows, [0.0] * len(names))


def _class_table(predictions: Predictions, overall: Slice) -> tuple[MetricTable, list[str]]:
    """Metrics of each class, and the class that it is most often mistaken for.

    If there are too many classes, those that are worst by the first metric are shown.
    """
    names = list(dict.fromkeys(name for metrics in overall.by_class.values() for name in metrics))
    labels, answers = predictions.labels, predictions.answers()
    counts = (
        labels.sum(axis=0) if predictions.multi_label else np.bincount(labels[labels >= 0], minlength=len(predictions.classes))
    )
    rows = [
        MetricRow(name, int(count), 0, [overall.by_class.get(name, {}).get(metric) for metric in names])
        for name, count in zip(predictions.classes, counts, strict=True)
    ]
    taken_for = {}
    if not predictions.multi_label:
        confused = count_confusions(labels, answers, len(rows))[: len(rows)].copy()
        np.fill_diagonal(confused, 0)
        for row, counts_of_row in zip(rows, confused, strict=True):
            most = int(counts_of_row.argmax())
            taken_for[row.name] = f"{predictions.classes[most]} ({counts_of_row[most]:,})" if counts_of_row[most] else ""

    rows = [rows[number] for number in _reading_order(predictions.classes)]
    if len(rows) > _MOST_CLASSES:
        rows.sort(key=lambda row: row.metrics[0].value if row.metrics and row.metrics[0] else math.inf)
    table = MetricTable(names, [Axis(0, 1)] * len(names), rows[:_MOST_CLASSES], len(rows), False)
    return table, [taken_for.get(row.name, "") for row in table.rows]


def _column(rows: list[MetricRow], number: int) -> list[Metric]:
    return [metric for row in rows if (metric := row.metrics[number])]


def _table(names: list[str], rows: list[MetricRow], starts: Sequence[float | None]) -> MetricTable:
    """A table whose bars begin at these values."""
    axes = [
        _around(_ends(_column(rows, number)) + ([] if start is None else [start]), 0.02, start)
        for number, start in enumerate(starts)
    ]
    most = _MOST_CELLS // max(len(names), 1)
    return MetricTable(names, axes, rows[:most], len(rows), any(row.groups != row.images for row in rows))


@dataclass(frozen=True)
class ConfusionCells:
    """Images by class and answer.

    Cells are (class, answer), or (class, outcome) of multi-label data. A class past the last is of labels that are unknown.

    Attributes:
      counts: int [classes + 1, answers], or [classes, outcomes].
      rows: of the predictions, by cell.
      confidence: of their answers.
      is_error: whether a cell holds mistakes.
    """

    counts: np.ndarray
    rows: dict[Cell, np.ndarray]
    confidence: dict[Cell, np.ndarray]
    is_error: dict[Cell, bool]


def _confusion(predictions: Predictions, gallery: Gallery) -> dict[str, Any]:
    """Counts and rates by class and answer, and of the cells example images."""
    classes = predictions.classes
    named = [*classes, "(unknown class)"]
    cells = _cells_by_outcome(predictions) if predictions.multi_label else _cells_by_answer(predictions)
    shown = _example_pictures(cells, gallery)
    galleries = [
        {
            "id": _anchor(cell),
            "title": _cell_title(cell, named, predictions.multi_label),
            "images": len(cells.rows[cell]),
            "pictures": pictures,
        }
        for cell, pictures in sorted(shown.items())
    ]
    content: dict[str, Any] = {"galleries": galleries, "outcomes": _OUTCOMES, "matrix": None, "pairs": None, "binary": None}
    if predictions.multi_label:
        content["binary"] = _outcome_rows(cells.counts, classes, shown)
    elif len(classes) <= _MOST_MATRIX:
        counts = cells.counts
        content["matrix"] = _matrix(counts if counts[-1].any() else counts[:-1], named, shown)
    else:
        content["pairs"] = _confused_pairs(cells, named, shown)
        content["all_pairs"] = sum(cells.is_error.values())
    return content


def _cells_by_outcome(predictions: Predictions) -> ConfusionCells:
    """Of multi-label data; what is rightly not found, which is most, has no cell."""
    labels, answers = predictions.labels, predictions.answers()
    rows: dict[Cell, np.ndarray] = {}
    confidence: dict[Cell, np.ndarray] = {}
    for number in range(len(predictions.classes)):
        of_class = predictions.probabilities[:, number]
        for outcome, (truth, answer) in enumerate(((1, 1), (0, 1), (1, 0))):
            found = np.flatnonzero((labels[:, number] == truth) & (answers[:, number] == answer))
            rows[number, outcome] = found
            confidence[number, outcome] = of_class[found] if answer else 1 - of_class[found]
    return ConfusionCells(count_binary(labels, answers), rows, confidence, {cell: cell[1] != 0 for cell in rows})


def _cells_by_answer(predictions: Predictions) -> ConfusionCells:
    """Of data with one label an image."""
    labels, answers, number = predictions.labels, predictions.answers(), len(predictions.classes)
    flat = np.where(labels < 0, number, labels) * number + answers
    order = np.argsort(flat, kind="stable")
    filled, starts = np.unique(flat[order], return_index=True)
    cells = [divmod(cell, number) for cell in filled.tolist()]
    rows = dict(zip(cells, np.split(order, starts[1:]), strict=True))
    sure = predictions.probabilities.max(axis=1)
    confidence = {cell: sure[found] for cell, found in rows.items()}
    return ConfusionCells(
        count_confusions(labels, answers, number), rows, confidence, {cell: cell[0] != cell[1] for cell in rows}
    )


def _example_pictures(cells: ConfusionCells, gallery: Gallery) -> dict[Cell, list[tuple[str, str]]]:
    """Some images of each cell; cells of which none can be shown are left out."""
    chosen = choose_by_cell(cells.rows, cells.confidence, cells.is_error)
    pictures = gallery.pictures(int(row) for rows in chosen.values() for row in rows)
    shown = {cell: [pictures[row] for row in rows.tolist() if row in pictures] for cell, rows in chosen.items()}
    return {cell: images for cell, images in shown.items() if images}


def _anchor(cell: Cell) -> str:
    return f"cell-{cell[0]}-{cell[1]}"


def _link(cell: Cell, linked: Container[Cell]) -> str:
    """The anchor of the cell's images; "" if none are shown."""
    return _anchor(cell) if cell in linked else ""


def _cell_title(cell: Cell, names: list[str], multi_label: bool) -> str:
    row, column = cell
    if multi_label:
        return f"{names[row]}: {_OUTCOMES[column]}"
    return f"{names[row]}, rightly" if row == column else f"{names[row]} taken for {names[column]}"


def _outcome_rows(counts: np.ndarray, classes: list[str], linked: Container[Cell]) -> list[tuple[str, list[tuple[str, int]]]]:
    """Rows of (class, cells), a cell being (link or "", count)."""
    return [
        (classes[number], [(_link((number, outcome), linked), count) for outcome, count in enumerate(counts[number].tolist())])
        for number in _reading_order(classes)
    ]


def _confused_pairs(cells: ConfusionCells, names: list[str], linked: Container[Cell]) -> list[tuple[str, str, str, int, float]]:
    """The largest errors: class, answer, link or "", count, and share of the class."""
    totals = cells.counts.sum(axis=1)
    pairs = sorted((cell for cell, wrong in cells.is_error.items() if wrong), key=lambda cell: -len(cells.rows[cell]))
    return [
        (
            names[row],
            names[column],
            _link((row, column), linked),
            int(cells.counts[row, column]),
            cells.counts[row, column] / totals[row],
        )
        for row, column in pairs[:_MOST_PAIRS]
    ]


def _matrix(counts: np.ndarray, names: list[str], linked: Container[Cell] = ()) -> dict[str, Any]:
    """Names of the columns, and rows (name, cells); a cell is (count, share of its row, link or "", whether it is right)."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    height, width = counts.shape
    order = _reading_order(names[:width])
    rows = []
    for row in [*order, *range(width, height)]:
        cells = [
            (
                int(counts[row, column]),
                shares[row, column],
                _link((row, column), linked),
                row == column,
            )
            for column in order
        ]
        rows.append((names[row], cells))
    return {"columns": [names[column] for column in order], "rows": rows}


def _reading_order(classes: list[str]) -> list[int]:
    """Positions of the classes in the order in which a person looks for them; the model orders them by frequency."""
    return sorted(range(len(classes)), key=lambda number: slice_order((("", classes[number]),)))


def _reliability(predictions: Predictions) -> dict[str, Any]:
    measured = measure_reliability(predictions.labels, predictions.probabilities)
    rows = [
        (
            f"{number / CALIBRATION_BINS:.3f} to {(number + 1) / CALIBRATION_BINS:.3f}",
            int(count),
            float(confidence),
            float(right),
        )
        for number, (count, confidence, right) in enumerate(
            zip(measured.counts, measured.confidence, measured.right, strict=True)
        )
        if count
    ]
    return {"svg": draw_reliability(measured, predictions.multi_label), "rows": rows}


def _unusual(predictions: Predictions, gallery: Gallery, config: Config) -> dict[str, Any] | None:
    """How unusual the test images are, and the most unusual ones; None if the model does not tell."""
    unusual = predictions.unusual
    if unusual is None or not len(unusual):
        return None
    cutoff = config.calibrate.unusual.cutoff if config.calibrate.unusual else None
    rows = np.argsort(-unusual, kind="stable")[:_UNUSUAL].tolist()
    pictures = gallery.pictures(rows)
    truths = predictions.rows[features.LABEL]
    return {
        "svg": draw_unusual(unusual),
        "shares": [(percentile, float((unusual > percentile).mean())) for percentile in (50, 90, 95, 99)],
        "beyond": float((unusual >= 100).mean()),
        "cutoff": cutoff,
        "above": float((unusual > cutoff).mean()) if cutoff is not None else None,
        "pictures": [(*pictures[row], truths.iloc[row], float(unusual[row])) for row in rows if row in pictures],
    }


def _promises(evaluation: Evaluation, predictions: Predictions, training: dict[str, Any]) -> dict[str, Any] | None:
    """What the model promises beside what was measured, and the curve of risk; None for multi-label data."""
    if predictions.multi_label or not len(predictions.rows):
        return None
    sets, abstention = (training.get(name) or {} for name in ("sets", "abstention"))
    promised = {}
    if sets and any(limit is not None for limit in sets["thresholds"]):
        other = "other " * bool(sets["problem"])
        promised["set_coverage"] = f"at least {sets['coverage']:g}" + f", of each {other}class" * sets["by_class"]
    if abstention and not abstention["problem"]:
        promised["selective_risk"] = f"at most {abstention['risk']:g}, with a confidence of {abstention['confidence']:g}"
    overall = evaluation.overall
    curve = trace_risk(predictions.labels, predictions.probabilities)
    chosen = tuple(overall[name].value for name in ("answered", "selective_risk") if name in overall)
    return {
        "rows": [(name, promised.get(name, ""), overall[name]) for name in PROMISES if name in overall],
        "problems": [found["problem"] for found in (sets, abstention) if found.get("problem")],
        "sets": sets,
        "abstention": abstention,
        "area": curve.score,
        "is_chosen": len(chosen) == 2,
        "svg": draw_risk(curve, (chosen[0], chosen[1]) if len(chosen) == 2 else None),
    }


def _curves(predictions: Predictions) -> list[dict[str, Any]]:
    """The plots of ROC, then of precision and recall."""
    labels = predictions.labels
    if not len(labels):
        return []
    order = _reading_order(predictions.classes)
    names = [predictions.classes[number] for number in order]
    positions = np.argsort(order)
    labels = labels[:, order] if predictions.multi_label else np.where(labels < 0, -1, positions[labels])
    roc, precision_recall = trace_curves(labels, predictions.probabilities[:, order], names)
    return [
        {
            "name": name,
            "score": score,
            "svg": draw(shown),
            "legend": [(curve, *curve_style(number)) for number, curve in enumerate(shown)],
        }
        for name, score, draw, curves in (
            ("ROC", "AUC", draw_roc, roc),
            ("Precision and recall", "average precision", draw_precision_recall, precision_recall),
        )
        if (shown := _choose_curves(curves))
    ]


def _choose_curves(curves: list[Curve]) -> list[Curve]:
    """All curves; if there are too many, their mean and the worst ones."""
    if len(curves) <= _MOST_CURVES:
        return curves
    return [average_curve(curves), *sorted(curves, key=lambda curve: curve.score)[:_WORST_CURVES]]


def _training_plots(history: Sequence[dict[str, Any]]) -> list[tuple[str, str, list[str]]]:
    """(Metric, plot, splits) for each metric of the training, the loss first."""
    if not history:
        return []
    epochs = [float(row["epoch"]) for row in history]
    measured = [name for name in history[0] if name != "epoch" and not name.startswith("val_")]
    plots = []
    for name in sorted(measured, key=lambda name: (name == "learning_rate", name != "loss")):
        both = {"train": name, "eval": f"val_{name}"}
        curves = {split: [float(row[key]) for row in history] for split, key in both.items() if key in history[0]}
        plots.append((name, draw_training(name, epochs, curves), list(curves) if len(curves) > 1 else []))
    return plots


def _flipped_images(predictions: Predictions, gallery: Gallery) -> list[dict[str, Any]]:
    """Images that only one of the two models answers right, with both answers."""
    if predictions.baseline is None:
        return []
    answers = [predictions.answers(), predictions.answers(predictions.baseline)]
    right = [answer == predictions.labels for answer in answers]
    if predictions.multi_label:
        right = [items.all(axis=1) for items in right]
    now, before = right
    rows = {"broken": np.flatnonzero(before & ~now)[:_FLIPS], "fixed": np.flatnonzero(now & ~before)[:_FLIPS]}
    pictures = gallery.pictures(int(row) for chosen in rows.values() for row in chosen)

    def class_names(answer: Any) -> str:
        chosen = np.flatnonzero(answer) if predictions.multi_label else [answer]
        return ", ".join(predictions.classes[number] for number in chosen) or "no class"

    return [
        {
            "kind": kind,
            "pictures": [
                (*pictures[row], predictions.rows[features.LABEL].iloc[row], *(class_names(answer[row]) for answer in answers))
                for row in chosen.tolist()
                if row in pictures
            ],
        }
        for kind, chosen in rows.items()
    ]


def _wrong_labels(labels: dict[str, Any] | None, gallery: Gallery) -> list[tuple[dict[str, str], str]]:
    """Rows of the table of labels that are probably wrong, the worst first, each with a thumbnail or ""."""
    if not labels or not (table := Path(labels["table"])).is_file():
        return []
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(itertools.islice(read_table(file), _LABELS))
    pictures = gallery.thumbnails([row["path"] for row in rows])
    return [(row, pictures.get(row["path"], "")) for row in rows]


def _data(summary: dict[str, Any]) -> dict[str, Any]:
    """Number of images by split, and by class and split, the largest class first."""
    by_split = summary.get("classes") or {}
    names = sorted(
        {name for counts in by_split.values() for name in counts},
        key=lambda name: (-sum(counts.get(name, 0) for counts in by_split.values()), name),
    )
    rows = [(name, [counts.get(name, 0) for counts in by_split.values()]) for name in names]
    return {
        "examples": summary.get("examples") or {},
        "splits": list(by_split),
        "rows": rows[:_MOST_CLASSES],
        "all": len(rows),
        "largest": max((sum(counts) for _, counts in rows), default=1),
    }
