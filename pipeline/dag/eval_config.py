"""Turns the configuration into the Evaluator's settings: TFMA's EvalConfig, and what goes beside it."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from pydantic import TypeAdapter, ValidationError
from tensorflow_model_analysis.proto import config_pb2

from base.errors import UserError
from components.model_formats.settings import FormatSettings
from evaluation.metrics import PROMISES, check_metrics
from evaluation.settings import EvaluatorSettings, Threshold
from evaluation.verdicts import check_thresholds, needed_metrics, needed_slices
from models.packing import unpack
from pipeline.config.calibration import CalibrateConfig
from pipeline.config.evaluation import EvaluateConfig, ThresholdConfig
from pipeline.config.whole import Config
from pipeline.dag.splits import Splits


def evaluation_settings(
    config: EvaluateConfig, multi_label: bool, splits: Sequence[str], *, judged: bool, calibrate: CalibrateConfig | None = None
) -> EvaluatorSettings:
    """The Evaluator's settings from the section `evaluate`, with complete lists of metrics and slices.

    Args:
      config: the section `evaluate`.
      multi_label: whether an image can have any number of classes.
      splits: the splits to measure on.
      judged: whether the thresholds apply.
      calibrate: the section `calibrate`; None if the model promises nothing.

    Raises:
      UserError: a metric is unknown, or a threshold does not fit.
    """
    thresholds = _thresholds(config.thresholds or ())
    promises = _promises(calibrate, multi_label) if calibrate else []
    check_thresholds(thresholds, multi_label, promises=promises)
    names = needed_metrics(config.metrics, thresholds, multi_label, promises)
    check_metrics(names, multi_label, more=promises)
    return unpack(
        EvaluatorSettings,
        {
            **config.model_dump(),
            "metrics": names,
            "slices": [*config.slices, *needed_slices(config.slices, thresholds)],
            "multi_label": multi_label,
            "splits": splits,
            "judged": judged,
            "thresholds": thresholds,
        },
    )


def with_thresholds(settings: EvaluatorSettings, thresholds: Any) -> EvaluatorSettings:
    """The same settings with other thresholds, and the metrics and slices that these need.

    Args:
      settings: as `evaluation_settings` makes them.
      thresholds: as in the section `evaluate`, not checked yet; an empty list for the default.

    Raises:
      UserError: a threshold is not well formed, or does not fit.
    """
    try:
        checked = TypeAdapter(list[ThresholdConfig]).validate_python(thresholds)
    except ValidationError as error:
        detail = error.errors()[0]
        raise UserError(f"thresholds: {'.'.join(map(str, detail['loc']))}: {detail['msg']}") from error
    changed = _thresholds(checked)
    check_thresholds(changed, settings.multi_label, promises=[name for name in settings.metrics if name in PROMISES])
    slices = needed_slices(settings.slices, changed)
    return replace(
        settings,
        thresholds=changed,
        metrics=tuple(needed_metrics(settings.metrics, changed, settings.multi_label)),
        slices=(*settings.slices, *(tuple(features) for features in slices)),
    )


def format_settings(config: Config, splits: Splits) -> FormatSettings:
    """Settings of ModelFormats from the sections `export` and `evaluate`.

    Raises:
      UserError: a threshold does not fit.
    """
    check_thresholds(_thresholds(config.export.thresholds), config.data.multi_label, "export")
    return unpack(
        FormatSettings,
        {
            **config.export.model_dump(include={"formats", "thresholds"}),
            **config.evaluate.model_dump(include={"groups", "buckets", "min_slice_size"}),
            "train": splits.train,
            "test": splits.test,
        },
    )


def _promises(calibrate: CalibrateConfig, multi_label: bool) -> list[str]:
    """The metrics of what a model promises that was calibrated so."""
    cutoff = calibrate.unusual.cutoff if calibrate.unusual and not multi_label else None
    return [
        *(("set_coverage", "set_size") if calibrate.sets else ()),
        *(("answered", "selective_risk") if calibrate.abstain or cutoff is not None else ()),
    ]


def _thresholds(given: Iterable[ThresholdConfig]) -> tuple[Threshold, ...]:
    return tuple(unpack(Threshold, threshold.model_dump()) for threshold in given)


def build_eval_config(settings: EvaluatorSettings) -> config_pb2.EvalConfig:
    """TFMA's configuration for settings that `evaluation_settings` has made, without the thresholds.

    The thresholds are judged outside of TFMA. It knows none on slices by two features, on the worst of some slices, or on
    groups, and with a least slice size all of its thresholds fail as soon as any slice is too small.
    """
    names = [name for name in settings.metrics if name not in PROMISES]  # TFMA gets labels and probabilities alone
    settings_of_metrics = {"names": names, "multi_label": settings.multi_label, "name": "classification"}
    metric = config_pb2.MetricConfig(
        class_name="Classification",
        module="components.evaluator.tfma_metrics",
        config=json.dumps(settings_of_metrics),
    )
    return config_pb2.EvalConfig(
        model_specs=[config_pb2.ModelSpec(prediction_key="probabilities", label_key="image/label")],
        slicing_specs=[config_pb2.SlicingSpec(feature_keys=keys) for keys in ([], *settings.slices)],
        metrics_specs=[config_pb2.MetricsSpec(metrics=[metric])],
    )
