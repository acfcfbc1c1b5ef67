"""The metrics against scikit-learn and the package's own calibration error, on many small random sets with awkward cases."""

import math

import numpy as np
import pytest
from sklearn import metrics as peer

from base.errors import UserError
from evaluation import metrics
from models.calibration import expected_calibration_error

SINGLE, MULTI = (
    [name for name, definition in metrics.METRICS.items() if fits(definition)]
    for fits in (lambda definition: definition.of_single_label, lambda definition: definition.of_multi_label)
)
BY_CLASS = [name for name, definition in metrics.METRICS.items() if definition.of_class]


def _single(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A set with ties, often without some class, and now and then with labels that the model does not know."""
    rng = np.random.default_rng(seed)
    images, classes = int(rng.integers(5, 60)), int(rng.integers(2, 7))
    labels = rng.integers(0, int(rng.integers(2, classes + 1)), images)
    scores = rng.integers(0, 4, (images, classes)) + 1e-9
    if seed % 2:  # no ties
        scores = scores + rng.random((images, classes))
    scores[np.arange(images), labels] += 0.5
    if seed % 3 == 0:
        labels[rng.random(images) < 0.2] = -1
    return labels, (scores / scores.sum(axis=-1, keepdims=True)).astype(np.float32)


def _multi(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    images, classes = int(rng.integers(5, 60)), int(rng.integers(2, 7))
    labels = (rng.random((images, classes)) < rng.choice([0.0, 0.3, 0.6], classes)).astype(np.uint8)
    labels[0, 0] = 1
    steps = 5 if seed % 2 else 1000
    return labels, (rng.integers(0, steps + 1, labels.shape) / steps).astype(np.float32)


def _known_classes(labels: np.ndarray) -> list[int]:
    return sorted(set(labels.tolist()) - {-1})


def _areas(name: str, indicators: np.ndarray, probabilities: np.ndarray, weights: np.ndarray | None = None) -> list[float]:
    function = peer.roc_auc_score if name == "auc" else peer.average_precision_score
    both = [0 < column.sum() < len(column) for column in indicators.T]
    return [
        function(column, scores, sample_weight=weights) if defined else math.nan
        for column, scores, defined in zip(indicators.T, probabilities.T, both, strict=True)
    ]


def _mean(values: list[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return float(np.mean(defined)) if defined else math.nan


def _compute_by_class(names, labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray | None = None):
    column = np.ones((len(labels), 1)) if weights is None else weights[:, None]
    found = metrics.Measurement(labels, probabilities).compute_by_class(names, column)
    return {name: values[:, 0] for name, values in found.items()}


def _peer_of_single(name: str, labels: np.ndarray, probabilities: np.ndarray) -> float:
    answers, classes = probabilities.argmax(axis=-1), _known_classes(labels)
    indicators = labels[:, None] == np.arange(probabilities.shape[1])
    given = np.where(labels < 0, 0, probabilities[np.arange(len(labels)), labels]).astype(np.float64)
    match name:
        case "accuracy":
            return peer.accuracy_score(labels, answers)
        case "balanced_accuracy":
            known = labels >= 0
            return peer.balanced_accuracy_score(labels[known], answers[known])
        case "precision" | "recall" | "f1":
            function = getattr(peer, f"{name}_score")
            return function(labels, answers, labels=classes, average="macro", zero_division=0)
        case "auc" | "auc_pr":
            return _mean(_areas(name, indicators, probabilities))
        case "matthews":
            return peer.matthews_corrcoef(labels, answers) if len(set(labels.tolist())) > 1 else math.nan
        case "top_3_accuracy":
            if probabilities.shape[1] <= 3:
                return math.nan
            order = np.argsort(-probabilities, axis=-1, kind="stable")[:, :3]
            return float((order == labels[:, None]).any(axis=-1).mean())
        case "cross_entropy":
            return float(-np.log(np.clip(given, 1e-7, 1 - 1e-7)).mean())
        case "brier":
            return float(((probabilities.astype(np.float64) - indicators) ** 2).sum(axis=-1).mean())
        case "ece":
            return expected_calibration_error(probabilities.astype(np.float64), labels)
    raise KeyError(name)


def _peer_of_multi(name: str, labels: np.ndarray, probabilities: np.ndarray) -> float:
    answers = (probabilities >= 0.5).astype(int)
    classes = np.flatnonzero(labels.any(axis=0)).tolist()
    match name:
        case "accuracy":
            return peer.accuracy_score(labels.ravel(), answers.ravel())
        case "balanced_accuracy":
            both = [0 < column.sum() < len(column) for column in labels.T]
            pairs = zip(labels.T[both], answers.T[both], strict=True)
            return _mean([peer.balanced_accuracy_score(column, found) for column, found in pairs])
        case "exact_match":
            return peer.accuracy_score(labels, answers)
        case "f1_micro":
            return peer.f1_score(labels, answers, average="micro", zero_division=0)
        case "precision" | "recall" | "f1":
            function = getattr(peer, f"{name}_score")
            return function(labels, answers, labels=classes, average="macro", zero_division=0)
        case "auc" | "auc_pr":
            return _mean(_areas(name, labels, probabilities))
        case "cross_entropy":
            clipped = np.clip(probabilities.astype(np.float64), 1e-7, 1 - 1e-7)
            return peer.log_loss(labels.ravel(), clipped.ravel(), labels=[0, 1])
        case "brier":
            return peer.brier_score_loss(labels.ravel(), probabilities.ravel())
        case "ece":
            return expected_calibration_error(probabilities.astype(np.float64), labels)
    raise KeyError(name)


@pytest.mark.parametrize("seed", range(24))
def test_each_single_label_metric_is_what_scikit_learn_computes(seed: int) -> None:
    labels, probabilities = _single(seed)
    found = metrics.compute(SINGLE, labels, probabilities)
    assert found == pytest.approx(
        {name: _peer_of_single(name, labels, probabilities) for name in SINGLE}, abs=1e-6, nan_ok=True
    )


@pytest.mark.parametrize("seed", range(12))
def test_each_multi_label_metric_is_what_scikit_learn_computes(seed: int) -> None:
    labels, probabilities = _multi(seed)
    found = metrics.compute(MULTI, labels, probabilities)
    assert found == pytest.approx({name: _peer_of_multi(name, labels, probabilities) for name in MULTI}, abs=1e-6, nan_ok=True)


@pytest.mark.parametrize("seed", range(6))
def test_metrics_of_a_class_are_what_scikit_learn_computes(seed: int) -> None:
    labels, probabilities = _single(seed)
    answers, numbers = probabilities.argmax(axis=-1), np.arange(probabilities.shape[1])
    indicators = labels[:, None] == numbers
    absent = np.where(indicators.any(axis=0), 0.0, np.nan)
    found = _compute_by_class(["accuracy", *BY_CLASS], labels, probabilities)
    assert set(found) == set(BY_CLASS)
    for name in ("precision", "recall", "f1"):
        function = getattr(peer, f"{name}_score")
        expected = function(labels, answers, labels=numbers, average=None, zero_division=0) + absent
        np.testing.assert_allclose(found[name], expected)
    for name in ("auc", "auc_pr"):
        np.testing.assert_allclose(found[name], _areas(name, indicators, probabilities))


@pytest.mark.parametrize("data", [_single, _multi])
@pytest.mark.parametrize("seed", [0, 1, 3])
def test_weights_0_1_2_give_what_the_images_repeated_give(data, seed: int) -> None:
    labels, probabilities = data(seed)
    names = MULTI if data is _multi else SINGLE
    weights = np.random.default_rng(seed).integers(0, 3, len(labels))
    found = metrics.compute(names, labels, probabilities, weights.astype(float))
    repeated = metrics.compute(names, np.repeat(labels, weights, axis=0), np.repeat(probabilities, weights, axis=0))
    assert found == pytest.approx(repeated, abs=1e-12, nan_ok=True)
    for name, values in _compute_by_class(names, labels, probabilities, weights.astype(float)).items():
        expected = _compute_by_class([name], np.repeat(labels, weights, axis=0), np.repeat(probabilities, weights, axis=0))
        np.testing.assert_allclose(values, expected[name], atol=1e-12)


def test_fractions_as_weights_give_what_scikit_learn_gives() -> None:
    labels, probabilities = _single(1)
    weights = np.random.default_rng(0).random(len(labels))
    found = metrics.compute(["f1", "auc", "auc_pr", "matthews", "accuracy"], labels, probabilities, weights)
    answers, indicators = probabilities.argmax(axis=-1), labels[:, None] == np.arange(probabilities.shape[1])
    classes = _known_classes(labels)
    assert found == pytest.approx(
        {
            "f1": peer.f1_score(labels, answers, labels=classes, average="macro", sample_weight=weights, zero_division=0),
            "auc": _mean(_areas("auc", indicators, probabilities, weights)),
            "auc_pr": _mean(_areas("auc_pr", indicators, probabilities, weights)),
            "matthews": peer.matthews_corrcoef(labels, answers, sample_weight=weights),
            "accuracy": peer.accuracy_score(labels, answers, sample_weight=weights),
        }
    )


@pytest.mark.parametrize("data", [_single, _multi])
def test_weights_of_units_count_for_each_of_their_images(data) -> None:
    labels, probabilities = data(5)
    names = MULTI if data is _multi else SINGLE
    units = np.arange(len(labels)) % 4
    weights = np.array([[0.0, 1.0], [1.0, 1.0], [2.0, 0.5], [3.0, 0.0]])
    found = metrics.Measurement(labels, probabilities, units).compute(names, weights)
    for column in range(2):
        expected = metrics.compute(names, labels, probabilities, weights[units, column])
        assert {name: values[column] for name, values in found.items()} == pytest.approx(expected, nan_ok=True)


def test_what_one_class_alone_does_not_define_is_nan() -> None:
    _, probabilities = _single(1)
    found = metrics.compute(SINGLE, np.zeros(len(probabilities), np.int64), probabilities)
    assert {name for name, value in found.items() if math.isnan(value)} == {"auc", "auc_pr", "matthews"}


def test_top_1_is_the_accuracy_and_top_all_says_nothing() -> None:
    labels, probabilities = _single(0)
    classes = probabilities.shape[1]
    found = metrics.compute(["accuracy", "top_1_accuracy", f"top_{classes}_accuracy"], labels, probabilities)
    assert found["top_1_accuracy"] == found["accuracy"]
    assert math.isnan(found[f"top_{classes}_accuracy"])


def test_values_stay_within_the_range_of_their_definition() -> None:
    for seed in range(6):
        for names, (labels, probabilities) in ((SINGLE, _single(seed)), (MULTI, _multi(seed))):
            for name, value in metrics.compute(names, labels, probabilities).items():
                assert math.isnan(value) or metrics.METRICS[name].least <= value <= metrics.METRICS[name].most


def test_defaults_fit_the_data_and_start_with_accuracy() -> None:
    for multi_label, fitting in ((False, SINGLE), (True, MULTI)):
        names = metrics.default_metrics(multi_label)
        assert names[0] == "accuracy"
        assert "cross_entropy" in names
        assert set(names) <= set(fitting)
        metrics.check_metrics([*names, *([] if multi_label else ["top_5_accuracy"])], multi_label)


@pytest.mark.parametrize(
    ("name", "multi_label", "message"),
    [
        ("acuracy", False, "unknown metric acuracy; did you mean accuracy?"),
        ("top_0_accuracy", False, "unknown metric top_0_accuracy"),
        ("example_count", False, "unknown metric example_count"),
        ("matthews", True, "matthews is no metric of data with several labels an image"),
        ("exact_match", False, "exact_match is no metric of data with one label an image"),
    ],
)
def test_a_metric_that_does_not_fit_is_refused(name: str, multi_label: bool, message: str) -> None:
    with pytest.raises(UserError, match=message.replace("?", r"\?")):
        metrics.check_metrics(["accuracy", name], multi_label)
