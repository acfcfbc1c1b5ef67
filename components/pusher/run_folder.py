"""Passes the folder of the run from the local runner to the Pusher.

`fpn run` keeps a folder for each run: `runs/RUN_ID/` has its configuration and its report. The record of a pushed version
names that folder, so the Pusher must know it:

- The runner calls `tell_run_folder`. It sets the property `run_folder` on the run's context, to which every component of a
  compiled pipeline refers. ML Metadata keeps the property: `context.custom_properties["run_folder"]` of the type
  `pipeline_run`.
- The Pusher calls `run_folder_of` with the context of its executor.
- The property is not part of the cache key of a component. A parameter would be, and then every run would push again.
- Where runs have no folder, as on Kubeflow, the property is not set, and `run_folder_of` returns "".
"""

from collections.abc import Iterable
from typing import Final

from tfx.dsl.compiler import constants
from tfx.dsl.components.base.base_executor import BaseExecutor
from tfx.proto.orchestration import pipeline_pb2

PROPERTY: Final = "run_folder"


def tell_run_folder(pipeline: pipeline_pb2.Pipeline, folder: str) -> None:
    """Sets the run's folder in a compiled pipeline, for all of its components.

    Args:
      pipeline: the compiled pipeline, which is changed in place.
      folder: an absolute path.
    """
    for node in pipeline.nodes:
        for context in _run_contexts(node.pipeline_node):
            context.properties[PROPERTY].field_value.string_value = folder


def run_folder_of(context: BaseExecutor.Context | None) -> str:
    """The folder that `tell_run_folder` has set; "" if it was not set.

    Args:
      context: context of the component's executor; None if a test runs the executor alone.
    """
    if context is None or context.pipeline_node is None:
        return ""
    folders = (item.properties[PROPERTY].field_value.string_value for item in _run_contexts(context.pipeline_node))
    return next(folders, "")


def _run_contexts(node: pipeline_pb2.PipelineNode) -> Iterable[pipeline_pb2.ContextSpec]:
    return (item for item in node.contexts.contexts if item.type.name == constants.PIPELINE_RUN_CONTEXT_TYPE_NAME)
