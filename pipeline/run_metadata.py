"""What the latest run has put out, from ML Metadata."""

import csv
import json
import math
import os
from dataclasses import asdict, dataclass, field
from typing import Any

from ml_metadata.proto import metadata_store_pb2
from tfx.dsl.io import fileio
from tfx.utils import path_utils

from components.example_validator.executor import read_anomalies
from components.image_example_gen.duplicates import DUPLICATES_FILE
from components.image_example_gen.executor import SUMMARY_FILE
from components.model_check.results import read_check
from components.model_formats.results import FormatResult, read_results
from models.calibration import CALIBRATION_FILE
from models.callbacks import HISTORY_FILE
from pipeline.metadata_store import Store
from pipeline.report import short_path
from pipeline.runs import is_score_ingestion

_EXPORTED = "exported_model"  # key of what ModelFormats puts out
_LARGE_GROUP = 100  # images that are hardly all the same
_TRIALS_FILE = "tuner_results.json"  # as TFX's Tuner names it


@dataclass(frozen=True)
class Trial:
    """What the Tuner has tried: its number in the order of time, the objective on the eval split, the value of each key."""

    number: int
    score: float
    values: dict[str, Any]


@dataclass(frozen=True)
class RunOutputs:
    """Where the outputs of a run are; None, or empty, where it did not get that far.

    Attributes:
      examples: number of images by split, and `rejected` files.
      classes: number of images by split and label; an image of several labels counts for each.
      examples_folder: of the images, with ingestion's index and tables.
      duplicates: a line on each kind of duplicates that spoils training or evaluation; see `describe_duplicates`.
      training: see `read_training`.
      anomalies: found by the ExampleValidator, a line each.
      anomalies_folder: the same, and all distances that it has measured.
      model: the SavedModel that was trained, pushed or not.
      trials: of the Tuner, best first, without those that failed.
      evaluation: folder of TFMA's results.
      check: the fields of `components.model_check.results.CheckResult`.
      blessed: whether the model has met its thresholds, and passed its check if there was one.
      pushed_model: the numbered folder that the model was pushed to.
      scores: folder of the answers to the images of `score.path`; None, too, if the model is not blessed.
      formats: what was measured of the SavedModel and of its other formats.
    """

    examples: dict[str, int] = field(default_factory=dict)
    classes: dict[str, dict[str, int]] = field(default_factory=dict)
    examples_folder: str | None = None
    duplicates: list[str] = field(default_factory=list)
    training: dict[str, Any] = field(default_factory=dict)
    anomalies: list[str] = field(default_factory=list)
    anomalies_folder: str | None = None
    model: str | None = None
    trials: list[Trial] = field(default_factory=list)
    evaluation: str | None = None
    check: dict[str, Any] | None = None
    blessed: bool | None = None
    pushed_model: str | None = None
    scores: str | None = None
    formats: list[FormatResult] = field(default_factory=list)


def read_outputs(store: Store) -> RunOutputs:
    """Reads the outputs of the latest run, be they new or from the cache."""
    artifacts = _artifacts_of_latest_run(store)
    examples: dict[str, int] = {}
    classes: dict[str, dict[str, int]] = {}
    duplicates: list[str] = []
    if "examples" in artifacts:
        summary = json.loads(_read(os.path.join(artifacts["examples"].uri, SUMMARY_FILE)))
        examples = {**summary["images"], "rejected": summary["rejected"]}
        classes = summary["splits"]
        table = short_path(os.path.join(artifacts["examples"].uri, DUPLICATES_FILE))
        duplicates = describe_duplicates(summary["duplicates"], table)
    trials: list[Trial] = []
    if "tuner_results" in artifacts:
        with fileio.open(os.path.join(artifacts["tuner_results"].uri, _TRIALS_FILE)) as file:
            for record in json.load(file):
                number, score = int(record.pop("trial_id")) + 1, record.pop("score")
                trials.append(Trial(number, score, record))
    check = asdict(read_check(artifacts["infra_blessing"].uri)) if "infra_blessing" in artifacts else None
    blessing, pushed = artifacts.get("blessing"), artifacts.get("pushed_model")
    blessed = bool(blessing.custom_properties["blessed"].int_value) and (not check or check["passed"]) if blessing else None
    destination = pushed.custom_properties["pushed_destination"].string_value if pushed else ""
    return RunOutputs(
        examples=examples,
        classes=classes,
        examples_folder=artifacts["examples"].uri if "examples" in artifacts else None,
        duplicates=duplicates,
        training=read_training(artifacts["model_run"].uri) if "model_run" in artifacts else {},
        anomalies=read_anomalies(artifacts["anomalies"].uri) if "anomalies" in artifacts else [],
        anomalies_folder=artifacts["anomalies"].uri if "anomalies" in artifacts else None,
        model=path_utils.serving_model_path(artifacts["model"].uri) if "model" in artifacts else None,
        trials=trials,
        evaluation=artifacts["evaluation"].uri if "evaluation" in artifacts else None,
        check=check,
        blessed=blessed,
        pushed_model=destination or None,
        scores=artifacts["inference_result"].uri if "inference_result" in artifacts and blessed else None,
        formats=read_results(path_utils.serving_model_path(artifacts[_EXPORTED].uri)) if _EXPORTED in artifacts else [],
    )


def describe_duplicates(counts: dict[str, Any], table: str) -> list[str]:
    """What a person should know of an ingestion's duplicates, a line each; none if all are harmless.

    Args:
      counts: as `write_duplicates` gives them, with those of `group_duplicates` where these are grouped.
      table: where all of them are listed.
    """
    lines = []
    leaks = [f"{count} in {split}" for split, count in counts["in_train"].items() if count]
    if leaks:
        lines.append(
            "Leak: images with a duplicate or near duplicate in train: "
            f"{', '.join(leaks)}; data.duplicates: group keeps them together"
        )
    elif counts["across_splits"]:
        lines.append(f"Leak: {counts['across_splits']} images have a duplicate or near duplicate in another split")
    if counts["across_classes"]:
        lines.append(f"Contradiction: {counts['across_classes']} images have a duplicate or near duplicate in another class")
    if lines:
        lines[-1] += f"; table {table}"
    if counts.get("moved"):
        lines.append(f"{counts['moved']} images were moved to the split of a duplicate")
    if counts.get("largest", 0) > _LARGE_GROUP:
        lines.append(f"{counts['largest']} images count as one group of duplicates; lower data.near_duplicates if they are not")
    return lines


def read_training(folder: str) -> dict[str, Any]:
    """What the Trainer has left beside the model.

    Args:
      folder: its artifact `model_run`.

    Returns:
      {"epochs": epochs trained, "best_epoch": the one of least loss on the eval split (from 1), None if all have diverged,
      "best_loss": that loss, "history": the file with a line an epoch, None if there is none, "calibration": the fields of
      `models.calibration.Calibration`, None if not calibrated}.
    """
    path = os.path.join(folder, HISTORY_FILE)
    history = csv.DictReader(_read(path).splitlines()) if fileio.exists(path) else []
    losses = {int(row["epoch"]): float(row["val_loss"]) for row in history}
    finite = {epoch: loss for epoch, loss in losses.items() if math.isfinite(loss)}
    best, loss = min(finite.items(), key=lambda item: item[1], default=(None, None))
    calibration = os.path.join(folder, CALIBRATION_FILE)
    return {
        "epochs": len(losses),
        "best_epoch": best,
        "best_loss": loss,
        "history": path if losses else None,
        "calibration": json.loads(_read(calibration)) if fileio.exists(calibration) else None,
    }


def _read(path: str) -> str:
    with fileio.open(path) as file:
        return file.read()


def _artifacts_of_latest_run(place: Store) -> dict[str, metadata_store_pb2.Artifact]:
    """Output key -> artifact, over all successful executions of the output folder's run that began last."""
    store = place.open()
    runs = [context for context in store.get_contexts_by_type("pipeline_run") if place.owns(context.name)]
    run = max(runs, key=lambda context: context.id, default=None)
    if run is None:
        return {}
    succeeded = {metadata_store_pb2.Execution.COMPLETE, metadata_store_pb2.Execution.CACHED}
    executions = [
        item.id
        for item in store.get_executions_by_context(run.id)
        if item.last_known_state in succeeded and not is_score_ingestion(item)
    ]
    events = [
        event
        for event in store.get_events_by_execution_ids(executions)
        if event.type in (metadata_store_pb2.Event.OUTPUT, metadata_store_pb2.Event.DECLARED_OUTPUT)
    ]
    artifacts = {item.id: item for item in store.get_artifacts_by_id([event.artifact_id for event in events])}
    return {event.path.steps[0].key: artifacts[event.artifact_id] for event in events}
