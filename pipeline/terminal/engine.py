"""Starts the engine that a command keeps until its end, and tells of it on the screen."""

from rich.console import Console

from components import dask_cluster
from pipeline.config.beam import BeamConfig
from pipeline.dag.beam import dask_scheduler
from pipeline.terminal.progress import waiting


def start_engine(beam: BeamConfig, console: Console) -> None:
    """Connects to the Dask cluster, or starts one here; does nothing for other engines, which start with their pipelines.

    Raises:
      UserError: see `dask_cluster.connect`.
    """
    if scheduler := dask_scheduler(beam):
        with waiting(console, "connecting to Dask"):
            client = dask_cluster.connect(scheduler)
        console.print(dask_cluster.describe(client), soft_wrap=True)
