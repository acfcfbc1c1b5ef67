"""Answers all examples with a blessed model, one file of examples at a time."""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, Final

import apache_beam as beam
from tfx.components.util import model_utils
from tfx.dsl.components.base import base_beam_executor
from tfx.types import artifact_utils, standard_component_specs
from tfx.utils import path_utils

from components.bulk_inferrer.model import Model, gives, is_multi_label, read_classes
from components.bulk_inferrer.reading import read_images
from components.bulk_inferrer.scores import Tables
from components.bulk_inferrer.settings import InferrerSettings
from components.examples import split_files
from components.spread import spread
from models.packing import unpack
from storage.files import replace_file

SETTINGS_KEY: Final = "settings"
SUMMARY_FILE: Final = "summary.json"  # the fields of `scores.Counts`


class _ScoreFile(beam.DoFn):
    """Writes the tables of a shard for each element (number, file of raw examples); yields the number."""

    def __init__(self, model: str, tables: Tables, batch_size: int) -> None:
        self._folder = model
        self._tables = tables
        self._batch_size = batch_size

    def setup(self) -> None:
        self._model = Model(self._folder, self._tables.embeddings)

    def process(self, element: tuple[int, str]) -> Iterator[int]:
        number, file = element
        self._tables.write(number, self._model.answer(read_images(file, self._batch_size), self._batch_size))
        yield number


class Executor(base_beam_executor.BaseBeamExecutor):
    """Replaces TFX's executor, which fails on outputs that are text, keeps all images in memory, and copies them."""

    def Do(self, input_dict: dict[str, Any], output_dict: dict[str, Any], exec_properties: dict[str, Any]) -> None:
        """Writes the tables of `scores.Tables` and their counts; nothing if the model is not blessed or failed its check."""
        self._log_startup(input_dict, output_dict, exec_properties)
        blessing = artifact_utils.get_single_instance(input_dict[standard_component_specs.MODEL_BLESSING_KEY])
        checks = input_dict.get(standard_component_specs.INFRA_BLESSING_KEY) or []
        if not (model_utils.is_model_blessed(blessing) and all(map(model_utils.is_infra_validated, checks))):
            return
        settings = unpack(InferrerSettings, exec_properties[SETTINGS_KEY])
        folder = artifact_utils.get_single_uri(output_dict[standard_component_specs.INFERENCE_RESULT_KEY])
        model = path_utils.serving_model_path(artifact_utils.get_single_uri(input_dict[standard_component_specs.MODEL_KEY]))
        (examples,) = input_dict[standard_component_specs.EXAMPLES_KEY]
        files = split_files(examples)
        told = (gives(model, output) for output in ("label_set", "unusual"))
        tables = Tables(folder, read_classes(model), is_multi_label(model), len(files), settings.embeddings, *told)
        work = _ScoreFile(model, tables, settings.batch_size)
        spread(self._make_beam_pipeline(), "ScoreFile", work, list(enumerate(files)))
        counts = json.dumps(asdict(tables.finish(settings.groups)), indent=2)
        replace_file(os.path.join(folder, SUMMARY_FILE), lambda file: file.write(counts.encode()))
