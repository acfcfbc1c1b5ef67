"""Runs the pipeline on this machine with LocalDagRunner: progress on the screen, TFX's own log in a file."""

import contextlib
import csv
import datetime
import difflib
import gc
import importlib
import importlib.util
import io
import json
import logging
import os
import shlex
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from components.errors import UserError, user_error
from components.image_example_gen import source
from models import features
from pipeline.beam import check_engine
from pipeline.component_settings import source_settings
from pipeline.config import Config, RegistryConfig
from pipeline.metadata_store import Store, check_store, make_store
from pipeline.notes import NoBaselineNote, Note, NotRegisteredNote, RegisteredNote
from pipeline.progress import ProgressDisplay, waiting
from pipeline.redirection import output_to
from pipeline.report import short_path, trial_rows
from pipeline.reproduction import CONFIG_FILE, write_reproduction
from pipeline.run_lock import locked
from pipeline.samples import SAMPLES
from pipeline.write_aside import write_text

if TYPE_CHECKING:
    from tfx.orchestration.pipeline import Pipeline

    from components.evaluator.results import Evaluation
    from components.model_formats.results import FormatResult
    from pipeline.run_metadata import RunOutputs, Trial


@dataclass(frozen=True)
class Workplace:
    """Where a run writes.

    Attributes:
      output: absolute folder with `artifacts/`, `metadata.sqlite` (unless the store is on a server) and `runs/`.
      run_id: the time of the start; `runs/RUN_ID/` is the run's own folder.
      console: the real screen, while the standard streams go to the log.
      store: that the run is recorded in.
    """

    output: Path
    run_id: str
    console: Console
    store: Store

    @property
    def folder(self) -> Path:
        return self.output / "runs" / self.run_id

    @property
    def log(self) -> Path:
        return self.folder / "log.txt"


@dataclass(frozen=True)
class Execution:
    """How the components of a pipeline have ended.

    Attributes:
      components: state and seconds of each.
      status: exit status: 0 done, 2 bad input, 1 any other failure.
      error: why it failed; empty if it did not.
      outputs: what is there after it.
      evaluation: None if the run did not get that far.
    """

    components: dict[str, dict[str, Any]]
    status: int
    error: str
    outputs: "RunOutputs"
    evaluation: "Evaluation | None"


@dataclass
class RunResult:
    """How a run ended.

    Attributes:
      summary: what `fpn run --json` prints.
      status: exit status: 0 blessed, 3 not blessed, 2 bad input, 1 any other failure.
      log: TFX's log.
      error: why it failed; empty if it did not.
      evaluation: None if the run did not get that far.
      trials: of the Tuner, best first; empty if it did not run.
      formats: what was measured of the SavedModel and of its other formats.
      notes: what a person should know besides.
    """

    summary: dict[str, Any]
    status: int
    log: Path
    error: str = ""
    evaluation: "Evaluation | None" = None
    notes: list[Note] = field(default_factory=list)
    trials: "list[Trial]" = field(default_factory=list)
    formats: "list[FormatResult]" = field(default_factory=list)


def run(config: Config, output: Path) -> RunResult:
    """Runs all components, taking from the cache what has not changed.

    Writes below `output`: `metadata.sqlite`, `artifacts/`, `pushed/` (unless `push.path` is given) and
    `runs/RUN_ID/` with `config.yaml`, `reproduction.json`, `log.txt`, `summary.json`, `report.html`, and `trials.csv` if there
    was a search.

    Raises:
      UserError: the data or the configuration can't be used; nothing has run yet.
    """
    read_data(config)  # to find mistakes before TensorFlow is loaded; the component reads the rows where it runs
    with started("run", config, output) as place:
        write_reproduction(config, place.folder, "run", ["run", "--output", short_path(place.output)])
        result = _run(config, place)
        write_text(place.folder / "summary.json", json.dumps(result.summary, indent=2) + "\n")
        if result.trials:
            table = io.StringIO()
            csv.writer(table, lineterminator="\n").writerows(trial_rows(result.trials, result.summary["tuning"]["objective"]))
            write_text(place.folder / "trials.csv", table.getvalue())
        if result.evaluation:
            from pipeline.run_page import write_run_page

            with waiting(place.console, "drawing the page"):
                write_run_page(place.folder, Path(result.summary["report"]))
        if config.push.registry and result.summary["pushed_model"] and not result.error:
            _register(result, config.push.registry, place)
    return result


def inspect(config: Config, output: Path, page: Path) -> tuple[int, str]:
    """Runs the components up to the ExampleValidator and writes a page about the data.

    It shares the output folder and its cache with `run`. Anomalies don't stop it, for the page is there to show them.

    Args:
      config: the whole configuration.
      output: as for `run`.
      page: the HTML file.

    Returns:
      Exit status, and why it failed; empty if it did not.

    Raises:
      UserError: the data or the configuration can't be used; nothing has run yet.
    """
    config = config.model_copy(update={"data": config.data.model_copy(update={"stop_on_anomalies": False})})
    read_data(config)
    with started("data", config, output, with_model=False) as place:
        write_reproduction(config, place.folder, "data", ["data", "--output", short_path(place.output)])
        from pipeline.data_page import write_data_page
        from pipeline.pipeline import create_data_pipeline

        pipeline = create_data_pipeline(config, pipeline_root=str(place.output / "artifacts"), store=place.store)
        ended = execute(pipeline, place)
        if not ended.error:
            assert ended.outputs.examples_folder
            assert ended.outputs.anomalies_folder
            with waiting(place.console, "drawing the page"):
                write_data_page(config, Path(ended.outputs.examples_folder), ended.outputs.anomalies_folder, page)
    return ended.status, ended.error


def read_data(config: Config, folds: int | None = None) -> list[source.Row]:
    """Writes the sample data set if it is asked for, and lists the data without opening an image.

    Args:
      config: the whole configuration.
      folds: number of folds instead of train, eval and test.

    Raises:
      UserError: the data, or those of `score.path`, can't be used; or the data does not have a feature to slice by, or the
        class that groups are judged by.
    """
    if config.data.sample:
        SAMPLES[config.data.sample](Path(config.data.path))
    rows = source.read_rows(config.data.path, source_settings(config.data, folds=folds))
    if config.score.path:
        source.find_rows(config.score.path, source_settings(config.data, labelled=False))
    _check_slices(config, rows)
    _check_positive(config.evaluate.groups.positive, rows)
    return rows


@contextlib.contextmanager
def started(what: str, config: Config, output: Path, *, with_model: bool = True) -> Iterator[Workplace]:
    """Makes the folder of a new run, sends the standard streams to its log, and loads TFX.

    Args:
      what: for the heading: "run".
      config: the whole configuration.
      output: the folder below which all is written; one run at a time.
      with_model: whether a model will be built, whose weights are checked first.

    Raises:
      UserError: the folder can't be made or is in use, the metadata store can't be used, the backbone's weights don't fit, or
        Beam's engine can't run.
    """
    output = output.resolve()
    others = {"score.path": source.root_of(config.score.path)} if config.score.path else {}
    check_engine(config.beam, {"data.path": source.root_of(config.data.path), **others, "--output": str(output)})
    check_store(config.metadata, output)
    run_id = datetime.datetime.now().strftime("%Y-%m-%dT%H-%M-%S")
    folder = output / "runs" / run_id
    with contextlib.ExitStack() as stack:
        stack.enter_context(locked(output, run_id))
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            raise UserError(f"{folder}: can't be made ({error.strerror}); give another --output") from error
        screen = stack.enter_context(output_to(folder / "log.txt"))
        place = Workplace(output, run_id, Console(file=screen), make_store(config.metadata, output))
        place.console.print(
            f"[bold]{config.name}[/] {what} {run_id}, log in {short_path(place.log)}", highlight=False, soft_wrap=True
        )
        _load(config, place.console, with_model)
        yield place


def _load(config: Config, console: Console, with_model: bool) -> None:
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # the components of one process share the GPU's memory
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    with waiting(console, "loading TensorFlow and TFX"):
        for module in ("pipeline.dag_runner", "pipeline.pipeline", "components.evaluator.results"):
            importlib.import_module(module)
        from absl import logging as absl_logging

        from pipeline.batching import bound_batches

        gc.freeze()  # these live as long as the process, and need not be looked through again and again
        bound_batches()
    if with_model:
        _check_formats(config)
    if with_model and config.model.weights != "none":
        with waiting(console, "checking the weights"):  # now rather than after hours of ingestion
            _check_weights(config)
    absl_logging.set_verbosity(absl_logging.INFO)


def execute(pipeline: "Pipeline", place: Workplace) -> Execution:
    """Runs a pipeline's components, taking from the cache what has not changed, and reads what they have put out.

    Args:
      pipeline: as `create_pipeline` makes it.
      place: where the run writes.
    """
    from tfx.dsl.components.common.resolver import Resolver

    from components.evaluator.results import read_evaluation
    from components.model_check.process import start_ahead, stop_ahead
    from pipeline import run_metadata
    from pipeline.dag_runner import DagRunner

    names = [node.id for node in pipeline.components if not isinstance(node, Resolver)]
    # ModelCheck's process loads TensorFlow while the Evaluator works.
    display = ProgressDisplay(place.console, names, {"Trainer": start_ahead} if "ModelCheck" in names else {})
    status, error = 0, ""
    try:
        with display:
            DagRunner(place.store, place.folder).run(pipeline)
    except (Exception, KeyboardInterrupt) as failure:
        logging.exception("the run has failed")
        status, error = _explain(failure, display.running, place.log)
    finally:
        stop_ahead()

    try:
        outputs = run_metadata.read_outputs(place.store)
    except UserError as lost:  # the server has gone meanwhile
        status, error, outputs = status or 1, error or str(lost), run_metadata.RunOutputs()
    evaluation = None
    if outputs.evaluation:
        with waiting(place.console, "reading the evaluation"):
            evaluation = read_evaluation(outputs.evaluation)
    return Execution(display.components, status, error, outputs, evaluation)


def _register(result: RunResult, registry: RegistryConfig, place: Workplace) -> None:
    """Tells the registry of the pushed model; a failure is told, and takes nothing from the run."""
    from pipeline.registry import register_version

    folder, _, number = result.summary["pushed_model"].rpartition("/")
    try:
        with waiting(place.console, "registering the model"):
            found = register_version(folder, int(number), place.folder / CONFIG_FILE)
        result.summary["registered"] = asdict(found)
        result.notes.append(RegisteredNote(found.uri, found.model, found.version))
    except UserError as error:
        later = shlex.join(["fpn", "push", "--register", "--to", short_path(folder), "--version", number])
        result.notes.append(NotRegisteredNote(str(error), later))
    result.summary["notes"] = [line for note in result.notes for line in note.lines()]
    write_text(place.folder / "summary.json", json.dumps(result.summary, indent=2) + "\n")


def _run(config: Config, place: Workplace) -> RunResult:
    from pipeline.pipeline import create_pipeline

    pipeline = create_pipeline(
        config,
        pipeline_root=str(place.output / "artifacts"),
        push_folder=config.push.path or str(place.output / "pushed"),
        store=place.store,
    )
    ended = execute(pipeline, place)
    outputs, evaluation = ended.outputs, ended.evaluation
    status = ended.status
    if not ended.error and not outputs.blessed:
        status = 3
    summary: dict[str, Any] = {
        "pipeline": config.name,
        "run_id": place.run_id,
        "blessed": None if ended.error else outputs.blessed,
        "pushed_model": outputs.pushed_model,
        "scores": outputs.scores,
        "model": outputs.model,
        "evaluation": outputs.evaluation,
        "report": str(place.folder / "report.html") if evaluation else None,
        "check": outputs.check,
        "metrics": {name: asdict(metric) for name, metric in evaluation.overall.items()} if evaluation else {},
        "examples": outputs.examples,
        "classes": outputs.classes,
        "training": outputs.training,
        "formats": [asdict(item) for item in outputs.formats],
        "components": ended.components,
    }
    notes = list(outputs.notes)
    if evaluation and not evaluation.compared and any(item.change is not None for item in config.evaluate.thresholds):
        notes.append(NoBaselineNote())
    summary["notes"] = [line for note in notes for line in note.lines()]
    if outputs.trials:
        best = outputs.trials[0]
        summary["tuning"] = {
            "objective": f"eval {config.train.monitor}",
            "score": best.score,
            "values": best.values,
            "trials": len(outputs.trials),
        }
    return RunResult(summary, status, place.log, ended.error, evaluation, notes, outputs.trials, outputs.formats)


def _check_weights(config: Config) -> None:
    from models.backbones import WeightsError, build_backbone

    model, image = config.model, config.image
    shape = (image.height, image.width, image.channels)
    try:
        build_backbone(model.backbone, model.weights, shape, model.min_level, model.max_level, grey_input=model.grey_input)
    except WeightsError as error:
        raise UserError(str(error)) from error


def _check_formats(config: Config) -> None:
    if "onnx" in config.export.formats:
        for package in ("tf2onnx", "onnxruntime"):
            if importlib.util.find_spec(package) is None:
                raise UserError(f"export.formats: onnx needs the package {package}; install the project with its extra onnx")


def _check_slices(config: Config, rows: list[source.Row]) -> None:
    columns = dict.fromkeys(column for row in rows for column in row.meta)
    known = [*features.RAW, *(features.META_PREFIX + column for column in columns)]
    named = [name for names in config.evaluate.slices for name in names]
    named += [name for threshold in config.evaluate.thresholds for name in (*threshold.slice, *threshold.worst_of)]
    named += config.evaluate.buckets
    for name in named:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known ones: {', '.join(known)}"
            raise UserError(f"evaluate: no feature {name} to slice by; {hint}")


def _check_positive(positive: str | None, rows: list[source.Row]) -> None:
    labels = {label for row in rows if not row.reason for label in row.labels}
    if positive is not None and positive not in labels:
        raise UserError(f"evaluate.groups.positive: no class {positive}; there are {', '.join(sorted(labels)[:10])}")


def _explain(failure: BaseException, component: str, log: Path) -> tuple[int, str]:
    """Exit status and message: a UserError somewhere in the chain of causes is told as it is."""
    if isinstance(failure, KeyboardInterrupt):
        return 1, f"interrupted in {component}; start again to go on from the last finished component"
    if told := user_error(failure):
        return 2, str(told)
    lines = str(failure).strip().splitlines() or [""]
    return 1, f"{component} failed: {type(failure).__name__}: {lines[0][:300]}\nThe whole story is in {short_path(log)}"
