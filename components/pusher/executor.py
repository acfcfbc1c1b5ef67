"""Makes a blessed model the newest version in a folder.

`pushed_model` gets a copy of the model and TFX's properties: `pushed` (1 or 0), `pushed_destination` (the version's folder) and
`pushed_version`.
"""

import os
from dataclasses import asdict
from typing import Any, Final

from tfx.components.pusher import executor as stock_executor
from tfx.types import Artifact, artifact_utils, standard_component_specs
from tfx.utils import io_utils

from components.pusher.run_folder import run_folder_of
from components.pusher.settings import PusherSettings
from components.pusher.versions import Record, push
from evaluation.results import read_evaluation
from models.packing import unpack

FOLDER_KEY: Final = "folder"
SETTINGS_KEY: Final = "settings"
_FINGERPRINT: Final = "input_fingerprint"  # property that the driver of the ingestion sets on the examples


class Executor(stock_executor.Executor):
    """Checks blessings and finds the model as TFX's Pusher does, but pushes with `versions.push`."""

    def Do(
        self,
        input_dict: dict[str, list[Artifact]],
        output_dict: dict[str, list[Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Pushes the model if all given blessings are positive.

        Args:
          input_dict: model; optionally model_blessing, infra_blessing, evaluation and examples.
          output_dict: pushed_model.
          exec_properties: folder, and the packed settings.

        Raises:
          UserError: the folder can't be written.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        pushed = artifact_utils.get_single_instance(output_dict[standard_component_specs.PUSHED_MODEL_KEY])
        if not self.CheckBlessing(input_dict):
            self._MarkNotPushed(pushed)
            return
        settings = unpack(PusherSettings, exec_properties[SETTINGS_KEY])
        model = self.GetModelPath(input_dict)
        io_utils.copy_dir(model, pushed.uri)
        run_folder = run_folder_of(self._context)
        record = Record(
            pipeline=settings.pipeline,
            run=os.path.basename(run_folder) or (self._context and self._context.pipeline_run_id) or "",
            run_folder=run_folder,
            data=_fingerprint(input_dict),
            metrics=_metrics(input_dict),
        )
        version = push(model, exec_properties[FOLDER_KEY], record, settings.keep)
        self._MarkPushed(pushed, pushed_destination=version.path, pushed_version=str(version.number))


def _fingerprint(inputs: dict[str, list[Artifact]]) -> str:
    examples = inputs.get(standard_component_specs.EXAMPLES_KEY)
    return examples[0].get_string_custom_property(_FINGERPRINT) if examples else ""


def _metrics(inputs: dict[str, list[Artifact]]) -> dict[str, dict[str, Any]]:
    evaluation = inputs.get(standard_component_specs.EVALUATION_KEY)
    overall = read_evaluation(evaluation[0].uri).overall if evaluation else {}
    return {name: asdict(metric) for name, metric in overall.items()}
