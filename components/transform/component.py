"""ImageTransform: TFX's Transform, but it puts out decoded examples, under second names where ingestion has written them."""

from tfx import components
from tfx.dsl.components.base import executor_spec

from components.transform import executor


class ImageTransform(components.Transform):
    """Analyses data as TFX's Transform does; see `executor` for its outputs."""

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(executor.Executor)
