"""Configuration to TFMA's EvalConfig: metrics, slices, thresholds."""

import json
from typing import Any

from tensorflow_model_analysis.proto import config_pb2

from components.errors import UserError
from pipeline.config import EvaluateConfig, ThresholdConfig

# Name in reports and thresholds -> class of TFMA, its settings, whether larger is better (None: not for thresholds).
METRICS: dict[str, tuple[str, dict[str, Any], bool | None]] = {
    "accuracy": ("SparseCategoricalAccuracy", {}, True),
    "cross_entropy": ("SparseCategoricalCrossentropy", {}, False),
    "example_count": ("ExampleCount", {}, None),
    "confusion_matrix": ("MultiClassConfusionMatrixPlot", {}, None),
}
# Of multi-label data: over all pairs of an image and a class.
MULTI_LABEL_METRICS: dict[str, tuple[str, dict[str, Any], bool | None]] = {
    "accuracy": ("BinaryAccuracy", {}, True),
    "cross_entropy": ("BinaryCrossentropy", {}, False),
    "f1_micro": ("F1Score", {}, True),
    "example_count": ("ExampleCount", {}, None),
}
# The model's predictions and labels, by the signatures of `models.export`.
_SIGNATURE, _PREDICTIONS, _LABELS, _LABEL_SIGNATURE = "predict_examples", "probabilities", "label", "transform_labels"

_INTERVALS = {
    "jackknife": config_pb2.ConfidenceIntervalOptions.JACKKNIFE,
    "poisson_bootstrap": config_pb2.ConfidenceIntervalOptions.POISSON_BOOTSTRAP,
}


def build_eval_config(config: EvaluateConfig, multi_label: bool, with_thresholds: bool = True) -> config_pb2.EvalConfig:
    """Builds what the Evaluator is told to compute.

    Args:
      config: the section `evaluate` of the configuration.
      multi_label: whether labels and predictions are vectors with a value for each class.
      with_thresholds: whether the model is judged; the slices are the same if not.

    Raises:
      UserError: a threshold names an unknown metric.
    """
    metrics = MULTI_LABEL_METRICS if multi_label else METRICS
    for threshold in config.thresholds:
        if metrics.get(threshold.metric, (None, None, None))[2] is None:
            known = ", ".join(name for name, (_, _, better) in metrics.items() if better is not None)
            raise UserError(f"evaluate.thresholds: unknown metric {threshold.metric}; known ones: {known}")
    model = config_pb2.ModelSpec(
        signature_name=_SIGNATURE,
        prediction_key=_PREDICTIONS,
        label_key=_LABELS,
        preprocessing_function_names=[_LABEL_SIGNATURE],
        inference_batch_size=config.batch_size,
    )
    slices = [[], *config.slices]
    # A slice that has a threshold has to be computed.
    slices += [[key] for threshold in config.thresholds for key in threshold.slice if [key] not in slices]
    thresholds = config.thresholds if with_thresholds else []
    # No min_slice_size: TFMA fails every threshold on a slice that it leaves out, also those that are not on this slice.
    options = config_pb2.Options()
    if config.confidence_intervals != "none":
        options.compute_confidence_intervals.value = True
        options.confidence_intervals.method = _INTERVALS[config.confidence_intervals]
    return config_pb2.EvalConfig(
        model_specs=[model],
        slicing_specs=[config_pb2.SlicingSpec(feature_keys=keys) for keys in slices],
        metrics_specs=[
            config_pb2.MetricsSpec(metrics=[_metric(name, *metric, thresholds) for name, metric in metrics.items()])
        ],
        options=options,
    )


def _metric(
    name: str, class_name: str, settings: dict[str, Any], larger_is_better: bool | None, thresholds: list[ThresholdConfig]
) -> config_pb2.MetricConfig:
    metric = config_pb2.MetricConfig(class_name=class_name, config=json.dumps({"name": name, **settings}))
    # Not `metric.threshold`, which TFMA holds every slice to: an empty slicing spec is the slice of all examples.
    metric.per_slice_thresholds.extend(
        config_pb2.PerSliceMetricThreshold(
            slicing_specs=[config_pb2.SlicingSpec(feature_values=threshold.slice)],
            threshold=_bounds(threshold, bool(larger_is_better)),
        )
        for threshold in thresholds
        if threshold.metric == name
    )
    return metric


def _bounds(threshold: ThresholdConfig, larger_is_better: bool) -> config_pb2.MetricThreshold:
    bounds = config_pb2.MetricThreshold()
    if threshold.lower is not None:
        bounds.value_threshold.lower_bound.value = threshold.lower
    if threshold.upper is not None:
        bounds.value_threshold.upper_bound.value = threshold.upper
    if threshold.change is not None:
        bounds.change_threshold.absolute.value = threshold.change
        direction = config_pb2.MetricDirection
        bounds.change_threshold.direction = direction.HIGHER_IS_BETTER if larger_is_better else direction.LOWER_IS_BETTER
    return bounds
