"""ModelFormats: adds other formats of the model beside the SavedModel, if they pass their thresholds on the test split."""

from typing import ClassVar

from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import BaseChannel, Channel, standard_artifacts, standard_component_specs
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from components.model_formats import executor
from components.model_formats.settings import FormatSettings
from models.packing import pack


class ModelFormatsSpec(ComponentSpec):
    """Inputs, outputs and parameters of ModelFormats."""

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
    """Converts and tests a model; see `executor` for its output."""

    SPEC_CLASS = ModelFormatsSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(executor.Executor)

    def __init__(
        self, examples: BaseChannel, model: BaseChannel, evaluation: BaseChannel, *, settings: FormatSettings, code: str
    ) -> None:
        """Creates the component.

        Args:
          examples: raw examples.
          model: the model of the Trainer.
          evaluation: the Evaluator's evaluation of this model.
          settings: the formats, and the thresholds that they must pass.
          code: any text; when it changes, the component runs again.
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
