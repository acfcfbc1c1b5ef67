"""LocalDagRunner on a store that several runs share."""

import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import ml_metadata as mlmd
from google.protobuf import message
from google.protobuf.descriptor import FieldDescriptor
from ml_metadata.proto import metadata_store_pb2
from tfx.dsl.compiler import constants
from tfx.orchestration.local.local_dag_runner import LocalDagRunner
from tfx.orchestration.portable import data_types, launcher, runtime_parameter_utils
from tfx.orchestration.portable.mlmd import context_lib
from tfx.proto.orchestration import pipeline_pb2

from components.pusher.run_folder import tell_run_folder
from pipeline.dag.pipeline import NEVER_CACHED
from pipeline.records.store import MetadataType, Store, register_types

_TYPES = (metadata_store_pb2.ArtifactType, metadata_store_pb2.ExecutionType, metadata_store_pb2.ContextType)


class DagRunner(LocalDagRunner):
    """Names the run, passes its folder to the components, and makes a server's metadata types before they do."""

    def __init__(self, store: Store, folder: Path, before: Mapping[str, Callable[[], None]] | None = None):
        """Creates the runner.

        Args:
          store: where the run is recorded.
          folder: absolute path of the run's own folder.
          before: functions to call before the components that it names, also if these come from the cache. An error of theirs
            ends the run.
        """
        super().__init__()
        self._store = store
        self._folder = folder
        self._before = before or {}

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
        # TFX has no other way to take a different store, or to do something between two components.
        with (
            mock.patch.object(mlmd, "MetadataStore", self._store.kind),
            mock.patch.object(launcher, "Launcher", functools.partial(_Launcher, self._before)),
        ):
            super().run_with_ir(pipeline, run_options)


class _Launcher(launcher.Launcher):
    """Calls the function that is to be called before the component."""

    def __init__(
        self, before: Mapping[str, Callable[[], None]], *, pipeline_node: pipeline_pb2.PipelineNode, **others: Any
    ) -> None:
        super().__init__(pipeline_node=pipeline_node, **others)
        self._check = before.get(pipeline_node.node_info.id)

    def launch(self) -> data_types.ExecutionInfo:
        if self._check:
            self._check()
        return super().launch()


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
