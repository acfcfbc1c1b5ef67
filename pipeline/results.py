"""Reads what the Evaluator has written: metrics with intervals, slice by slice, and the verdict on each threshold."""

import json
import math
from dataclasses import dataclass

import tensorflow_model_analysis as tfma
from scipy import stats
from tensorflow_model_analysis.proto import config_pb2, metrics_for_slice_pb2

_BASELINE = "baseline"  # TFMA's name of the model that the candidate is compared with
_RANGES = {"accuracy": (0.0, 1.0), "cross_entropy": (0.0, math.inf), "f1_micro": (0.0, 1.0)}  # intervals must not reach beyond
_PROPORTIONS = {"accuracy"}  # metrics that are a share of the examples

SliceKey = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Metric:
    """A value with its 95 % confidence interval; the bounds are None where none was computed."""

    value: float
    lower: float | None
    upper: float | None


@dataclass(frozen=True)
class Slice:
    """Metrics of the test examples that share some feature values; an empty key stands for all examples."""

    key: SliceKey
    examples: int
    metrics: dict[str, Metric]

    @property
    def name(self) -> str:
        return _slice_name(self.key)


@dataclass(frozen=True)
class Verdict:
    """A threshold, what was measured (None where the slice has no examples), and whether it held."""

    metric: str
    slice: str
    requirement: str
    value: float | None
    passed: bool

    def __str__(self) -> str:
        measured = "no examples" if self.value is None else f"{self.value:.4f}"
        return f"{self.metric} on {self.slice} must be {self.requirement}, is {measured}"


@dataclass(frozen=True)
class Evaluation:
    """An evaluation: slices, all examples first and then by name, and the verdicts."""

    slices: list[Slice]
    verdicts: list[Verdict]

    @property
    def compared(self) -> bool:
        """Whether there was a baseline model."""
        return any("last blessed" in verdict.requirement for verdict in self.verdicts)

    @property
    def overall(self) -> dict[str, Metric]:
        return self.slices[0].metrics


def read_evaluation(path: str) -> Evaluation:
    """Loads the output folder of an Evaluator."""
    slices: list[Slice] = []
    changes: dict[tuple[SliceKey, str], float] = {}
    order = [_metric_name(metric) for spec in tfma.load_eval_result(path).config.metrics_specs for metric in spec.metrics]
    for record in tfma.load_metrics(path):
        key = _slice_key(record.slice_key)
        items = [item for item in record.metric_keys_and_values if item.key.model_name != _BASELINE]
        values = {item.key.name: item for item in items if not item.key.is_diff}
        changes.update({(key, item.key.name): item.value.double_value.value for item in items if item.key.is_diff})
        examples = int(values.pop("example_count").value.double_value.value)
        metrics = {
            name: Metric(values[name].value.double_value.value, *_interval(values[name], examples))
            for name in order
            if name in values
        }
        slices.append(Slice(key, examples, metrics))
    slices.sort(key=lambda item: slice_order(item.key))
    values = {(item.key, name): metric.value for item in slices for name, metric in item.metrics.items()}
    return Evaluation(slices, _read_verdicts(path, values, changes))


def _read_verdicts(
    path: str, values: dict[tuple[SliceKey, str], float], changes: dict[tuple[SliceKey, str], float]
) -> list[Verdict]:
    """Judged by TFMA; a threshold on the change is not in its configuration where there was no baseline model."""
    failures = {
        (
            _slice_key(record.slice_key),
            failure.metric_key.name,
            failure.metric_key.is_diff,
            _requirements(failure.metric_threshold),
        )
        for record in tfma.load_validation_result(path).metric_validations_per_slice
        for failure in record.failures
    }
    verdicts = []
    for spec in tfma.load_eval_result(path).config.metrics_specs:
        for metric in spec.metrics:
            for item in metric.per_slice_thresholds:
                key: SliceKey = tuple(sorted(item.slicing_specs[0].feature_values.items()))
                name = _metric_name(metric)
                for is_diff, threshold in _split(item.threshold):
                    value = changes.get((key, name)) if is_diff else values.get((key, name))
                    passed = value is not None and (key, name, is_diff, _requirements(threshold)) not in failures
                    verdicts.append(Verdict(name, _slice_name(key), "; ".join(_requirements(threshold)), value, passed))
    return verdicts


def _metric_name(metric: config_pb2.MetricConfig) -> str:
    return json.loads(metric.config)["name"]


def _split(threshold: config_pb2.MetricThreshold) -> list[tuple[bool, config_pb2.MetricThreshold]]:
    """A threshold on the value and one on the change, each by itself, as TFMA judges them."""
    parts = []
    if threshold.HasField("value_threshold"):
        parts.append((False, config_pb2.MetricThreshold(value_threshold=threshold.value_threshold)))
    if threshold.HasField("change_threshold"):
        parts.append((True, config_pb2.MetricThreshold(change_threshold=threshold.change_threshold)))
    return parts


def _requirements(threshold: config_pb2.MetricThreshold) -> tuple[str, ...]:
    texts = []
    if threshold.HasField("value_threshold"):
        value = threshold.value_threshold
        if value.HasField("lower_bound"):
            texts.append(f"at least {value.lower_bound.value:g}")
        if value.HasField("upper_bound"):
            texts.append(f"at most {value.upper_bound.value:g}")
    if threshold.HasField("change_threshold"):
        change = threshold.change_threshold
        bound = "at most" if change.direction == config_pb2.MetricDirection.LOWER_IS_BETTER else "at least"
        texts.append(f"{bound} {change.absolute.value:+g} against the last blessed model")
    return tuple(texts)


def _slice_key(key: metrics_for_slice_pb2.SliceKey) -> SliceKey:
    def text(single: metrics_for_slice_pb2.SingleSliceKey) -> str:
        value = getattr(single, single.WhichOneof("kind"))
        return value.decode() if isinstance(value, bytes) else str(value)

    return tuple(sorted((single.column, text(single)) for single in key.single_slice_keys))


def slice_order(key: SliceKey) -> tuple[int, list[str], list[tuple[float, str]]]:
    """Sorts all examples first, then by features, then by their values."""
    return len(key), [name for name, _ in key], [_natural(value) for _, value in key]


def _slice_name(key: SliceKey) -> str:
    return ", ".join(f"{feature}={value}" for feature, value in key) or "all examples"


def _natural(value: str) -> tuple[float, str]:
    """Sorts numbers by size, before words."""
    try:
        return float(value), value
    except ValueError:
        return float("inf"), value


def _interval(
    item: metrics_for_slice_pb2.MetricsForSlice.MetricKeyAndValue, examples: int
) -> tuple[float | None, float | None]:
    """The 95 % interval, cut to the metric's range.

    Where all examples are right, or all are wrong, resampling them shows no spread at all; there the interval is Wilson's
    score interval for a proportion (Wilson 1927, 10.1080/01621459.1927.10502953), which is [0.90, 1] for 36 of 36, and none
    for other metrics. Of multi-label data, an example counts once, not once for each class: its answers hang together.
    """
    if not item.HasField("confidence_interval"):
        return None, None
    interval, value, name = item.confidence_interval, item.value.double_value.value, item.key.name
    if not interval.standard_error.double_value.value:
        if name not in _PROPORTIONS:
            return None, None
        wilson = stats.binomtest(round(value * examples), examples).proportion_ci(method="wilson")
        return float(wilson.low), float(wilson.high)
    least, most = _RANGES[name]
    return max(interval.lower_bound.double_value.value, least), min(interval.upper_bound.double_value.value, most)
