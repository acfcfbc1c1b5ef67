"""AnomalyGate: an ExampleValidator after which nothing runs when it has found anomalies."""

from tfx.components import ExampleValidator
from tfx.dsl.components.base import executor_spec

from components.anomaly_gate import executor


class AnomalyGate(ExampleValidator):
    """The stock component records anomalies and lets the run go on; this one fails."""

    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(executor.Executor)
