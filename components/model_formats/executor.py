"""Converts the model, measures each format on the test split, and keeps the formats that pass their thresholds.

`exported_model` gets a copy of the SavedModel, with the files of the formats and `formats.json` in `assets.extra/formats`.
TensorFlow Serving can still read the folder.
"""

import itertools
import logging
import os
import time
from collections.abc import Iterable, Iterator
from typing import Any, Final

import numpy as np
import tensorflow as tf
from tfx.dsl.components.base import base_executor
from tfx.dsl.io import fileio
from tfx.types import Artifact, artifact_utils, standard_component_specs
from tfx.utils import io_utils, path_utils

from base.errors import UserError
from components.examples import split_files
from components.model_formats.results import FOLDER, FormatResult, write_results
from components.model_formats.settings import FormatSettings
from evaluation.groups import evaluate_groups
from evaluation.intervals import estimate, estimate_difference
from evaluation.predictions import Predictions
from evaluation.results import Slice, Verdict
from evaluation.slicing import slice_images
from evaluation.verdicts import judge
from models import features, formats
from models.packing import unpack
from models.preprocessing import parse_images
from models.records import read_records

SETTINGS_KEY: Final = "settings"
EXPORTED_KEY: Final = "exported_model"
_BATCH_SIZE: Final = 64
_NUM_REPRESENTATIVE: Final = 200  # images from which the ranges of 8-bit numbers are determined
_ROUNDS: Final = 60  # measurements of the latency
_SAVED_MODEL: Final = "saved_model"
_ALWAYS_MEASURED: Final = ("accuracy", "cross_entropy")  # in addition to the metrics of the thresholds

log = logging.getLogger(__name__)


class Executor(base_executor.BaseExecutor):
    """See the module."""

    def Do(
        self,
        input_dict: dict[str, list[Artifact]],
        output_dict: dict[str, list[Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes the model with its formats.

        Raises:
          UserError: a format's packages are not installed.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        settings = unpack(FormatSettings, exec_properties[SETTINGS_KEY])
        (examples,) = input_dict[standard_component_specs.EXAMPLES_KEY]
        source = path_utils.serving_model_path(artifact_utils.get_single_uri(input_dict[standard_component_specs.MODEL_KEY]))
        evaluation = artifact_utils.get_single_uri(input_dict[standard_component_specs.EVALUATION_KEY])
        model = path_utils.serving_model_path(artifact_utils.get_single_uri(output_dict[EXPORTED_KEY]))
        io_utils.copy_dir(source, model)
        fileio.makedirs(os.path.join(model, FOLDER))

        signatures = tf.saved_model.load(model).signatures
        train, test = (split_files(examples, splits) for splits in (settings.train, settings.test))
        contents, errors = _convert(model, settings.formats, signatures, train)
        predict = _predict_functions(signatures, contents)
        answers = _answers(predict, contents, _images(signatures, test))
        latencies = measure_latency(predict, next(_images(signatures, test))[:1])

        reference = Predictions.read(evaluation)
        metrics = _metrics(reference.labels, reference.probabilities, _names(settings))
        results = [FormatResult(_SAVED_MODEL, "", _model_bytes(model), latencies[_SAVED_MODEL], metrics)]
        for kind in settings.formats:
            if kind in errors:
                results.append(FormatResult(kind, error=errors[kind]))
                continue
            if not np.isfinite(answers[kind]).all():
                results.append(FormatResult(kind, error="answers with numbers that are not finite"))
                continue
            verdicts = judge_format(reference, answers[kind], settings)
            file = formats.FILES[kind] if all(verdict.passed for verdict in verdicts) else ""
            if file:
                with fileio.open(os.path.join(model, FOLDER, file), "wb") as target:
                    target.write(contents[kind])
            metrics = _metrics(reference.labels, answers[kind], _names(settings))
            results.append(FormatResult(kind, file, len(contents[kind]), latencies[kind], metrics, verdicts))
        write_results(results, model)


def _convert(
    model: str, kinds: Iterable[formats.Format], signatures: Any, train: list[str]
) -> tuple[dict[formats.Format, bytes], dict[formats.Format, str]]:
    """Converts a SavedModel to each format: the contents of the files, and the reasons of conversions that failed.

    Raises:
      UserError: a format's packages are not installed.
    """
    contents: dict[formats.Format, bytes] = {}
    errors: dict[formats.Format, str] = {}
    for kind in kinds:
        try:
            contents[kind] = formats.convert(model, kind, _representative_images(signatures, train))
        except ImportError as error:
            raise UserError(
                f"export.formats: {kind} needs the package {error.name}; install the project with its extra onnx"
            ) from error
        except Exception as error:  # the format lacks an operation; that must not lose hours of training
            log.exception("no conversion to %s", kind)
            errors[kind] = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    return contents, errors


def _predict_functions(signatures: Any, contents: dict[formats.Format, bytes]) -> dict[str, formats.Predict]:
    """For the SavedModel and each format, a function of uint8 images [N, height, width, channels]."""
    threads = os.cpu_count() or 1
    loaded: dict[str, formats.Predict] = {kind: formats.load(content, kind, threads) for kind, content in contents.items()}
    return {
        _SAVED_MODEL: lambda images: {
            name: value.numpy() for name, value in signatures[formats.SIGNATURE](images=tf.constant(images)).items()
        },
        **loaded,
    }


def _answers(
    predict: dict[str, formats.Predict], kinds: Iterable[formats.Format], batches: Iterator[np.ndarray]
) -> dict[formats.Format, np.ndarray]:
    """The probabilities of each format, float32 [images, classes]. Each batch is decoded once for all formats."""
    found: dict[formats.Format, list[np.ndarray]] = {kind: [] for kind in kinds}
    for images in batches:
        for kind, rows in found.items():
            rows.append(predict[kind](images)["probabilities"])
    return {kind: np.concatenate(rows) for kind, rows in found.items()}


def judge_format(reference: Predictions, probabilities: np.ndarray, settings: FormatSettings) -> list[Verdict]:
    """Judges a format by the thresholds.

    Args:
      reference: the test split, with the answers of the SavedModel.
      probabilities: float32 [images, classes], the answers of the format.
      settings: settings of the component.
    """
    names = [threshold.metric for threshold in settings.thresholds]
    wanted = [threshold.features for threshold in settings.thresholds if threshold.features]
    predictions = Predictions(
        reference.rows, reference.classes, reference.multi_label, probabilities, baseline=reference.probabilities
    )
    slices = []
    for key, rows in slice_images(predictions.rows, wanted, settings.buckets, predictions.multi_label).items():
        groups, labels = predictions.groups[rows], predictions.labels[rows]
        sizes = len(rows), len(np.unique(groups))
        if key and len(rows) < settings.min_slice_size:
            slices.append(Slice(key, *sizes, metrics={}, too_small=True))
            continue
        found = estimate(names, labels, probabilities[rows], groups, "none")
        compared = estimate_difference(names, labels, probabilities[rows], reference.probabilities[rows], groups, "none")
        slices.append(Slice(key, *sizes, metrics=found, comparisons=compared))
    group = evaluate_groups(predictions, settings.groups, names, "none")
    return judge(settings.thresholds, slices, group, baseline="the SavedModel")


def measure_latency(predict: dict[str, formats.Predict], image: np.ndarray) -> dict[str, float]:
    """Measures the median time of one image in milliseconds, by name of the format.

    The formats take turns, so that other load on the machine affects all of them equally.

    Args:
      predict: for each format, a function of uint8 [1, height, width, channels].
      image: uint8 [1, height, width, channels].
    """
    times: dict[str, list[float]] = {name: [] for name in predict}
    for _ in range(_ROUNDS):
        for name, answer in predict.items():
            answer(image)  # not timed: fills the processor's caches, which another format has used
            start = time.perf_counter()
            answer(image)
            times[name].append(time.perf_counter() - start)
    return {name: float(np.median(found)) * 1000 for name, found in times.items()}


def _names(settings: FormatSettings) -> list[str]:
    return list(dict.fromkeys([*_ALWAYS_MEASURED, *(threshold.metric for threshold in settings.thresholds)]))


def _metrics(labels: np.ndarray, probabilities: np.ndarray, names: list[str]) -> dict[str, float]:
    found = estimate(names, labels, probabilities, np.arange(len(probabilities)), "none")
    return {name: metric.value for name, metric in found.items()}


def _images(signatures: Any, files: list[str]) -> Iterator[np.ndarray]:
    """Yields batches of the images as the network sees them, uint8 [N, height, width, channels]."""
    text = tf.io.FixedLenFeature([], tf.string, "")
    shape = signatures["decode"].structured_outputs["images"].shape[1:]
    for file in files:
        for records in read_records(file).batch(_BATCH_SIZE).prefetch(1):
            found = tf.io.parse_example(records, {features.ENCODED: text, features.PIXELS: text})
            if tf.reduce_any(found[features.ENCODED] == ""):  # pixels stand in for the files of a split
                yield parse_images(found[features.PIXELS], shape).numpy()
            else:
                yield signatures["decode"](image_bytes=found[features.ENCODED])["images"].numpy()


def _representative_images(signatures: Any, files: list[str]) -> Iterator[np.ndarray]:
    """Yields about `_NUM_REPRESENTATIVE` images, the same number from each file."""
    share = -(-_NUM_REPRESENTATIVE // max(1, len(files)))
    for file in files:
        batches = _images(signatures, [file])
        yield from itertools.islice((image for batch in batches for image in batch), share)


def _model_bytes(model: str) -> int:
    folder = os.path.join(model, "variables")
    names = [os.path.join(model, "saved_model.pb"), *(os.path.join(folder, name) for name in fileio.listdir(folder))]
    return sum(int(tf.io.gfile.stat(name).length) for name in names)
