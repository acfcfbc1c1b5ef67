"""Runs the pipeline on this machine with LocalDagRunner: progress on the screen, TFX's own log in a file."""

import datetime
import difflib
import json
import logging
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from components.errors import UserError
from components.image_example_gen import source
from models import features
from pipeline.config import Config
from pipeline.digits import write_digits
from pipeline.redirection import output_to


@dataclass
class RunResult:
    """How a run ended.

    Attributes:
      summary: what `fpn run --json` prints.
      status: exit status: 0 blessed, 3 not blessed, 2 bad input, 1 any other failure.
      error: why it failed; empty if it did not.
      evaluation: `pipeline.results.Evaluation`, None if the run did not get that far.
      anomalies: what the ExampleValidator found, a line each.
      log: TFX's log.
    """

    summary: dict[str, Any]
    status: int
    log: Path
    error: str = ""
    evaluation: Any = None
    anomalies: list[str] = field(default_factory=list)


def run(config: Config, output: Path) -> RunResult:
    """Runs all components, taking from the cache what has not changed.

    Writes below `output`: `metadata.sqlite`, `artifacts/`, `pushed/` (unless `push.path` is given) and
    `runs/RUN_ID/` with `log.txt`, `summary.json` and `report.txt`.

    Raises:
      UserError: the data or the configuration can't be used; nothing has run yet.
    """
    if config.data.sample == "digits":
        write_digits(Path(config.data.path))
    rows = source.read_rows(config.data.path, config.data.model_dump(include={"manifest", "columns", "splits"}))
    _check_slices(config, rows)
    del rows  # read to find mistakes before TensorFlow is loaded; the component reads them where it runs

    output = output.resolve()
    run_id = datetime.datetime.now().strftime("%Y-%m-%dT%H-%M-%S")
    folder = output / "runs" / run_id
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"{folder}: can't be made ({error.strerror}); give another --output") from error
    log = folder / "log.txt"
    with output_to(log) as screen:
        result = _run(config, output, run_id, log, screen)
    _write_aside(folder / "summary.json", json.dumps(result.summary, indent=2))
    if result.evaluation:
        from pipeline.report import print_evaluation

        with (folder / "report.txt").open("w", encoding="utf-8") as file:
            print_evaluation(result.evaluation, Console(file=file, width=120))
    return result


def _run(config: Config, output: Path, run_id: str, log: Path, screen: TextIO) -> RunResult:
    console = Console(file=screen)
    console.print(f"[bold]{config.name}[/] run {run_id}, log in {log}", highlight=False, soft_wrap=True)
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # the components of one process share the GPU's memory
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    with console.status("loading TensorFlow and TFX"):
        from absl import logging as absl_logging
        from tfx.orchestration import metadata
        from tfx.orchestration.local.local_dag_runner import LocalDagRunner

        from models.backbones import BACKBONES, WeightsError, build_backbone
        from pipeline import run_metadata
        from pipeline.pipeline import create_pipeline
        from pipeline.results import read_evaluation

    if config.model.weights != "none":
        with console.status("checking the weights"):  # now rather than after hours of ingestion
            channels = BACKBONES[config.model.backbone].channels or config.image.channels
            shape = (config.image.height, config.image.width, channels)
            levels = config.model.min_level, config.model.max_level
            try:
                build_backbone(config.model.backbone, config.model.weights, shape, *levels)
            except WeightsError as misfit:
                raise UserError(str(misfit)) from misfit

    absl_logging.set_verbosity(absl_logging.INFO)
    connection = metadata.sqlite_metadata_connection_config(str(output / "metadata.sqlite"))
    pipeline = create_pipeline(
        config,
        pipeline_root=str(output / "artifacts"),
        push_folder=config.push.path or str(output / "pushed"),
        metadata=connection,
    )
    display = _Display(console, [node.id for node in pipeline.components if node.id != "Baseline"])
    status, error = 0, ""
    try:
        with display:
            LocalDagRunner().run(pipeline)
    except (Exception, KeyboardInterrupt) as failure:
        logging.exception("the run has failed")
        status, error = _explain(failure, display.running, log)

    outputs = run_metadata.read_outputs(connection)
    evaluation = None
    if uri := outputs.evaluation:
        with console.status("reading the evaluation"):
            evaluation = read_evaluation(uri)
    blessed = outputs.blessed if not error else None
    if not error and not blessed:
        status = 3
    summary = {
        "pipeline": config.name,
        "run_id": run_id,
        "blessed": blessed,
        "pushed_model": outputs.pushed_model,
        "evaluation": outputs.evaluation,
        "report": str(log.parent / "report.txt") if evaluation else None,
        "metrics": {
            name: {"value": metric.value, "lower": metric.lower, "upper": metric.upper}
            for name, metric in (evaluation.overall if evaluation else {}).items()
        },
        "examples": outputs.examples,
        "components": display.components,
    }
    return RunResult(summary, status, log, error, evaluation, outputs.anomalies)


def _check_slices(config: Config, rows: list[source.Row]) -> None:
    known = [*features.RAW, *(features.META_PREFIX + column for column in rows[0].meta)]
    named = [name for names in config.evaluate.slices for name in names]
    named += [name for threshold in config.evaluate.thresholds for name in threshold.slice]
    for name in named:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known ones: {', '.join(known)}"
            raise UserError(f"evaluate: no feature {name} to slice by; {hint}")


def _explain(failure: BaseException, component: str, log: Path) -> tuple[int, str]:
    """Exit status and message: a UserError somewhere in the chain of causes is told as it is."""
    if isinstance(failure, KeyboardInterrupt):
        return 1, f"interrupted in {component}; start again to go on from the last finished component"
    cause: BaseException | None = failure
    while cause:
        if isinstance(cause, UserError):
            return 2, str(cause)
        cause = cause.__cause__ or cause.__context__
    lines = str(failure).strip().splitlines() or [""]
    return 1, f"{component} failed: {type(failure).__name__}: {lines[0][:300]}\nThe whole story is in {log}"


class _Display(logging.Handler):
    """Shows which component runs and how far training is; keeps each component's state and time.

    Listens to what LocalDagRunner logs of each node, and to `models.training`.
    """

    def __init__(self, console: Console, components: list[str]) -> None:
        super().__init__(logging.DEBUG)
        self.components: dict[str, dict[str, Any]] = {name: {"state": "skipped", "seconds": 0.0} for name in components}
        self.running = ""
        self._started = 0.0
        self._console = console
        self._width = max(map(len, components))
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._task = self._bar.add_task("", visible=False)
        self._listened = [logging.getLogger("absl"), logging.getLogger("models.training")]

    def __enter__(self) -> "_Display":
        for logger in self._listened:
            logger.addHandler(self)
        self._listened[1].setLevel(logging.DEBUG)
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        self._bar.stop()
        for logger in self._listened:
            logger.removeHandler(self)
        if kind and self.running in self.components:
            self._finish("failed")

    def emit(self, record: logging.LogRecord) -> None:
        if progress := getattr(record, "progress", None):
            self._bar.update(
                self._task,
                description=f"{self.running}  {progress['text']}",
                completed=progress["done"],
                total=progress["total"],
            )
            if not self._console.is_terminal and record.levelno >= logging.INFO:
                self._console.print(f"  {progress['text']}", highlight=False)
        elif record.msg == "Component %s is running.":
            self.running = str(record.args[0]) if isinstance(record.args, tuple) else ""
            self._started = time.monotonic()
            if self.running in self.components:
                self.components[self.running]["state"] = "complete"
                self._bar.reset(self._task, description=self.running, total=None, visible=True)
        elif record.msg == "A cached execution %d is used.":
            self.components[self.running]["state"] = "cached"
        elif record.msg == "Component %s is finished." and self.running in self.components:
            self._finish(self.components[self.running]["state"])

    def _finish(self, state: str) -> None:
        seconds = round(time.monotonic() - self._started, 2)
        self.components[self.running] = {"state": state, "seconds": seconds}
        mark = {"complete": "[green]✓[/]", "cached": "[green]✓[/]", "failed": "[bold red]✗[/]"}[state]
        note = {"complete": "", "cached": "  from the cache", "failed": "  failed"}[state]
        self._console.print(f"{mark} {self.running:<{self._width}} {seconds:7.1f} s{note}", highlight=False)


def _write_aside(path: Path, text: str) -> None:
    unfinished = path.with_name(f".{path.name}")
    unfinished.write_text(text + "\n", encoding="utf-8")
    unfinished.rename(path)
