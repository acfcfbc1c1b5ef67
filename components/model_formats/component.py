"""ModelFormats: the model in other formats beside the SavedModel, each only if it meets its thresholds on the test split."""

import json
from typing import Any, ClassVar

from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import BaseChannel, Channel, standard_artifacts, standard_component_specs
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from components.model_formats import executor


class ModelFormatsSpec(ComponentSpec):
    """Inputs, outputs and parameters."""

    PARAMETERS: ClassVar = {
        executor.SETTINGS_KEY: ExecutionParameter(type=str),
        "code": ExecutionParameter(type=str),
    }
    INPUTS: ClassVar = {
        standard_component_specs.EXAMPLES_KEY: ChannelParameter(type=standard_artifacts.Examples),
        standard_component_specs.MODEL_KEY: ChannelParameter(type=standard_artifacts.Model),
        standard_component_specs.EVALUATION_KEY: ChannelParameter(type=standard_artifacts.ModelEvaluation),
    }
    OUTPUTS: ClassVar = {executor.EXPORTED_KEY: ChannelParameter(type=standard_artifacts.Model)}


class ModelFormats(base_component.BaseComponent):
    """See `executor` for what it puts out."""

    SPEC_CLASS = ModelFormatsSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(executor.Executor)

    def __init__(
        self, examples: BaseChannel, model: BaseChannel, evaluation: BaseChannel, *, settings: dict[str, Any], code: str
    ) -> None:
        """Creates the component.

        Args:
          examples: raw ones.
          model: the Trainer's.
          evaluation: the Evaluator's, of this model.
          settings: `formats` and `thresholds` of the section `export`; `groups`, `buckets` and `min_slice_size` of `evaluate`;
            `train` and `test`, names of the splits that are sampled for int8 and measured on; `multi_label`.
          code: anything whose change must make the component run again.
        """
        super().__init__(
            spec=ModelFormatsSpec(
                examples=examples,
                model=model,
                evaluation=evaluation,
                settings=json.dumps(settings, sort_keys=True),
                code=code,
                exported_model=Channel(type=standard_artifacts.Model),
            )
        )
