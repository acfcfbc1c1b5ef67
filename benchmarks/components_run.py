"""Seconds, processor time and largest memory of each component of a run."""

import logging
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from benchmarks.measurement import peak_memory
from pipeline.config.whole import Config
from pipeline.terminal.progress import ProgressDisplay


@dataclass(frozen=True)
class Measured:
    """By component.

    Attributes:
      seconds: on a clock.
      processor: seconds of processor time of this process, all threads.
      peak: largest resident memory of this process in bytes, which includes what earlier components have not given back.
    """

    seconds: dict[str, float]
    processor: dict[str, float]
    peak: dict[str, int]


class MeasuringDisplay(ProgressDisplay):
    """Keeps processor time and largest resident memory of each component beside its time."""

    def __init__(self, console: Console, components: list[str]) -> None:
        super().__init__(console, components)
        self.peak: dict[str, int] = {}
        self.processor: dict[str, float] = {}
        self._start = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        super().emit(record)
        if record.msg == "Component %s is running.":
            Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far: proc(5)
            self._start = time.process_time()
        elif record.msg == "Component %s is finished.":
            self.peak[self.running] = peak_memory()
            self.processor[self.running] = time.process_time() - self._start


def run_components(config: Config, output: Path, last: str | None = None) -> Measured:
    """Runs the project's pipeline under LocalDagRunner in this process.

    Args:
      config: the whole configuration.
      output: the output folder, which must be empty.
      last: the component to end with; all if not given.
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
        display = MeasuringDisplay(place.console, [node.id for node in pipeline.components])
        with display:
            LocalDagRunner().run(pipeline, run_options=RunOptions(to_nodes=[last]) if last else None)
    seconds = {component: display.components[component]["seconds"] for component in display.peak}
    return Measured(seconds, display.processor, display.peak)
