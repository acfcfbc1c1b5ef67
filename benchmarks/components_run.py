"""Seconds and largest memory of each component of a run."""

import logging
from pathlib import Path

from rich.console import Console

from benchmarks.measurement import peak_memory
from pipeline.config.whole import Config
from pipeline.terminal.progress import ProgressDisplay


class PeakDisplay(ProgressDisplay):
    """Keeps the largest resident memory of each component beside its time, in bytes."""

    def __init__(self, console: Console, components: list[str]) -> None:
        super().__init__(console, components)
        self.peak: dict[str, int] = {}

    def emit(self, record: logging.LogRecord) -> None:
        super().emit(record)
        if record.msg == "Component %s is running.":
            Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far: proc(5)
        elif record.msg == "Component %s is finished.":
            self.peak[self.running] = peak_memory()


def run_components(config: Config, output: Path, last: str | None = None) -> tuple[dict[str, float], dict[str, int]]:
    """Runs the project's pipeline under LocalDagRunner in this process.

    Args:
      config: the whole configuration.
      output: the output folder, which must be empty.
      last: the component to end with; all if not given.

    Returns:
      Component -> seconds, and component -> largest resident memory of this process while it ran, in bytes, which includes
      what the ones before it have not given back.
    """
    from pipeline.local.workplace import started

    with started("benchmark", config, output, with_model=last is None) as place:
        from tfx.orchestration.local.local_dag_runner import LocalDagRunner
        from tfx.orchestration.pipeline import RunOptions

        from pipeline.dag.pipeline import create_pipeline

        pipeline = create_pipeline(
            config,
            pipeline_root=str(place.output / "artifacts"),
            push_folder=None if last else str(place.output / "pushed"),
            name=place.store.pipeline_name(config.name),
            connection=place.store.connection,
        )
        display = PeakDisplay(place.console, [node.id for node in pipeline.components])
        with display:
            LocalDagRunner().run(pipeline, run_options=RunOptions(to_nodes=[last]) if last else None)
    return {component: display.components[component]["seconds"] for component in display.peak}, display.peak
