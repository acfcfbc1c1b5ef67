"""Predicts, measures with TFMA, adds intervals, groups, the comparison and shortcuts, and judges the model."""

import contextlib
import logging
import math
import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

import apache_beam as beam
import numpy as np
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.proto import config_pb2
from tfx.components.evaluator import constants
from tfx.dsl.components.base import base_beam_executor
from tfx.dsl.io import fileio
from tfx.types import Artifact, artifact_utils, standard_artifacts, standard_component_specs
from tfx.utils import io_utils, path_utils, proto_utils

from base.errors import UserError
from components.earlier_runs.baseline import ERROR, find_baseline
from components.evaluator.predict import predict, take_parts
from components.evaluator.tfma_metrics import BASELINE, CANDIDATE, EXTRACTORS, make_extracts
from components.examples import split_files
from components.pusher.model_files import fetch
from evaluation import intervals, metrics
from evaluation.default_rules import judge_by_default
from evaluation.flips import flips
from evaluation.groups import evaluate_groups
from evaluation.predictions import Predictions
from evaluation.promises import estimate_promises, estimate_promises_by_class
from evaluation.results import (
    Comparison,
    Evaluation,
    GroupResult,
    Metric,
    Slice,
    SliceKey,
    Verdict,
    write_evaluation,
)
from evaluation.settings import EvaluatorSettings
from evaluation.shortcuts import find_shortcuts
from evaluation.slicing import slice_images
from evaluation.soundness import judge_answers
from evaluation.verdicts import judge
from models.packing import unpack

SETTINGS_KEY: Final = "settings"
PUSH_FOLDER_KEY: Final = "push_folder"
_ROWS: Final = 2**16  # images that TFMA gets at a time


class _Extract(beam.DoFn):
    """From the start of a range of images to the extracts of all slices."""

    def __init__(self, folder: str, settings: EvaluatorSettings) -> None:
        self._folder = folder
        self._settings = settings

    def setup(self) -> None:
        self._predictions = Predictions.read(self._folder)
        self._slices = slice_images(
            self._predictions.rows, self._settings.slices, self._settings.buckets, self._predictions.multi_label
        )

    def process(self, element: int) -> Any:
        yield from make_extracts(self._predictions, self._slices, element, element + _ROWS)


class Executor(base_beam_executor.BaseBeamExecutor):
    """Replaces TFX's executor, which does not keep predictions and processes one image at a time."""

    def Do(self, input_dict: dict[str, Any], output_dict: dict[str, Any], exec_properties: dict[str, Any]) -> None:
        """Writes TFMA's results, the predictions and their evaluation; if the model is judged, also the blessing."""
        self._log_startup(input_dict, output_dict, exec_properties)
        settings = unpack(EvaluatorSettings, exec_properties[SETTINGS_KEY])
        folder = artifact_utils.get_single_uri(output_dict[standard_component_specs.EVALUATION_KEY])
        model = artifact_utils.get_single_instance(input_dict[standard_component_specs.MODEL_KEY])
        baseline = _find_baseline(input_dict, path_utils.serving_model_path(model.uri), exec_properties.get(PUSH_FOLDER_KEY))
        (examples,) = input_dict[standard_component_specs.EXAMPLES_KEY]
        files = split_files(examples, settings.splits)
        fileio.makedirs(folder)
        with _readable(baseline.uri if baseline else None, folder) as served:
            models = [path_utils.serving_model_path(model.uri), *([served] if served else [])]
            predict(self._make_beam_pipeline(), files, models, folder, settings.batch_size, settings.multi_label)
        predictions = take_parts(folder, len(files))
        predictions.write(folder)

        eval_config = config_pb2.EvalConfig()
        proto_utils.json_to_proto(exec_properties[standard_component_specs.EVAL_CONFIG_KEY], eval_config)
        eval_config = tfma.utils.update_eval_config_with_defaults(eval_config, has_baseline=baseline is not None)
        with self._make_beam_pipeline() as pipeline:
            _ = (
                pipeline
                | "Ranges" >> beam.Create(range(0, len(predictions.rows), _ROWS))
                | "Extract" >> beam.ParDo(_Extract(folder, settings))
                | tfma.ExtractEvaluateAndWriteResults(eval_config=eval_config, extractors=EXTRACTORS, output_path=folder)
            )
        evaluation = evaluate(predictions, _read_values(folder), settings)
        write_evaluation(evaluation, folder)
        if evaluation.blessed is None:
            return
        blessing = artifact_utils.get_single_instance(output_dict[standard_component_specs.BLESSING_KEY])
        _write_blessing(blessing, evaluation.blessed, model, baseline, exec_properties)


def _find_baseline(inputs: dict[str, Any], candidate: str, push_folder: str | None) -> Artifact | None:
    """The served model, from the channel or, where there is none, from the folder that the run pushes to.

    Raises:
      UserError: it could not be looked for.
    """
    if given := inputs.get(standard_component_specs.BASELINE_MODEL_KEY):
        if error := given[0].get_string_custom_property(ERROR):
            raise UserError(error)
        return given[0]
    found = find_baseline(push_folder, candidate) if push_folder else None
    if found is None:
        return None
    baseline = standard_artifacts.Model()
    baseline.uri = found.path
    return baseline


@contextlib.contextmanager
def _readable(model: str | None, results: str) -> Iterator[str | None]:
    """The served model where TensorFlow reads it: in a local copy, unless the workers are elsewhere, as the results are.

    Args:
      model: folder of a version, or of a Trainer's artifact; None if there is none.
      results: folder of the results.
    """
    if model is None or "://" not in model or "://" in results:
        inside = model and path_utils.serving_model_path(model)
        yield inside if inside and fileio.exists(inside) else model
        return
    with tempfile.TemporaryDirectory(prefix="fpn-baseline-") as copy:
        yield fetch(model, copy)


def evaluate(
    predictions: Predictions, values: dict[tuple[SliceKey, str, str], float], settings: EvaluatorSettings
) -> Evaluation:
    """Computes all results of an evaluation.

    Args:
      predictions: the answers to the test split.
      values: (slice, CANDIDATE or BASELINE, name of the metric) -> value, as computed by TFMA.
      settings: settings of the component.
    """
    method, names = settings.confidence_intervals, settings.metrics
    keys = slice_images(predictions.rows, settings.slices, settings.buckets, predictions.multi_label)
    slices = [_measure(predictions, key, images, values, settings) for key, images in keys.items()]
    group = evaluate_groups(predictions, settings.groups, names, method)
    verdicts = _judge(predictions, slices, group, settings) if settings.judged else []
    return Evaluation(
        classes=predictions.classes,
        multi_label=predictions.multi_label,
        intervals=intervals.METHODS[method],
        slices=slices,
        verdicts=verdicts,
        blessed=all(verdict.passed for verdict in verdicts) if settings.judged else None,
        group=group,
        shortcuts=find_shortcuts(predictions, settings.max_shortcut),
        flips=flips(predictions),
    )


def _judge(
    predictions: Predictions, slices: list[Slice], group: GroupResult | None, settings: EvaluatorSettings
) -> list[Verdict]:
    """The verdicts on the answers themselves, then those on the thresholds, or by default if there are none."""
    if settings.thresholds:
        judged = judge(settings.thresholds, slices, group, predictions)
    else:
        judged = judge_by_default(slices[0], predictions.labels, settings.confidence_intervals != "none")
    return [*judge_answers(predictions), *judged]


def _measure(
    predictions: Predictions,
    key: SliceKey,
    images: np.ndarray,
    values: dict[tuple[SliceKey, str, str], float],
    settings: EvaluatorSettings,
) -> Slice:
    groups = predictions.groups[images]
    sizes = len(images), len(np.unique(groups))
    if key and len(images) < settings.min_slice_size:
        return Slice(key, *sizes, metrics={}, too_small=True)
    method, names = settings.confidence_intervals, [name for name in settings.metrics if name not in metrics.PROMISES]
    labels, probabilities = predictions.labels[images], predictions.probabilities[images]
    found = intervals.estimate(names, labels, probabilities, groups, method)
    comparisons: dict[str, Comparison] = {}
    if predictions.baseline is not None:
        baseline = predictions.baseline[images]
        compared = intervals.estimate_difference(names, labels, probabilities, baseline, groups, method)
        comparisons = {name: replace(item, baseline=values[key, BASELINE, name]) for name, item in compared.items()}
    by_class: list[dict[str, Metric]] = []
    if not key:
        of_class = [name for name, metric in metrics.METRICS.items() if metric.of_class]
        measured = intervals.estimate_by_class(of_class, labels, probabilities, groups, method)
        promised = estimate_promises_by_class(settings.metrics, predictions, method)
        by_class = [one | other for one, other in zip(measured, promised, strict=True)]
    return Slice(
        key,
        *sizes,
        metrics={
            **{name: Metric(values[key, CANDIDATE, name], item.lower, item.upper) for name, item in found.items()},
            **estimate_promises(settings.metrics, predictions, images, method),
        },
        by_class=dict(zip(predictions.classes, by_class, strict=False)),
        comparisons=comparisons,
    )


def _read_values(folder: str) -> dict[tuple[SliceKey, str, str], float]:
    """Reads the metrics that TFMA has written: (slice, model, metric) -> value."""
    values = {}
    for record in tfma.load_metrics(folder):
        key = tuple(
            sorted((item.column, _text(getattr(item, item.WhichOneof("kind")))) for item in record.slice_key.single_slice_keys)
        )
        for item in record.metric_keys_and_values:
            if not item.key.is_diff and not math.isnan(item.value.double_value.value):
                values[key, item.key.model_name or CANDIDATE, item.key.name] = item.value.double_value.value
    return values


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _write_blessing(blessing: Any, blessed: bool, model: Any, baseline: Any, exec_properties: dict[str, Any]) -> None:
    """Writes the same file and properties as TFX's Evaluator, for the Pusher and whoever reads the store."""
    blessing.set_string_custom_property(constants.ARTIFACT_PROPERTY_CURRENT_MODEL_URI_KEY, model.uri)
    blessing.set_int_custom_property(constants.ARTIFACT_PROPERTY_CURRENT_MODEL_ID_KEY, model.id)
    if baseline:
        blessing.set_string_custom_property(constants.ARTIFACT_PROPERTY_BASELINE_MODEL_URI_KEY, baseline.uri)
        blessing.set_int_custom_property(constants.ARTIFACT_PROPERTY_BASELINE_MODEL_ID_KEY, baseline.id)
    if "current_component_id" in exec_properties:
        blessing.set_string_custom_property("component_id", exec_properties["current_component_id"])
    name = constants.BLESSED_FILE_NAME if blessed else constants.NOT_BLESSED_FILE_NAME
    io_utils.write_string_file(os.path.join(blessing.uri, name), "")
    blessed_value = constants.BLESSED_VALUE if blessed else constants.NOT_BLESSED_VALUE
    blessing.set_int_custom_property(constants.ARTIFACT_PROPERTY_BLESSED_KEY, blessed_value)
    logging.info("Blessed." if blessed else "Not blessed.")
