"""Prepares requests, starts the process that sends them to the model, and blesses the model if its answers are good."""

import itertools
import json
import logging
import os
import time
from typing import Any, Final

import numpy as np
import tensorflow as tf
from tfx.dsl.components.base import base_executor
from tfx.dsl.io import fileio
from tfx.types import artifact_utils, standard_component_specs
from tfx.utils import io_utils, path_utils

from base.errors import UserError
from components.examples import split_files
from components.model_check import checker, process
from components.model_check.results import CheckResult, judge, write_check
from components.model_check.settings import CheckSettings
from evaluation.predictions import Predictions
from models import features
from models.packing import unpack
from models.records import read_records

SETTINGS_KEY: Final = "settings"
_TIMED_SECONDS: Final = 1.0  # for the requests of a batch size, where the time of an answer is only told
_JUDGED_SECONDS: Final = 5.0  # where it is judged
_MAX_RECORDS_PER_IMAGE: Final = 16  # largest number of records that are read per image used


class Executor(base_executor.BaseExecutor):
    """Replaces TFX's executor of InfraValidator, and writes the same blessing."""

    def Do(self, input_dict: dict[str, Any], output_dict: dict[str, Any], exec_properties: dict[str, Any]) -> None:
        """Writes the result of the check and the blessing."""
        self._log_startup(input_dict, output_dict, exec_properties)
        settings = unpack(CheckSettings, exec_properties[SETTINGS_KEY])
        model = artifact_utils.get_single_instance(input_dict[standard_component_specs.MODEL_KEY])
        (examples,) = input_dict[standard_component_specs.EXAMPLES_KEY]
        evaluation = artifact_utils.get_single_uri(input_dict[standard_component_specs.EVALUATION_KEY])
        blessing = artifact_utils.get_single_instance(output_dict[standard_component_specs.INFRA_BLESSING_KEY])
        files = split_files(examples, settings.splits)
        result = check_model(path_utils.serving_model_path(model.uri), files, Predictions.read(evaluation), settings)
        fileio.makedirs(blessing.uri)
        write_check(result, blessing.uri)
        for reason in result.reasons:
            logging.error("ModelCheck: %s", reason)
        name = "INFRA_BLESSED" if result.passed else "INFRA_NOT_BLESSED"  # as TFX's InfraValidator does
        io_utils.write_string_file(os.path.join(blessing.uri, name), "")
        blessing.set_int_custom_property("blessed", int(result.passed))
        blessing.set_int_custom_property("current_model_id", model.id)  # as the Evaluator does


def check_model(model: str, files: list[str], predictions: Predictions, settings: CheckSettings) -> CheckResult:
    """Checks a model in a separate process.

    Args:
      model: folder of the SavedModel.
      files: TFRecord files of raw examples.
      predictions: the Evaluator's predictions for the same examples.
      settings: settings of the component.

    Raises:
      UserError: there are no images for the requests.
    """
    names, records, probabilities = _choose_images(files, predictions, settings.images)
    if not records:
        raise UserError(
            "check: no images in the test split to ask the model about; give data.splits.test a share, or add images"
        )
    started = time.time()
    request = {
        "model": model,
        "encoded": features.ENCODED,
        "separator": features.LABEL_SEPARATOR,
        "names": names,
        "classes": predictions.classes,
        "multi_label": predictions.multi_label,
        "timed_seconds": _TIMED_SECONDS if settings.max_latency_ms is None else _JUDGED_SECONDS,
        "abstains": [features.UNKNOWN] if predictions.answered is not None and not predictions.answered.all() else [],
    }
    with process.take() as checking:
        place = checking.folder
        with tf.io.TFRecordWriter(str(place / checker.EXAMPLES_FILE)) as writer:
            for record in records:
                writer.write(record)
        np.save(place / checker.PROBABILITIES_FILE, probabilities)
        (place / checker.REQUEST_FILE).write_text(json.dumps(request), encoding="utf-8")
        died = checking.run(settings.timeout_seconds)
        found = place / checker.FINDINGS_FILE
        lines = found.read_text(encoding="utf-8").splitlines() if found.exists() else []
    findings = [json.loads(line) for line in lines if line.endswith("}")]  # the last one may be cut short
    if not died and not any("done" in finding for finding in findings):
        died = "ended by the model"
    return judge(findings, settings, len(records), time.time() - started, died)


def _choose_images(files: list[str], predictions: Predictions, wanted: int) -> tuple[list[str], list[bytes], np.ndarray]:
    """Chooses images from all parts of the split: their names, examples, and predicted probabilities [images, classes]."""
    rows = {name: row for row, name in enumerate(predictions.rows[features.FILENAME])}
    step = min(max(len(rows) // wanted, 1), _MAX_RECORDS_PER_IMAGE)
    parts = (read_records(file).shard(step, 0).as_numpy_iterator() for file in files)
    in_turn = (record for several in itertools.zip_longest(*parts) for record in several if record is not None)
    records = list(itertools.islice(in_turn, wanted))
    parsed = (tf.train.Example.FromString(record).features.feature for record in records)
    names = [feature[features.FILENAME].bytes_list.value[0].decode() for feature in parsed]
    return names, records, predictions.probabilities[[rows[name] for name in names]]
