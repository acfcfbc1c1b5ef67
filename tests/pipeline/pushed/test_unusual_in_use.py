"""How unusual an image is, where a pushed model is used: commands, the server and the check before the Pusher."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from pyarrow import parquet
from rich.console import Console
from serving_process import serving

from components.model_check import checker, executor
from evaluation.predictions import Predictions
from models import features
from pipeline.cli import main
from pipeline.config.loading import load_config
from pipeline.dag.component_settings import check_settings
from pipeline.dag.splits import TRAIN_EVAL_TEST
from pipeline.pushed.prediction import predict
from pipeline.pushed.scoring import score


@pytest.fixture(scope="module")
def expected(exported, telling):
    answers = tf.saved_model.load(telling.path).signatures["serving_default"](tf.constant(exported.files))
    return answers["unusual"].numpy(), [label.decode() for label in answers["label"].numpy()]


def test_predict_tells_it(telling, expected, pictures, capsys, monkeypatch):
    monkeypatch.chdir(pictures)  # short names fit into the table
    unusual, labels = expected
    files = [Path(f"{number}.png") for number in range(7)]
    answers, _ = predict(Path(telling.path), files)
    np.testing.assert_allclose([answer["unusual"] for answer in answers], unusual, atol=0.01)
    assert main(["predict", "--model", telling.path, *map(str, files)]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if ".png" in line]
    for line, share, label in zip(lines, unusual, labels, strict=True):
        assert label in line
        assert f"{share:.1f}" in line


def test_score_has_a_column_of_it(telling, expected, pictures, tmp_path):
    config = load_config(None, str(pictures), ["score.shard_images=3", "score.embeddings=true"])
    summary = score(config, Path(telling.path), str(tmp_path / "out"), Console(quiet=True))
    table = parquet.read_table(tmp_path / "out" / "scores")
    assert str(table.schema.field("unusual").type) == "float"
    rows = table.to_pandas().set_index("path").sort_index()
    np.testing.assert_allclose(rows["unusual"], expected[0], atol=0.01)
    assert summary["labels"]["unknown"] == expected[1].count("unknown") == 3


def test_the_server_tells_it(exported, telling, expected, tmp_path):
    shutil.copytree(telling.path, tmp_path / "1")
    with serving(tmp_path) as server:
        status, answer = server.predict(exported.files)
        assert status == 200
        found = [row["unusual"] for row in answer["predictions"]]
        np.testing.assert_allclose(found, expected[0], atol=0.01)
        assert [row["label"] for row in answer["predictions"]] == expected[1]


def test_the_check_before_the_pusher_passes(exported, telling, expected, tmp_path):
    rows = pd.DataFrame({features.FILENAME: [f"{number}.png" for number in range(7)], features.LABEL: "cat"})
    answered = np.array([label != features.UNKNOWN for label in expected[1]])
    predictions = Predictions(
        rows, ["cat", "dog", "owl"], False, exported.probabilities, answered=answered, unusual=expected[0]
    )
    with tf.io.TFRecordWriter(str(tmp_path / "examples")) as writer:
        for number, file in enumerate(exported.files):
            example = tf.train.Example()
            example.features.feature[features.ENCODED].bytes_list.value.append(file)
            example.features.feature[features.FILENAME].bytes_list.value.append(f"{number}.png".encode())
            writer.write(example.SerializeToString())
    (tmp_path / "config.yaml").write_text(json.dumps({"name": "a", "data": {"path": "x"}}))
    config = load_config(tmp_path / "config.yaml")
    result = executor.check_model(
        telling.path, [str(tmp_path / "examples")], predictions, check_settings(config, TRAIN_EVAL_TEST)
    )
    assert result.reasons == []


@pytest.mark.parametrize(("unusual", "is_right"), [([0.0, 100.0], True), ([-1.0, 5.0], False), ([np.nan, 5.0], False)])
def test_the_check_knows_a_percentile(unusual, is_right):
    assert checker._is_percentile(np.array(unusual, np.float32)) is is_right
