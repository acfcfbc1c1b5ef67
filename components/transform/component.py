"""ImageTransform: TFX's Transform, but it puts out decoded examples, under second names where ingestion has written them."""

from typing import Any

from tfx import components
from tfx.dsl.components.base import executor_spec
from tfx.proto import transform_pb2
from tfx.types import BaseChannel

from components.transform import executor


class ImageTransform(components.Transform):
    """Analyses data as TFX's Transform does, without statistics; see `executor` for its outputs."""

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(executor.Executor)

    def __init__(
        self,
        examples: BaseChannel,
        schema: BaseChannel,
        preprocessing_fn: str,
        custom_config: dict[str, Any],
        splits_config: transform_pb2.SplitsConfig,
    ) -> None:
        """Makes the node.

        Args:
          examples: of one ExampleGen.
          schema: of the examples.
          preprocessing_fn: full name of a function of (inputs, custom_config) that is in the environment of the component.
          custom_config: as JSON has it.
          splits_config: the splits that are analysed, and those that are transformed.
        """
        super().__init__(
            examples=examples,
            schema=schema,
            preprocessing_fn=preprocessing_fn,
            custom_config=custom_config,
            splits_config=splits_config,
            disable_statistics=True,
        )
