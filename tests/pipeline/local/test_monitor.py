"""`fpn monitor` on captured requests, from the reference of a pushed version."""

import csv
import hashlib
import io
import json
import logging
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pages import Page
from PIL import Image
from pyarrow import parquet
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import saved_model_pb2

from base.errors import UserError
from components.pusher.record import CHECKSUM_FILE, RECORD_FILE, Record
from components.pusher.versions import push
from images.index import INDEX_FILE
from images.index import SCHEMA as INDEX
from models import features
from pipeline.captured.columns import make_batch, make_schema
from pipeline.captured.shards import ShardWriter
from pipeline.local.monitor import PAGE, RESULT, monitor, parse_since
from pipeline.pushed.reference import read_reference

CLASSES = ["cat", "dog", "owl"]
CENTRES = np.eye(3, 8)
NOW = datetime.now(UTC).replace(microsecond=0)


class Requests:
    """Requests that a model has answered: images of three classes, a cluster of embeddings each."""

    def __init__(self, rows, seed, *, shares=(1, 1, 1), brightness=0.0, strangers=0, mistakes=0.05):
        generator = np.random.default_rng(seed)
        self.truth = generator.choice(3, rows, p=np.array(shares) / sum(shares))
        vectors = CENTRES[self.truth] + generator.normal(0, 0.2, (rows, 8))
        vectors[:strangers] = -CENTRES[0] + generator.normal(0, 0.2, (strangers, 8))
        self.embedding = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        answer = np.where(generator.random(rows) < mistakes, (self.truth + 1) % 3, self.truth)
        self.probabilities = generator.dirichlet((0.3, 0.3, 0.3), rows) * 0.4 + 0.6 * np.eye(3)[answer]
        self.label = [CLASSES[number] for number in self.probabilities.argmax(axis=1)]
        self.summaries = {
            "format": ["jpeg"] * rows,
            "width": generator.choice([640, 800], rows).tolist(),
            "height": [480] * rows,
            "channels": [3] * rows,
            "bytes": generator.integers(20_000, 90_000, rows).tolist(),
            "mean": generator.normal(0.5 + brightness, 0.1, rows).tolist(),
            "std": generator.normal(0.2, 0.02, rows).tolist(),
            "saturated": generator.beta(1, 20, rows).tolist(),
            "sharpness": generator.gamma(4, 0.05, rows).tolist(),
        }

    def hashes(self, name):
        return [hashlib.sha256(f"{name} {row}".encode()).hexdigest() for row in range(len(self.truth))]

    def capture(self, folder, version, *, name="week", until=NOW, days=6.9, classes=CLASSES, size=8):
        rows = len(self.truth)
        columns = {
            **self.summaries,
            "time": [until - timedelta(days=days * (rows - row) / rows) for row in range(rows)],
            "version": [version] * rows,
            "request": [f"{name} {row // 2}" for row in range(rows)],
            "row": [row % 2 for row in range(rows)],
            "content_hash": self.hashes(name),
            "embedding": np.resize(self.embedding, (rows, size)) if size else None,
            "probabilities": self.probabilities,
            "label": self.label,
        }
        writer = ShardWriter(folder, 10**9)
        writer.add(make_batch(columns, make_schema(classes, size, "pets", False)))
        writer.write()


@pytest.fixture(scope="module")
def pushed(tmp_path_factory) -> Path:
    """A folder of versions, with one version, whose graph is empty: it is never loaded."""
    folder = tmp_path_factory.mktemp("pushed")
    model, seen = folder / "model", Requests(1500, 1)
    (model / "assets").mkdir(parents=True)
    saved = saved_model_pb2.SavedModel()
    saved.meta_graphs.add().signature_def["transform_labels"].outputs["label"].dtype = types_pb2.DT_INT64
    (model / "saved_model.pb").write_bytes(saved.SerializeToString())
    (model / "assets" / "labels").write_text("\n".join(CLASSES))
    table = {
        "embedding": pa.FixedSizeListArray.from_arrays(pa.array(seen.embedding.astype(np.float16).ravel()), 8),
        "probabilities": pa.FixedSizeListArray.from_arrays(pa.array(seen.probabilities.astype(np.float32).ravel()), 3),
        "label": pa.array(seen.label),
        "unusual": pa.nulls(1500, pa.float32()),
        "true": pa.array([CLASSES[number] for number in seen.truth]),
    }
    (model / features.REFERENCE).parent.mkdir()
    parquet.write_table(pa.table(table).replace_schema_metadata({"classes": json.dumps(CLASSES)}), model / features.REFERENCE)
    accuracy = {"value": 0.95, "lower": 0.93, "upper": 0.965, "of a later release": 1}
    record = Record(pipeline="pets", classes=CLASSES, metrics={"accuracy": accuracy})
    push(str(model), str(folder / "versions"), record, None)
    return folder / "versions"


@pytest.fixture(scope="module")
def version(pushed) -> int:
    return int(next(path.name for path in pushed.iterdir() if path.name.isdecimal()))


@pytest.fixture(scope="module")
def examples(tmp_path_factory) -> Path:
    """A folder of examples: the index of the training images, and of others, which do not count."""
    folder = tmp_path_factory.mktemp("examples")
    seen, others = Requests(2500, 2), Requests(2500, 3, brightness=0.3)
    columns = {name: seen.summaries[name] + others.summaries[name] for name in seen.summaries}
    columns["group"] = [str(row) for row in range(5000)]
    columns["split"] = ["train"] * 2500 + ["test"] * 2500
    rows = [columns.get(field.name, [None] * 5000) for field in INDEX]
    parquet.write_table(pa.table(rows, schema=INDEX), folder / INDEX_FILE)
    return folder


def run(pushed, captured, examples=None, since="7d", labels=None, output=None):
    return monitor(pushed, captured, since, examples, labels, output)


def failed(result):
    return {check.name for check in result.checks if check.failed}


def test_a_quiet_week_passes(pushed, version, examples, tmp_path, fpn):
    Requests(1000, 10).capture(tmp_path, version)
    ended = fpn("monitor", "--model", pushed, "--captured", tmp_path, "--reference", examples, "--json")
    assert ended.status == 0, ended.stderr
    assert not ended.json["failed"]
    assert ended.json["rows"] == 1000
    made = {check["name"] for check in ended.json["checks"] if check["p"] is not None}
    assert {"images: brightness", "images: width", "answers: classes", "answers: confidence"} <= made
    assert {"embeddings: distribution", "embeddings: far from all"} <= made
    notes = {check["name"]: check["note"] for check in ended.json["checks"] if check["p"] is None}
    assert notes == {
        "images: format": "always jpeg",
        "images: height": "always 480",
        "images: channels": "always 3",
        "answers: unknown": "always known",
        "answers: unusual": "there are none on one side",
    }
    assert json.loads((tmp_path / RESULT).read_text()) == ended.json


@pytest.mark.parametrize(
    ("change", "finds"),
    [
        ({"brightness": 0.05}, {"images: brightness"}),
        ({"shares": (2, 1, 1)}, {"answers: classes", "embeddings: distribution"}),
        ({"strangers": 50}, {"embeddings: far from all"}),
    ],
)
def test_a_change_is_found_and_shown(pushed, version, examples, tmp_path, change, finds):
    captured, output = tmp_path / "captured", tmp_path / "output"
    Requests(1000, 11, **change).capture(captured, version)
    result = run(pushed, captured, examples, output=output)
    assert failed(result) == finds
    assert result.failed
    assert (output / RESULT).read_bytes() == (captured / RESULT).read_bytes()
    page = Page((output / PAGE).read_text())
    assert all(link.startswith(("#", "data:")) for link in page.links)
    rows = page.tables["Checks, failed ones first"]
    assert {row[0] for row in rows if row[1:2] == ["failed"]} == finds
    (figures,) = (table for name, table in page.tables.items() if name.startswith("By day"))
    assert 7 <= len(figures) - 1 <= 8
    assert sum(int(row[1].replace(",", "")) for row in figures[1:]) == 1000


def test_requests_that_can_only_be_read_are_monitored(pushed, version, tmp_path, caplog):
    Requests(200, 28).capture(tmp_path / "captured", version)
    (tmp_path / "captured" / f".{RESULT}").mkdir()  # so that the file can't be written, whoever runs the test
    with caplog.at_level(logging.WARNING, "fpn"):
        run(pushed, tmp_path / "captured", output=tmp_path / "output")
    assert (tmp_path / "output" / RESULT).is_file()
    assert "captured/monitor.json: can't be written" in caplog.text


def test_a_failed_check_gives_status_3(pushed, version, examples, tmp_path, fpn):
    Requests(1000, 12, brightness=0.1).capture(tmp_path, version)
    ended = fpn("monitor", "--model", pushed, "--captured", tmp_path, "--reference", examples)
    assert ended.status == 3
    assert "failed" in next(line for line in ended.stdout.splitlines() if "images: brightness" in line)


def test_labels_that_come_later_are_compared_with_the_evaluation(pushed, version, tmp_path):
    for name, mistakes in (("good", 0.05), ("bad", 0.15)):
        asked = Requests(600, 13, mistakes=mistakes)
        asked.capture(tmp_path / name, version, name=name)
        for key in ("content_hash", "request"):
            table = tmp_path / f"{name}_{key}.csv"
            with table.open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(["content_hash", "label"] if key == "content_hash" else ["request", "row", "label"])
                for row, (identity, label) in enumerate(zip(asked.hashes(name), asked.truth, strict=True)):
                    place = [identity] if key == "content_hash" else [f"{name} {row // 2}", row % 2]
                    writer.writerow([*place, CLASSES[label]])
            result = run(pushed, tmp_path / name, labels=table)
            right = np.mean([CLASSES[label] == said for label, said in zip(asked.truth, asked.label, strict=True)])
            assert result.metrics["accuracy"].value == pytest.approx(right)
            assert failed(result) == ({"labels: accuracy"} if name == "bad" else set())
            found = next(check for check in result.checks if check.name == "labels: accuracy")
            assert found.value == pytest.approx(right - 0.95)
            assert found.lower < found.value < found.upper
    page = Page((tmp_path / "bad" / PAGE).read_text())
    assert any("600 answers that have a label" in name for name in page.tables)


def test_answers_of_other_versions_and_models_do_not_count(pushed, version, examples, tmp_path):
    Requests(1000, 14).capture(tmp_path, version)
    Requests(300, 15, brightness=0.3).capture(tmp_path, version - 1)
    Requests(200, 16, brightness=0.3).capture(tmp_path, version, classes=["ant", "bee", "fly"])
    result = run(pushed, tmp_path, examples)
    assert (result.rows, result.others) == (1000, 500)
    assert not result.failed


def test_since_leaves_earlier_answers_out(pushed, version, examples, tmp_path):
    Requests(500, 17, brightness=0.3).capture(tmp_path, version, until=NOW - timedelta(days=10))
    Requests(500, 18).capture(tmp_path, version, days=0.5)
    recent, all_of_them = run(pushed, tmp_path, examples, "1d"), run(pushed, tmp_path, examples, "all")
    assert (recent.rows, recent.failed) == (500, False)
    assert (all_of_them.rows, all_of_them.failed) == (1000, True)
    assert any(name.startswith("By day") for name in Page((tmp_path / PAGE).read_text()).tables)


@pytest.mark.parametrize("size", [0, 16])
def test_embeddings_of_another_length_than_the_references_are_not_compared(pushed, version, examples, tmp_path, size):
    Requests(200, 24).capture(tmp_path, version, name="this")
    Requests(200, 25).capture(tmp_path, version, name="that", size=size)
    result = run(pushed, tmp_path, examples)
    assert (result.rows, result.failed) == (400, False)
    notes = {check.note for check in result.checks if check.name.startswith("embeddings")}
    assert notes == {"there are none on one side"}


def test_answers_that_are_no_numbers_are_compared_as_zeros(pushed, version, examples, tmp_path):
    asked = Requests(500, 29)
    asked.probabilities[:60] = asked.embedding[:60] = np.nan
    asked.capture(tmp_path, version)
    result = run(pushed, tmp_path, examples)
    assert all(np.isfinite([check.p, check.value]).all() for check in result.checks if check.p is not None)
    assert {"answers: confidence", "embeddings: far from all"} <= failed(result)


def test_a_label_may_be_missing_or_there_twice(pushed, version, tmp_path):
    asked = Requests(300, 26)
    asked.capture(tmp_path, version)
    lines = [f"{name},{CLASSES[label]}\n" for name, label in zip(asked.hashes("week"), asked.truth, strict=True)]
    blank = [f"{name},\n" for name in asked.hashes("week")[200:]]
    (tmp_path / "labels.csv").write_text("".join(["content_hash,label\n", *lines[:200], lines[0], *blank]))
    result = run(pushed, tmp_path, labels=tmp_path / "labels.csv")
    assert any("200 answers that have a label" in name for name in Page((tmp_path / PAGE).read_text()).tables)
    right = [CLASSES[label] == said for label, said in zip(asked.truth[:200], asked.label[:200], strict=True)]
    assert result.metrics["accuracy"].value == pytest.approx(np.mean(right))


def test_a_label_whose_row_is_no_number_of_a_row_is_of_no_answer(pushed, version, tmp_path):
    asked = Requests(300, 27)
    asked.capture(tmp_path, version)
    lines = [f"week {row // 2},{row % 2}.0,{CLASSES[label]}\n" for row, label in enumerate(asked.truth[:200])]
    odd = ["week 120,0.5,cat\n", "week 121,inf,cat\n", "week 122,99999999999,cat\n"]
    (tmp_path / "labels.csv").write_text("".join(["request,row,label\n", *lines, *odd]))
    run(pushed, tmp_path, labels=tmp_path / "labels.csv")
    assert any("200 answers that have a label" in name for name in Page((tmp_path / PAGE).read_text()).tables)


def test_one_image_of_each_group_is_compared(pushed, version, examples, tmp_path):
    """Images of one group are like each other, so many of one group say little more than one."""
    Requests(300, 30).capture(tmp_path / "captured", version)
    index = parquet.read_table(examples / INDEX_FILE)
    grouped = pa.array([str(row % 110) for row in range(len(index))])
    (tmp_path / "examples").mkdir()
    parquet.write_table(
        index.set_column(INDEX.get_field_index("group"), INDEX.field("group"), grouped), tmp_path / "examples" / INDEX_FILE
    )
    model = tmp_path / str(version)
    shutil.copytree(pushed / str(version), model)
    (model / RECORD_FILE).unlink()  # as another program leaves it
    (model / CHECKSUM_FILE).unlink()
    answers = parquet.read_table(model / features.REFERENCE)
    parquet.write_table(answers.append_column("group", pa.array(np.arange(len(answers)) % 120)), model / features.REFERENCE)
    known = read_reference(model, tmp_path / "examples")
    assert (len(known.images), len(known.answers.rows), known.answers.embeddings.shape) == (110, 120, (120, 8))
    assert not run(model, tmp_path / "captured", tmp_path / "examples").failed


def test_too_few_answers_are_no_verdict(pushed, version, examples, tmp_path):
    Requests(99, 19, brightness=0.5).capture(tmp_path, version)
    with pytest.raises(UserError, match=r"nothing can be compared: too few: 99 and 2,500 images; each must be 100 or more"):
        run(pushed, tmp_path, examples)
    assert not (tmp_path / PAGE).exists()


def test_without_the_run_the_images_are_not_compared(pushed, version, tmp_path):
    Requests(300, 20).capture(tmp_path, version)
    result = run(pushed, tmp_path)
    (note,) = (check.note for check in result.checks if check.name.startswith("images"))
    assert note == "the run that made the model is not here; give --reference with its folder, or that of its examples"
    assert not result.failed


def break_shard(captured, tmp_path):
    shard = next(captured.glob("*.parquet"))
    shard.write_bytes(shard.read_bytes()[:2000])
    return {}


def empty(captured, tmp_path):
    for shard in captured.glob("*.parquet"):
        shard.unlink()
    return {}


def foreign_shard(captured, tmp_path):
    parquet.write_table(pa.table({"a": [1]}), captured / "captured-others.parquet")
    return {}


def no_requests(captured, tmp_path):
    captured.rename(tmp_path / "moved")
    return {}


def damaged_index(captured, tmp_path):
    (tmp_path / INDEX_FILE).write_bytes(b"PAR1")
    return {"examples": tmp_path}


def old_index(captured, tmp_path):
    parquet.write_table(pa.table({"split": ["train"]}), tmp_path / INDEX_FILE)
    return {"examples": tmp_path}


def labels_of_other_names(captured, tmp_path):
    lines = "".join(f"{name},Cat\n" for name in Requests(200, 21).hashes("week"))
    (tmp_path / "labels.csv").write_text("content_hash,label\n" + lines)
    return {"labels": tmp_path / "labels.csv"}


def others_labels(captured, tmp_path):
    (tmp_path / "labels.csv").write_text("content_hash,label\nabc,cat\n")
    return {"labels": tmp_path / "labels.csv"}


def unnamed_labels(captured, tmp_path):
    (tmp_path / "labels.csv").write_text("path,label\na.jpg,cat\n")
    return {"labels": tmp_path / "labels.csv"}


def doubled_labels(captured, tmp_path):
    (tmp_path / "labels.csv").write_text("content_hash,label\na,cat\na,dog\n")
    return {"labels": tmp_path / "labels.csv"}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (break_shard, r"captured-.*\.parquet: can't be read .*delete it"),
        (empty, r"no complete shard with answers, none of .*give another folder or --since"),
        (lambda captured, tmp_path: {"since": "soon"}, r"--since soon: give 7d, 12h, 30m, a time such as .*, or all"),
        (lambda captured, tmp_path: {"since": "9999999d"}, r"--since 9999999d: give 7d"),
        (lambda captured, tmp_path: {"since": "2200-01-01"}, r"none of .* since 2200-01-01 00:00:00\+00:00"),
        (
            lambda captured, tmp_path: {"examples": tmp_path},
            r"--reference .*: no images.parquet there; give the folder of a run",
        ),
        (others_labels, r"labels none of these 200 answers; give a table of the same requests"),
        (unnamed_labels, r"lacks columns; give label, and content_hash or request and row"),
        (lambda captured, tmp_path: {"since": "999999d"}, r"--since 999999d: give 7d"),
        (foreign_shard, r"captured-others.parquet: can't be read .*delete it"),
        (no_requests, r"captured: no captured requests here; give the folder of fpn serve --capture"),
        (damaged_index, r"images.parquet: can't be read .*give --reference with another run"),
        (old_index, r"images.parquet: can't be read .*give --reference with another run"),
        (labels_of_other_names, r"none is a class of the model, such as cat; give its names of the classes"),
        (doubled_labels, r"has two labels of the same content_hash; keep one"),
    ],
)
def test_what_a_person_can_mend_is_said(pushed, version, tmp_path, spoil, message):
    captured = tmp_path / "captured"
    Requests(200, 21).capture(captured, version)
    with pytest.raises(UserError, match=message):
        run(pushed, captured, **spoil(captured, tmp_path))
    assert not (captured / PAGE).exists()


def test_a_request_log_of_tensorflow_serving_is_read(pushed, version, tmp_path):
    import tensorflow as tf
    from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

    generator = np.random.default_rng(22)
    with tf.io.TFRecordWriter(str(tmp_path / "requests.log")) as log:
        for request in range(60):
            entry = PredictionLog()
            entry.predict_log.response.model_spec.version.value = version
            files = [pictures_file(generator.integers(0, 120, (24, 20), dtype=np.uint8)) for _ in range(2)]
            answers = {
                "probabilities": generator.dirichlet((1, 1, 1), 2).astype(np.float32),
                "label": ["cat", "dog"],
                "labels": [["cat", "dog", "owl"]] * 2,
            }
            entry.predict_log.request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(files))
            for name, values in answers.items():
                entry.predict_log.response.outputs[name].CopyFrom(tf.make_tensor_proto(values))
            if request:  # a log need not tell the time
                entry.log_metadata.timestamp_secs = int(NOW.timestamp()) - request
            log.write(entry.SerializeToString())
    known = Requests(500, 23, brightness=-0.265)
    names = {"split": ["train"] * 500, "group": [str(row) for row in range(500)]}
    rows = [{**known.summaries, **names}.get(field.name, [None] * 500) for field in INDEX]
    (tmp_path / "examples").mkdir()
    parquet.write_table(pa.table(rows, schema=INDEX), tmp_path / "examples" / INDEX_FILE)
    result = run(pushed, tmp_path / "requests.log", tmp_path / "examples")
    assert result.rows == 120
    assert {check.name for check in result.checks if check.p is not None} >= {"images: brightness", "images: format"}
    assert (tmp_path / RESULT).is_file()


def pictures_file(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_since_is_an_age_or_a_time():
    now = datetime(2026, 11, 30, 7, tzinfo=UTC)
    assert parse_since("7d", now) == now - timedelta(days=7)
    assert parse_since("90m", now) == now - timedelta(minutes=90)
    assert parse_since("2026-11-29T12:00", now) == datetime(2026, 11, 29, 12, tzinfo=UTC)
    assert parse_since("2026-11-29T12:00+02:00", now) == datetime(2026, 11, 29, 10, tzinfo=UTC)
    assert parse_since("all", now) is None
