"""ImageStatisticsGen: TFX's StatisticsGen with an executor that starts at once."""

import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx import components
from tfx.dsl.components.base import executor_spec
from tfx.types import BaseChannel

from components.statistics_gen import executor
from models import features

# Files and pixels are bytes to be measured, not values to be counted.
_OPAQUE_BYTES = schema_pb2.Schema(
    feature=[
        schema_pb2.Feature(name=name, type=schema_pb2.BYTES, image_domain=schema_pb2.ImageDomain())
        for name in (features.ENCODED, features.PIXELS)
    ]
)


class ImageStatisticsGen(components.StatisticsGen):
    """Puts out the statistics of every split, as TFX's StatisticsGen does; see `executor`."""

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(executor.Executor)

    def __init__(self, examples: BaseChannel) -> None:
        """Creates the component; `examples` are of any ExampleGen."""
        super().__init__(examples=examples, stats_options=tfdv.StatsOptions(schema=_OPAQUE_BYTES))
