"""Runs the pipeline on this machine with LocalDagRunner: progress on the screen, TFX's own log in a file."""

import contextlib
import json
import logging
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from base.errors import UserError
from base.full_disk import full_disk
from base.local_files import new_file, write_text
from base.paths import short_path
from base.tables import write_table
from components.pusher.signing import check_private_key
from pipeline.config.delivery import RegistryConfig
from pipeline.config.whole import Config
from pipeline.dag.readings import Readings
from pipeline.local.checks import check_trackers, find_teacher, read_data
from pipeline.local.workplace import Workplace, execute, started
from pipeline.records.notes import (
    LostNote,
    NoBaselineNote,
    NoBaseModelNote,
    NotRegisteredNote,
    NotTrackedNote,
    OtherClassesNote,
    RegisteredNote,
)
from pipeline.records.reproduction import CONFIG_FILE, write_reproduction
from pipeline.records.results import Execution, RunOutputs, RunResult, trial_rows
from pipeline.terminal.progress import waiting

if TYPE_CHECKING:
    from pipeline.local.tracking import Tracking


def run(config: Config, output: Path) -> RunResult:
    """Runs all components, taking from the cache what has not changed.

    Writes below `output`: `metadata.sqlite`, `artifacts/`, `pushed/` (unless `push.path` is given) and
    `runs/RUN_ID/` with `config.yaml`, `reproduction.json`, `log.txt`, `summary.json`, `report.html`, and `trials.csv` if there
    was a search.

    Raises:
      UserError: the data or the configuration can't be used; nothing has run yet.
    """
    place: Workplace | None = None
    try:
        check_trackers(config)
        if config.push.sign:
            check_private_key(Path(config.push.sign))
        config = find_teacher(config, output)
        notes, readings = _look(config)
        with started("run", config, output, notes) as place:
            write_reproduction(config, place.folder, "run", ["run", "--output", short_path(place.output)])
            from pipeline.local.tracking import Tracking

            with Tracking(config, place) as tracking:
                return _run(config, place, readings, tracking)
    except Exception as failure:
        told = full_disk(failure, output)
        if not told:
            raise
        ended = Execution({}, 1, told, RunOutputs(), None)
        return RunResult(_summary(config, place, ended), 1, place.log if place else output, told)


def _run(config: Config, place: Workplace, readings: Readings, tracking: "Tracking") -> RunResult:
    """Runs the components, writes the run's files, and tells the trackers and the registry.

    A full disk is told in the result for these files, too. If a component has failed, that is told, whatever can't be written.
    """
    result = _run_components(config, place, readings)
    try:
        _write(result, place)
    except Exception as failure:
        told = full_disk(failure, place.folder)
        if not told and not result.error:
            raise
        logging.exception("the run's files can't be written")
        if not result.error:
            result.status, result.error = 1, told
        if not Path(result.summary["report"] or "").is_file():
            result.summary["report"] = None
        with contextlib.suppress(OSError):
            _write_summary(result, place)
    if config.push.registry and result.summary["pushed_model"] and not result.error:
        _register(result, config.push.registry, place)
    if config.train.trackers:
        _track(result, place, tracking)
    return result


def _track(result: RunResult, place: Workplace, tracking: "Tracking") -> None:
    """Tells the trackers of the result. Whatever goes wrong, it does not change the result."""
    try:
        with waiting(place.console, "telling the trackers"):
            result.notes += tracking.finish(result)
        _write_notes(result, place)
    except Exception as failure:
        logging.exception("the trackers can't be told")
        result.notes.append(NotTrackedNote("any tracker", str(failure)))


def _write_notes(result: RunResult, place: Workplace) -> None:
    result.summary["notes"] = [line for note in (*place.notes, *result.notes) for line in note.lines()]
    _write_summary(result, place)


def _write_summary(result: RunResult, place: Workplace) -> None:
    write_text(place.folder / "summary.json", json.dumps(result.summary, indent=2) + "\n")


def _write(result: RunResult, place: Workplace) -> None:
    """Writes `summary.json`, `trials.csv` if there was a search, and the page if there is an evaluation."""
    _write_summary(result, place)
    if result.trials:
        header, *rows = trial_rows(result.trials, result.summary["tuning"]["objective"])
        with new_file(place.folder / "trials.csv") as path, path.open("wb") as file:
            write_table(file, header, rows)
    if result.evaluation:
        from pipeline.pages.run_page import write_run_page

        with waiting(place.console, "drawing the page"):
            write_run_page(place.folder, Path(result.summary["report"]))


def inspect(config: Config, output: Path, page: Path) -> tuple[int, str]:
    """Runs the components up to the ExampleValidator and writes a page about the data.

    Shares the output folder and its cache with `run`. Anomalies don't stop it, because the page is there to show them.

    Args:
      config: the whole configuration.
      output: as for `run`.
      page: the HTML file.

    Returns:
      Exit status, and the reason of a failure; empty if there was none.

    Raises:
      UserError: the data or the configuration can't be used; nothing has run yet.
    """
    config = config.model_copy(update={"data": config.data.model_copy(update={"stop_on_anomalies": False})})
    notes, readings = _look(config)
    with started("data", config, output, notes, with_model=False) as place:
        write_reproduction(config, place.folder, "data", ["data", "--output", short_path(place.output)])
        from pipeline.dag.pipeline import create_data_pipeline
        from pipeline.pages.data_page import write_data_page

        pipeline = create_data_pipeline(
            config,
            pipeline_root=str(place.output / "artifacts"),
            name=place.store.pipeline_name(config.name),
            connection=place.store.connection,
            readings=readings,
        )
        ended = execute(pipeline, place)
        if not ended.error:
            assert ended.outputs.examples_folder
            assert ended.outputs.anomalies_folder
            with waiting(place.console, "drawing the page"):
                write_data_page(config, Path(ended.outputs.examples_folder), ended.outputs.anomalies_folder, page)
    return ended.status, ended.error


def _look(config: Config) -> tuple[list[str], Readings]:
    """Finds mistakes before TensorFlow is loaded. The component reads the rows again, so they are not kept."""
    found, readings = read_data(config)
    return found.notes, readings


def _register(result: RunResult, registry: RegistryConfig, place: Workplace) -> None:
    """Registers the pushed model. A failure becomes a note; it does not change the run's result."""
    from pipeline.pushed.registry import register_version

    folder, _, number = result.summary["pushed_model"].rpartition("/")
    try:
        with waiting(place.console, "registering the model"):
            found = register_version(folder, int(number), place.folder / CONFIG_FILE)
        result.summary["registered"] = asdict(found)
        result.notes.append(RegisteredNote(found.uri, found.model, found.version))
    except UserError as error:
        later = shlex.join(["fpn", "push", "--register", "--to", short_path(folder), "--version", number])
        result.notes.append(NotRegisteredNote(str(error), later))
    _write_notes(result, place)


def _run_components(config: Config, place: Workplace, readings: Readings) -> RunResult:
    from components.pusher.classes import check_classes
    from pipeline.dag.pipeline import create_pipeline
    from pipeline.records.outputs import read_classes

    push_folder = config.push.path or str(place.output / "pushed")
    replaced: list[OtherClassesNote] = []

    def check() -> None:
        if difference := check_classes(push_folder, read_classes(place.store), replace=config.push.replace):
            replaced.append(OtherClassesNote(short_path(push_folder), difference))

    pipeline = create_pipeline(
        config,
        pipeline_root=str(place.output / "artifacts"),
        push_folder=push_folder,
        name=place.store.pipeline_name(config.name),
        connection=place.store.connection,
        readings=readings,
    )
    ended = execute(pipeline, place, {"Tuner" if config.tune.enabled else "Trainer": check})
    outputs, evaluation = ended.outputs, ended.evaluation
    status = ended.status
    if not ended.error and not outputs.blessed:
        status = 3
    summary = _summary(config, place, ended)
    notes = [*outputs.notes, *replaced]
    if readings.score_losses:
        notes.append(LostNote(readings.score_losses.describe(), f"of {config.score.path} (score.path)"))
    if evaluation and not evaluation.compared and any(item.change is not None for item in config.evaluate.thresholds or ()):
        notes.append(NoBaselineNote())
    if config.train.warm_start and outputs.training and not outputs.training["warm_start"]:
        notes.append(NoBaseModelNote())
    summary["notes"] += [line for note in notes for line in note.lines()]
    if outputs.trials:
        best = outputs.trials[0]
        summary["tuning"] = {
            "objective": f"eval {config.train.monitor}",
            "score": best.score,
            "values": best.values,
            "trials": len(outputs.trials),
        }
    return RunResult(summary, status, place.log, ended.error, evaluation, notes, outputs.trials, outputs.formats)


def _summary(config: Config, place: Workplace | None, ended: Execution) -> dict[str, Any]:
    """What `--json` prints, with the notes so far; `place` is None if the run has no folder yet."""
    outputs, evaluation = ended.outputs, ended.evaluation
    return {
        "pipeline": config.name,
        "run_id": place.run_id if place else None,
        "blessed": None if ended.error else outputs.blessed,
        "pushed_model": outputs.pushed_model,
        "already_served": outputs.already_served,
        "scores": outputs.scores,
        "model": outputs.model,
        "evaluation": outputs.evaluation,
        "report": str(place.folder / "report.html") if place and evaluation else None,
        "check": outputs.check,
        "labels": outputs.labels,
        "metrics": {name: asdict(metric) for name, metric in evaluation.overall.items()} if evaluation else {},
        "examples": outputs.examples,
        "lost": outputs.lost,
        "classes": outputs.classes,
        "training": outputs.training,
        "formats": [item.summary for item in outputs.formats],
        "components": ended.components,
        "notes": [line for note in (place.notes if place else []) for line in note.lines()],
    }
