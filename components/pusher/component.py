"""VersionPusher: makes a blessed model the newest version in a folder, as a whole or not at all."""

from typing import ClassVar

from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import BaseChannel, Channel, standard_artifacts, standard_component_specs
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from components.pusher import executor
from components.pusher.settings import PusherSettings
from models.packing import pack


class VersionPusherSpec(ComponentSpec):
    """The inputs and outputs of TFX's Pusher, and the inputs that the version's record needs."""

    PARAMETERS: ClassVar = {
        executor.FOLDER_KEY: ExecutionParameter(type=str),
        executor.SETTINGS_KEY: ExecutionParameter(type=str),
    }
    INPUTS: ClassVar = {
        standard_component_specs.MODEL_KEY: ChannelParameter(type=standard_artifacts.Model),
        standard_component_specs.MODEL_BLESSING_KEY: ChannelParameter(type=standard_artifacts.ModelBlessing, optional=True),
        standard_component_specs.INFRA_BLESSING_KEY: ChannelParameter(type=standard_artifacts.InfraBlessing, optional=True),
        standard_component_specs.EVALUATION_KEY: ChannelParameter(type=standard_artifacts.ModelEvaluation, optional=True),
        standard_component_specs.EXAMPLES_KEY: ChannelParameter(type=standard_artifacts.Examples, optional=True),
    }
    OUTPUTS: ClassVar = {
        standard_component_specs.PUSHED_MODEL_KEY: ChannelParameter(type=standard_artifacts.PushedModel),
    }


class VersionPusher(base_component.BaseComponent):
    """Replaces TFX's Pusher, which copies file by file into the folder that servers watch."""

    SPEC_CLASS = VersionPusherSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(executor.Executor)

    def __init__(
        self,
        model: BaseChannel,
        model_blessing: BaseChannel | None = None,
        infra_blessing: BaseChannel | None = None,
        *,
        evaluation: BaseChannel | None = None,
        examples: BaseChannel | None = None,
        folder: str,
        settings: PusherSettings,
    ) -> None:
        """Creates the component.

        Args:
          model: the model, which is pushed if all given blessings are positive.
          model_blessing: the blessing of the Evaluator.
          infra_blessing: the blessing of ModelCheck.
          evaluation: has metrics and classes for the version's record; a model that has failed it is an error.
          examples: have the data's fingerprint for the version's record.
          folder: folder of the versions, local or a URI.
          settings: name of the pipeline, the number of versions to keep, and whether classes may change.
        """
        super().__init__(
            spec=VersionPusherSpec(
                model=model,
                model_blessing=model_blessing,
                infra_blessing=infra_blessing,
                evaluation=evaluation,
                examples=examples,
                folder=folder,
                settings=pack(settings),
                pushed_model=Channel(type=standard_artifacts.PushedModel),
            )
        )
