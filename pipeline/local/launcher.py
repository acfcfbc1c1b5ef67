"""TFX's launcher of a component, which takes from the cache only what is still as it was made."""

from collections.abc import Callable, Mapping
from typing import Any
from unittest import mock

from tfx.orchestration.portable import data_types, launcher, outputs_utils
from tfx.proto.orchestration import execution_result_pb2
from tfx.types import Artifact, artifact_utils, standard_artifacts

from base.errors import UserError
from pipeline.records.notes import MadeAgainNote, Note
from storage.made_files import FILES_PROPERTY, begin_records, find_change, record_files

_MODEL = standard_artifacts.Model.TYPE_NAME
_PUSHED = standard_artifacts.PushedModel.TYPE_NAME


class CheckingLauncher(launcher.Launcher):
    """Records the files of each output; compares them before an output is taken from the cache, and before a push."""

    def __init__(self, *, tell: Callable[[Note], None], before: Mapping[str, Callable[[], None]], **settings: Any) -> None:
        """Creates the launcher.

        Args:
          tell: is given a note if what was made before has changed.
          before: functions to call before the components that it names, also if these come from the cache.
          **settings: see TFX's Launcher.
        """
        super().__init__(**settings)
        self._tell = tell
        self._before = before
        self._changes: dict[int, str] = {}  # by the artifact's id

    def launch(self) -> data_types.ExecutionInfo:
        if check := self._before.get(self._pipeline_node.node_info.id):
            check()
        return super().launch()

    def _prepare_execution(self) -> Any:
        # TFX goes through earlier executions with the same inputs, the latest first, and asks this function about the outputs.
        with mock.patch.object(artifact_utils, "verify_artifacts", self._verify):
            return super()._prepare_execution()

    def _verify(self, outputs: dict[str, list[Artifact]]) -> None:
        """Raises RuntimeError if an output is not as it was made."""
        for artifact in (item for items in outputs.values() for item in items):
            if artifact.id not in self._changes:
                self._changes[artifact.id] = _find_change(artifact)
            if change := self._changes[artifact.id]:
                raise RuntimeError(change)

    def _run_executor(self, execution_info: data_types.ExecutionInfo) -> execution_result_pb2.ExecutorOutput:
        if change := next(filter(None, self._changes.values()), ""):
            self._tell(MadeAgainNote(self._pipeline_node.node_info.id, change))
        outputs = [artifact for items in execution_info.output_dict.values() for artifact in items]
        if any(artifact.type_name == _PUSHED for artifact in outputs):
            _check_what_is_pushed(execution_info.input_dict)
        for artifact in outputs:
            begin_records(artifact.uri)
        done = super()._run_executor(execution_info)
        try:
            for items in done.output_artifacts.values():
                for item in items.artifacts:
                    item.custom_properties[FILES_PROPERTY].string_value = record_files(item.uri)
        except OSError:
            outputs_utils.remove_output_dirs(execution_info.output_dict)
            raise
        return done


def _find_change(artifact: Artifact) -> str:
    """See `storage.made_files.find_change`. Outputs of a version that kept no records have changed, too."""
    digest = artifact.get_string_custom_property(FILES_PROPERTY)
    if not digest:
        return f"{artifact.uri} was made by an earlier version, which did not record its files"
    return find_change(artifact.uri, digest, contents=artifact.type_name == _MODEL)


def _check_what_is_pushed(inputs: dict[str, list[Artifact]]) -> None:
    for artifact in (item for items in inputs.values() for item in items if item.type_name == _MODEL):
        if change := _find_change(artifact):
            raise UserError(f"{change}, so it is not pushed; start the run again, which makes it again")
