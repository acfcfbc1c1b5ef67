"""The whole pipeline on a few hundred digits, started as a person starts it, again, and after changes."""

import ast
import csv
import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import tensorflow as tf
import yaml
from few_digits import write_few_digits
from nbclient import NotebookClient
from PIL import Image

from evaluation.results import read_evaluation
from models import features
from tests.sweeps.runs import COMPONENTS

PACKAGES = ("base", "models", "storage", "images", "evaluation", "components", "pipeline")
ALL = list(COMPONENTS)
SOURCE_DIGITS = 240  # three pictures each


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A copy of the packages, whose code may be changed, with a small data set and a configuration."""
    project = tmp_path_factory.mktemp("project")
    for package in PACKAGES:
        shutil.copytree(Path(__file__).parents[2] / package, project / package, ignore=shutil.ignore_patterns("__pycache__"))
    data = project / "data"
    write_few_digits(data, SOURCE_DIGITS)
    with (data / "manifest.csv").open("a", newline="") as file:
        csv.writer(file).writerow(["broken.png", "0", "small", "broken"])
    (data / "broken.png").write_bytes(next(data.glob("*/*.png")).read_bytes()[:200])

    config = {
        "name": "few-digits",
        "data": {"path": str(data), "splits": {"train": 6, "eval": 2, "test": 2}},
        "image": {"height": 32, "width": 32, "channels": 1},
        "model": {"backbone": "small_resnet10", "max_level": 4, "num_filters": 16},
        "train": {"epochs": 6, "batch_size": 32, "learning_rate": 0.01},
        "evaluate": {
            "slices": [["image/label"], ["meta/size"], ["image/label", "meta/size"]],
            "thresholds": [{"metric": "accuracy", "lower": 0.15}, {"metric": "accuracy", "change": -1.0}],
        },
    }
    (project / "config.yaml").write_text(yaml.safe_dump(config))
    return project


@pytest.fixture(scope="module")
def runs(place, fpn, fresh_fpn):
    """One sequence of runs, shared by all tests of this file."""

    def run(*arguments, start=fpn):
        return start("run", "--config", "config.yaml", "--output", "out", "--json", *arguments, project=place)

    ended = {"first": run(start=fresh_fpn), "again": run()}
    failing = "evaluate.thresholds=[{metric: accuracy, lower: 0.1}, {metric: accuracy, lower: 1.01, slice: {meta/size: small}}]"
    ended["threshold"] = run("--set", failing)
    (place / "models" / "fpn.py").open("a").write("\n# a change\n")
    ended["code"] = run()
    return ended


def states(ended, state):
    return [name for name, component in ended.json["components"].items() if component["state"] == state]


def test_the_first_run_ends_with_a_blessed_and_pushed_model(runs, place):
    ended = runs["first"]
    assert ended.status == 0, ended.stderr
    summary = ended.json
    assert states(ended, "complete") == ALL
    assert summary["pipeline"] == "few-digits"
    assert summary["blessed"] is True
    assert (Path(summary["pushed_model"]) / "saved_model.pb").exists()
    assert Path(summary["pushed_model"]).parent == place / "out" / "pushed"
    assert Path(summary["report"]).exists()
    assert (place / "out" / "runs" / summary["run_id"] / "log.txt").stat().st_size > 1000


def test_every_file_is_accounted_for(runs):
    examples = runs["first"].json["examples"]
    assert examples.pop("rejected") == 1
    assert set(examples) == {"train", "eval", "test"}
    assert sum(examples.values()) == 3 * SOURCE_DIGITS


def test_metrics_lie_in_their_intervals(runs):
    metrics = runs["first"].json["metrics"]
    assert {"accuracy", "balanced_accuracy", "f1", "auc", "cross_entropy", "ece"} <= set(metrics)
    for metric in metrics.values():
        assert metric["lower"] <= metric["value"] <= metric["upper"]


def test_a_person_sees_components_times_and_training(runs):
    screen = runs["first"].stderr
    for name in ALL:
        assert f"✓ {name} " in screen
    assert "epoch 6/6  loss " in screen
    assert "from the cache" not in screen
    assert "Traceback" not in screen


def test_the_model_is_calibrated_and_a_person_is_told(runs, fpn, place):
    summary = runs["first"].json
    calibration = summary["training"]["calibration"]
    assert calibration["examples"] == summary["examples"]["eval"]
    assert calibration["cross_entropy_after"] <= calibration["cross_entropy_before"]
    line = f"Calibration on the eval split: temperature {calibration['temperature']:.2f}, expected calibration error"
    assert line in runs["first"].stdout
    assert line in runs["again"].stdout
    assert f"calibrated with a temperature of {calibration['temperature']:.2f}" in Path(summary["report"]).read_text()
    assert line in fpn("report", f"out/runs/{summary['run_id']}", project=place).stdout


def test_an_unchanged_run_comes_from_the_cache(runs):
    ended = runs["again"]
    assert ended.status == 0, ended.stderr
    assert states(ended, "cached") == ALL[:-1]
    assert states(ended, "complete") == ["Pusher"]  # it looks each time
    assert (runs["first"].json["already_served"], ended.json["already_served"]) == (False, True)
    assert "Blessed, is served already as out/pushed/" in ended.stdout
    for key in ("pushed_model", "evaluation", "check", "metrics", "examples", "training"):
        assert ended.json[key] == runs["first"].json[key]


def test_a_changed_threshold_is_judged_without_training_again(runs):
    assert states(runs["threshold"], "complete") == ["Evaluator", "ModelCheck", "Pusher"]
    assert states(runs["threshold"], "cached") == ALL[:-3]


def test_a_model_below_a_threshold_is_not_pushed_and_the_slice_is_named(runs, place):
    ended = runs["threshold"]
    assert ended.status == 3
    assert ended.json["blessed"] is False
    assert ended.json["pushed_model"] is None
    page = Path(ended.json["report"]).read_text()
    assert "Not blessed" in page
    for told in (ended.stdout, page):
        assert "accuracy on meta/size=small must be at least 1.01" in told
    assert "accuracy on all examples must be" not in ended.stdout
    assert len(list((place / "out" / "pushed").glob("[0-9]*"))) == 2  # of the first run and of the one with changed code


def test_the_exported_model_was_checked_and_a_person_is_told(runs, place):
    ended = runs["first"]
    assert ended.json["check"]["passed"]
    assert ended.json["check"]["images"] == 64
    for screen in (ended.stdout, runs["again"].stdout):
        assert "Check passed: loaded in " in screen
    assert "Check of the exported model" in Path(ended.json["report"]).read_text()
    (first, *_) = sorted(
        (place / "out" / "artifacts" / "ModelCheck" / "infra_blessing").iterdir(), key=lambda path: int(path.name)
    )
    assert sorted(path.name for path in first.iterdir()) == ["INFRA_BLESSED", "check.json"]


def test_changed_code_is_trained_again_and_nothing_before_it(runs):
    ended = runs["code"]
    assert ended.status == 0, ended.stderr
    assert states(ended, "complete") == ["Trainer", "Evaluator", "ModelCheck", "Pusher"]
    assert states(ended, "cached") == ALL[:5]


def test_the_new_model_is_compared_with_the_served_one(runs, fpn, place):
    report = fpn("report", "out", project=place).stdout
    line = next(line for line in report.splitlines() if "against the served" in line)
    assert "passed" in line
    assert "against the served" not in Path(runs["first"].json["report"]).read_text()
    assert "No served model to compare with" in runs["first"].stdout
    assert "No served model to compare with" not in runs["code"].stdout


def test_the_report_shows_slices_with_intervals_and_verdicts(runs, fpn, place):
    ended = fpn("report", "out", project=place)
    assert ended.status == 0
    assert fpn("report", f"out/runs/{runs['code'].json['run_id']}", project=place).stdout == ended.stdout
    for text in ("all examples", "image/label=3", "meta/size=small", "image/label=3, meta/size=small", "at least 0.15"):
        assert text in ended.stdout


@pytest.fixture(scope="module")
def predictions(runs, fpn, place):
    """What `fpn predict` says of every test image: (label, size, predicted label, probability of the label)."""
    artifacts = place / "out" / "artifacts" / "ImageExampleGen" / "examples"
    rows = {}
    files = [str(path) for path in artifacts.glob("*/Split-test/data_tfrecord-*")]
    for record in tf.data.TFRecordDataset(files).as_numpy_iterator():
        feature = tf.train.Example.FromString(record).features.feature
        name, label, size = (
            feature[key].bytes_list.value[0].decode() for key in (features.FILENAME, features.LABEL, "meta/size")
        )
        rows[name] = label, size
    paths = [place / "data" / name for name in rows]
    ended = fpn("predict", "--model", runs["code"].json["pushed_model"], "--json", *paths, project=place)
    assert ended.status == 0, ended.stderr
    answers = ended.json["predictions"]
    assert [item["image"] for item in answers] == [str(path) for path in paths]
    return [
        (label, size, item["label"], item["probabilities"][label])
        for (label, size), item in zip(rows.values(), answers, strict=True)
    ]


def test_every_metric_agrees_with_the_answers_of_predict(runs, predictions):
    evaluation = read_evaluation(runs["code"].json["evaluation"])
    assert len(evaluation.slices) == 1 + 10 + 3 + 30
    for item in evaluation.slices:
        wanted = dict(item.key)
        rows = [
            row
            for row in predictions
            if row[0] == wanted.get("image/label", row[0]) and row[1] == wanted.get("meta/size", row[1])
        ]
        assert item.examples == len(rows)
        assert item.too_small == (len(rows) < 10)
        if item.too_small:
            continue
        accuracy = sum(predicted == label for label, _, predicted, _ in rows) / len(rows)
        cross_entropy = -sum(math.log(probability) for *_, probability in rows) / len(rows)
        assert item.metrics["accuracy"].value == pytest.approx(accuracy, abs=1e-6)
        assert item.metrics["cross_entropy"].value == pytest.approx(cross_entropy, rel=1e-3, abs=1e-5)
    assert len(predictions) == runs["code"].json["examples"]["test"]
    assert runs["code"].json["metrics"]["accuracy"]["value"] == evaluation.overall["accuracy"].value


def test_predict_names_the_file_that_is_no_image(runs, fpn, place):
    ended = fpn("predict", "--model", "out/pushed", "data/manifest.csv", project=place)
    assert ended.status == 2
    assert ended.stderr == "fpn: data/manifest.csv: not an image; give an image file, such as PNG or JPEG\n"


def test_predict_loads_no_code_of_the_network(runs, place):
    image = next((place / "data" / "3").glob("*.png"))
    program = f"""
import sys
from pipeline.cli import main
assert main(["predict", "--model", "out/pushed", {str(image)!r}]) == 0
print([name for name in sys.modules if name.split(".")[0] == "models"])
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=place, capture_output=True, text=True, check=True)
    names_and_settings = {"models", "models.features", "models.image_settings"}
    assert set(ast.literal_eval(done.stdout.splitlines()[-1])) <= names_and_settings


def test_anomalies_stop_the_run_before_training_when_asked_to(runs, fpn, place):
    schema = next((place / "out" / "artifacts" / "SchemaGen" / "schema").glob("*/schema.pbtxt")).read_text()
    (place / "curated.pbtxt").write_text(schema.replace('value: "large"', 'value: "huge"'))
    arguments = ["--set", "data.schema=curated.pbtxt", "--set", "data.stop_on_anomalies=true"]
    ended = fpn("run", "--config", "config.yaml", "--output", "out", "--json", *arguments, project=place)
    assert ended.status == 2
    assert states(ended, "failed") == ["ExampleValidator"]
    assert states(ended, "skipped") == ["Transform", "Trainer", "Evaluator", "ModelCheck", "Pusher"]
    assert "meta/size" in ended.stderr
    assert "data.stop_on_anomalies" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.fixture(scope="module")
def inspected(runs, fpn, place):
    """`fpn data` on the same files, of which those of the eval split have become darker."""
    dark = place / "dark"
    shutil.copytree(place / "data", dark)
    (examples,) = (place / "out" / "artifacts" / "ImageExampleGen" / "examples").iterdir()
    index = pd.read_parquet(examples / "images.parquet")
    for path in index["path"][index["split"] == "eval"]:
        Image.open(dark / path).point(lambda level: level // 4).save(dark / path)
    ended = fpn("data", "--config", "config.yaml", "--data", "dark", "--output", "out", project=place)
    assert ended.status == 0, ended.stderr
    assert ended.stdout == "out/data.html\n"
    return ended, (place / ended.stdout.strip()).read_text()


def test_the_page_about_the_data_shows_what_ingestion_found(inspected, runs):
    html = inspected[1]
    examples = runs["first"].json["examples"]
    assert f"<dd>{3 * SOURCE_DIGITS + 1}</dd>" in html  # found
    for split in ("train", "eval", "test"):
        assert f'<th scope="row">{split}</th><td class="n">{examples[split]}</td>' in html
    assert '<th scope="row" class="path">broken.png</th>' in html


def test_a_shift_is_an_anomaly_against_the_train_split_and_the_previous_run(inspected, runs):
    html = inspected[1]
    for control in ("train", "eval of the previous run"):
        assert f"divergence between eval and {control} is " in html
    assert "between test and" not in html
    assert "Anomaly" not in runs["again"].stdout


def test_looking_at_data_does_not_make_it_what_a_run_is_compared_with(inspected, fpn, place):
    ended = fpn("data", "--config", "config.yaml", "--output", "out", "--html", "page.html", project=place)
    assert ended.stdout == "page.html\n"
    assert ended.stderr.count("from the cache") == 4
    assert "No distributions were compared" not in (place / "page.html").read_text()
    assert 'href="#anomalies">Anomalies</a></li>' in (place / "page.html").read_text()  # none


@pytest.mark.skipif(not shutil.which("chromium"), reason="there is no chromium to open the page with")
@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_fits_a_browsers_window(inspected, place, width):
    measured = "[innerWidth, document.documentElement.scrollWidth, document.images.length, loaded].join(' ')"
    loaded = "const loaded = [...document.images].every(image => image.complete && image.naturalWidth > 0)"
    told = f"<script>addEventListener('load', () => {{ {loaded}; parent.postMessage({measured}, '*') }})</script>"
    (place / "measured.html").write_text(inspected[1] + told)
    (place / "window.html").write_text(  # a browser's own window has a least width
        "<script>addEventListener('message', event => { document.title = event.data })</script>"
        f'<iframe src="measured.html" style="width: {width}px; height: 800px; border: 0"></iframe>'
    )
    command = ["chromium", "--headless", "--no-sandbox", "--hide-scrollbars", "--virtual-time-budget=5000", "--dump-dom"]
    done = subprocess.run([*command, place / "window.html"], capture_output=True, text=True, check=True, timeout=60)
    folders = (place / "out" / "artifacts" / "ImageExampleGen" / "examples").iterdir()
    pairs = pd.read_csv(max(folders, key=lambda folder: int(folder.name)) / "duplicates.csv")
    images = 10 * 12 + 2 * len(pairs)  # the contact sheets, and what resembles each other
    assert re.search("<title>(.*)</title>", done.stdout).group(1) == f"{width} {width} {images} true"


def test_the_summary_is_kept_with_the_run(runs, place):
    summary = runs["first"].json
    assert json.loads((place / "out" / "runs" / summary["run_id"] / "summary.json").read_text()) == summary


def test_runs_are_listed_with_what_has_changed(runs, fpn, place):
    ended = fpn("runs", "--output", "out", "--json", project=place)
    listed = {run["run_id"]: run for run in ended.json["runs"]}
    first, again, threshold, code = (listed[runs[name].json["run_id"]] for name in ("first", "again", "threshold", "code"))
    assert first["images"] == 3 * SOURCE_DIGITS
    assert first["data"] == str(place / "data")
    assert first["metrics"]["accuracy"] == runs["first"].json["metrics"]["accuracy"]["value"]
    assert [run["blessed"] for run in (first, again, threshold, code)] == [True, True, False, True]
    assert first["pushed"] == runs["first"].json["pushed_model"]
    assert threshold["pushed"] is None
    assert again["changes"] == []
    assert [change.split()[0] for change in threshold["changes"]] == ["evaluate.thresholds"]
    assert "code" in code["changes"]


def test_two_runs_are_compared_on_the_same_images(runs, fpn, place):
    summaries = [runs[name].json for name in ("code", "first")]
    folders = [f"out/runs/{summary['run_id']}" for summary in summaries]
    ended = fpn("report", folders[0], "--compare", folders[1], project=place)
    assert ended.status == 0, ended.stderr
    assert f"The same {summaries[0]['examples']['test']} test images" in ended.stdout
    values = [summary["metrics"]["accuracy"]["value"] for summary in summaries]
    (line,) = [line for line in ended.stdout.splitlines() if line.startswith("│ accuracy ")]
    for text in (f"{values[0]:.4f}", f"{values[1]:.4f}", f"{values[0] - values[1]:+.4f}"):
        assert text in line


def test_the_notebook_opens_a_runs_evaluation(runs, place, monkeypatch):
    path = Path(__file__).parents[2] / "notebooks" / "inspect_evaluation.ipynb"
    notebook = nbformat.read(path, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in cells)  # none are stored
    monkeypatch.setenv("PYTHONPATH", str(path.parents[1]))
    monkeypatch.setenv("FPN_OUTPUT", str(place / "out" / "runs" / runs["first"].json["run_id"]))
    NotebookClient(notebook, timeout=100, resources={"metadata": {"path": path.parent}}).execute()
    shown = "\n".join(str(output) for cell in cells for output in cell.outputs)
    assert runs["first"].json["evaluation"] in shown
    assert "SlicingMetricsViewer" in shown  # TFMA's
    assert "multi_class_confusion_matrix_at_thresholds" in shown
    assert "lineage-title" in shown
    assert shown.count("image/png") == 2
