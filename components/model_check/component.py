"""ModelCheck: whether the exported model answers a server's requests as the Evaluator has predicted, and fast enough."""

from typing import ClassVar

from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import BaseChannel, Channel, standard_artifacts, standard_component_specs
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from components.model_check import executor
from components.model_check.settings import CheckSettings
from models.packing import pack


class ModelCheckSpec(ComponentSpec):
    """The inputs and outputs of TFX's InfraValidator, and the predictions with which the answers are compared."""

    PARAMETERS: ClassVar = {
        executor.SETTINGS_KEY: ExecutionParameter(type=str),
        "code": ExecutionParameter(type=str),
    }
    INPUTS: ClassVar = {
        standard_component_specs.MODEL_KEY: ChannelParameter(type=standard_artifacts.Model),
        standard_component_specs.EXAMPLES_KEY: ChannelParameter(type=standard_artifacts.Examples),
        standard_component_specs.EVALUATION_KEY: ChannelParameter(type=standard_artifacts.ModelEvaluation),
    }
    OUTPUTS: ClassVar = {
        standard_component_specs.INFRA_BLESSING_KEY: ChannelParameter(type=standard_artifacts.InfraBlessing),
    }


class ModelCheck(base_component.BaseComponent):
    """Replaces TFX's InfraValidator, which needs Docker and can't be compiled for Kubeflow Pipelines."""

    SPEC_CLASS = ModelCheckSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(executor.Executor)

    def __init__(
        self, model: BaseChannel, examples: BaseChannel, evaluation: BaseChannel, *, settings: CheckSettings, code: str
    ) -> None:
        """Creates the component.

        Args:
          model: the exported model.
          examples: raw examples, from which the requests are made.
          evaluation: output of the Evaluator, with its predictions for the same examples.
          settings: the requests, and the limits for the answers.
          code: any text; when it changes, the component runs again.
        """
        super().__init__(
            spec=ModelCheckSpec(
                model=model,
                examples=examples,
                evaluation=evaluation,
                settings=pack(settings),
                code=code,
                infra_blessing=Channel(type=standard_artifacts.InfraBlessing),
            )
        )
