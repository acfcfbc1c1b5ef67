"""Configuration to what the Evaluator is told: TFMA's EvalConfig, and the settings beside it."""

import json
from typing import Any

from pydantic import TypeAdapter, ValidationError
from tensorflow_model_analysis.proto import config_pb2

from components.errors import UserError
from components.evaluator.metrics import check_metrics
from components.evaluator.verdicts import check_thresholds, needed_metrics, needed_slices
from pipeline.config import Config, EvaluateConfig, ThresholdConfig


def evaluation_settings(config: EvaluateConfig, multi_label: bool) -> dict[str, Any]:
    """The section `evaluate`, with its metrics and slices complete.

    Args:
      config: the section.
      multi_label: whether an image can have any number of classes.

    Raises:
      UserError: a metric is unknown, or a threshold does not fit.
    """
    settings = config.model_dump()
    check_thresholds(settings, multi_label)
    names = needed_metrics(settings, multi_label)
    check_metrics(names, multi_label)
    slices = [*config.slices, *needed_slices(settings)]
    return {**settings, "metrics": names, "slices": slices, "multi_label": multi_label}


def with_thresholds(settings: dict[str, Any], thresholds: list[dict[str, Any]]) -> dict[str, Any]:
    """The same settings with other thresholds, and the metrics and slices that these need.

    Args:
      settings: as `evaluation_settings` makes them.
      thresholds: as in the section `evaluate`.

    Raises:
      UserError: a threshold is not well formed, or does not fit.
    """
    try:
        checked = TypeAdapter(list[ThresholdConfig]).validate_python(thresholds)
    except ValidationError as error:
        detail = error.errors()[0]
        raise UserError(f"thresholds: {'.'.join(map(str, detail['loc']))}: {detail['msg']}") from error
    changed = {**settings, "thresholds": [threshold.model_dump() for threshold in checked]}
    check_thresholds(changed, settings["multi_label"])
    changed["metrics"] = needed_metrics(changed, settings["multi_label"])
    return {**changed, "slices": [*settings["slices"], *needed_slices(changed)]}


def format_settings(config: Config) -> dict[str, Any]:
    """What ModelFormats is told of the sections `export` and `evaluate`.

    Raises:
      UserError: a threshold does not fit.
    """
    settings = {
        **config.export.model_dump(include={"formats", "thresholds"}),
        "multi_label": config.data.multi_label,
        **config.evaluate.model_dump(include={"groups", "buckets", "min_slice_size"}),
    }
    check_thresholds(settings, config.data.multi_label, "export")
    return settings


def build_eval_config(settings: dict[str, Any]) -> config_pb2.EvalConfig:
    """TFMA's configuration of what `evaluation_settings` has made; the thresholds are judged beside it.

    TFMA knows no thresholds on slices by two features, on the worst of some slices, or on groups, and with a least slice size
    it fails all of them as soon as any slice is too small.
    """
    settings_of_metrics = {"names": settings["metrics"], "multi_label": settings["multi_label"], "name": "classification"}
    metric = config_pb2.MetricConfig(
        class_name="Classification",
        module="components.evaluator.tfma_metrics",
        config=json.dumps(settings_of_metrics),
    )
    return config_pb2.EvalConfig(
        model_specs=[config_pb2.ModelSpec(prediction_key="probabilities", label_key="image/label")],
        slicing_specs=[config_pb2.SlicingSpec(feature_keys=keys) for keys in ([], *settings["slices"])],
        metrics_specs=[config_pb2.MetricsSpec(metrics=[metric])],
    )
