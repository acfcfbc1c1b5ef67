"""ImageExampleValidator: the schema, drift against the previous run, and skew between the splits; can stop the run."""

from typing import ClassVar

from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import BaseChannel, Channel, standard_artifacts, standard_component_specs
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from components.example_validator import executor


class ImageExampleValidatorSpec(ComponentSpec):
    """The stock component's inputs and outputs, and what the comparisons need."""

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
    """Takes the place of the stock component, which has no input for the previous statistics and compares no splits.

    The thresholds are written into a copy of the schema, which is kept beside the anomalies. In the schema that Transform and
    the Evaluator read, a changed threshold would have everything computed and trained again.
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
          statistics: of all splits.
          schema: what they must fit; distances for which it has thresholds of its own are judged by these.
          baseline_statistics: of the previous run, or an empty channel; None to look in `state`.
          max_drift: largest distance between a split and the same split of the previous run that is no anomaly; None: any.
          max_skew: likewise between a split and `skew_control`.
          skew_control: the split that the others must resemble; None to compare no splits.
          stop_on_anomalies: whether the component fails when it has found any.
          code: anything whose change must make the component run again.
          state: folder that has the previous statistics where there is no channel of them, and keeps these for the next run.
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
