"""Figures of what a model promises, and their intervals, against SciPy and plain loops; the settings that ask for them."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from base.errors import UserError
from evaluation.metrics import PROMISES, check_metrics
from evaluation.predictions import Predictions
from evaluation.promises import estimate_promises, estimate_promises_by_class, selective_risks
from models import features
from pipeline.config.calibration import CalibrateConfig
from pipeline.config.evaluation import EvaluateConfig
from pipeline.dag.eval_config import build_eval_config, evaluation_settings, with_thresholds

CLASSES = ["cat", "dog", "owl", "yak"]
ALL = list(PROMISES)


def draw(images: int, per_group: int = 1, seed: int = 0) -> Predictions:
    """Images of a group are alike; some are of an unknown class."""
    rng = np.random.default_rng(seed)
    groups = images // per_group
    probabilities = rng.dirichlet([0.5] * 4, groups).astype(np.float32)
    labels = np.where(rng.uniform(size=groups) < 0.7, probabilities.argmax(axis=1), rng.integers(0, 5, groups))
    names = np.array([*CLASSES, "elk"])[labels]
    rows = pd.DataFrame({features.LABEL: names, features.GROUP: [f"g{number}" for number in range(groups)]})
    rows, probabilities = (
        rows.iloc[np.arange(images) // per_group].reset_index(drop=True),
        probabilities.repeat(per_group, axis=0),
    )
    return Predictions(rows, CLASSES, False, probabilities, sets=probabilities > 0.1, answered=probabilities.max(axis=1) > 0.6)


def test_shares_have_wilsons_interval_for_the_images_that_they_are_of():
    predictions = draw(300)
    found = estimate_promises(ALL, predictions, np.arange(300), "jackknife")
    labels, answered = predictions.labels, predictions.answered
    covered = [label >= 0 and bool(row[label]) for label, row in zip(labels, predictions.sets, strict=True)]
    wrong = (predictions.answers() != labels) & answered
    counts = {
        "set_coverage": (sum(covered), 300),
        "answered": (answered.sum(), 300),
        "selective_risk": (wrong.sum(), answered.sum()),
    }
    for name, (count, number) in counts.items():
        interval = stats.binomtest(int(count), int(number)).proportion_ci(method="wilson")
        expected = (count / number, interval.low, interval.high)
        assert (found[name].value, found[name].lower, found[name].upper) == pytest.approx(expected), name
    sizes = predictions.sets.sum(axis=1)
    assert found["set_size"].value == pytest.approx(sizes.mean())
    error = sizes.std(ddof=1) / np.sqrt(300)
    assert found["set_size"].upper - found["set_size"].lower == pytest.approx(2 * 1.98 * error, rel=0.15)


def test_images_of_a_group_widen_the_intervals():
    for name, metric in estimate_promises(ALL, draw(1500, 5), np.arange(1500), "jackknife").items():
        alone = estimate_promises(ALL, draw(300), np.arange(300), "jackknife")[name]
        assert metric.value == pytest.approx(alone.value)
        assert metric.upper - metric.lower == pytest.approx(alone.upper - alone.lower, rel=0.2)


def test_each_class_is_measured_on_its_own_images():
    predictions = draw(300)
    for position, found in enumerate(estimate_promises_by_class(ALL, predictions, "none")):
        own = np.flatnonzero(predictions.labels == position)
        assert found.keys() == {"set_coverage", "set_size", "answered"}
        assert found["set_coverage"].value == pytest.approx(predictions.sets[own, position].mean())


def test_what_is_not_defined_is_left_out():
    predictions = draw(50)
    assert estimate_promises(ALL, predictions, np.arange(0), "jackknife") == {}
    unsure = np.flatnonzero(~predictions.answered)
    assert estimate_promises(ALL, predictions, unsure, "jackknife").keys() == {"set_coverage", "set_size", "answered"}
    plain = Predictions(predictions.rows, CLASSES, False, predictions.probabilities)
    assert estimate_promises(ALL, plain, np.arange(50), "jackknife") == {}


def test_of_several_labels_an_image_nothing_is_measured_though_the_model_may_answer_unknown():
    cutoff = CalibrateConfig.model_validate({"unusual": {"cutoff": 99}})
    names = evaluation_settings(EvaluateConfig(), True, ["test"], judged=True, calibrate=cutoff).metrics
    rows = pd.DataFrame({features.LABEL: ["cat|dog", "", "owl"], features.GROUP: ["a", "b", "c"]})
    predictions = Predictions(rows, CLASSES, True, np.full((3, 4), 0.4, np.float32), answered=np.array([True, False, True]))
    assert estimate_promises(names, predictions, np.arange(3), "jackknife") == {}


def test_the_curve_of_risk_is_that_of_a_plain_loop_and_does_not_depend_on_the_order():
    predictions = draw(200)
    found = selective_risks(predictions.labels, predictions.probabilities)
    order = sorted(range(200), key=lambda row: -predictions.probabilities[row].max())
    wrong = predictions.answers() != predictions.labels
    assert found == pytest.approx([np.mean([wrong[row] for row in order[: number + 1]]) for number in range(200)])
    shuffled = np.random.default_rng(1).permutation(1000)
    tied = draw(1000, 5)
    assert selective_risks(tied.labels[shuffled], tied.probabilities[shuffled]) == pytest.approx(
        selective_risks(tied.labels, tied.probabilities)
    )


def test_predictions_keep_sets_and_answers(tmp_path):
    predictions = draw(30)
    predictions.write(str(tmp_path))
    read = Predictions.read(str(tmp_path))
    assert read.sets.tolist() == predictions.sets.tolist()
    assert read.answered.tolist() == predictions.answered.tolist()
    assert list(read.rows) == list(predictions.rows)


def settings(calibrate=None, **evaluate):
    section = EvaluateConfig.model_validate(evaluate)
    return evaluation_settings(section, False, ["test"], judged=True, calibrate=CalibrateConfig.model_validate(calibrate or {}))


def test_what_is_promised_is_always_measured_and_nothing_else_is():
    assert not set(settings().metrics) & set(PROMISES)
    both = settings({"sets": {}, "abstain": {"risk": 0.02}}, metrics=["accuracy"])
    assert set(both.metrics) == {"accuracy", "balanced_accuracy", *PROMISES}
    assert not any(name in str(build_eval_config(both)) for name in PROMISES)
    changed = with_thresholds(both, [{"metric": "set_coverage", "lower": 0.94}])
    assert changed.thresholds[0].metric == "set_coverage"


@pytest.mark.parametrize(
    ("threshold", "message"),
    [
        ({"metric": "set_coverage", "lower": 0.9}, "set_coverage is measured where a model promises it; set calibrate.sets"),
        ({"metric": "selective_risk", "upper": 0.1}, "set calibrate.abstain or calibrate.unusual.cutoff, or leave"),
        ({"metric": "set_size", "change": -1.0}, "set_size takes lower and upper alone"),
        ({"metric": "answered", "lower": 0.5, "of": "groups"}, "answered is no metric of groups"),
    ],
)
def test_a_threshold_on_what_is_not_promised_is_an_error(threshold, message):
    calibrate = {"sets": {}, "abstain": {"risk": 0.1}} if threshold["metric"] in ("set_size", "answered") else {}
    with pytest.raises(UserError, match=message):
        settings(calibrate, thresholds=[threshold])


@pytest.mark.parametrize(
    ("multi_label", "section", "message"),
    [
        (True, "evaluate", "answered is no metric of data with several labels"),
        (False, "export", "export: answered is measured of the SavedModel alone"),
    ],
)
def test_a_promise_that_no_configuration_can_make_is_not_advised(multi_label, section, message):
    with pytest.raises(UserError, match=message):
        check_metrics(["answered"], multi_label, section)
