"""What the exported model says of its own answers, fitted after training in one pass over the eval split."""

import json
import logging
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np
import tensorflow as tf

from models.abstention import ABSTENTION_FILE, Abstention, fit_abstention
from models.calibration import CALIBRATION_FILE, Floats, Integers, calibrate
from models.conformal import SETS_FILE, PredictionSets, fit_sets
from models.reference import REFERENCE_ROWS, Sample, Spread
from models.settings import CalibrationSettings, UnusualSettings
from models.unusual import UNUSUAL_FILE, Distance, Unusual, fit_distance, fit_percentiles, percentiles

log = logging.getLogger(__name__)

Look = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]  # from images to logits and embeddings, as `inference.InferenceModel`


@dataclass(frozen=True)
class Answers:
    """A model's answers to N images.

    Attributes:
      logits: float32 [N, classes], as the exported model has them before the temperature.
      labels: float32 [N, classes], one-hot, multi-hot for multi-label data, or all 0 where the class is unknown.
      groups: int64 [N], equal for images of one group.
      distances: float32 [N], of the embeddings, see `models.unusual`; empty where there is no distance.
      sample: embeddings of some of the images, at most REFERENCE_ROWS.
    """

    logits: Floats
    labels: Floats
    groups: Integers
    distances: Floats = field(default_factory=lambda: np.zeros(0, np.float32))
    sample: Sample | None = None


@dataclass(frozen=True)
class Fitted:
    """What `export.export_model` builds into the model.

    Attributes:
      temperature: divisor of the logits.
      sets: the sets of classes; None: the model gives none.
      abstention: when the label is features.UNKNOWN; None: never.
      unusual: how unusual an image is; None: the model does not say it.
    """

    temperature: float = 1.0
    sets: PredictionSets | None = None
    abstention: Abstention | None = None
    unusual: Unusual | None = None


NOTHING: Final = Fitted()


def find_distance(look: Look, training: Iterable[Any]) -> Distance | None:
    """Fits the distance that `models.unusual` describes on batches of (uint8 images, labels); None where none can be fitted."""
    try:
        return fit_distance(np.concatenate([look(images)[1].numpy() for images, _ in training]))
    except ValueError as error:  # training has diverged
        log.warning("the model will not say how unusual images are: %s", error)
        return None


def ask(look: Look, evaluation: Iterable[Any], distance: Distance | None = None) -> Answers:
    """Asks a model about batches of (uint8 images, float32 labels [N, classes], int64 groups [N], -1 for an image alone)."""
    measure = tf.function(distance or (lambda embeddings: embeddings[:0, 0]), autograph=False, reduce_retracing=True)
    spread = Spread(REFERENCE_ROWS)
    parts = []
    for images, *known in evaluation:
        logits, embeddings = look(images)
        spread.add(embeddings.numpy())
        parts.append([values.numpy() for values in (logits, *known, measure(embeddings))])
    logits, labels, groups, distances = map(np.concatenate, zip(*parts, strict=True))
    return Answers(logits, labels, np.where(groups < 0, -1 - np.arange(len(groups)), groups), distances, spread.kept())


def fit_answers(
    answers: Answers,
    settings: CalibrationSettings,
    folder: str,
    multi_label: bool = False,
    distance: Distance | None = None,
) -> Fitted:
    """Fits all that the settings ask for.

    Args:
      answers: to the eval split, of the model as it is exported but for the temperature.
      settings: what is fitted.
      folder: gets a JSON file for each thing that is fitted, such as CALIBRATION_FILE.
      multi_label: as in `models.calibration`.
      distance: what the answers' distances are.
    """
    temperature = _fit_temperature(answers, folder, multi_label) if settings.temperature else 1.0
    unusual = _fit_unusual(answers, distance, settings.unusual, folder) if distance and settings.unusual else None
    sets = abstention = None
    if settings.sets or settings.abstain:
        # As the exported model computes them; without finite numbers, nothing is likely.
        found = np.nan_to_num(tf.nn.softmax(answers.logits / np.float32(temperature)).numpy())
        labels = np.where(answers.labels.any(axis=-1), answers.labels.argmax(axis=-1), -1)
        if settings.sets:
            sets = fit_sets(found, labels, answers.groups, settings.sets)
            _report(sets, folder, SETS_FILE, sets.problem)
        if settings.abstain:
            if unusual and unusual.cutoff is not None:  # what is not answered anyway can't keep the risk of the rest
                above = percentiles(tf.constant(answers.distances), unusual.quantiles) > unusual.cutoff
                found = np.where(above[:, np.newaxis], 0, found)
            abstention = fit_abstention(found, labels, answers.groups, settings.abstain)
            _report(abstention, folder, ABSTENTION_FILE, abstention.problem)
    return Fitted(temperature, sets, abstention, unusual)


def _report(fitted: PredictionSets | Abstention, folder: str, name: str, problem: str) -> None:
    log.info("fitted on the eval split: %s", fitted)
    if problem:
        log.warning("%s", problem)
    write_json(folder, name, asdict(fitted) | {"problem": problem})


def _fit_temperature(answers: Answers, folder: str, multi_label: bool) -> float:
    """The temperature; 1, and no file, where none can be fitted: training has diverged, or no label is known."""
    try:
        calibration = calibrate(answers.logits, answers.labels, multi_label)
    except ValueError as error:
        log.warning("not calibrated: %s", error)
        return 1.0
    log.info("calibrated on the eval split: %s", calibration)
    write_json(folder, CALIBRATION_FILE, asdict(calibration))
    return calibration.temperature


def _fit_unusual(answers: Answers, distance: Distance, settings: UnusualSettings, folder: str) -> Unusual | None:
    """The percentiles; None, and no file, where training has diverged."""
    try:
        fitted = fit_percentiles(answers.distances, distance.examples)
    except ValueError as error:
        log.warning("the model will not say how unusual images are: %s", error)
        return None
    write_json(folder, UNUSUAL_FILE, {**asdict(fitted), "cutoff": settings.cutoff})
    return Unusual(distance, fitted.quantiles, settings.cutoff)


def write_json(folder: str, name: str, content: dict[str, Any]) -> None:
    """Writes a JSON file into a folder, which is made if there is none."""
    tf.io.gfile.makedirs(folder)
    with tf.io.gfile.GFile(os.path.join(folder, name), "w") as file:
        json.dump(content, file, indent=2)
