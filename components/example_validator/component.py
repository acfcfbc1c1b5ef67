"""ImageExampleValidator: checks the schema, drift against the previous run, and skew between splits; can stop the run."""

from typing import ClassVar

from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import BaseChannel, Channel, standard_artifacts, standard_component_specs
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from components.example_validator import executor


class ImageExampleValidatorSpec(ComponentSpec):
    """The inputs and outputs of TFX's ExampleValidator, and what the comparisons need."""

    PARAMETERS: ClassVar = {
        executor.MAX_DRIFT_KEY: ExecutionParameter(type=float, optional=True),
        executor.MAX_SKEW_KEY: ExecutionParameter(type=float, optional=True),
        executor.SKEW_CONTROL_KEY: ExecutionParameter(type=str, optional=True),
        executor.STOP_KEY: ExecutionParameter(type=int),
        executor.STATE_KEY: ExecutionParameter(type=str, optional=True),
        "code": ExecutionParameter(type=str),
    }
    INPUTS: ClassVar = {
        standard_component_specs.STATISTICS_KEY: ChannelParameter(type=standard_artifacts.ExampleStatistics),
        standard_component_specs.SCHEMA_KEY: ChannelParameter(type=standard_artifacts.Schema),
        standard_component_specs.BASELINE_STATISTICS_KEY: ChannelParameter(
            type=standard_artifacts.ExampleStatistics, optional=True
        ),
    }
    OUTPUTS: ClassVar = {standard_component_specs.ANOMALIES_KEY: ChannelParameter(type=standard_artifacts.ExampleAnomalies)}


class ImageExampleValidator(base_component.BaseComponent):
    """Replaces TFX's ExampleValidator, which has no input for the previous statistics and does not compare splits.

    The thresholds are written into a copy of the schema, which is kept beside the anomalies. If they were in the schema that
    Transform and the Evaluator read, changing a threshold would repeat the whole run, with training.
    """

    SPEC_CLASS = ImageExampleValidatorSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(executor.Executor)

    def __init__(
        self,
        statistics: BaseChannel,
        schema: BaseChannel,
        baseline_statistics: BaseChannel | None = None,
        *,
        max_drift: float | None,
        max_skew: float | None,
        skew_control: str | None,
        stop_on_anomalies: bool,
        code: str,
        state: str | None = None,
    ) -> None:
        """Creates the component.

        Args:
          statistics: statistics of all splits.
          schema: the schema that they must fit. Its own thresholds on distances take precedence.
          baseline_statistics: statistics of the previous run, or an empty channel; None to use those in `state`.
          max_drift: largest accepted distance between a split and the same split of the previous run; None: any.
          max_skew: largest accepted distance between a split and `skew_control`; None: any.
          skew_control: the split that the others are compared with; None to compare no splits.
          stop_on_anomalies: whether the component fails when it finds anomalies.
          code: any text; when it changes, the component runs again.
          state: folder with the previous statistics, if there is no channel for them; those of this run are kept there.
        """
        super().__init__(
            spec=ImageExampleValidatorSpec(
                statistics=statistics,
                schema=schema,
                baseline_statistics=baseline_statistics,
                max_drift=max_drift,
                max_skew=max_skew,
                skew_control=skew_control,
                stop_on_anomalies=int(stop_on_anomalies),
                code=code,
                state=state,
                anomalies=Channel(type=standard_artifacts.ExampleAnomalies),
            )
        )
