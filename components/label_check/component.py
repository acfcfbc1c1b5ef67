"""LabelCheck: finds labels that are probably wrong, in all splits; for a person, for it stops nothing."""

from typing import ClassVar

from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import BaseChannel, Channel, standard_artifacts, standard_component_specs
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from components.label_check import executor
from components.label_check.results import OUTPUT_KEY
from components.label_check.settings import LabelCheckSettings
from models.packing import pack


class LabelCheckSpec(ComponentSpec):
    """Inputs, outputs and parameters of LabelCheck."""

    PARAMETERS: ClassVar = {
        executor.DATA_KEY: ExecutionParameter(type=str),
        executor.SETTINGS_KEY: ExecutionParameter(type=str),
        "code": ExecutionParameter(type=str),
    }
    INPUTS: ClassVar = {
        standard_component_specs.EXAMPLES_KEY: ChannelParameter(type=standard_artifacts.Examples),
        standard_component_specs.MODEL_KEY: ChannelParameter(type=standard_artifacts.Model),
    }
    OUTPUTS: ClassVar = {OUTPUT_KEY: ChannelParameter(type=standard_artifacts.ExampleAnomalies)}


class LabelCheck(base_component.BaseComponent):
    """Looks at the labels of all images; see `executor` for its output."""

    SPEC_CLASS = LabelCheckSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(executor.Executor)

    def __init__(
        self, examples: BaseChannel, model: BaseChannel, *, data: str, settings: LabelCheckSettings, code: str
    ) -> None:
        """Creates the component.

        Args:
          examples: raw examples.
          model: the model of the Trainer.
          data: the data folder; read only if corrections are in use.
          settings: how the labels are looked at.
          code: any text; when it changes, the component runs again.
        """
        super().__init__(
            spec=LabelCheckSpec(
                examples=examples,
                model=model,
                data=data,
                settings=pack(settings),
                code=code,
                label_issues=Channel(type=standard_artifacts.ExampleAnomalies),
            )
        )
