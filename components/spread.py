"""One function a shard, spread over the workers of an engine: on Dask as tasks, on all others as a Beam pipeline."""

from collections.abc import Callable, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from components import dask_cluster


class SpreadOptions(PipelineOptions):
    """The option that gives shards to Dask, while what TFX's libraries build for Beam stays with Beam's runner."""

    @classmethod
    def _add_argparse_args(cls, parser: Any) -> None:
        parser.add_argument("--dask_scheduler", help="tcp://HOST:PORT, or here; see dask_cluster.connect")


def spread(
    pipeline: beam.Pipeline,
    name: str,
    work: beam.DoFn,
    shards: Sequence[Any],
    tell: Callable[[str, int, int], None] = dask_cluster.log_progress,
) -> None:
    """Does the work on all shards. What it yields is not kept: it writes files.

    Args:
      pipeline: an empty pipeline, for its options; it is run here unless they name Dask.
      name: of the step.
      work: its `process` is called with each shard, perhaps more than once if a worker dies: it must write files whole.
      shards: what can be pickled.
      tell: is called with the name, the number of finished shards and of all, each time that one is finished; by Dask alone.

    Raises:
      UserError: by the work; or the workers can't be used.
    """
    if scheduler := pipeline.options.view_as(SpreadOptions).dask_scheduler:
        dask_cluster.map_shards(scheduler, name, work, shards, tell)
        return
    with pipeline:
        _ = pipeline | "Shards" >> beam.Create(shards) | "Spread" >> beam.Reshuffle() | name >> beam.ParDo(work)
