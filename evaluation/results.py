"""The results of an evaluation: metrics with intervals for each slice, and a verdict on each threshold; written and read."""

import io
import json
import math
import os
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import pyarrow as pa
from pyarrow import parquet

from base.errors import UserError
from base.inputs import parse_json_object

METRICS_FILE: Final = "metrics.json"  # everything except the slices
SLICES_FILE: Final = "slices.parquet"  # one row per slice, class and metric

SliceKey = tuple[tuple[str, str], ...]

_SCHEMA: Final = pa.schema(
    [
        ("slice", pa.string()),  # as `Slice.name`
        ("key", pa.string()),  # JSON: {feature: value}
        ("images", pa.int64()),
        ("groups", pa.int64()),
        ("too_small", pa.bool_()),
        ("class", pa.string()),  # null: over all classes
        ("metric", pa.string()),
        *((name, pa.float64()) for name in ("value", "lower", "upper")),
        *((name, pa.float64()) for name in ("baseline", "difference", "difference_lower", "difference_upper")),
    ]
)


@dataclass(frozen=True)
class Metric:
    """A value with its 95 % confidence interval; the bounds are None if no interval was computed."""

    value: float
    lower: float | None = None
    upper: float | None = None


@dataclass(frozen=True)
class Comparison:
    """A metric of the served model on the same images, and the candidate's value minus it."""

    baseline: float
    difference: Metric


@dataclass(frozen=True)
class Slice:
    """Metrics of the test images that share some feature values.

    Attributes:
      key: features and values, sorted; empty for all images.
      examples: number of images.
      groups: number of groups with images in the slice.
      metrics: by name; empty if the slice is too small, and without metrics that are not defined on it.
      by_class: for each class the metrics that are defined per class; empty if they were not computed.
      comparisons: by the metric's name; empty without a baseline.
      too_small: whether it has fewer images than evaluate.min_slice_size.
    """

    key: SliceKey
    examples: int
    groups: int
    metrics: dict[str, Metric]
    by_class: dict[str, dict[str, Metric]] = field(default_factory=dict)
    comparisons: dict[str, Comparison] = field(default_factory=dict)
    too_small: bool = False

    @property
    def name(self) -> str:
        return slice_name(self.key)


@dataclass(frozen=True)
class Verdict:
    """A threshold with the measured value, and whether the model passed it.

    Attributes:
      metric: name of the metric.
      slice: name of the slice, "worst of meta/site", or "groups".
      measured: value and interval; None if there was nothing to measure, and then the threshold is not passed.
      passed: whether the value is within the bounds.
      found: which slice has the worst value, or why there is no value; mostly empty.
      lower: smallest value that passes; None: no lower bound.
      upper: largest value that passes; None: no upper bound.
      against: "the served model" if the bounds are on the difference to that model; "" if they are on the value.
      rule: of a rule that holds where no thresholds are set: what is required, in words; an end of the interval may decide.
    """

    metric: str
    slice: str
    measured: Metric | None
    passed: bool
    found: str = ""
    lower: float | None = None
    upper: float | None = None
    against: str = ""
    rule: str = ""

    @property
    def requirement(self) -> str:
        """The bounds in words, such as "at least 0.9", or the rule."""
        if self.rule:
            return self.rule
        pairs = (("at least", self.lower), ("at most", self.upper))
        bounds = "; ".join(f"{word} {bound:g}" for word, bound in pairs if bound is not None)
        return f"{bounds} against {self.against}" if self.against else bounds

    def __str__(self) -> str:
        measured = f"{self.measured.value:.4f}" if self.measured else "not measured"
        if self.rule and self.measured and self.measured.lower is not None and self.measured.upper is not None:
            measured += f" [{self.measured.lower:.3f}, {self.measured.upper:.3f}]"
        return f"{self.metric} on {self.slice} must be {self.requirement}, is {measured}" + (
            f" ({self.found})" if self.found else ""
        )


@dataclass(frozen=True)
class GroupResult:
    """Metrics of groups (patients, products, videos), with one answer per group.

    Attributes:
      rule: how the answers to the images are combined, in words, such as "mean of the images' probabilities".
      groups: number of groups.
      classes: names of the classes, in the order of the confusion matrix.
      metrics: metrics by name, with intervals over groups.
      confusion: confusion[i][j] is the number of groups of class i with the answer j; empty for multi-label data.
    """

    rule: str
    groups: int
    classes: list[str]
    metrics: dict[str, Metric]
    confusion: list[list[int]]


@dataclass(frozen=True)
class Shortcut:
    """A property of the file that is enough to distinguish a class from the others.

    Attributes:
      property: the feature, such as "image/format".
      label: the class.
      score: balanced accuracy of recognising the class by the property alone, on images that were not used to find the rule;
        0.5 is chance.
      rule: the rule in words, such as "image/format is jpeg".
    """

    property: str
    label: str
    score: Metric
    rule: str


@dataclass(frozen=True)
class Flips:
    """Numbers of images on which only one of the candidate and the served model is right."""

    fixed: int  # the candidate is right, the baseline was wrong
    broken: int  # the candidate is wrong, the baseline was right


@dataclass(frozen=True)
class Evaluation:
    """All results of an evaluation.

    Attributes:
      classes: names of the classes, in the order of the probabilities.
      multi_label: whether an image can have any number of classes.
      intervals: how the intervals were computed, in words.
      slices: all images first, then sorted by features and values.
      verdicts: verdicts on the thresholds, in the configuration's order.
      blessed: whether all thresholds are passed; None if the model was not judged.
      group: results for groups; None if every group has one image.
      shortcuts: the strongest first.
      flips: images that changed against the baseline; None without a baseline.
    """

    classes: list[str]
    multi_label: bool
    intervals: str
    slices: list[Slice]
    verdicts: list[Verdict] = field(default_factory=list)
    blessed: bool | None = None
    group: GroupResult | None = None
    shortcuts: list[Shortcut] = field(default_factory=list)
    flips: Flips | None = None

    @property
    def default_note(self) -> str:
        """By what the model was judged if no thresholds were set, in sentences; else ""."""
        rules = [verdict for verdict in self.verdicts if verdict.rule]
        if not rules:
            return ""
        must = "No thresholds are set (evaluate.thresholds). So the model must be better than an answer that is always the same"
        if any(verdict.against for verdict in rules):
            return f"{must}, and not significantly worse than the served model."
        return f"{must}. No model is served that it could be compared with."

    @property
    def compared(self) -> bool:
        """Whether there was a baseline model."""
        return self.flips is not None

    @property
    def overall(self) -> dict[str, Metric]:
        return self.slices[0].metrics


def write_evaluation(evaluation: Evaluation, folder: str) -> None:
    """Writes `METRICS_FILE` and `SLICES_FILE`."""
    from storage.files import replace_file  # takes seconds, which `find_shortcuts` does not need

    rows: list[dict[str, Any]] = []
    for item in evaluation.slices:
        head = {
            "slice": item.name,
            "key": json.dumps(dict(item.key)),
            "images": item.examples,
            "groups": item.groups,
            "too_small": item.too_small,
        }
        found: list[dict[str, Any]] = []
        for class_name, metrics in ({None: item.metrics} | item.by_class).items():
            for name, metric in metrics.items():
                row = {**head, "class": class_name, "metric": name, **asdict(metric)}
                if class_name is None and (compared := item.comparisons.get(name)):
                    row["baseline"] = compared.baseline
                    difference = asdict(compared.difference)
                    row |= {"difference" + ("" if key == "value" else f"_{key}"): value for key, value in difference.items()}
                found.append(row)
        rows += found or [head]  # a slice without metrics still gets a row
    table = pa.Table.from_pylist(rows, _SCHEMA)
    replace_file(os.path.join(folder, SLICES_FILE), lambda file: parquet.write_table(table, file))
    content = {
        "images": evaluation.slices[0].examples,
        "groups": evaluation.slices[0].groups,
        "metrics": {name: asdict(metric) for name, metric in evaluation.overall.items()},
        **{
            name: [asdict(item) for item in value] if isinstance(value, list) and name in _LISTS else value
            for name, value in vars(evaluation).items()
            if name not in ("slices", "group", "flips")
        },
        "group": asdict(evaluation.group) if evaluation.group else None,
        "flips": asdict(evaluation.flips) if evaluation.flips else None,
    }
    text = json.dumps(content, indent=2) + "\n"
    replace_file(os.path.join(folder, METRICS_FILE), lambda file: file.write(text.encode()))


_LISTS: Final = ("verdicts", "shortcuts")


def read_evaluation(folder: str) -> Evaluation:
    """Reads the files that `write_evaluation` writes.

    Raises:
      UserError: an earlier version has written them, with thresholds as text.
    """
    from tfx.dsl.io import fileio

    path = os.path.join(folder, METRICS_FILE)
    with fileio.open(path) as file:
        content = parse_json_object(file.read(), path, "run again")
    if any("requirement" in item for item in content["verdicts"]):
        raise UserError(f"{path}: this evaluation is of an earlier version; run again")
    group, flips = content["group"], content["flips"]
    return Evaluation(
        classes=content["classes"],
        multi_label=content["multi_label"],
        intervals=content["intervals"],
        slices=_read_slices(folder),
        verdicts=[read_verdict(item) for item in content["verdicts"]],
        blessed=content["blessed"],
        group=GroupResult(**{**group, "metrics": _metrics(group["metrics"])}) if group else None,
        shortcuts=[Shortcut(**{**item, "score": Metric(**item["score"])}) for item in content["shortcuts"]],
        flips=Flips(**flips) if flips else None,
    )


def read_verdict(content: dict[str, Any]) -> Verdict:
    """Makes a verdict from its fields, as returned by `dataclasses.asdict`."""
    return Verdict(**{**content, "measured": Metric(**content["measured"]) if content["measured"] else None})


def _metrics(content: dict[str, dict[str, Any]]) -> dict[str, Metric]:
    return {name: Metric(**metric) for name, metric in content.items()}


def _read_slices(folder: str) -> list[Slice]:
    from tfx.dsl.io import fileio

    with fileio.open(os.path.join(folder, SLICES_FILE), "rb") as file:
        table = parquet.read_table(io.BytesIO(file.read()))
    slices: dict[str, Slice] = {}
    for row in table.to_pylist():
        key = tuple(sorted(json.loads(row["key"]).items()))
        item = slices.setdefault(row["key"], Slice(key, row["images"], row["groups"], {}, too_small=row["too_small"]))
        if row["metric"] is None:
            continue
        metrics = item.metrics if row["class"] is None else item.by_class.setdefault(row["class"], {})
        metrics[row["metric"]] = Metric(row["value"], row["lower"], row["upper"])
        if row["baseline"] is not None:
            difference = Metric(*(row[f"difference{end}"] for end in ("", "_lower", "_upper")))
            item.comparisons[row["metric"]] = Comparison(row["baseline"], difference)
    return list(slices.values())


def slice_name(key: SliceKey) -> str:
    return ", ".join(f"{feature}={value}" for feature, value in key) or "all examples"


def slice_order(key: SliceKey) -> tuple[int, list[str], list[tuple[float, str]]]:
    """Sort key of slices: all images first, then by features, then by their values."""
    return len(key), [name for name, _ in key], [_natural_key(value) for _, value in key]


def _natural_key(value: str) -> tuple[float, str]:
    """Sort key of values: numbers by size, buckets ("below 64", "64 to 128") by their lower edges, then words."""
    first = value.partition(" ")[0]
    try:
        return (-math.inf if first == "below" else float(first)), value
    except ValueError:
        return math.inf, value
