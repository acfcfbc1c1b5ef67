"""ModelFormats: the model in other formats beside the SavedModel, each only if it meets its thresholds on the test split."""

from typing import ClassVar

from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import BaseChannel, Channel, standard_artifacts, standard_component_specs
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from components.model_formats import executor
from components.model_formats.settings import FormatSettings
from models.packing import pack


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
        self, examples: BaseChannel, model: BaseChannel, evaluation: BaseChannel, *, settings: FormatSettings, code: str
    ) -> None:
        """Creates the component.

        Args:
          examples: raw ones.
          model: the Trainer's.
          evaluation: the Evaluator's, of this model.
          settings: which formats, and what they must keep.
          code: anything whose change must make the component run again.
        """
        super().__init__(
            spec=ModelFormatsSpec(
                examples=examples,
                model=model,
                evaluation=evaluation,
                settings=pack(settings),
                code=code,
                exported_model=Channel(type=standard_artifacts.Model),
            )
        )
