"""Two evaluations side by side, on predictions whose differences are counted by hand."""

import io

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from sklearn.metrics import accuracy_score, balanced_accuracy_score

from evaluation import intervals, metrics
from evaluation.predictions import PREDICTIONS_FILE, Predictions
from evaluation.results import Evaluation, Slice, write_evaluation
from evaluation.slicing import slice_images
from models import features
from pipeline.config.loading import dump_config
from pipeline.config.whole import Config
from pipeline.records.comparison import compare
from pipeline.records.runs import FoundEvaluation
from pipeline.terminal.tables import render_comparison

CLASSES = ["cat", "dog", "owl"]
NAMES = ["accuracy", "balanced_accuracy", "cross_entropy"]
SPECS = [("meta/site",), (features.HEIGHT,)]


def predict(images=200, skill=1.0, seed=0):
    """The same images whatever the seed, in the same order; a model is the better the more skill it has."""
    random = np.random.default_rng(7)
    labels = random.integers(0, 3, images)
    rows = pd.DataFrame(
        {
            features.FILENAME: [f"{number}.png" for number in range(images)],
            features.GROUP: [f"g{number // 2}" for number in range(images)],
            features.LABEL: [CLASSES[label] for label in labels],
            features.HEIGHT: random.integers(10, 500, images),
            "meta/site": np.where(np.arange(images) < 5, "tiny", random.choice(["Basel", "Chur"], images)),
        }
    )
    logits = np.random.default_rng(seed).normal(size=(images, 3)) + skill * np.eye(3)[labels]
    return Predictions(rows, CLASSES, False, (np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).astype(np.float32))


def keep(predictions, folder, buckets=None):
    """Writes the folder of an evaluation, and that of its run."""
    (folder / "evaluation").mkdir(parents=True)
    run = folder / "runs" / "2026-01-01T12-00-00"
    run.mkdir(parents=True)
    predictions.write(str(folder / "evaluation"))
    slices = []
    for key, images in slice_images(predictions.rows, SPECS, buckets or {}, predictions.multi_label).items():
        values = predictions.labels[images], predictions.probabilities[images], predictions.groups[images]
        found = intervals.estimate(NAMES, *values, "none") if len(images) >= 10 else {}
        slices.append(Slice(key, len(images), 1, found, too_small=not found))
    write_evaluation(Evaluation(predictions.classes, False, "none", slices), str(folder / "evaluation"))
    evaluate = {"buckets": buckets or {}}
    (run / "config.yaml").write_text(
        dump_config(Config.model_validate({"name": "x", "data": {"path": "d"}, "evaluate": evaluate}))
    )
    return FoundEvaluation(folder / "evaluation", run, {})


def right(predictions):
    return predictions.answers() == predictions.labels


def part(predictions, images, order=(0, 1, 2)):
    classes = [predictions.classes[number] for number in order]
    rows, probabilities = (
        predictions.rows.iloc[images].reset_index(drop=True),
        predictions.probabilities[images][:, list(order)],
    )
    return Predictions(rows, classes, False, probabilities)


@pytest.fixture
def models():
    return predict(skill=2.0, seed=1), predict(skill=1.0, seed=2)


def test_images_are_matched_by_name_and_classes_by_theirs(models, tmp_path):
    good, bad = models
    shuffled = part(bad, np.random.default_rng(0).permutation(200), (2, 0, 1))
    compared = compare(keep(good, tmp_path / "a"), keep(shuffled, tmp_path / "b"))
    assert compared.notes == ["The same 200 test images"]
    found = compared.slices[0].comparisons
    for name, score in (("accuracy", accuracy_score), ("balanced_accuracy", balanced_accuracy_score)):
        values = [score(good.labels, model.answers()) for model in models]
        assert found[name].baseline == pytest.approx(values[1])
        assert found[name].difference.value == pytest.approx(values[0] - values[1])
        assert compared.slices[0].metrics[name].value == pytest.approx(values[0])
        assert 0 < found[name].difference.lower < found[name].difference.value < found[name].difference.upper
    assert compared.flips.fixed == np.sum(right(good) & ~right(bad))
    assert compared.flips.broken == np.sum(right(bad) & ~right(good))


def test_slices_are_compared_by_the_first_ones_buckets(models, tmp_path):
    good, bad = models
    compared = compare(keep(good, tmp_path / "a", {features.HEIGHT: [100.0]}), keep(bad, tmp_path / "b"))
    slices = {item.name: item for item in compared.slices}
    assert set(slices) >= {"image/height=below 100", "image/height=100 and more", "meta/site=Basel", "meta/site=tiny"}
    small = good.rows[features.HEIGHT] < 100
    item = slices["image/height=below 100"]
    assert item.examples == small.sum()
    expected = right(good)[small].mean() - right(bad)[small].mean()
    assert item.comparisons["accuracy"].difference.value == pytest.approx(expected)
    assert slices["meta/site=tiny"].too_small


def test_where_the_images_differ_the_common_ones_are_compared(models, tmp_path):
    good, bad = models
    first, second = part(good, np.arange(150)), part(bad, np.arange(40, 200))
    second.rows.loc[0, features.LABEL] = next(name for name in CLASSES if name != second.rows.loc[0, features.LABEL])
    compared = compare(keep(first, tmp_path / "a"), keep(second, tmp_path / "b"))
    assert compared.notes == [
        "The test images differ: 110 are in both and compared, 40 in the first alone, 50 in the second",
        "Left out: 1 images that have another label in the second",
    ]
    overall = compared.slices[0]
    assert overall.examples == 109
    expected = metrics.compute(["accuracy"], good.labels[41:150], good.probabilities[41:150])["accuracy"]
    assert overall.metrics["accuracy"].value == pytest.approx(expected)
    heights = [item for item in compared.slices if item.name.startswith("image/height")]
    assert sum(item.examples for item in heights) == 109  # the buckets are those of all of the first one's images


def test_buckets_that_are_not_known_are_told(models, tmp_path):
    good, bad = models
    first = keep(good, tmp_path / "a", {features.HEIGHT: [100.0]})
    compared = compare(FoundEvaluation(first.folder, None, {}), keep(bad, tmp_path / "b"))
    assert compared.notes[1] == "Left out: slices by image/height, whose buckets are not known without the run"
    assert {item.name.split("=")[0] for item in compared.slices} == {"all examples", "meta/site"}


def spoil_predictions(bad, folder):
    found = keep(bad, folder)
    (found.folder / PREDICTIONS_FILE).unlink()
    return found


def spoil_classes(bad, folder):
    return keep(Predictions(bad.rows, ["cat", "dog", "emu"], False, bad.probabilities), folder)


def spoil_images(bad, folder):
    bad.rows[features.FILENAME] = "other/" + bad.rows[features.FILENAME]
    return keep(bad, folder)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (spoil_predictions, "the predictions are not there"),
        (spoil_classes, "the classes differ"),
        (spoil_images, "no test image is in both"),
    ],
)
def test_what_can_not_be_paired_is_shown_plainly(models, tmp_path, spoil, why):
    good, bad = models
    compared = compare(keep(good, tmp_path / "a"), spoil(bad, tmp_path / "b"))
    assert compared.notes == [f"Not paired, for {why}: 200 and 200 test images, differences without intervals"]
    assert compared.flips is None
    difference = compared.slices[0].comparisons["accuracy"].difference
    assert (difference.lower, difference.upper) == (None, None)
    if spoil is not spoil_classes:  # there, dogs that are called so are all that is right
        assert difference.value == pytest.approx(right(good).mean() - right(bad).mean())


def test_the_tables_fit_into_100_columns(models, tmp_path):
    file = io.StringIO()
    compared = compare(keep(models[0], tmp_path / "a"), keep(models[1], tmp_path / "b"))
    Console(file=file, width=100).print(render_comparison(compared))
    text = file.getvalue()
    assert max(map(len, text.splitlines())) <= 100
    assert "…" not in text
    assert "a/2026-01-01T12-00-00, compared with b/2026-01-01T12-00-00" in " ".join(text.split())
    assert "The same 200 test images" in text
    assert "that b/2026-01-01T12-00-00 has wrong are right now" in " ".join(text.split())
    assert "too few" in text
