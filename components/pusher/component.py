"""VersionPusher: makes a blessed model the newest version in a folder, as a whole or not at all."""

from typing import ClassVar

from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import BaseChannel, Channel, standard_artifacts, standard_component_specs
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from components.pusher import executor
from components.pusher.settings import PusherSettings
from models.packing import pack


class VersionPusherSpec(ComponentSpec):
    """The stock component's inputs and outputs, and what else the version's record tells of."""

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
    """Takes the place of the stock component, which copies file by file into the folder that servers watch."""

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
          model: pushed if all blessings that are given bless it.
          model_blessing: the Evaluator's.
          infra_blessing: the model check's.
          evaluation: whose metrics the version's record takes.
          examples: whose data's fingerprint it takes.
          folder: of the versions, local or a URI.
          settings: what the versions are of, and how many are kept.
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
