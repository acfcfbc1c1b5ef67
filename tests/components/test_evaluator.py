"""The Evaluator on models whose answers stand in the examples: what it measures, writes and decides."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import tensorflow_model_analysis as tfma
from executors import context, make_artifact
from sklearn import metrics as sklearn_metrics
from tfx.types import channel_utils, standard_artifacts

from base.errors import UserError
from components.earlier_runs.baseline import ERROR
from components.evaluator import executor
from components.evaluator.component import ImageEvaluator
from evaluation.predictions import Predictions
from evaluation.results import read_evaluation
from models import features
from pipeline.config.calibration import CalibrateConfig
from pipeline.config.evaluation import EvaluateConfig
from pipeline.dag.eval_config import build_eval_config, evaluation_settings

CLASSES = ["cat", "dog", "owl"]
IMAGES = 240


class Told(tf.Module):
    """Answers with the probabilities that stand in the example itself; with sets, also what a model that promises gives."""

    def __init__(self, feature: str, classes: int, sets: bool = False) -> None:
        super().__init__()
        spec = {feature: tf.io.FixedLenFeature([classes], tf.float32)}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
        def predict_examples(examples):
            probabilities = tf.io.parse_example(examples, spec)[feature]
            if not sets:
                return {"probabilities": probabilities}
            label = tf.where(tf.reduce_max(probabilities, axis=-1) > 0.6, tf.constant("cat"), features.UNKNOWN)
            return {"probabilities": probabilities, "label": label, "label_set": probabilities >= 0.2}

        self.predict_examples = predict_examples


def save_model(folder: Path, feature: str, classes: list[str], sets: bool = False) -> None:
    model = Told(feature, len(classes), sets)
    tf.saved_model.save(model, str(folder / "Format-Serving"), signatures={"predict_examples": model.predict_examples})
    (folder / "Format-Serving" / "assets" / "labels").write_text("\n".join(classes) + "\n")


def draw(seed: int = 0) -> pd.DataFrame:
    """Labels, sites and patients; answers that are good at site a and bad at site b; the baseline's are middling."""
    random = np.random.default_rng(seed)
    rows = pd.DataFrame({"label": random.choice(CLASSES, IMAGES), "patient": random.integers(0, 60, IMAGES).astype(str)})
    rows["site"] = np.where(np.arange(IMAGES) < 5, "tiny", random.choice(["a", "b"], IMAGES))
    rows["height"] = random.integers(40, 200, IMAGES)
    right = rows["label"].map(CLASSES.index).to_numpy()
    for name, strength in (("candidate", np.where(rows["site"] == "b", 0.5, 4.0)), ("baseline", np.full(IMAGES, 2.0))):
        logits = random.normal(size=(IMAGES, 3))
        logits[np.arange(IMAGES), right] += strength
        rows[name] = list((np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).astype(np.float32))
    return rows


def write_examples(rows: pd.DataFrame, split: Path) -> None:
    split.mkdir(parents=True)
    for number, part in enumerate((rows[: IMAGES // 2], rows[IMAGES // 2 :])):
        with tf.io.TFRecordWriter(str(split / f"data_tfrecord-{number:05d}-of-00002")) as writer:
            for position, row in part.iterrows():
                example = tf.train.Example()
                feature = example.features.feature
                feature[features.ENCODED].bytes_list.value.append(b"not looked at")
                feature[features.PIXELS].bytes_list.value.append(b"")
                feature[features.FORMAT].bytes_list.value.append(b"png")
                feature[features.FILENAME].bytes_list.value.append(f"{position}.png".encode())
                feature[features.LABEL].bytes_list.value.append(row["label"].encode())
                feature[features.GROUP].bytes_list.value.append(row["patient"].encode())
                feature[features.HEIGHT].int64_list.value.append(row["height"])
                feature["meta/site"].bytes_list.value.append(row["site"].encode())
                feature["candidate"].float_list.value.extend(row["candidate"])
                feature["baseline"].float_list.value.extend(row["baseline"])
                writer.write(example.SerializeToString())


def run_evaluator(
    place: Path, with_baseline: bool = True, push_folder: Path | None = None, rows=None, calibrate=None, **section
):
    """Runs the executor on rows as `draw` makes them; the evaluation's folder and the blessing."""
    rows = draw() if rows is None else rows
    examples = make_artifact(standard_artifacts.Examples, place, "ImageExampleGen", "examples", 1)
    examples.split_names = '["test"]'
    write_examples(rows, Path(examples.uri) / "Split-test")
    models = {}
    for number, (key, feature, classes) in enumerate(
        [("model", "candidate", CLASSES), ("baseline_model", "baseline", CLASSES)], start=1
    ):
        models[key] = make_artifact(standard_artifacts.Model, place, "Trainer", key, number)
        models[key].id = number
        save_model(Path(models[key].uri), feature, classes, sets=calibrate is not None and key == "model")
    if not with_baseline:
        del models["baseline_model"]
    settings = evaluation_settings(EvaluateConfig.model_validate(section), False, ["test"], judged=True, calibrate=calibrate)
    component = ImageEvaluator(
        examples=channel_utils.as_channel([examples]),
        model=channel_utils.as_channel([models["model"]]),
        eval_config=build_eval_config(settings),
        settings=settings,
        code="",
        push_folder=str(push_folder) if push_folder else None,
    )
    evaluation = make_artifact(standard_artifacts.ModelEvaluation, place, "Evaluator", "evaluation", 1)
    blessing = make_artifact(standard_artifacts.ModelBlessing, place, "Evaluator", "blessing", 1)
    inputs = {"examples": [examples], **{key: [model] for key, model in models.items()}}
    outputs = {"evaluation": [evaluation], "blessing": [blessing]}
    executor.Executor(context(place, 1)).Do(inputs, outputs, dict(component.exec_properties))
    return evaluation.uri, blessing


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """With a baseline, slices of several kinds, and a threshold that site b does not meet."""
    thresholds = [{"metric": "accuracy", "lower": 0.5}, {"metric": "accuracy", "lower": 0.8, "slice": {"meta/site": "b"}}]
    return run_evaluator(
        tmp_path_factory.mktemp("evaluator"),
        slices=[["image/label"], ["meta/site"], ["image/label", "meta/site"], ["image/height"]],
        buckets={"image/height": [64, 128]},
        thresholds=thresholds,
    )


def test_the_predictions_are_kept_row_by_row(evaluated):
    predictions, rows = Predictions.read(evaluated[0]), draw()
    assert predictions.classes == CLASSES
    assert predictions.rows[features.FILENAME].tolist() == [f"{number}.png" for number in range(IMAGES)]
    assert predictions.rows["meta/site"].tolist() == rows["site"].tolist()
    assert features.ENCODED not in predictions.rows
    np.testing.assert_array_equal(predictions.probabilities, np.stack(rows["candidate"]))
    np.testing.assert_array_equal(predictions.baseline, np.stack(rows["baseline"]))


def select(rows: pd.DataFrame, key) -> pd.DataFrame:
    chosen = np.ones(len(rows), bool)
    for feature, value in key:
        if feature == "image/height":
            chosen &= {
                "below 64": rows["height"] < 64,
                "64 to 128": rows["height"].between(64, 127),
                "128 and more": rows["height"] >= 128,
            }[value]
        else:
            chosen &= rows[feature.rpartition("/")[2]] == value
    return rows[chosen]


def test_every_slice_agrees_with_scikit_learn(evaluated):
    evaluation, rows = read_evaluation(evaluated[0]), draw()
    measured = [item for item in evaluation.slices if not item.too_small]
    assert len(measured) == 1 + 3 + 2 + 6 + 3
    for item in measured:
        part = select(rows, item.key)
        assert item.examples == len(part)
        assert item.groups == part["patient"].nunique()
        labels = part["label"].map(CLASSES.index).to_numpy()
        for column, value_of in (
            ("candidate", lambda name: item.metrics[name].value),  # noqa: B023
            ("baseline", lambda name: item.comparisons[name].baseline),  # noqa: B023
        ):
            probabilities = np.stack(part[column])
            answers = probabilities.argmax(axis=1)
            assert value_of("accuracy") == pytest.approx(sklearn_metrics.accuracy_score(labels, answers))
            loss = sklearn_metrics.log_loss(labels, probabilities.astype(np.float64), labels=range(3))
            assert value_of("cross_entropy") == pytest.approx(loss, rel=1e-5)
            if "auc" in item.metrics:
                one_hot = np.eye(3)[labels]
                assert value_of("auc") == pytest.approx(sklearn_metrics.roc_auc_score(one_hot, probabilities))
        change = item.comparisons["accuracy"]
        assert change.difference.value == pytest.approx(item.metrics["accuracy"].value - change.baseline)
        measured_accuracy = item.metrics["accuracy"]
        assert 0 <= measured_accuracy.lower <= measured_accuracy.value <= measured_accuracy.upper <= 1
        assert measured_accuracy.lower < measured_accuracy.upper


def test_tfmas_tools_read_the_same_figures(evaluated):
    evaluation = read_evaluation(evaluated[0])
    result = tfma.load_eval_result(evaluated[0], model_name="candidate")
    found = dict(result.slicing_metrics)
    assert len(found) == len(evaluation.slices)
    for item in evaluation.slices:
        of_tfma = found[item.key][""][""]
        assert of_tfma["example_count"]["doubleValue"] == item.examples
        for name, metric in item.metrics.items():
            assert of_tfma[name]["doubleValue"] == metric.value
            assert of_tfma[f"{name}_diff"]["doubleValue"] == pytest.approx(item.comparisons[name].difference.value)


def test_tfma_has_the_confusion_matrix(evaluated):
    rows = draw()
    plots = tfma.load_eval_result(evaluated[0], model_name="candidate").plots
    (overall,) = (plot[""][""] for key, plot in plots if key == ())
    found = np.zeros((3, 3), int)
    for entry in overall["multiClassConfusionMatrixAtThresholds"]["matrices"][0]["entries"]:
        found[entry.get("actualClassId", 0), entry.get("predictedClassId", 0)] = entry["numWeightedExamples"]
    labels = rows["label"].map(CLASSES.index)
    np.testing.assert_array_equal(found, sklearn_metrics.confusion_matrix(labels, np.stack(rows["candidate"]).argmax(axis=1)))


def test_a_slice_of_a_few_images_is_named_and_not_measured(evaluated):
    (tiny,) = [item for item in read_evaluation(evaluated[0]).slices if item.key == (("meta/site", "tiny"),)]
    assert tiny.too_small
    assert tiny.examples == 5
    assert not tiny.metrics


def test_a_model_that_fails_one_slice_is_not_blessed(evaluated):
    folder, blessing = evaluated
    evaluation = read_evaluation(folder)
    assert evaluation.blessed is False
    assert [verdict.passed for verdict in evaluation.verdicts] == [True, False]
    assert evaluation.verdicts[1].slice == "meta/site=b"
    assert blessing.get_int_custom_property("blessed") == 0
    assert blessing.get_int_custom_property("current_model_id") == 1
    assert blessing.get_int_custom_property("baseline_model_id") == 2
    assert [path.name for path in Path(blessing.uri).iterdir()] == ["NOT_BLESSED"]


def test_flips_and_groups_are_counted(evaluated):
    evaluation, rows = read_evaluation(evaluated[0]), draw()
    labels = rows["label"].map(CLASSES.index)
    right, was_right = (np.stack(rows[name]).argmax(axis=1) == labels for name in ("candidate", "baseline"))
    assert (evaluation.flips.fixed, evaluation.flips.broken) == ((right & ~was_right).sum(), (~right & was_right).sum())
    assert evaluation.group.groups == rows["patient"].nunique()
    assert evaluation.overall["accuracy"].value == pytest.approx(right.mean())
    content = json.loads((Path(evaluated[0]) / "metrics.json").read_text())
    assert content["metrics"]["accuracy"]["value"] == evaluation.overall["accuracy"].value
    table = pd.read_parquet(Path(evaluated[0]) / "slices.parquet")
    assert set(table["slice"]) == {item.name for item in evaluation.slices}


def test_without_a_baseline_nothing_is_compared(tmp_path):
    folder, blessing = run_evaluator(
        tmp_path, with_baseline=False, thresholds=[{"metric": "accuracy", "lower": 0.5}, {"metric": "accuracy", "change": 0.0}]
    )
    evaluation = read_evaluation(folder)
    assert not evaluation.compared
    assert not evaluation.slices[0].comparisons
    assert [verdict.requirement for verdict in evaluation.verdicts] == ["at least 0.5"]
    assert blessing.get_int_custom_property("blessed") == 1
    assert not math.isnan(tfma.load_eval_result(folder).slicing_metrics[0][1][""][""]["accuracy"]["doubleValue"])


@pytest.mark.case(30)
def test_without_thresholds_always_the_most_frequent_class_is_not_blessed(tmp_path):
    rows = draw()
    most, noise = CLASSES.index(rows["label"].mode()[0]), np.random.default_rng(0).uniform(0, 0.1, (IMAGES, 3))
    rows["candidate"] = list((noise + np.eye(3)[most]).astype(np.float32))
    folder, blessing = run_evaluator(tmp_path, rows=rows, metrics=["accuracy"], slices=[["image/label"]])
    evaluation = read_evaluation(folder)
    assert blessing.get_int_custom_property("blessed") == 0
    assert [verdict.passed for verdict in evaluation.verdicts] == [False, False]
    first, second = evaluation.verdicts
    assert (first.metric, first.lower, first.measured) == ("balanced_accuracy", 1 / 3, evaluation.overall["balanced_accuracy"])
    assert second.measured == evaluation.slices[0].comparisons["balanced_accuracy"].difference
    assert second.measured.upper < 0
    labels, served = rows["label"].map(CLASSES.index), np.stack(rows["baseline"]).argmax(axis=1)
    assert first.measured.value == pytest.approx(1 / 3)
    assert second.measured.value == pytest.approx(1 / 3 - sklearn_metrics.balanced_accuracy_score(labels, served))
    assert evaluation.default_note.endswith("and not significantly worse than the served model.")


def test_a_shortcut_can_stop_a_good_model(tmp_path):
    rows = draw()
    rows["height"] = rows["label"].map({"cat": 100, "dog": 60, "owl": 60})
    thresholds = [{"metric": "accuracy", "lower": 0.5}, {"metric": "shortcut", "upper": 0.75}]
    folder, blessing = run_evaluator(
        tmp_path, with_baseline=False, rows=rows, metrics=["accuracy"], slices=[["image/label"]], thresholds=thresholds
    )
    evaluation = read_evaluation(folder)
    assert [verdict.passed for verdict in evaluation.verdicts] == [True, False]
    assert blessing.get_int_custom_property("blessed") == 0
    told = "shortcut on the files must be at most 0.75, is 1.0000 (image/height from 100 tells cat from the other classes)"
    assert str(evaluation.verdicts[1]) == told
    assert evaluation.verdicts[1].measured == evaluation.shortcuts[0].score


@pytest.mark.parametrize("broken", ["not finite", "same"])
def test_a_model_that_answers_nothing_is_measured_and_never_blessed(tmp_path, broken):
    rows = draw()
    if broken == "same":
        rows["candidate"] = [np.array([0.2, 0.5, 0.3], np.float32)] * IMAGES
    else:
        spoilt = {0: np.full(3, np.nan, np.float32), 7: np.array([0.5, np.inf, 0.5], np.float32)}
        rows["candidate"] = [spoilt.get(number, answer) for number, answer in enumerate(rows["candidate"])]
        rows["baseline"] = [np.full(3, np.nan, np.float32)] * IMAGES  # pushed by an earlier release
    folder, blessing = run_evaluator(
        tmp_path, rows=rows, slices=[["image/label"], ["meta/site"]], thresholds=[{"metric": "accuracy", "lower": 0.0}]
    )
    evaluation = read_evaluation(folder)
    assert (evaluation.blessed, blessing.get_int_custom_property("blessed")) == (False, 0)
    assert [verdict.passed for verdict in evaluation.verdicts] == [False, True]
    assert evaluation.verdicts[0].found == (
        "all 240 images get the same probabilities"
        if broken == "same"
        else "2 of 240 images have probabilities that are not finite numbers"
    )
    assert all(math.isfinite(metric.value) for item in evaluation.slices for metric in item.metrics.values())
    assert Predictions.read(folder).not_finite == (0 if broken == "same" else 2)


def test_a_served_model_that_could_not_be_looked_for_is_an_error(tmp_path):
    found = standard_artifacts.Model()
    found.set_string_custom_property(ERROR, "gs://bucket/models: can't be read; check your rights")
    with pytest.raises(UserError, match="gs://bucket/models: can't be read"):
        executor._find_baseline({"baseline_model": [found]}, "candidate", None)


def test_without_a_metadata_store_the_baseline_is_the_served_model(tmp_path):
    pushed = tmp_path / "pushed" / "7"
    save_model(tmp_path / "saved", "baseline", CLASSES)
    shutil.copytree(tmp_path / "saved" / "Format-Serving", pushed)
    thresholds = [{"metric": "accuracy", "change": 0.0}]
    folder, blessing = run_evaluator(tmp_path, with_baseline=False, push_folder=tmp_path / "pushed", thresholds=thresholds)
    evaluation = read_evaluation(folder)
    accuracy = evaluation.slices[0].comparisons["accuracy"]
    rows = draw()
    right = np.stack(rows["baseline"]).argmax(axis=1) == rows["label"].map(CLASSES.index)
    assert accuracy.baseline == pytest.approx(right.mean())
    assert blessing.get_string_custom_property("baseline_model") == str(pushed)


def test_what_a_model_promises_is_measured_by_its_own_sets_and_answers(tmp_path):
    calibrate = CalibrateConfig.model_validate({"sets": {}, "abstain": {"risk": 0.1}})
    thresholds = [
        {"metric": "set_coverage", "lower": 0.99},
        {"metric": "selective_risk", "upper": 0.5, "slice": {"meta/site": "a"}},
        {"metric": "answered", "lower": 0.3, "worst_of": ["meta/site"]},
    ]
    folder, _ = run_evaluator(tmp_path, calibrate=calibrate, slices=[["meta/site"]], thresholds=thresholds)
    predictions, found = Predictions.read(folder), read_evaluation(folder)
    probabilities, labels = predictions.probabilities, predictions.labels
    assert predictions.sets.tolist() == (probabilities >= 0.2).tolist()
    assert predictions.answered.tolist() == (probabilities.max(axis=1) > 0.6).tolist()
    covered = predictions.sets[np.arange(IMAGES), labels]
    wrong = probabilities.argmax(axis=1) != labels
    for item in found.slices:
        inside = np.full(IMAGES, True) if not item.key else (predictions.rows["meta/site"] == item.key[0][1]).to_numpy()
        if item.too_small:
            continue
        answered = inside & predictions.answered
        expected = {
            "set_coverage": covered[inside].mean(),
            "set_size": predictions.sets[inside].sum(axis=1).mean(),
            "answered": answered.sum() / inside.sum(),
            "selective_risk": wrong[answered].mean(),
        }
        assert {name: item.metrics[name].value for name in expected} == pytest.approx(expected)
        assert all(item.metrics[name].lower <= value <= item.metrics[name].upper for name, value in expected.items())
        assert "set_coverage" not in item.comparisons
    of_owl = found.slices[0].by_class["owl"]
    assert of_owl["set_coverage"].value == pytest.approx(covered[labels == 2].mean())
    assert of_owl["set_size"].value == pytest.approx(predictions.sets[labels == 2].sum(axis=1).mean())
    assert "selective_risk" not in of_owl
    assert [verdict.passed for verdict in found.verdicts if verdict.metric in thresholds[0]["metric"]] == [
        covered.mean() >= 0.99
    ]
    assert len(found.verdicts) == 3


def test_a_class_that_is_named_unknown_is_an_answer(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "CLASSES", ["cat", "dog", "unknown"])
    folder, _ = run_evaluator(tmp_path, calibrate=CalibrateConfig.model_validate({"sets": {}}))
    predictions = Predictions.read(folder)
    assert predictions.sets is not None
    assert predictions.answered is None
