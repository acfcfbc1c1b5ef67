"""Makes a blessed model the newest version in a folder.

`pushed_model` gets a copy of the model and TFX's properties: `pushed` (1 or 0), `pushed_destination` (the version's folder) and
`pushed_version`. If the newest version had the model already, the property `already_served` is 1, and no copy is kept.
"""

import os
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from tfx.components.pusher import executor as stock_executor
from tfx.dsl.io import fileio
from tfx.types import Artifact, artifact_utils, standard_component_specs
from tfx.utils import io_utils

from base.errors import UserError
from components.pusher.classes import check_classes, read_labels
from components.pusher.record import Record
from components.pusher.run_folder import run_folder_of
from components.pusher.settings import PusherSettings
from components.pusher.versions import push
from evaluation.results import Evaluation, read_evaluation
from models.packing import unpack

FOLDER_KEY: Final = "folder"
SETTINGS_KEY: Final = "settings"
ALREADY_SERVED: Final = "already_served"
_PACKAGES: Final = ("fpn-pipeline", "tensorflow")  # whose versions are in the record
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
          UserError: the folder can't be written, its model has other classes, the key can't be used, or the evaluation says
            that the model is bad.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        pushed = artifact_utils.get_single_instance(output_dict[standard_component_specs.PUSHED_MODEL_KEY])
        if not self.CheckBlessing(input_dict):
            self._MarkNotPushed(pushed)
            return
        settings = unpack(PusherSettings, exec_properties[SETTINGS_KEY])
        model, folder = self.GetModelPath(input_dict), exec_properties[FOLDER_KEY]
        evaluation = _evaluation(input_dict)
        classes = evaluation.classes if evaluation else read_labels(model) or []
        if classes:
            check_classes(folder, classes, replace=settings.replace)
        io_utils.copy_dir(model, pushed.uri)
        run_folder = run_folder_of(self._context)
        record = Record(
            pipeline=settings.pipeline,
            run=os.path.basename(run_folder) or (self._context and self._context.pipeline_run_id) or "",
            run_folder=run_folder,
            data=_fingerprint(input_dict),
            code=settings.code,
            configuration=settings.configuration,
            versions={name: metadata.version(name) for name in _PACKAGES},
            classes=classes,
            metrics={name: asdict(metric) for name, metric in evaluation.overall.items()} if evaluation else {},
        )
        version = push(model, folder, record, settings.keep, Path(settings.sign) if settings.sign else None)
        self._MarkPushed(pushed, pushed_destination=version.path, pushed_version=str(version.number))
        if version.record and (version.record.run, version.record.run_folder) != (record.run, record.run_folder):
            pushed.set_int_custom_property(ALREADY_SERVED, 1)
            fileio.rmtree(pushed.uri)  # each run would leave one more copy
            fileio.makedirs(pushed.uri)


def _fingerprint(inputs: dict[str, list[Artifact]]) -> str:
    examples = inputs.get(standard_component_specs.EXAMPLES_KEY)
    return examples[0].get_string_custom_property(_FINGERPRINT) if examples else ""


def _evaluation(inputs: dict[str, list[Artifact]]) -> Evaluation | None:
    """The evaluation, if there is one.

    Raises:
      UserError: the model has failed a verdict, whatever its blessing says.
    """
    artifacts = inputs.get(standard_component_specs.EVALUATION_KEY)
    if not artifacts:
        return None
    evaluation = read_evaluation(artifacts[0].uri)
    if failed := [verdict for verdict in evaluation.verdicts if not verdict.passed]:
        raise UserError(f"{artifacts[0].uri}: the model is blessed, but has failed its evaluation ({failed[0]}); run again")
    return evaluation
