"""Reads what the Evaluator has written: metrics with intervals, slice by slice, and the verdict on each threshold."""

from dataclasses import dataclass

import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.proto import config_pb2, metrics_for_slice_pb2

_BASELINE = "baseline"  # TFMA's name of the model that the candidate is compared with
_TOO_FEW = "__ERROR__"  # the metric that TFMA puts in place of all others in a slice below min_slice_size
_BOUNDED = {"accuracy"}  # metrics from 0 to 1, beyond which the intervals' normal approximation must not reach

SliceKey = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Metric:
    """A value with its 95 % confidence interval; the bounds are None where none was computed."""

    value: float
    lower: float | None
    upper: float | None


@dataclass(frozen=True)
class Slice:
    """Metrics of the test examples that share some feature values; an empty key stands for all examples.

    `examples` is None where the slice has fewer than `min_slice_size`, and so no metrics.
    """

    key: SliceKey
    examples: int | None
    metrics: dict[str, Metric]

    @property
    def name(self) -> str:
        return ", ".join(f"{feature}={value}" for feature, value in self.key) or "all examples"


@dataclass(frozen=True)
class Verdict:
    """A threshold, what was measured, and whether it held; `passed` is None where there was nothing to compare with."""

    metric: str
    slice: str
    requirement: str
    value: float | None
    passed: bool | None

    def __str__(self) -> str:
        measured = "no examples" if self.value is None else f"{self.value:.4f}"
        return f"{self.metric} on {self.slice} must be {self.requirement}, is {measured}"


@dataclass(frozen=True)
class Evaluation:
    """An evaluation: slices, all examples first and then by name, and the verdicts."""

    slices: list[Slice]
    verdicts: list[Verdict]

    @property
    def overall(self) -> dict[str, Metric]:
        return self.slices[0].metrics


def read_evaluation(path: str) -> Evaluation:
    """Loads the output folder of an Evaluator."""
    slices, changes = [], {}
    for record in tfma.load_metrics(path):
        key = _slice_key(record.slice_key)
        metrics, count, too_few = {}, None, False
        for item in record.metric_keys_and_values:
            if item.key.model_name == _BASELINE:
                continue
            value = item.value.double_value.value
            if item.key.is_diff:
                changes[key, item.key.name] = value
            elif item.key.name == "example_count":
                count = int(value)
            elif item.key.name == _TOO_FEW:
                too_few = True
            else:
                metrics[item.key.name] = Metric(value, *_interval(item))
        slices.append(Slice(key, None if too_few else count, {} if too_few else metrics))
    slices.sort(key=lambda item: (len(item.key), [name for name, _ in item.key], [_natural(value) for _, value in item.key]))
    return Evaluation(slices, _read_verdicts(path, {item.key: item.metrics for item in slices}, changes))


def _read_verdicts(
    path: str, metrics: dict[SliceKey, dict[str, Metric]], changes: dict[tuple[SliceKey, str], float]
) -> list[Verdict]:
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
                    if is_diff:
                        value = changes.get((key, name))
                        passed = None
                    else:
                        found = metrics.get(key, {}).get(name)
                        value = found.value if found else None
                        passed = False
                    if value is not None:
                        passed = (key, name, is_diff, _requirements(threshold)) not in failures
                    verdicts.append(
                        Verdict(name, Slice(key, None, {}).name, "; ".join(_requirements(threshold)), value, passed)
                    )
    return verdicts


def _metric_name(metric: config_pb2.MetricConfig) -> str:
    import json

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


def _natural(value: str) -> tuple[float, str]:
    """Sorts numbers by size, before words."""
    try:
        return float(value), value
    except ValueError:
        return float("inf"), value


def _interval(item: metrics_for_slice_pb2.MetricsForSlice.MetricKeyAndValue) -> tuple[float | None, float | None]:
    if not item.HasField("confidence_interval"):
        return None, None
    lower, upper = (
        item.confidence_interval.lower_bound.double_value.value,
        item.confidence_interval.upper_bound.double_value.value,
    )
    if item.key.name in _BOUNDED:
        return max(lower, 0.0), min(upper, 1.0)
    return lower, upper
