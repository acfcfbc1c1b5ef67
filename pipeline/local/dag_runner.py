"""LocalDagRunner on a store that several runs share."""

import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from unittest import mock

import ml_metadata as mlmd
from google.protobuf import message
from google.protobuf.descriptor import FieldDescriptor
from ml_metadata.proto import metadata_store_pb2
from tfx.dsl.compiler import constants
from tfx.orchestration.local.local_dag_runner import LocalDagRunner
from tfx.orchestration.portable import launcher, runtime_parameter_utils
from tfx.orchestration.portable.mlmd import context_lib
from tfx.proto.orchestration import pipeline_pb2

from components.pusher.run_folder import tell_run_folder
from pipeline.dag.pipeline import NEVER_CACHED
from pipeline.local.launcher import CheckingLauncher
from pipeline.records.notes import Note
from pipeline.records.store import MetadataType, Store, register_types

_TYPES = (metadata_store_pb2.ArtifactType, metadata_store_pb2.ExecutionType, metadata_store_pb2.ContextType)


class DagRunner(LocalDagRunner):
    """Names the run, passes its folder to the components, and makes a server's metadata types before they do.

    Components are launched by `CheckingLauncher`.
    """

    def __init__(
        self, store: Store, folder: Path, tell: Callable[[Note], None], before: Mapping[str, Callable[[], None]] | None = None
    ):
        """Creates the runner.

        Args:
          store: where the run is recorded.
          folder: absolute path of the run's own folder.
          tell: is given what a person should know at once.
          before: functions to call before the components that it names, also if these come from the cache. An error of theirs
            ends the run.
        """
        super().__init__()
        self._store = store
        self._folder = folder
        self._launcher = functools.partial(CheckingLauncher, tell=tell, before=before or {})

    def run_with_ir(self, pipeline: pipeline_pb2.Pipeline, run_options: pipeline_pb2.RunOptions | None = None) -> None:
        """Args: see LocalDagRunner."""
        name = self._store.new_run_name()
        runtime_parameter_utils.substitute_runtime_parameter(pipeline, {constants.PIPELINE_RUN_ID_PARAMETER_NAME: name})
        tell_run_folder(pipeline, str(self._folder))
        for node in (item.pipeline_node for item in pipeline.nodes):
            if node.node_info.id in NEVER_CACHED:
                node.execution_options.caching_options.enable_cache = False
        if self._store.owner:
            cache = metadata_store_pb2.ContextType(name=context_lib.CONTEXT_TYPE_EXECUTION_CACHE)
            register_types(self._store.open(), [*_types_in(pipeline), cache])
        # TFX has no other way to take a different store and a different launcher.
        with (
            mock.patch.object(mlmd, "MetadataStore", self._store.kind),
            mock.patch.object(launcher, "Launcher", self._launcher),
        ):
            super().run_with_ir(pipeline, run_options)


def _types_in(content: message.Message) -> Iterator[MetadataType]:
    """All metadata types anywhere in a compiled pipeline."""
    if isinstance(content, _TYPES):
        yield content
        return
    for descriptor, value in content.ListFields():
        if descriptor.type != FieldDescriptor.TYPE_MESSAGE:
            continue
        if descriptor.message_type.GetOptions().map_entry:
            items = value.values()
        else:
            items = value if descriptor.is_repeated else [value]
        for item in items:
            if isinstance(item, message.Message):
                yield from _types_in(item)
