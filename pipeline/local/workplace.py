"""Where a run writes, and how its components are run there."""

import contextlib
import datetime
import gc
import importlib.util
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from base.errors import INTERRUPTED, UserError, user_error
from base.full_disk import full_disk
from base.paths import check_for_tensorflow, short_path
from base.redirection import output_to
from images.dataset import source
from images.dataset.listing import is_remote
from pipeline.config.whole import Config
from pipeline.dag.beam import check_engine
from pipeline.local.checks import (
    check_formats,
    check_teacher,
    check_tf_config,
    check_warm_start,
    check_weights,
    networks_to_check,
)
from pipeline.records.notes import DataNote, Note, RecoveredNote
from pipeline.records.recovery import back_up, recover, remove_fragments
from pipeline.records.results import Execution, RunOutputs
from pipeline.records.run_lock import locked
from pipeline.records.store import METADATA_FILE, Store, check_server, make_store
from pipeline.terminal.console import plain_console
from pipeline.terminal.engine import start_engine
from pipeline.terminal.progress import ProgressDisplay, waiting

if TYPE_CHECKING:
    from tfx.orchestration.pipeline import Pipeline


@dataclass(frozen=True)
class Workplace:
    """Where a run writes.

    Attributes:
      output: absolute folder with `artifacts/`, `metadata.sqlite` (unless the store is on a server) and `runs/`.
      run_id: the time of the start; `runs/RUN_ID/` is the run's own folder.
      console: the real screen, while the standard streams go to the log.
      store: where the run is recorded.
      notes: what a person was told while the run went on, first of all how the data is read.
    """

    output: Path
    run_id: str
    console: Console
    store: Store
    notes: list[Note] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return self.output / "runs" / self.run_id

    @property
    def log(self) -> Path:
        return self.folder / "log.txt"

    def tell(self, note: Note) -> None:
        """Shows a note at once, and keeps it."""
        self.notes.append(note)
        for line in note.lines():
            self.console.print(line, soft_wrap=True)


@contextlib.contextmanager
def started(
    what: str, config: Config, output: Path, notes: Sequence[str] = (), *, with_model: bool = True
) -> Iterator[Workplace]:
    """Makes the folder of a new run, recovers its metadata store, sends the standard streams to its log, and loads TFX.

    At the end the store is copied, for the recovery of a later run.

    Args:
      what: what is started, for the heading, such as "run".
      config: the whole configuration.
      output: the folder below which everything is written; only one run at a time may use it.
      notes: lines that tell a person how the data is read, to be shown below the heading.
      with_model: whether a model will be built; if so, its weights, its teacher and the model that it starts from are checked
        first.

    Raises:
      UserError: the folder can't be made, is in use or has a path that TensorFlow can't use, the metadata store can't be used,
        the backbone's weights, the teacher or the model to start from don't fit, or the engine can't run.
    """
    output = output.resolve()
    check_for_tensorflow(output, "--output")
    check_for_tensorflow(config.push.path or "", "push.path")
    if not is_remote(config.data.path) and output == Path(source.root_of(config.data.path)).resolve():
        raise UserError(f"--output {short_path(output)} is the data folder; give one beside it, or inside it")
    others = {"score.path": source.root_of(config.score.path)} if config.score.path else {}
    check_engine(config.beam, {"data.path": source.root_of(config.data.path), **others, "--output": str(output)})
    if config.metadata:
        check_server(config.metadata)
    run_id = _new_run_id(output)
    folder = output / "runs" / run_id
    with contextlib.ExitStack() as stack:
        stack.enter_context(locked(output, run_id))
        recovered = "" if config.metadata else _recover(output / METADATA_FILE)
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            raise UserError(f"{folder}: can't be made ({error.strerror}); give another --output") from error
        screen = stack.enter_context(output_to(folder / "log.txt"))
        if not config.metadata:
            stack.callback(_back_up, output / METADATA_FILE)
        place = Workplace(output, run_id, plain_console(screen), make_store(config.metadata, output))
        heading = Text.assemble((config.name, "bold"), f" {what} {run_id}, log in {short_path(place.log)}")
        place.console.print(heading, soft_wrap=True)
        if recovered:
            place.tell(RecoveredNote(recovered))
        for line in notes:
            place.tell(DataNote(line))
        start_engine(config.beam, place.console)
        _load(config, place, with_model)
        yield place


def _new_run_id(output: Path) -> str:
    """The time; waits for the next second if a run, which has ended or was killed, has begun in this one."""
    while True:
        run_id = datetime.datetime.now().strftime("%Y-%m-%dT%H-%M-%S")
        if not (output / "runs" / run_id).exists():
            return run_id
        time.sleep(0.1)


def _recover(path: Path) -> str:
    """See `recover`."""
    try:
        return recover(path)
    except (OSError, sqlite3.Error, RuntimeError) as error:
        reason = str(error).splitlines()[0][:200]
        raise UserError(f"{path}: can't be used ({reason}); check your rights to it, or give another --output") from error


def _back_up(path: Path) -> None:
    """Copies the store; without room for the copy, the one before stays."""
    try:
        remove_fragments(path)
        back_up(path)
    except (OSError, sqlite3.Error):
        logging.exception("no copy of %s", path)


def _load(config: Config, place: Workplace, with_model: bool) -> None:
    console = place.console
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # the components of one process share the GPU's memory
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    with waiting(console, "loading TensorFlow and TFX"):
        for module in ("pipeline.local.dag_runner", "pipeline.dag.pipeline", "evaluation.results"):
            importlib.import_module(module)
        from absl import logging as absl_logging

        from pipeline.dag.batch_bytes import bound_batches
        from pipeline.dag.beam_memory import remember

        gc.freeze()  # all objects so far live as long as the process: later collections need not look at them
        bound_batches()
        remember()
    if with_model:
        check_formats(config)
        check_tf_config(config)
    if with_model and networks_to_check(config):
        with waiting(console, "checking the weights"):  # now rather than after hours of ingestion
            check_weights(config)
    if with_model and config.train.teacher:
        with waiting(console, "checking the teacher"):
            check_teacher(config)
    if with_model and config.train.warm_start:
        with waiting(console, "checking the model to start from"):
            check_warm_start(config, place.output)
    absl_logging.set_verbosity(absl_logging.INFO)


def execute(pipeline: "Pipeline", place: Workplace, before: Mapping[str, Callable[[], None]] | None = None) -> Execution:
    """Runs a pipeline's components, taking from the cache what has not changed, and reads their outputs.

    Args:
      pipeline: as `create_pipeline` makes it.
      place: where the run writes.
      before: as for `DagRunner`.
    """
    from tfx.dsl.components.common.resolver import Resolver

    from components.model_check.process import start_ahead, stop_ahead
    from evaluation.results import read_evaluation
    from pipeline.local.dag_runner import DagRunner
    from pipeline.records.outputs import read_outputs

    names = [node.id for node in pipeline.components if not isinstance(node, Resolver)]
    # ModelCheck's process loads TensorFlow while the Evaluator works.
    display = ProgressDisplay(place.console, names, {"Trainer": start_ahead} if "ModelCheck" in names else {})
    status, error = 0, ""
    try:
        with display:
            DagRunner(place.store, place.folder, place.tell, before).run(pipeline)
    except (Exception, KeyboardInterrupt) as failure:
        logging.exception("the run has failed")
        status, error = _explain(failure, display.running, place)
    finally:
        stop_ahead()

    outputs, evaluation = RunOutputs(), None
    try:
        outputs = read_outputs(place.store)
        if outputs.evaluation:
            with waiting(place.console, "reading the evaluation"):
                evaluation = read_evaluation(outputs.evaluation)
    except Exception as lost:  # a server has become unreachable meanwhile, or the disk is full
        logging.exception("the outputs can't be read")
        status, error = status or 1, error or _explain(lost, "reading the outputs", place)[1]
    return Execution(display.components, status, error, outputs, evaluation)


def _explain(failure: BaseException, component: str, place: Workplace) -> tuple[int, str]:
    """Exit status and message; a UserError anywhere in the chain of causes gives its own text as the message."""
    if isinstance(failure, KeyboardInterrupt):
        return INTERRUPTED, f"interrupted in {component}; start again to go on from the last finished component"
    if told := full_disk(failure, place.output):
        return 1, told
    from models.abstention import ClassNameError
    from models.budget import BudgetError
    from models.distillation import TeacherError
    from models.memory import OutOfMemoryError
    from models.warm_start import WarmStartError
    from models.workers import WorkersError

    if cause := user_error(failure, BudgetError, ClassNameError, OutOfMemoryError, TeacherError, WarmStartError, WorkersError):
        return 2, str(cause)
    lines = str(failure).strip().splitlines() or [""]
    text = f"{component} failed: {type(failure).__name__}: {lines[0][:300]}"
    return 1, f"{text}\nThe whole story is in {short_path(place.log)}"
