"""An evaluation's figures: metrics with intervals, slice by slice, and the verdict on each threshold; written and read."""

import io
import json
import math
import os
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import pyarrow as pa
from pyarrow import parquet
from tfx.dsl.io import fileio

from base.errors import UserError
from storage.files import replace_file

METRICS_FILE: Final = "metrics.json"  # all that is not by slice
SLICES_FILE: Final = "slices.parquet"  # a row a slice, class and metric

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
    """A value with its 95 % confidence interval; the bounds are None where none was computed."""

    value: float
    lower: float | None = None
    upper: float | None = None


@dataclass(frozen=True)
class Comparison:
    """A metric of the last blessed model on the same rows, and by how much the candidate's is above it."""

    baseline: float
    difference: Metric


@dataclass(frozen=True)
class Slice:
    """Metrics of the test images that share some feature values.

    Attributes:
      key: features and values, sorted; empty for all images.
      examples: number of images.
      groups: number of groups that they are of.
      metrics: by name; empty where the slice is too small, and without those that are not defined on it.
      by_class: of each class the metrics that there are of a class; empty where they were not computed.
      comparisons: by the metric's name; empty without a baseline.
      too_small: has fewer images than evaluate.min_slice_size.
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
    """A threshold, what was measured, and whether it held.

    Attributes:
      metric: its name.
      slice: name of the slice; "worst of meta/site"; "groups".
      measured: value and interval; None where there is nothing to measure, and then it has not held.
      passed: whether it held.
      found: where the worst value is, or why there is none; mostly empty.
      lower: the least value that holds; None for any.
      upper: the largest, likewise.
      against: "the last blessed model", if the bounds are on the difference to that model; "" if they are on the value.
    """

    metric: str
    slice: str
    measured: Metric | None
    passed: bool
    found: str = ""
    lower: float | None = None
    upper: float | None = None
    against: str = ""

    @property
    def requirement(self) -> str:
        """In words: "at least 0.9"."""
        pairs = (("at least", self.lower), ("at most", self.upper))
        bounds = "; ".join(f"{word} {bound:g}" for word, bound in pairs if bound is not None)
        return f"{bounds} against {self.against}" if self.against else bounds

    def __str__(self) -> str:
        measured = f"{self.measured.value:.4f}" if self.measured else "not measured"
        return f"{self.metric} on {self.slice} must be {self.requirement}, is {measured}" + (
            f" ({self.found})" if self.found else ""
        )


@dataclass(frozen=True)
class GroupResult:
    """Metrics of groups (patients, products, videos), each answered once from its images' probabilities.

    Attributes:
      rule: how they are combined, in words: "mean of the probabilities".
      groups: how many.
      classes: names, in the order of the confusion matrix.
      metrics: with intervals over groups.
      confusion: confusion[i][j] groups of class i were taken for class j; empty for multi-label data.
    """

    rule: str
    groups: int
    classes: list[str]
    metrics: dict[str, Metric]
    confusion: list[list[int]]


@dataclass(frozen=True)
class Shortcut:
    """A property of the file that alone tells a class from the others.

    Attributes:
      property: the feature, such as "image/format".
      label: the class.
      score: balanced accuracy of telling it by the property alone, on images that were not used to find out how; chance is 0.5.
      rule: what gives the class away, in words: "image/format is jpeg".
    """

    property: str
    label: str
    score: Metric
    rule: str


@dataclass(frozen=True)
class Flips:
    """Images on which the candidate and the last blessed model disagree about what is right."""

    fixed: int  # the candidate is right, the baseline was wrong
    broken: int  # the other way round


@dataclass(frozen=True)
class Evaluation:
    """All figures of an evaluation.

    Attributes:
      classes: names, in the order of the probabilities.
      multi_label: whether an image can have any number of classes.
      intervals: how they were computed, in words.
      slices: all images first, then by features and values.
      verdicts: on the thresholds, in the configuration's order.
      blessed: whether all hold; None if the model was not judged.
      group: None without groups.
      shortcuts: the strongest first.
      flips: None without a baseline.
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
    def compared(self) -> bool:
        """Whether there was a baseline model."""
        return self.flips is not None

    @property
    def overall(self) -> dict[str, Metric]:
        return self.slices[0].metrics


def write_evaluation(evaluation: Evaluation, folder: str) -> None:
    """Writes `METRICS_FILE` and `SLICES_FILE`."""
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
        rows += found or [head]  # a slice without any metric is there all the same
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
    """Reads what `write_evaluation` has written.

    Raises:
      UserError: it is of an earlier version, whose thresholds are words.
    """
    path = os.path.join(folder, METRICS_FILE)
    with fileio.open(path) as file:
        content = json.loads(file.read())
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
    """A verdict of its fields, as `dataclasses.asdict` gives them."""
    return Verdict(**{**content, "measured": Metric(**content["measured"]) if content["measured"] else None})


def _metrics(content: dict[str, dict[str, Any]]) -> dict[str, Metric]:
    return {name: Metric(**metric) for name, metric in content.items()}


def _read_slices(folder: str) -> list[Slice]:
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
    """Sorts all images first, then by features, then by their values."""
    return len(key), [name for name, _ in key], [_natural(value) for _, value in key]


def _natural(value: str) -> tuple[float, str]:
    """Sorts numbers by size, before words; of buckets ("below 64", "64 to 128") by their lower edges."""
    first = value.partition(" ")[0]
    try:
        return (-math.inf if first == "below" else float(first)), value
    except ValueError:
        return math.inf, value
