"""What captured requests tell of images is what ingestion has in its index; TensorFlow Serving's log gives the same rows."""

import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from corpus import GREY_16, RGB, RGBA, save, tiff
from executors import SETTINGS
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from base.errors import UserError
from images.dataset.row import Row
from images.files.decoding import normalise
from images.loading import Loader
from pipeline.captured.answers import describe_answers
from pipeline.captured.columns import OF_IMAGE
from pipeline.captured.prediction_logs import read_prediction_logs

FILES = {
    "a.jpg": save(RGB, "JPEG"),
    "b.png": save(RGBA, "PNG"),
    "c.png": save(GREY_16, "PNG"),
    "d.webp": save(RGB, "WEBP"),
    "e.tif": tiff(GREY_16),
}
NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)


def describe(files: list[bytes]) -> list[dict]:
    rows = len(files)
    answers = {"probabilities": np.full([rows, 2], 0.5), "label": np.array([b"cat"] * rows, object)}
    return describe_answers(files, answers, SETTINGS.files, ["cat", "dog"], "pets", False, {}).to_pylist()


def test_images_are_described_as_in_the_index_of_a_data_set(tmp_path: Path) -> None:
    for name, file in FILES.items():
        (tmp_path / name).write_bytes(file)
    rows = [Row(name, ("cat",), name, "train") for name in FILES]
    index = {found.path: found for found, _ in Loader(str(tmp_path), SETTINGS).load(rows)}
    for name, described in zip(FILES, describe(list(FILES.values())), strict=True):
        for column in OF_IMAGE:
            assert described[column] == getattr(index[name], column), (name, column)


def test_a_file_that_can_not_be_decoded_has_a_hash_and_no_summaries() -> None:
    whole, cut, none = describe([FILES["a.jpg"], FILES["b.png"][:-40], b"no image"])
    assert whole["mean"] is not None
    for found, size in ((cut, len(FILES["b.png"]) - 40), (none, 8)):
        assert (found["bytes"], len(found["content_hash"]), found["mean"], found["format"]) == (size, 64, None, None)
        assert found["probabilities"] == [0.5, 0.5]


# --- TensorFlow Serving's log


@pytest.fixture(scope="module")
def model(exported):
    return tf.saved_model.load(exported.path)


def log_of(model, files: list[bytes], signature: str = "serving_default", time: datetime | None = None) -> bytes:
    """What TensorFlow Serving logs of a request and of the model's own answer."""
    encoded = [normalise(file, "", SETTINGS.files)[0].encoded for file in files]
    log = PredictionLog()
    log.predict_log.request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(files, tf.string))
    for name, values in model.signatures[signature](image_bytes=tf.constant(encoded)).items():
        log.predict_log.response.outputs[name].CopyFrom(tf.make_tensor_proto(values))
    log.predict_log.response.model_spec.name = "pets"
    log.predict_log.response.model_spec.version.value = 7
    if time:
        log.log_metadata.timestamp_secs = int(time.timestamp())
    return log.SerializeToString()


def write_log(path: Path, *logs: bytes, options: str = "") -> None:
    with tf.io.TFRecordWriter(str(path), options) as writer:
        for log in logs:
            writer.write(log)


def test_a_log_of_tensorflow_serving_gives_the_same_rows(model, exported, tmp_path: Path) -> None:
    write_log(tmp_path / "log-0", log_of(model, exported.files[:2], time=NOON), log_of(model, exported.files[2:]))
    (table,) = read_prediction_logs(tmp_path, SETTINGS.files)
    rows = table.to_pylist()
    assert [row["time"] for row in rows] == [NOON] * 2 + [None] * 5
    assert [row["row"] for row in rows] == [0, 1, 0, 1, 2, 3, 4]
    assert {row["version"] for row in rows} == {7}
    np.testing.assert_allclose([row["probabilities"] for row in rows], exported.probabilities, atol=1e-5)
    names = np.array([name.decode() for name in exported.names])
    assert [row["label"] for row in rows] == names[exported.probabilities.argmax(axis=1)].tolist()
    described = describe(exported.files)
    assert [{name: row[name] for name in OF_IMAGE} for row in rows] == [
        {name: row[name] for name in OF_IMAGE} for row in described
    ]
    assert table["embedding"].null_count == table["image"].null_count == table["request"].null_count == 7
    assert table.schema.metadata[b"classes"] == b'["cat", "dog", "owl"]'


def test_embeddings_that_were_asked_for_are_in_the_log(model, exported, tmp_path: Path) -> None:
    write_log(tmp_path / "log", log_of(model, exported.files), log_of(model, exported.files, "embed"))
    without, with_embeddings = read_prediction_logs(tmp_path / "log", SETTINGS.files)
    assert without["embedding"].null_count == 7
    vectors = np.array(with_embeddings["embedding"].to_pylist(), np.float32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)


def test_only_logs_since_a_time_are_read(model, exported, tmp_path: Path) -> None:
    logs = [log_of(model, exported.files[:1], time=NOON + timedelta(hours=hour)) for hour in range(3)]
    write_log(tmp_path / "log", *logs, options="GZIP")
    (table,) = read_prediction_logs(tmp_path, SETTINGS.files, NOON + timedelta(hours=1))
    assert table["time"].to_pylist() == [NOON + timedelta(hours=1), NOON + timedelta(hours=2)]


def test_other_logs_and_damage_are_told_and_passed_over(model, exported, tmp_path: Path, caplog) -> None:
    other = PredictionLog()
    other.classify_log.request.model_spec.name = "pets"
    write_log(tmp_path / "log", other.SerializeToString(), *[log_of(model, exported.files[:1])] * 2)
    (tmp_path / "log").write_bytes((tmp_path / "log").read_bytes()[:-5])  # the server was killed
    with caplog.at_level(logging.WARNING, "fpn"):
        (table,) = read_prediction_logs(tmp_path, SETTINGS.files)
    assert table.num_rows == 1
    assert [text in caplog.text for text in ("truncated", "passed over 1 logs")] == [True, True]


def test_logs_that_hold_no_answers_to_image_files_are_passed_over(model, exported, tmp_path: Path, caplog) -> None:
    logs = [PredictionLog.FromString(log_of(model, exported.files[:2])) for _ in range(7)]
    inputs, outputs = [log.predict_log.request.inputs for log in logs], [log.predict_log.response.outputs for log in logs]
    inputs[1]["image_bytes"].CopyFrom(tf.make_tensor_proto([[1.0]]))
    inputs[2]["image_bytes"].CopyFrom(tf.make_tensor_proto(exported.files[:1]))
    inputs[3]["image_bytes"].CopyFrom(tf.make_tensor_proto([], tf.string))
    outputs[4]["labels"].CopyFrom(tf.make_tensor_proto(["cat", "dog", "owl"]))
    outputs[5]["label"].CopyFrom(tf.make_tensor_proto(["cat"]))
    outputs[6]["probabilities"].tensor_content = b"half"
    write_log(tmp_path / "log", *(log.SerializeToString() for log in logs), b"\xff no message")
    with caplog.at_level(logging.WARNING, "fpn"):
        (table,) = read_prediction_logs(tmp_path / "log", SETTINGS.files)
    assert table.num_rows == 2
    assert [text in caplog.text for text in ("passed over 6 logs", "no PredictionLog")] == [True, True]


def test_a_long_log_is_read_in_pieces(model, exported, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("pipeline.captured.prediction_logs._ROWS", 4)
    write_log(tmp_path / "log", *[log_of(model, exported.files[:2])] * 5)
    assert [table.num_rows for table in read_prediction_logs(tmp_path, SETTINGS.files)] == [4, 4, 2]


def test_no_log_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file; give the TFRecord"):
        next(read_prediction_logs(tmp_path / "none", SETTINGS.files))
