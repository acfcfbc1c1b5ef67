"""ImageBulkInferrer: answers the images of ScoreExampleGen if the model is blessed."""

from typing import ClassVar

from tfx.dsl.components.base import base_beam_component, executor_spec
from tfx.types import BaseChannel, Channel, standard_artifacts, standard_component_specs
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from components.bulk_inferrer import executor
from components.bulk_inferrer.settings import InferrerSettings
from models.packing import pack


class ImageBulkInferrerSpec(ComponentSpec):
    """The inputs and output of TFX's BulkInferrer, and settings that it does not have."""

    PARAMETERS: ClassVar = {
        executor.SETTINGS_KEY: ExecutionParameter(type=str),
        "code": ExecutionParameter(type=str),
    }
    INPUTS: ClassVar = {
        standard_component_specs.EXAMPLES_KEY: ChannelParameter(type=standard_artifacts.Examples),
        standard_component_specs.MODEL_KEY: ChannelParameter(type=standard_artifacts.Model),
        standard_component_specs.MODEL_BLESSING_KEY: ChannelParameter(type=standard_artifacts.ModelBlessing),
        standard_component_specs.INFRA_BLESSING_KEY: ChannelParameter(type=standard_artifacts.InfraBlessing, optional=True),
    }
    OUTPUTS: ClassVar = {
        standard_component_specs.INFERENCE_RESULT_KEY: ChannelParameter(type=standard_artifacts.InferenceResult),
    }


class ImageBulkInferrer(base_beam_component.BaseBeamComponent):
    """Replaces TFX's BulkInferrer; see `executor` for its output."""

    SPEC_CLASS = ImageBulkInferrerSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(executor.Executor)

    def __init__(
        self,
        examples: BaseChannel,
        model: BaseChannel,
        model_blessing: BaseChannel,
        infra_blessing: BaseChannel | None = None,
        *,
        settings: InferrerSettings,
        code: str,
    ) -> None:
        """Creates the component.

        Args:
          examples: raw examples.
          model: the model of the Trainer.
          model_blessing: the Evaluator's blessing; without it nothing is answered.
          infra_blessing: the blessing of ModelCheck; if it is given but negative, nothing is answered.
          settings: how the images are answered.
          code: any text; when it changes, the component runs again.
        """
        super().__init__(
            spec=ImageBulkInferrerSpec(
                examples=examples,
                model=model,
                model_blessing=model_blessing,
                infra_blessing=infra_blessing,
                settings=pack(settings),
                code=code,
                inference_result=Channel(type=standard_artifacts.InferenceResult),
            )
        )
