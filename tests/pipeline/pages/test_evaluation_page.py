"""The page about an evaluation: its figures are right, and a person can use it in a browser."""

import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluations import Made, make_evaluation
from pages import Page
from sklearn import metrics

from base.tables import write_table
from components.label_check.results import LabelCheckResult
from components.label_check.tables import CORRECTIONS, TABLE
from components.model_formats.results import FormatResult
from evaluation.default_rules import judge_by_default
from evaluation.diagnostics import measure_reliability, trace_curves
from evaluation.metrics import PROMISES
from evaluation.promises import estimate_promises, selective_risks
from evaluation.results import Comparison, Metric, Verdict, read_evaluation, write_evaluation
from images.file_settings import FileSettings
from models.abstention import Abstention
from models.conformal import PredictionSets
from pipeline.config.calibration import CalibrateConfig, UnusualConfig
from pipeline.pages.evaluation_page import RunContext, write_evaluation_page
from pipeline.pages.thumbnails import read_originals

CLASSES = ["cat", "yak", "<b>pig & hen</b>", "owl", "dog"]
SORTED = sorted(CLASSES)
AXE = "axe-core@4.10.3"
TOO_BAD = Verdict("accuracy", "all examples", Metric(-0.2), False, lower=-0.01, against="the SavedModel")
CONTEXT = RunContext(
    run_id="2026-11-22T19-26-14",
    summary={
        "examples": {"train": 900, "eval": 90, "test": 300},
        "classes": {split: dict.fromkeys(CLASSES, 60) for split in ("train", "eval", "test")},
        "training": {"epochs": 3, "best_epoch": 2, "calibration": {"temperature": 1.25}},
        "check": {
            "passed": False,
            "reasons": ["serving_default, batch of 7: a/<b>pig.png: a probability is 0.2 off"],
            "images": 64,
            "max_difference": 1e-5,
            "largest_difference": 0.2,
            "measured": {"load_seconds": 2.25, "latency_p50_ms": 2.5, "latency_p99_ms": 12.34},
            "bad_inputs": {"serving_default, an empty file": "refused (InvalidArgumentError)"},
        },
        "components": {"Trainer": {"state": "complete", "seconds": 1.5}},
        "formats": [
            FormatResult("saved_model", bytes=2_000_000, latency_ms=1.5, metrics={"accuracy": 0.9}).summary,
            FormatResult("float16", "model_float16.tflite", 1_000_000, 0.5, {"accuracy": 0.9}).summary,
            FormatResult("int8", bytes=500_000, metrics={"accuracy": 0.7}, verdicts=[TOO_BAD]).summary,
            FormatResult("onnx", error="no such operation").summary,
        ],
    },
    training=[
        {"epoch": epoch, "loss": 2 / epoch, "val_loss": 3 / epoch, "accuracy": 0.3 * epoch, "val_accuracy": 0.2 * epoch}
        for epoch in (1, 2, 3)
    ],
    lineage='<svg viewBox="0 0 9 9" role="img" aria-label="drawing"></svg>',
    command="fpn run --config <here>.yaml",
    versions={"tfx": "1.21.0"},
    digest="ab12cd",
    notes=["Leak: images with a duplicate in train: 3 in test"],
)


def page_of(made: Made, output: Path, context: RunContext = CONTEXT, model: Path | None = None) -> tuple[Page, str]:
    write_evaluation_page(made.config, made.folder, output, model=model, context=context)
    html = output.read_text()
    return Page(html), html


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_evaluation(tmp_path_factory.mktemp("single"), CLASSES, 300)


@pytest.fixture(scope="module")
def written(made: Made) -> Path:
    output = made.folder.parent / "page.html"
    page_of(made, output)
    return output


@pytest.fixture(scope="module")
def page(written: Path) -> Page:
    return Page(written.read_text())


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> tuple[Made, Page, str]:
    made = make_evaluation(tmp_path_factory.mktemp("several"), SORTED[1:], 150, multi_label=True)
    return made, *page_of(made, made.folder.parent / "page.html")


def first(cell: str) -> float:
    return float(cell.split()[0])


def curve(html: str, label: str, name: str) -> np.ndarray:
    """Points of a line, in the units of the picture."""
    plot = re.search(rf'<svg [^>]*aria-label="{label}.*?</svg>', html, re.DOTALL)
    assert plot
    path = re.search(rf'data-curve="{re.escape(name)}">\s*<path d="([^"]*)"', plot[0])
    assert path
    return np.array(re.findall(r"[ML] (\S+) (\S+)", path[1]), float)


def test_the_verdict_comes_first_with_each_threshold(page: Page) -> None:
    text = " ".join(page.text.split())
    assert text.index("Not blessed") < text.index("Thresholds") < text.index("Shortcut:")
    assert "accuracy on worst of meta/site must be at least 0.99, is" in text
    assert "image/format is jpeg gives away the class cat, with a balanced accuracy of 0.9300 (0.900 to 0.960)" in text
    assert CONTEXT.notes[0] in text
    table = page.tables["Thresholds"][1:]
    assert [row[-1] for row in table] == ["holds", "fails", "holds", "holds", "fails"]
    assert [row[2] for row in table][-2:] == ["at least -0.01 against the served model", "at least 0.8"]
    assert table[-1][3] == "not measured"


def test_without_thresholds_the_rules_are_told_in_words(made: Made, tmp_path: Path) -> None:
    overall = made.evaluation.slices[0]
    worse = replace(overall, comparisons={"balanced_accuracy": Comparison(0.99, Metric(-0.2, -0.25, -0.15))})
    alone = replace(overall, comparisons={}, metrics={"balanced_accuracy": Metric(0.3, 0.15, 0.45)})
    made.predictions.write(str(tmp_path))
    texts = []
    for found in (overall, worse, alone):
        verdicts = judge_by_default(found, made.predictions.labels, with_intervals=True)
        blessed = all(verdict.passed for verdict in verdicts)
        write_evaluation(replace(made.evaluation, verdicts=verdicts, blessed=blessed), str(tmp_path))
        page, _ = page_of(replace(made, folder=tmp_path), tmp_path / "page.html", RunContext())
        assert [row[-1] for row in page.tables["Rules"][1:]] == ["holds" if verdict.passed else "fails" for verdict in verdicts]
        texts.append(" ".join(page.text.split()))
    must = "No thresholds are set (evaluate.thresholds). So the model must be better than an answer that is always the same"
    assert f"Blessed {must}, and not significantly worse than the served model." in texts[0]
    assert "must be not significantly worse than the served model (interval not wholly below 0), is -0.2000" in texts[1]
    assert f"Not blessed {must}. No model is served that it could be compared with." in texts[2]
    assert "(300 test images of 100 groups are too few to tell; give more of them, or set evaluate.thresholds)" in texts[2]


def test_what_changes_the_direction_of_text_is_written_out(made: Made, tmp_path: Path) -> None:
    """A browser would show everything after it backwards: a file on top of its reason, a class as another one."""
    note = "Leak: cat\u202egnp.exe and \x1b[2Jdog\u2066.png"
    page, html = page_of(made, tmp_path / "page.html", replace(CONTEXT, notes=[note]))
    assert "Leak: cat\\u202egnp.exe and \\x1b[2Jdog\\u2066.png" in page.text
    assert html.translate(dict.fromkeys(map(ord, "\u202e\u2066\x1b"))) == html


def test_the_most_unusual_images_are_shown_and_the_shares_are_counted(made: Made, tmp_path: Path) -> None:
    unusual = made.predictions.unusual
    assert unusual is not None
    config = made.config.model_copy(update={"calibrate": CalibrateConfig(unusual=UnusualConfig(cutoff=98.0))})
    page, html = page_of(replace(made, config=config), tmp_path / "page.html")
    text = " ".join(page.text.split())
    assert "0.3 % are more unusual than any image of the eval split. Above the cut-off of 98.0" in text
    assert f"where the answer is “unknown”, are {100 * (unusual > 98).mean():.1f} %." in text
    assert page.tables["Test images by percentile"][1:] == [
        [f"above {percentile}", f"{100 - percentile} %", f"{100 * (unusual > percentile).mean():.1f} %"]
        for percentile in (50, 90, 95, 99)
    ]
    (section,) = re.findall(r'<section aria-labelledby="unusual">.*?</section>', html, re.DOTALL)
    most = made.predictions.rows["image/filename"].iloc[np.argsort(-unusual)[:12]]
    shown = [unescape(name) for name in re.findall(r'<img src="data:[^"]*" alt="([^"]*)"', section)]
    assert shown == most.tolist()

    silent = replace(made, folder=tmp_path, predictions=replace(made.predictions, unusual=None))
    silent.predictions.write(str(tmp_path))
    write_evaluation(made.evaluation, str(tmp_path))
    assert "Unusual images" not in page_of(silent, tmp_path / "silent.html")[0].text


def test_formats_that_are_not_shipped_say_why(page: Page) -> None:
    text = " ".join(page.text.split())
    assert "no: accuracy on all examples must be at least -0.01 against the SavedModel, is -0.2000" in text
    assert "no: could not be converted: no such operation" in text


@pytest.fixture
def labels(made: Made, tmp_path: Path) -> dict[str, Any]:
    """What a run tells of 45 labels that are probably wrong, of 300."""
    names = made.predictions.rows["image/filename"]
    rows = [(name, "cat", "yak", f"{number / 100:.4f}", "train") for number, name in enumerate(names[:45])]
    with (tmp_path / TABLE).open("wb") as file:
        write_table(file, ["path", "label", "suggested", "quality", "split"], rows)
    paths = {"table": str(tmp_path / TABLE), "corrections": str(tmp_path / CORRECTIONS)}
    return {**asdict(LabelCheckResult(images=300, issues=45, left_out=7)), **paths}


def test_labels_that_are_probably_wrong_are_shown_with_their_images(made: Made, labels: dict[str, Any], tmp_path: Path) -> None:
    context = replace(CONTEXT, summary={**CONTEXT.summary, "labels": labels})
    page, html = page_of(made, tmp_path / "page.html", context)
    text = " ".join(page.text.split())
    assert "45 of 300 labels are probably wrong, in all splits." in text
    assert "7 images were left out: they have no label, or one that images of fewer than 5 groups have." in text
    assert labels["corrections"] in text
    assert labels["table"] in text
    _, *rows = page.tables["The worst 30, the worst first"]
    assert [row[1:] for row in rows] == [
        ["cat", "yak", f"{number / 100:.4f}", "train", made.predictions.rows["image/filename"][number]] for number in range(30)
    ]
    section = re.search(r'<section aria-labelledby="labels">.*?</section>', html, re.DOTALL)
    assert section
    assert section[0].count('<img src="data:image/jpeg;base64,') == 30


def test_a_run_that_could_not_look_at_labels_says_why(made: Made, labels: dict[str, Any], tmp_path: Path) -> None:
    Path(labels["table"]).write_text("path,label,suggested,quality,split\n")
    found = {**labels, **asdict(LabelCheckResult(0, 0, 300, "too few classes"))}
    page, _ = page_of(made, tmp_path / "page.html", replace(CONTEXT, summary={"labels": found}))
    assert "No labels were looked at: too few classes." in page.text


def test_a_page_has_no_section_of_labels_that_no_run_looked_at(written: Path) -> None:
    assert 'href="#labels"' not in written.read_text()


def test_the_check_of_the_exported_model_is_told(page: Page) -> None:
    text = " ".join(page.text.split())
    assert "The exported model has failed its check, and thresholds do not hold:" in text
    assert "Failed: serving_default, batch of 7: a/<b>pig.png: a probability is 0.2 off" in text
    assert re.search(r"serving_default, an empty file ?refused \(InvalidArgumentError\)", text)
    table = page.tables["What was measured on the machine of the run"][1:]
    assert [row[1] for row in table] == ["2.25 s", "2.5 ms", "12.3 ms", "2.0e-01"]
    assert table[-1][2] == "1.0e-05"


def test_overall_metrics_are_those_of_scikit_learn(page: Page, made: Made) -> None:
    labels, probabilities = made.predictions.labels, made.predictions.probabilities
    answers = probabilities.argmax(axis=1)
    shown = {row[0]: first(row[1]) for row in page.tables["Metrics on all test images"][1:]}
    expected = {
        "accuracy": metrics.accuracy_score(labels, answers),
        "balanced accuracy": metrics.balanced_accuracy_score(labels, answers),
        "f1": metrics.f1_score(labels, answers, average="macro"),
        "auc": metrics.roc_auc_score(np.eye(5)[labels], probabilities),
        "matthews": metrics.matthews_corrcoef(labels, answers),
        "cross entropy": metrics.log_loss(labels, probabilities.astype(float)),
    }
    for name, value in expected.items():
        assert shown[name] == pytest.approx(value, abs=6e-5), name
    interval = made.evaluation.overall["accuracy"]
    assert page.tables["Metrics on all test images"][1][2] == f"{interval.lower:.3f} to {interval.upper:.3f}"


def test_the_confusion_matrix_is_that_of_scikit_learn(page: Page, made: Made) -> None:
    answers = np.array(CLASSES)[made.predictions.answers()]
    expected = metrics.confusion_matrix(made.predictions.rows["image/label"], answers, labels=SORTED)
    header, *rows = page.tables["Confusion matrix"]
    assert header[1:] == [row[0] for row in rows] == SORTED
    shown = np.array([[0 if cell.startswith("·") else first(cell) for cell in row[1:]] for row in rows])
    np.testing.assert_array_equal(shown, expected)
    rates = np.array([[0 if cell.startswith("·") else float(cell.split()[1]) for cell in row[1:]] for row in rows])
    np.testing.assert_allclose(rates, 100 * expected / expected.sum(axis=1, keepdims=True), atol=0.051)


def test_slices_and_classes_agree_with_scikit_learn(page: Page, made: Made) -> None:
    rows, labels, answers = made.predictions.rows, made.predictions.labels, made.predictions.answers()
    shown = {row[0]: row for row in page.tables["Metrics by slice"][1:]}
    for site in ("north", "south", "<west & east>"):
        inside = (rows["meta/site"] == site).to_numpy()
        row = shown[f"meta/site={site}"]
        assert row[-2:] == [str(inside.sum()), str(len(set(made.predictions.groups[inside])))]
        assert first(row[1]) == pytest.approx(metrics.accuracy_score(labels[inside], answers[inside]), abs=6e-5)
    assert shown["meta/site=moon"][-3:] == ["too few images", "1", "1"]
    header, *by_class = page.tables["Metrics by class, each against the rest"]
    precision, _, f1, _ = metrics.precision_recall_fscore_support(labels, answers, zero_division=0)
    for name, expected in (("precision", precision), ("f1", f1)):
        column = header.index(name)
        shown_by_class = {row[0]: first(row[column]) for row in by_class}
        assert shown_by_class == pytest.approx(dict(zip(CLASSES, expected, strict=True)), abs=6e-5)
    assert [row[0] for row in by_class] == SORTED


def test_the_reliability_diagram_has_the_bins_of_the_calibration_error(page: Page, written: Path, made: Made) -> None:
    labels, probabilities = made.predictions.labels, made.predictions.probabilities
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    expected = []
    for number in range(15):
        inside = (confidence > number / 15) & (confidence <= (number + 1) / 15)
        if inside.any():
            expected.append((inside.sum(), confidence[inside].mean(), right[inside].mean()))
    rows = page.tables["Reliability by confidence"][1:]
    np.testing.assert_allclose([[float(cell) for cell in row[1:]] for row in rows], expected, atol=6e-5)
    counts, sure, share = np.array(expected).T
    ece = (counts * np.abs(sure - share)).sum() / counts.sum()
    shown = {row[0]: first(row[1]) for row in page.tables["Metrics on all test images"][1:]}
    assert shown["ece"] == pytest.approx(ece, abs=6e-5)
    html = written.read_text()
    corners = curve(html, "Reliability", "diagonal")
    drawn = (curve(html, "Reliability", "reliability") - corners[0]) / (corners[1] - corners[0])
    np.testing.assert_allclose(drawn, np.stack([sure, share], axis=1), atol=1e-4)


def test_what_is_promised_stands_beside_what_was_measured(made: Made, tmp_path: Path) -> None:
    probabilities, labels = made.predictions.probabilities, made.predictions.labels
    answered = probabilities.max(axis=1) > 0.7
    predictions = replace(made.predictions, sets=probabilities > 0.1, answered=answered)
    measured = estimate_promises(PROMISES, predictions, np.arange(300), "jackknife")
    overall = made.evaluation.slices[0]
    slices = [replace(overall, metrics=overall.metrics | measured), *made.evaluation.slices[1:]]
    predictions.write(str(tmp_path))
    write_evaluation(replace(made.evaluation, slices=slices), str(tmp_path))
    training = {
        "sets": asdict(PredictionSets("aps", 0.95, False, (0.3,) * 5, (90,) * 5, 19)) | {"problem": ""},
        "abstention": asdict(Abstention(0.02, 0.95, 0.7, 90, 70, 0, 0.01)) | {"problem": ""},
    }
    promising = replace(made, folder=tmp_path)
    page, html = page_of(promising, tmp_path / "page.html", replace(CONTEXT, summary={"training": training}))
    rows = {row[0]: row[1:] for row in page.tables["Promised and kept"][1:]}
    assert list(rows) == ["set coverage", "set size", "answered", "selective risk"]
    for name, metric in measured.items():
        assert float(rows[name.replace("_", " ")][1]) == pytest.approx(metric.value, abs=6e-5)
    assert rows["set coverage"][0] == "at least 0.95"
    assert rows["selective risk"][0] == "at most 0.02, with a confidence of 0.95"
    text = " ".join(page.text.split())
    assert "above a confidence of 0.7000; other images get unknown" in text
    assert "Not promised" not in text
    risks = selective_risks(labels, probabilities)
    assert f"The area under the curve is {risks.mean():.4f}" in text
    assert float(rows["selective risk"][1]) == pytest.approx(risks[answered.sum() - 1], abs=6e-5)
    drawn = curve(html, "Risk by coverage", "risk")
    heights = np.interp(np.linspace(*drawn[[0, -1], 0], 300), *drawn.T)
    assert np.corrcoef(heights, risks)[0, 1] < -0.999
    assert 'data-curve="chosen"' in html


def test_what_can_not_be_promised_is_told(made: Made, tmp_path: Path) -> None:
    few = PredictionSets("lac", 0.95, False, (None,) * 5, (9,) * 5, 19)
    none = Abstention(0.02, 0.95, None, 9, 0, 0, 1.0)
    training = {"sets": asdict(few) | {"problem": few.problem}, "abstention": asdict(none) | {"problem": none.problem}}
    page, html = page_of(made, tmp_path / "page.html", replace(CONTEXT, summary={"training": training}))
    text = " ".join(page.text.split())
    assert "Not promised: calibrate.sets: a coverage of 0.95 is not promised for any class: it needs 19" in text
    assert "Not promised: calibrate.abstain: a risk of 0.02 can't be promised" in text
    assert 'data-curve="chosen"' not in html


def test_a_promise_to_other_classes_and_one_that_needs_no_threshold_are_told(made: Made, tmp_path: Path) -> None:
    predictions = replace(made.predictions, sets=made.predictions.probabilities > 0.1, answered=np.arange(300) > 9)
    overall = made.evaluation.slices[0]
    measured = estimate_promises(PROMISES, predictions, np.arange(300), "none")
    write_evaluation(
        replace(made.evaluation, slices=[replace(overall, metrics=measured), *made.evaluation.slices[1:]]), str(tmp_path)
    )
    predictions.write(str(tmp_path))
    some = PredictionSets("lac", 0.95, True, (0.3, 0.3, None, 0.3, 0.3), (90, 90, 9, 90, 90), 19)
    training = {
        "sets": asdict(some) | {"problem": some.problem},
        "abstention": asdict(Abstention(0.3, 0.95, 0.0, 90, 90, 9, 0.2)) | {"problem": ""},
    }
    context = replace(CONTEXT, summary={"training": training})
    page, _ = page_of(replace(made, folder=tmp_path), tmp_path / "page.html", context)
    assert page.tables["Promised and kept"][1][:2] == ["set coverage", "at least 0.95, of each other class"]
    text = " ".join(page.text.split())
    assert "1 of 5 classes, which are in every set: it needs 19 or more groups" in text
    assert "The point is what the model answers; other images get unknown." in text


def test_a_page_of_several_labels_an_image_has_no_promises(several: tuple[Made, Page, str]) -> None:
    assert "Risk by coverage" not in several[2]


def test_curves_are_those_of_scikit_learn(page: Page, written: Path, made: Made) -> None:
    labels, probabilities = made.predictions.labels, made.predictions.probabilities
    html = written.read_text()
    areas = {row[0]: float(row[1]) for row in page.tables["ROC: AUC by class"][1:]}
    precisions = {row[0]: float(row[1]) for row in page.tables["Precision and recall: average precision by class"][1:]}
    corners = curve(html, "ROC", "chance")
    for number, name in enumerate(CLASSES):
        truth, scores = labels == number, probabilities[:, number]
        assert areas[name] == pytest.approx(metrics.roc_auc_score(truth, scores), abs=6e-5)
        assert precisions[name] == pytest.approx(metrics.average_precision_score(truth, scores), abs=6e-5)
        escaped = name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        drawn = (curve(html, "ROC", escaped) - corners[0]) / (corners[1] - corners[0])
        assert np.trapezoid(drawn[:, 1], drawn[:, 0]) == pytest.approx(areas[name], abs=2e-3)
        assert (np.diff(drawn, axis=0) >= -1e-6).all()


def test_long_curves_are_thinned_without_moving() -> None:
    random = np.random.default_rng(3)
    labels = random.integers(0, 3, 100_000)
    probabilities = random.dirichlet((1, 1, 1), len(labels))
    probabilities[np.arange(len(labels)), labels] += 0.4
    for curves, whole in zip(
        trace_curves(labels, probabilities, ["a", "b", "c"]),
        (
            lambda *given: metrics.roc_curve(*given)[:2],
            lambda *given: [values[::-1] for values in metrics.precision_recall_curve(*given)[1::-1]],
        ),
        strict=True,
    ):
        for number, found in enumerate(curves):
            x, y = whole(labels == number, probabilities[:, number])
            assert len(found.x) <= 202
            assert np.trapezoid(found.y, found.x) == pytest.approx(np.trapezoid(y, x), abs=1e-3)
            assert (found.x[0], found.x[-1]) == (0, 1)


def test_confidences_on_the_edge_of_a_bin_are_in_the_lower_one() -> None:
    probabilities = np.array([[0.2, 0.8], [1 - 1 / 15, 1 / 15], [0.0, 1.0]])
    assert np.flatnonzero(measure_reliability(np.array([1, 0, 1]), probabilities).counts).tolist() == [11, 13, 14]


def test_baseline_and_groups_are_told(page: Page, made: Made) -> None:
    labels = made.predictions.labels
    assert made.predictions.baseline is not None
    now, before = (values.argmax(axis=1) == labels for values in (made.predictions.probabilities, made.predictions.baseline))
    text = " ".join(page.text.split())
    assert f"{(now & ~before).sum()} were wrong and are right now, {(before & ~now).sum()} were right and are wrong now" in text
    rows = {row[0]: row for row in page.tables["Difference by slice"][1:]}
    assert first(rows["all examples"][1]) == pytest.approx(now.mean() - before.mean(), abs=6e-5)
    assert rows["all examples"][1].endswith("better")
    assert made.evaluation.group
    shown = [[0 if cell.startswith("·") else first(cell) for cell in row[1:]] for row in page.tables["Confusion of groups"][1:]]
    order = np.argsort(CLASSES)
    np.testing.assert_array_equal(shown, np.array(made.evaluation.group.confusion)[np.ix_(order, order)])


def test_what_was_not_stated_names_its_key(page: Page) -> None:
    card = {row[0]: row[1] for row in page.tables["What the model is for, and how it was made"]}
    assert card["Limits"] == "Toys only."
    assert card["Intended use"].startswith("not stated; fill card.intended_use : what the model is for")
    assert "3 epochs, the best was number 2" in card["Training"]


def test_it_is_told_how_to_make_it_again(page: Page, written: Path) -> None:
    text = page.text
    assert "fpn run --config <here>.yaml" in text
    assert "limits: Toys only." in text
    assert "tfx 1.21.0" in text
    assert "ab12cd" in text
    assert CONTEXT.lineage in written.read_text()


def test_the_page_needs_nothing_else_and_names_stay_names(page: Page, written: Path) -> None:
    html = written.read_text()
    assert not re.search(r"https?://|@import|url\((?!#)|<b>pig", html)
    assert all(link.startswith(("data:", "#")) for link in page.links)
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))


def test_each_class_of_multi_label_data_is_counted_by_itself(several: tuple[Made, Page, str]) -> None:
    made, page, _ = several
    expected = metrics.multilabel_confusion_matrix(made.predictions.labels, made.predictions.answers())
    header, *rows = page.tables["Answers by class"]
    assert header == ["Class", "Right", "Wrongly found", "Missed", "Rightly not found"]
    for row, (wrongly, rightly) in zip(rows, ((item[:, 1], item[:, ::-1]) for item in expected), strict=True):
        true_positives, false_positives = wrongly[1], wrongly[0]
        false_negatives, true_negatives = rightly[1, 1], rightly[0, 1]
        assert [int(cell) for cell in row[1:]] == [true_positives, false_positives, false_negatives, true_negatives]
    areas = [float(row[1]) for row in page.tables["ROC: AUC by class"][1:]]
    labels, probabilities = made.predictions.labels, made.predictions.probabilities
    np.testing.assert_allclose(areas, metrics.roc_auc_score(labels, probabilities, average=None), atol=6e-5)
    counts = [int(row[1]) for row in page.tables["Reliability by confidence"][1:]]
    assert sum(counts) == labels.size
    assert "Confusion matrix" not in page.tables


def test_the_worst_mistakes_come_first(page: Page, made: Made) -> None:
    labels, probabilities = made.predictions.labels, made.predictions.probabilities
    wrong = np.where(probabilities.argmax(axis=1) != labels, probabilities.max(axis=1), 0)
    text = " ".join(page.text.split())
    worst = int(wrong.argmax())
    start = text.index("Surest and wrong ") + len("Surest and wrong ")
    answer = CLASSES[probabilities[worst].argmax()]
    assert text[start:].startswith(
        f"{CLASSES[labels[worst]]} taken for {answer} probability of {answer}: {100 * wrong[worst]:.1f} %"
    )


def test_a_model_shows_where_it_has_looked(made: Made, tmp_path: Path, exported: Any) -> None:
    # The model knows three classes; the answers that are explained must be among them.
    three = make_evaluation(tmp_path, ["cat", "dog", "owl"], 60)
    page, html = page_of(three, tmp_path / "page.html", model=Path(exported.path))
    overlays = [alternative for alternative, _ in page.images if alternative.startswith("The evidence for ")]
    mistakes = (three.predictions.answers() != three.predictions.labels).sum()
    assert len(overlays) == min(mistakes, 12) + 12
    shares = re.findall(r"<dt>(P\d)</dt><dd>.*?</span>([+-]\d+) %", html)
    assert [level for level, _ in shares[:3]] == ["P2", "P3", "P4"]
    assert sum(abs(int(share)) for _, share in shares[:3]) == pytest.approx(100, abs=2)


def test_what_a_run_does_not_know_is_left_out(made: Made, tmp_path: Path) -> None:
    bare = replace(made.evaluation, group=None, flips=None, shortcuts=[], verdicts=[], blessed=None)
    bare = replace(bare, slices=[replace(bare.slices[0], comparisons={}, by_class={})])
    predictions = replace(made.predictions, baseline=None)
    predictions.write(str(tmp_path))
    write_evaluation(bare, str(tmp_path))
    assert read_evaluation(str(tmp_path)) == bare
    missing = made.config.model_copy(update={"data": made.config.data.model_copy(update={"path": str(tmp_path / "gone")})})
    page, html = page_of(replace(made, folder=tmp_path, config=missing), tmp_path / "page.html", RunContext())
    assert not page.images
    assert "Not judged" in page.text
    assert not {"warnings", "baseline", "groups", "training", "check", "data", "lineage"} & set(page.ids)
    assert 'href="#cell' not in html


def test_many_classes_keep_the_page_small_and_show_the_most_confused(tmp_path: Path) -> None:
    made = make_evaluation(tmp_path, [f"class {number}" for number in range(40)], 3000)
    page, html = page_of(made, tmp_path / "page.html", RunContext())
    assert len(html) < 5e6
    assert len(page.images) <= 240 + 24 + 24 + 12  # confusions, mistakes, the least sure and the most unusual
    expected = metrics.confusion_matrix(made.predictions.labels, made.predictions.answers())
    np.fill_diagonal(expected, 0)
    rows = page.tables["Most confused classes"][1:]
    assert [int(row[2]) for row in rows] == sorted(expected.ravel().tolist(), reverse=True)[:40]
    assert int(rows[0][2]) == expected[int(rows[0][0].split()[1]), int(rows[0][1].split()[1])]
    assert len(page.tables["Metrics by class, each against the rest"]) == 1 + 40
    assert page.tables["ROC: AUC by class"][1][0] == "mean of 40 classes"


def test_images_are_read_again_by_the_names_that_ingestion_gives(made: Made) -> None:
    name = made.predictions.rows["image/filename"][0]
    read = dict(
        read_originals(
            made.config.data.path,
            ["gone.png", f"{name}#0", name, "gone.tfrecord:3"],
            FileSettings(max_pixels=10**6, pages="first", intensity="type", window=None),
        )
    )
    assert list(read) == [f"{name}#0", name]


# In a browser.


@pytest.fixture(scope="module")
def window(browser: Any, written: Path) -> Iterator[Any]:
    """The page, with what it has asked for and complained of in `asked` and `complaints`."""
    opened = browser.new_page(viewport={"width": 1280, "height": 900})
    opened.set_default_timeout(5000)
    opened.asked, opened.complaints = [], []
    opened.on("request", lambda request: opened.asked.append(request.url))
    opened.on("console", lambda message: opened.complaints.append(message.text))
    opened.on("pageerror", lambda error: opened.complaints.append(str(error)))
    opened.goto(written.as_uri())
    yield opened
    # Whatever was done with it.
    assert [url for url in opened.asked if not url.startswith(("data:", "file:"))] == []
    assert opened.complaints == []


def test_nothing_is_asked_of_a_network_and_nothing_complained_of(window: Any, written: Path) -> None:
    assert [url for url in window.asked if not url.startswith("data:")] == [written.as_uri()]
    assert window.complaints == []
    assert window.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")


def test_slices_are_sorted_filtered_and_shown_by_metric(window: Any) -> None:
    part = window.locator("#slice-table")

    def values() -> list[float]:
        return [float(text.split()[0].replace("too", "nan")) for text in part.locator("td.m:visible").all_inner_texts()]

    button = part.get_by_role("button", name="accuracy", exact=True)
    button.click()
    ascending = values()
    assert ascending[:-1] == sorted(ascending[:-1])
    assert np.isnan(ascending[-1])
    button.press("Enter")
    assert values()[:-1] == sorted(ascending[:-1], reverse=True)
    assert part.locator("[aria-sort=descending]").inner_text().startswith("accuracy")
    part.get_by_role("combobox").select_option(label="f1")
    assert part.locator("thead th:visible").all_inner_texts()[1] == "f1"
    assert part.locator("thead th:visible").count() == 4
    part.get_by_role("searchbox").fill("SITE=")
    assert part.locator("tbody tr:visible").count() == 5
    assert part.get_by_role("status").inner_text() == "5 of 10 slices"


def test_a_confusion_opens_its_images_by_mouse_and_by_keyboard(window: Any, made: Made) -> None:
    expected = metrics.confusion_matrix(made.predictions.labels, made.predictions.answers())
    np.fill_diagonal(expected, 0)
    row, column = np.unravel_index(expected.argmax(), expected.shape)
    window.locator(f'a[href="#cell-{row}-{row}"]').click()
    assert window.locator(".gallery:visible").get_attribute("id") == f"cell-{row}-{row}"
    assert window.locator(".gallery:visible img").count() == 8
    window.locator(f'a[href="#cell-{row}-{column}"]').press("Enter")
    opened = window.locator(".gallery:visible")
    assert (
        opened.locator("h3")
        .inner_text()
        .startswith(f"{CLASSES[row]} taken for {CLASSES[column]}: {expected[row, column]} image")
    )
    assert opened.locator("img").count() == min(8, expected[row, column])
    assert window.locator(f'#matrix a[href="#cell-{row}-{row}"] .rate').is_hidden()
    window.get_by_label("share of the class, %").first.check()
    assert window.locator(f'#matrix a[href="#cell-{row}-{row}"] .rate').is_visible()
    assert window.locator(f'#matrix a[href="#cell-{row}-{row}"] .count').is_hidden()


@pytest.mark.parametrize("width", [360, 1280])
def test_it_fits_a_phone_and_a_desktop(window: Any, width: int) -> None:
    window.set_viewport_size({"width": width, "height": 900})
    assert window.evaluate("document.documentElement.scrollWidth") == width


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> str:
    """The accessibility checker's program."""
    assert pytestconfig.cache
    folder = pytestconfig.cache.mkdir(AXE.replace("@", "-"))
    archives = list(folder.glob("*.tgz"))
    if not archives:
        npm = shutil.which("npm")
        if not npm:
            pytest.skip("there is no npm to get axe-core with")
        try:
            subprocess.run([npm, "pack", "--silent", AXE], cwd=folder, check=True, capture_output=True, timeout=60)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
            pytest.skip("npm's registry can't be reached for axe-core")
        archives = list(folder.glob("*.tgz"))
    with tarfile.open(archives[0]) as archive:
        member = archive.extractfile("package/axe.min.js")
        assert member
        return member.read().decode()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_people_with_other_eyes_and_hands_can_use_it(window: Any, axe: str, scheme: str) -> None:
    window.emulate_media(color_scheme=scheme)
    background = window.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(21, 23, 26)"}[scheme]
    window.evaluate(axe)
    found = window.evaluate("axe.run({resultTypes: ['violations']})")["violations"]
    assert [(item["id"], item["impact"], [node["target"] for node in item["nodes"]][:3]) for item in found] == []
