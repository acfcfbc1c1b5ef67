"""ImageEvaluator: measures a model on slices of the test split and blesses it if it passes its thresholds."""

from typing import ClassVar

from tensorflow_model_analysis.proto import config_pb2
from tfx.dsl.components.base import base_beam_component, executor_spec
from tfx.types import BaseChannel, Channel, standard_artifacts, standard_component_specs
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.utils import proto_utils

from components.evaluator import executor
from evaluation.settings import EvaluatorSettings
from models.packing import pack


class ImageEvaluatorSpec(ComponentSpec):
    """The inputs and outputs of TFX's Evaluator; `settings` has what its configuration can't hold."""

    PARAMETERS: ClassVar = {
        standard_component_specs.EVAL_CONFIG_KEY: ExecutionParameter(type=str),
        executor.SETTINGS_KEY: ExecutionParameter(type=str),
        executor.PUSH_FOLDER_KEY: ExecutionParameter(type=str, optional=True),
        "code": ExecutionParameter(type=str),
    }
    INPUTS: ClassVar = {
        standard_component_specs.EXAMPLES_KEY: ChannelParameter(type=standard_artifacts.Examples),
        standard_component_specs.MODEL_KEY: ChannelParameter(type=standard_artifacts.Model),
        standard_component_specs.BASELINE_MODEL_KEY: ChannelParameter(type=standard_artifacts.Model, optional=True),
    }
    OUTPUTS: ClassVar = {
        standard_component_specs.EVALUATION_KEY: ChannelParameter(type=standard_artifacts.ModelEvaluation),
        standard_component_specs.BLESSING_KEY: ChannelParameter(type=standard_artifacts.ModelBlessing),
    }


class ImageEvaluator(base_beam_component.BaseBeamComponent):
    """Replaces TFX's Evaluator; see `executor` for its outputs."""

    SPEC_CLASS = ImageEvaluatorSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(executor.Executor)

    def __init__(
        self,
        examples: BaseChannel,
        model: BaseChannel,
        baseline_model: BaseChannel | None = None,
        *,
        eval_config: config_pb2.EvalConfig,
        settings: EvaluatorSettings,
        code: str,
        push_folder: str | None = None,
    ) -> None:
        """Creates the component.

        Args:
          examples: raw examples.
          model: the candidate.
          baseline_model: the served model, or an empty channel; None to look for it in `push_folder`, if that is given.
          eval_config: metrics and slices for TFMA.
          settings: what else is measured, and how the model is judged.
          code: any text; when it changes, the component runs again.
          push_folder: where the run pushes to, if there is no channel for what is served there.
        """
        super().__init__(
            spec=ImageEvaluatorSpec(
                examples=examples,
                model=model,
                baseline_model=baseline_model,
                eval_config=proto_utils.proto_to_json(eval_config),
                settings=pack(settings),
                code=code,
                push_folder=push_folder,
                evaluation=Channel(type=standard_artifacts.ModelEvaluation),
                blessing=Channel(type=standard_artifacts.ModelBlessing),
            )
        )
