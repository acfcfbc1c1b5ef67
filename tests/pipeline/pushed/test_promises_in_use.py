"""Sets and "unknown" where a pushed model is used: its signatures, other formats, commands, the server and the check."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from pyarrow import parquet
from rich.console import Console
from serving_process import encode, serving

from components.model_check import executor
from evaluation.predictions import Predictions
from models import features, formats
from pipeline.cli import main
from pipeline.config.loading import load_config
from pipeline.dag.component_settings import check_settings
from pipeline.dag.splits import TRAIN_EVAL_TEST
from pipeline.pushed.prediction import format_answer, predict
from pipeline.pushed.scoring import score

NAMES = ["cat", "dog", "owl"]


def chosen(promising):
    return [[name for name, inside in zip(NAMES, row, strict=True) if inside] for row in promising.sets]


def test_the_sets_are_neither_all_nor_none(promising):
    assert promising.sets[:, 0].all()
    assert 0 < promising.sets[:, 1:].sum() < 14
    assert promising.labels.count("unknown") == 3


@pytest.mark.parametrize("signature", ["serving_default", "explain", "embed", "predict_images", "predict_examples"])
def test_every_signature_that_answers_gives_them(exported, promising, signature):
    inputs = {"image_bytes": tf.constant(exported.files)}
    if signature == "explain":
        inputs["label"] = tf.constant([""])
    elif signature == "predict_images":
        inputs = {"images": tf.constant(exported.pictures[..., None])}
    elif signature == "predict_examples":
        examples = [tf.train.Example() for _ in exported.files]
        for example, file in zip(examples, exported.files, strict=True):
            example.features.feature[features.ENCODED].bytes_list.value.append(file)
        inputs = {"examples": tf.constant([example.SerializeToString() for example in examples])}
    answers = tf.saved_model.load(promising.path).signatures[signature](**inputs)
    assert answers["label_set"].numpy().tolist() == promising.sets.tolist()
    assert answers["set_size"].dtype == tf.int64
    assert answers["set_size"].numpy().tolist() == promising.sets.sum(axis=1).tolist()
    np.testing.assert_allclose(answers["probabilities"], exported.probabilities, atol=1e-6)
    if signature != "predict_images":
        assert [label.decode() for label in answers["label"].numpy()] == promising.labels
    if signature == "explain":
        assert b"unknown" not in answers["explained"].numpy()


def test_a_model_that_promises_nothing_has_no_such_outputs(exported):
    assert not {"label_set", "set_size"} & set(tf.saved_model.load(exported.path).signatures["explain"].structured_outputs)


def test_other_formats_give_the_sets_as_well(exported, promising):
    interpreter = tf.lite.Interpreter(model_content=formats.convert(promising.path, "float16"))
    answers = interpreter.get_signature_runner(formats.SIGNATURE)(images=exported.pictures[..., None])
    assert answers.keys() == {"probabilities", "label_set", "set_size"}
    assert answers["set_size"].tolist() == answers["label_set"].sum(axis=1).tolist()
    assert (answers["label_set"] != promising.sets).sum() <= 1  # a class at the limit


@pytest.mark.extra
def test_onnx_gives_the_sets_as_well(exported, promising):
    import onnxruntime

    content = formats.convert(promising.path, "onnx")
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    outputs = ["label_set", "set_size", "probabilities"]
    sets, sizes, probabilities = session.run(outputs, {"images": exported.pictures[..., None]})
    assert sets.tolist() == promising.sets.tolist()
    assert sizes.tolist() == promising.sets.sum(axis=1).tolist()
    np.testing.assert_allclose(probabilities, exported.probabilities, atol=1e-5)


def test_predict_names_the_set(promising, pictures, capsys, monkeypatch):
    answers, _ = predict(Path(promising.path), sorted(pictures.iterdir()))
    assert [answer["label_set"] for answer in answers] == chosen(promising)
    assert [answer["label"] for answer in answers] == promising.labels
    assert format_answer("unknown", {"cat": 0.4, "dog": 0.6}, ".2f") == ("unknown", "0.60")
    monkeypatch.chdir(pictures)
    assert main(["predict", "--model", promising.path, *(f"{number}.png" for number in range(7))]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if ".png" in line]
    for line, label, names in zip(lines, promising.labels, chosen(promising), strict=True):
        assert label in line
        assert ", ".join(names) in line


def test_score_has_columns_of_them(promising, pictures, tmp_path):
    config = load_config(None, str(pictures), ["score.shard_images=3"])
    summary = score(config, Path(promising.path), str(tmp_path / "out"), Console(quiet=True))
    table = parquet.read_table(tmp_path / "out" / "scores").to_pandas().set_index("path").sort_index()
    assert [list(names) for names in table["label_set"]] == chosen(promising)
    assert table["set_size"].tolist() == promising.sets.sum(axis=1).tolist()
    assert table["label"].tolist() == promising.labels
    assert summary["labels"]["unknown"] == 3
    assert sum(summary["labels"].values()) == 7


def test_the_server_gives_them_in_both_protocols(exported, promising, tmp_path):
    shutil.copytree(promising.path, tmp_path / "1")
    with serving(tmp_path) as server:
        status, answer = server.predict(exported.files)
        assert status == 200
        assert [row["label_set"] for row in answer["predictions"]] == promising.sets.tolist()
        assert [row["set_size"] for row in answer["predictions"]] == promising.sets.sum(axis=1).tolist()
        assert [row["label"] for row in answer["predictions"]] == promising.labels
        instances = [{"b64": encode(file)} for file in exported.files]
        _, explained = server.ask("POST", "/v1/models/fpn:explain", json.dumps({"instances": instances}))
        assert [row["label_set"] for row in explained["predictions"]] == promising.sets.tolist()
        data = [encode(file) for file in exported.files]
        tensor = {"name": "image_bytes", "datatype": "BYTES", "shape": [7], "data": data}
        _, found = server.ask("POST", "/v2/models/fpn/infer", json.dumps({"inputs": [tensor]}))
        outputs = {output["name"]: output for output in found["outputs"]}
        assert outputs["label_set"]["datatype"] == "BOOL"
        assert outputs["label_set"]["shape"] == [7, 3]
        assert outputs["label_set"]["data"] == promising.sets.ravel().tolist()
        assert outputs["set_size"]["datatype"] == "INT64"


def check(model, exported, tmp_path, answered):
    """What the check before the Pusher says of a model."""
    with tf.io.TFRecordWriter(str(tmp_path / "examples")) as writer:
        for number, file in enumerate(exported.files):
            example = tf.train.Example()
            example.features.feature[features.ENCODED].bytes_list.value.append(file)
            example.features.feature[features.FILENAME].bytes_list.value.append(f"{number}.png".encode())
            writer.write(example.SerializeToString())
    rows = pd.DataFrame({features.FILENAME: [f"{number}.png" for number in range(7)], features.LABEL: "cat"})
    predictions = Predictions(rows, NAMES, False, exported.probabilities, answered=answered)
    (tmp_path / "config.yaml").write_text(json.dumps({"name": "a", "data": {"path": "x"}}))
    settings = check_settings(load_config(tmp_path / "config.yaml"), TRAIN_EVAL_TEST)
    return executor.check_model(model, [str(tmp_path / "examples")], predictions, settings)


def test_the_check_before_the_pusher_knows_them(exported, promising, tmp_path):
    answered = np.array(promising.labels) != "unknown"
    assert check(promising.path, exported, tmp_path, answered).reasons == []
    (reason,) = {reason.rpartition(": ")[2] for reason in check(promising.path, exported, tmp_path, None).reasons}
    assert reason.startswith("label is 'unknown', but the probabilities say")


class Wrong(tf.Module):
    """The promising model, whose sizes of sets are those of other sets."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._loaded = tf.saved_model.load(path)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
        def serving_default(image_bytes):
            answers = dict(self._loaded.signatures["serving_default"](image_bytes=image_bytes))
            return answers | {"set_size": answers["set_size"] + 1}

        self.serving_default = serving_default


def test_the_check_fails_on_sets_of_another_size_than_told(exported, promising, tmp_path):
    wrong = Wrong(promising.path)
    tf.saved_model.save(wrong, str(tmp_path / "wrong"), signatures={"serving_default": wrong.serving_default})
    reasons = check(str(tmp_path / "wrong"), exported, tmp_path, np.array(promising.labels) != "unknown").reasons
    assert any("set_size is not the number of classes in label_set" in reason for reason in reasons)
