"""Writes evaluations as the Evaluator leaves them, of answers that are drawn at random, and the images that they are of."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from evaluation.metrics import METRICS, Measurement, compute, default_metrics
from evaluation.predictions import Predictions
from evaluation.results import (
    Comparison,
    Evaluation,
    Flips,
    GroupResult,
    Metric,
    Shortcut,
    Slice,
    SliceKey,
    Verdict,
    write_evaluation,
)
from models import features
from pipeline.config.whole import Config


@dataclass(frozen=True)
class Made:
    """An evaluation that was written.

    Attributes:
      folder: with the figures and the predictions.
      config: whose data folder has the images.
      predictions: what was written.
      evaluation: likewise.
    """

    folder: Path
    config: Config
    predictions: Predictions
    evaluation: Evaluation


def make_evaluation(
    place: Path, classes: list[str], images: int, *, multi_label: bool = False, with_images: bool = True, seed: int = 0
) -> Made:
    """Answers that are mostly right, with a baseline, groups of three, slices by label and site, and one that is too small.

    Intervals are the value and 0.02 to both sides, for they are somebody else's work. One threshold does not hold.

    Args:
      place: folder for `data` and `evaluation`.
      classes: names.
      images: how many.
      multi_label: whether an image has any number of classes.
      with_images: whether the images are there.
    """
    random = np.random.default_rng(seed)
    truth = random.integers(0, len(classes), images)
    several = (random.random((images, len(classes))) < 0.3).astype(np.uint8)

    def answer(sharpness: float) -> np.ndarray:
        if multi_label:
            logits = (2 * several - 1.0) * sharpness / 2 + random.normal(0, 1, several.shape)
            return (1 / (1 + np.exp(-logits))).astype(np.float32)
        logits = random.normal(0, 1, (images, len(classes)))
        logits[np.arange(images), truth] += sharpness
        return (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).astype(np.float32)

    texts = ["|".join(np.array(classes)[row == 1]) for row in several] if multi_label else [classes[number] for number in truth]
    names = [f"{text.replace('|', '+') or 'none'}/{number}.png" for number, text in enumerate(texts)]
    rows = pd.DataFrame(
        {
            features.FILENAME: names,
            features.LABEL: texts,
            features.GROUP: [f"patient {number // 3}" for number in range(images)],
            features.FORMAT: "png",
            "meta/site": [("north", "south", "<west & east>")[number // 3 % 3] for number in range(images - 1)] + ["moon"],
        }
    )
    unusual = (np.random.default_rng(seed).permutation(images) * (100 / (images - 1))).astype(np.float32)
    predictions = Predictions(rows, classes, multi_label, answer(3.5), answer(2.5), unusual=unusual)
    if with_images:
        _write_images(place / "data", names, random)
    evaluation = _evaluate(predictions)
    folder = place / "evaluation"
    folder.mkdir(parents=True)
    predictions.write(str(folder))
    write_evaluation(evaluation, str(folder))
    config = {
        "name": "trial",
        "data": {"path": str(place / "data"), "multi_label": multi_label},
        "card": {"limits": "Toys only."},
    }
    return Made(folder, Config.model_validate(config), predictions, evaluation)


def _write_images(folder: Path, names: list[str], random: np.random.Generator) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (6, 5), dtype=np.uint8)).resize((20, 24)).save(path)


def _evaluate(predictions: Predictions) -> Evaluation:
    labels, rows = predictions.labels, predictions.rows
    names = default_metrics(predictions.multi_label)
    slices = [_slice((), np.ones(len(rows), bool), predictions, names)]
    values = [
        *((features.LABEL, name) for name in predictions.classes),
        *(("meta/site", name) for name in rows["meta/site"].unique()),
    ]
    slices += [_slice(((name, value),), (rows[name] == value).to_numpy(), predictions, names) for name, value in values]
    label = predictions.classes[0]
    both = (rows[features.LABEL] == label) & (rows["meta/site"] == "north")
    key = ((features.LABEL, label), ("meta/site", "north"))
    slices.append(_slice(key, both.to_numpy(), predictions, names))
    overall = slices[0].metrics
    right = [predictions.answers(given) == labels for given in (predictions.probabilities, predictions.baseline)]
    now, before = (item.all(axis=1) if predictions.multi_label else item for item in right)
    # Groups by the first image's class and answer, of which the page knows nothing.
    confusion = np.zeros((len(predictions.classes), len(predictions.classes)), int)
    if not predictions.multi_label:
        np.add.at(confusion, (labels[::3], predictions.answers()[::3]), 1)
    change = slices[0].comparisons["accuracy"].difference
    return Evaluation(
        classes=predictions.classes,
        multi_label=predictions.multi_label,
        intervals="95 %, by leaving out groups of images in turn (jackknife)",
        slices=slices,
        verdicts=[
            Verdict("accuracy", "all examples", overall["accuracy"], True, lower=0.5),
            Verdict("accuracy", "worst of meta/site", overall["accuracy"], False, "worst: meta/site=south", lower=0.99),
            Verdict("cross_entropy", "all examples", overall["cross_entropy"], True, upper=2),
            Verdict("accuracy", "all examples", change, True, lower=-0.01, against="the served model"),
            Verdict("f1", "meta/site=moon", None, False, "1 image, fewer than evaluate.min_slice_size", lower=0.8),
        ],
        blessed=False,
        group=GroupResult(
            "mean of the probabilities",
            len(labels[::3]),
            predictions.classes,
            {"accuracy": overall["accuracy"]},
            confusion.tolist(),
        ),
        shortcuts=[Shortcut(features.FORMAT, label, Metric(0.93, 0.9, 0.96), "image/format is jpeg")],
        flips=Flips(fixed=int((now & ~before).sum()), broken=int((before & ~now).sum())),
    )


def _slice(key: SliceKey, inside: np.ndarray, predictions: Predictions, names: list[str]) -> Slice:
    labels, probabilities = predictions.labels[inside], predictions.probabilities[inside]
    assert predictions.baseline is not None
    images, groups = int(inside.sum()), len(np.unique(predictions.groups[inside]))
    if images < 10:
        return Slice(key, images, groups, {}, too_small=True)
    values = compute(names, labels, probabilities)
    before = compute(names, labels, predictions.baseline[inside])
    defined = [name for name in names if np.isfinite([values[name], before[name]]).all()]
    of_class = Measurement(labels, probabilities).compute_by_class(names, np.ones((images, 1)))
    return Slice(
        key,
        images,
        groups,
        {name: _metric(values[name], METRICS[name].most) for name in defined},
        {
            label: {
                name: _metric(found[number, 0], METRICS[name].most)
                for name, found in of_class.items()
                if np.isfinite(found[number, 0])
            }
            for number, label in enumerate(predictions.classes)
        }
        if not key
        else {},
        {name: Comparison(before[name], _metric(values[name] - before[name])) for name in defined},
    )


def _metric(value: float, most: float = np.inf) -> Metric:
    return Metric(float(value), float(value) - 0.02, min(float(value) + 0.02, most))
