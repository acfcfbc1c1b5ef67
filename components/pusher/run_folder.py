"""The run's own folder, as the runner of this machine tells it and the Pusher reads it.

`fpn run` keeps a folder for each run: `runs/RUN_ID/` has its configuration and its report. The record of a pushed version
names that folder, so the Pusher must know it. The two sides agree on this:

- The runner calls `tell_run_folder`. It sets the property `run_folder` on the run's context, which every component of a
  compiled pipeline names. ML Metadata keeps the property: `context.custom_properties["run_folder"]` of the type
  `pipeline_run`.
- The Pusher calls `run_folder_of` with its executor's context.
- The property is no part of a component's key in the cache. A parameter would be, and each run would push again.
- Where runs have no folder, as on Kubeflow, nobody sets the property, and `run_folder_of` gives "".
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
      pipeline: changed in place.
      folder: an absolute path.
    """
    for node in pipeline.nodes:
        for context in _run_contexts(node.pipeline_node):
            context.properties[PROPERTY].field_value.string_value = folder


def run_folder_of(context: BaseExecutor.Context | None) -> str:
    """The folder that the runner has told; "" if it has told none.

    Args:
      context: of the component's executor; None where nothing but a test runs it.
    """
    if context is None or context.pipeline_node is None:
        return ""
    folders = (item.properties[PROPERTY].field_value.string_value for item in _run_contexts(context.pipeline_node))
    return next(folders, "")


def _run_contexts(node: pipeline_pb2.PipelineNode) -> Iterable[pipeline_pb2.ContextSpec]:
    return (item for item in node.contexts.contexts if item.type.name == constants.PIPELINE_RUN_CONTEXT_TYPE_NAME)
