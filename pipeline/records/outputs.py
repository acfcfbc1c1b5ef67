"""The outputs of the latest run, from ML Metadata."""

import csv
import json
import math
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ml_metadata.proto import metadata_store_pb2
from tensorflow_transform import TFTransformOutput
from tfx.dsl.io import fileio
from tfx.utils import path_utils

from base.paths import short_path
from components.example_validator.executor import read_anomalies
from components.label_check.results import OUTPUT_KEY as LABEL_ISSUES
from components.label_check.results import read_result
from components.label_check.tables import CORRECTIONS, TABLE
from components.model_check.results import read_check
from components.model_formats.results import read_results
from components.pusher.classes import read_labels
from components.pusher.executor import ALREADY_SERVED
from images.dataset.losses import Losses
from images.duplicates import DUPLICATES_FILE, describe_duplicates
from images.index import REJECTED_FILE, SUMMARY_FILE
from images.layout import has_layout
from models.abstention import ABSTENTION_FILE
from models.calibration import CALIBRATION_FILE
from models.conformal import SETS_FILE
from models.history import HISTORY_FILE, is_diverged
from models.unusual import UNUSUAL_FILE
from models.warm_start import WARM_START_FILE
from pipeline.records.notes import AnomalyNote, DivergedNote, DuplicatesNote, LabelsNote, LostNote, Note, OtherExamplesNote
from pipeline.records.results import RunOutputs, Trial
from pipeline.records.runs import is_score_ingestion, pipeline_runs, store_of_run
from pipeline.records.store import Store

_EXPORTED = "exported_model"  # key of ModelFormats' output
_TRIALS_FILE = "tuner_results.json"  # as TFX's Tuner names it


def read_outputs(store: Store) -> RunOutputs:
    """Reads the outputs of the latest run, both new ones and those from the cache."""
    artifacts = _artifacts_of_run(store)
    examples: dict[str, int] = {}
    classes: dict[str, dict[str, int]] = {}
    notes: list[Note] = []
    lost: dict[str, Any] | None = None
    if "examples" in artifacts and not has_layout(artifacts["examples"]):
        notes.append(OtherExamplesNote(short_path(artifacts["examples"].uri)))
    elif "examples" in artifacts:
        summary = json.loads(_read(os.path.join(artifacts["examples"].uri, SUMMARY_FILE)))
        examples = {**summary["images"], "rejected": summary["rejected"]}
        classes = summary["splits"]
        if lost := summary.get("lost"):
            table = short_path(os.path.join(artifacts["examples"].uri, REJECTED_FILE))
            notes.append(LostNote(Losses(**lost).describe(), f"table {table}"))
        table = short_path(os.path.join(artifacts["examples"].uri, DUPLICATES_FILE))
        if describe_duplicates(summary["duplicates"], table):
            notes.append(DuplicatesNote(summary["duplicates"], table))
    if "anomalies" in artifacts:
        notes += [AnomalyNote(**asdict(anomaly)) for anomaly in read_anomalies(artifacts["anomalies"].uri)]
    if "model_run" in artifacts:
        notes += [DivergedNote(row) for row in _read_history(artifacts["model_run"].uri) if is_diverged(row)]
    trials: list[Trial] = []
    if "tuner_results" in artifacts:
        with fileio.open(os.path.join(artifacts["tuner_results"].uri, _TRIALS_FILE)) as file:
            for record in json.load(file):
                number, score = int(record.pop("trial_id")) + 1, record.pop("score")
                trials.append(Trial(number, score, record))
    check = asdict(read_check(artifacts["infra_blessing"].uri)) if "infra_blessing" in artifacts else None
    labels = _read_labels(artifacts[LABEL_ISSUES].uri) if LABEL_ISSUES in artifacts else None
    if labels:
        notes.append(LabelsNote(labels["images"], labels["issues"], labels["reason"], short_path(labels["table"])))
    blessing, pushed = artifacts.get("blessing"), artifacts.get("pushed_model")
    blessed = bool(blessing.custom_properties["blessed"].int_value) and (not check or check["passed"]) if blessing else None
    destination = pushed.custom_properties["pushed_destination"].string_value if pushed else ""
    return RunOutputs(
        examples=examples,
        lost=lost,
        classes=classes,
        examples_folder=artifacts["examples"].uri if "examples" in artifacts else None,
        notes=notes,
        training=read_training(artifacts["model_run"].uri) if "model_run" in artifacts else {},
        anomalies_folder=artifacts["anomalies"].uri if "anomalies" in artifacts else None,
        model=path_utils.serving_model_path(artifacts["model"].uri) if "model" in artifacts else None,
        trials=trials,
        evaluation=artifacts["evaluation"].uri if "evaluation" in artifacts else None,
        check=check,
        labels=labels,
        blessed=blessed,
        pushed_model=destination or None,
        already_served=bool(pushed and pushed.custom_properties[ALREADY_SERVED].int_value),
        scores=artifacts["inference_result"].uri if "inference_result" in artifacts and blessed else None,
        formats=read_results(path_utils.serving_model_path(artifacts[_EXPORTED].uri)) if _EXPORTED in artifacts else [],
    )


def read_classes(store: Store) -> list[str]:
    """The classes that the latest run's model has or will have; empty if the run has not got that far."""
    graph = _artifacts_of_run(store).get("transform_graph")
    return (read_labels(os.path.join(graph.uri, TFTransformOutput.TRANSFORM_FN_DIR)) or []) if graph else []


def find_examples(run: Path) -> Path | None:
    """The folder of the examples that a run has made or taken from the cache; None if the run or the folder is gone.

    Args:
      run: the run's folder.
    """
    store = store_of_run(run) if run.is_dir() else None
    examples = _artifacts_of_run(store, run.name).get("examples") if store else None
    return Path(examples.uri) if examples and Path(examples.uri).is_dir() else None


def read_training(folder: str) -> dict[str, Any]:
    """What the Trainer has written beside the model.

    Args:
      folder: its artifact `model_run`.

    Returns:
      {"epochs": number of epochs trained, "best_epoch": the epoch (from 1) with the least loss on the eval split, None if all
      have diverged, "best_loss": that loss, "history": the file with one line per epoch, None if there is none,
      "calibration": the fields of `models.calibration.Calibration`, None if not calibrated, "sets": those of
      `models.conformal.PredictionSets`, "abstention": those of `models.abstention.Abstention`, both with "problem" and None if
      not fitted, "unusual": {"examples", "training_examples", "cutoff"} as in `models.unusual`, None if the model does not say
      how unusual images are, "warm_start": those of `models.warm_start.WarmStart`, None if training began anew}.
    """
    path = os.path.join(folder, HISTORY_FILE)
    history = _read_history(folder)
    losses = {int(row["epoch"]): float(row["val_loss"]) for row in history}
    finite = {epoch: loss for epoch, loss in losses.items() if math.isfinite(loss)}
    unusual = _read_json(folder, UNUSUAL_FILE)
    best, loss = min(finite.items(), key=lambda item: item[1], default=(None, None))
    return {
        "epochs": len(losses),
        "best_epoch": best,
        "best_loss": loss,
        "history": path if losses else None,
        "calibration": _read_json(folder, CALIBRATION_FILE),
        "sets": _read_json(folder, SETS_FILE),
        "abstention": _read_json(folder, ABSTENTION_FILE),
        "unusual": unusual and {name: value for name, value in unusual.items() if name != "quantiles"},
        "warm_start": _read_json(folder, WARM_START_FILE),
    }


def _read_json(folder: str, name: str) -> dict[str, Any] | None:
    path = os.path.join(folder, name)
    return json.loads(_read(path)) if fileio.exists(path) else None


def _read_labels(folder: str) -> dict[str, Any]:
    """The fields of LabelCheck's result, and the paths of its tables."""
    tables = {"table": os.path.join(folder, TABLE), "corrections": os.path.join(folder, CORRECTIONS)}
    return {**asdict(read_result(folder)), **tables}


def _read_history(folder: str) -> list[dict[str, str]]:
    path = os.path.join(folder, HISTORY_FILE)
    return list(csv.DictReader(_read(path).splitlines())) if fileio.exists(path) else []


def _read(path: str) -> str:
    with fileio.open(path) as file:
        return file.read()


def _artifacts_of_run(place: Store, run_id: str | None = None) -> dict[str, metadata_store_pb2.Artifact]:
    """Output key -> artifact, over all successful executions of a run; of the output folder's latest one if no id is given."""
    store = place.open()
    runs = [context for began, context in pipeline_runs(place, store) if run_id is None or began >= run_id]
    if not runs:
        return {}
    succeeded = {metadata_store_pb2.Execution.COMPLETE, metadata_store_pb2.Execution.CACHED}
    executions = [
        item.id
        for item in store.get_executions_by_context(runs[-1 if run_id is None else 0])
        if item.last_known_state in succeeded and not is_score_ingestion(item)
    ]
    events = [
        event
        for event in store.get_events_by_execution_ids(executions)
        if event.type in (metadata_store_pb2.Event.OUTPUT, metadata_store_pb2.Event.DECLARED_OUTPUT)
    ]
    artifacts = {item.id: item for item in store.get_artifacts_by_id([event.artifact_id for event in events])}
    return {event.path.steps[0].key: artifacts[event.artifact_id] for event in events}
