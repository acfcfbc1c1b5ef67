"""The metrics of `metrics.METRICS` as a metric of TFMA that processes images in batches.

TFMA's own metrics process one image at a time, and Beam has one element per slice and image, each of which takes about a
millisecond. Here an element holds all images of a slice in a part of the test split.
"""

import math
from collections.abc import Iterable, Iterator
from typing import Any, Final

import apache_beam as beam
import numpy as np
from tensorflow_model_analysis import constants
from tensorflow_model_analysis.extractors import extractor
from tensorflow_model_analysis.metrics import metric_types, metric_util
from tensorflow_model_analysis.proto import metrics_for_slice_pb2

from evaluation import metrics
from evaluation.predictions import Predictions
from evaluation.results import SliceKey

EXAMPLE_COUNT: Final = "example_count"
CONFUSION_MATRIX: Final = "confusion_matrix"  # name of a plot
CANDIDATE: Final = "candidate"  # TFMA's names of the two models in a comparison
BASELINE: Final = "baseline"

_Accumulator = list[tuple[np.ndarray, np.ndarray]]  # labels and probabilities


class Classification(metric_types.Metric):
    """All metrics of a slice, computed together and by_model as in `metrics.METRICS`, and the number of images."""

    def __init__(self, names: list[str], multi_label: bool, name: str = "classification") -> None:
        super().__init__(metric_util.merge_per_key_computations(_computations), names=names, multi_label=multi_label, name=name)


metric_types.register_metric(Classification)


def _computations(
    names: list[str], multi_label: bool, name: str, model_name: str = "", output_name: str = ""
) -> metric_types.MetricComputations:
    del name, output_name
    keys = [metric_types.MetricKey(name, model_name=model_name) for name in (*names, EXAMPLE_COUNT)]
    return [metric_types.MetricComputation(keys=keys, preprocessors=None, combiner=_Combiner(names, multi_label, model_name))]


class _Combiner(beam.CombineFn):
    """Collects labels and probabilities, which take 4 bytes per image and class."""

    def __init__(self, names: list[str], multi_label: bool, model_name: str) -> None:
        self._names = names
        self._multi_label = multi_label
        self._model_name = model_name

    def create_accumulator(self) -> _Accumulator:
        return []

    def add_input(self, accumulator: _Accumulator, element: dict[str, Any]) -> _Accumulator:
        accumulator.append(
            (self._select_model(element[constants.LABELS_KEY]), self._select_model(element[constants.PREDICTIONS_KEY]))
        )
        return accumulator

    def _select_model(self, values: Any) -> np.ndarray:
        return values[self._model_name] if isinstance(values, dict) else values

    def merge_accumulators(self, accumulators: Iterable[_Accumulator]) -> _Accumulator:
        return [item for accumulator in accumulators for item in accumulator]

    def extract_output(self, accumulator: _Accumulator) -> dict[Any, Any]:
        labels, probabilities = (np.concatenate(parts) for parts in zip(*accumulator, strict=True))
        values = {**metrics.compute(self._names, labels, probabilities), EXAMPLE_COUNT: float(len(labels))}
        output: dict[Any, Any] = {
            metric_types.MetricKey(name, model_name=self._model_name): value
            for name, value in values.items()
            if not math.isnan(value)
        }
        if not self._multi_label:
            plot = metric_types.PlotKey(CONFUSION_MATRIX, model_name=self._model_name)
            output[plot] = _confusion_matrix(labels, probabilities)
        return output


def _confusion_matrix(
    labels: np.ndarray, probabilities: np.ndarray
) -> metrics_for_slice_pb2.MultiClassConfusionMatrixAtThresholds:
    pairs, counts = np.unique(np.stack([labels, probabilities.argmax(axis=-1)]), axis=1, return_counts=True)
    plot = metrics_for_slice_pb2.MultiClassConfusionMatrixAtThresholds()
    matrix = plot.matrices.add(threshold=0.0)
    for actual, predicted, count in zip(*pairs.tolist(), counts.tolist(), strict=True):
        matrix.entries.add(actual_class_id=actual, predicted_class_id=predicted, num_weighted_examples=count)
    return plot


def make_extracts(
    predictions: Predictions, slices: dict[SliceKey, np.ndarray], start: int, stop: int
) -> Iterator[dict[str, Any]]:
    """The extracts for TFMA's evaluator: for each slice its images from `start` to below `stop`."""
    labels = predictions.labels

    def by_model(candidate: np.ndarray, baseline: np.ndarray | None) -> Any:
        return candidate if baseline is None else {CANDIDATE: candidate, BASELINE: baseline}

    for key, images in slices.items():
        part = images[np.searchsorted(images, start) : np.searchsorted(images, stop)]
        if len(part):
            of_baseline = None if predictions.baseline is None else predictions.baseline[part]
            yield {
                constants.INPUT_KEY: b"",  # without it TFMA warns that it can't count the bytes
                constants.SLICE_KEY_TYPES_KEY: [key],
                constants.LABELS_KEY: by_model(labels[part], None if of_baseline is None else labels[part]),
                constants.PREDICTIONS_KEY: by_model(predictions.probabilities[part], of_baseline),
                constants.EXAMPLE_WEIGHTS_KEY: None,
            }


# Replaces all of TFMA's extractors, under the name of the last one: the extracts have everything already.
EXTRACTORS: Final = [extractor.Extractor("ExtractSliceKeys", beam.Map(lambda extracts: extracts))]
