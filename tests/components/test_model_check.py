"""ModelCheck: a good model is blessed and pushed; one that answers otherwise, too slowly, or dies of a request is not."""

import json
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from executors import context, make_artifact
from tfx.components.util import model_utils
from tfx.types import channel_utils, standard_artifacts

from base.errors import UserError
from components.model_check import executor, process
from components.model_check.component import ModelCheck
from components.model_check.results import judge, read_check
from components.model_check.settings import CheckSettings
from components.pusher import executor as pusher
from components.pusher.component import VersionPusher
from components.pusher.settings import PusherSettings
from evaluation.predictions import Predictions
from models import features
from pipeline.config.loading import load_config
from pipeline.dag.component_settings import check_settings
from pipeline.dag.splits import TRAIN_EVAL_TEST

IMAGES = 70  # in two files, of which the first has more


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "config.yaml"
    path.write_text(json.dumps({"name": "a", "data": {"path": "x"}}))
    return check_settings(load_config(path), TRAIN_EVAL_TEST)


def run_check(
    place: Path, model: Path, files: list[bytes], probabilities: np.ndarray, settings: CheckSettings, classes: list[str]
):
    """Runs the executor on `IMAGES` images, the files in turn; the blessing."""
    artifacts = {
        key: make_artifact(kind, place, "Before", key, 1)
        for key, kind in (
            ("model", standard_artifacts.Model),
            ("examples", standard_artifacts.Examples),
            ("evaluation", standard_artifacts.ModelEvaluation),
        )
    }
    (Path(artifacts["model"].uri) / "Format-Serving").symlink_to(model)
    artifacts["examples"].split_names = '["test"]'
    split = Path(artifacts["examples"].uri) / "Split-test"
    split.mkdir()
    names = [f"{number}.png" for number in range(IMAGES if files else 0)]
    for number, part in enumerate((names[:50], names[50:])):
        with tf.io.TFRecordWriter(str(split / f"data_tfrecord-{number:05d}-of-00002")) as writer:
            for name in part:
                example = tf.train.Example()
                feature = example.features.feature
                feature[features.ENCODED].bytes_list.value.append(files[int(Path(name).stem) % len(files)])
                feature[features.FILENAME].bytes_list.value.append(name.encode())
                writer.write(example.SerializeToString())
    rows = pd.DataFrame({features.FILENAME: names, features.LABEL: "of no known class"})
    expected = probabilities[np.arange(len(names)) % max(len(files), 1)].astype(np.float32)
    Predictions(rows, classes, False, expected).write(artifacts["evaluation"].uri)
    channels = {key: channel_utils.as_channel([artifact]) for key, artifact in artifacts.items()}
    component = ModelCheck(**channels, settings=settings, code="")
    blessing = make_artifact(standard_artifacts.InfraBlessing, place, "ModelCheck", "infra_blessing", 1)
    inputs = {key: [artifact] for key, artifact in artifacts.items()}
    executor.Executor().Do(inputs, {"infra_blessing": [blessing]}, dict(component.exec_properties))
    return artifacts["model"], blessing


def push(place: Path, model, blessing) -> list[str]:
    """Runs the Pusher; the versions in the folder that it pushes to."""
    target = place / "pushed"
    target.mkdir()
    pushed = make_artifact(standard_artifacts.PushedModel, place, "Pusher", "pushed_model", 1)
    settings = PusherSettings(pipeline="trial", keep=None, replace=False, sign=None, code="", configuration="")
    component = VersionPusher(
        model=channel_utils.as_channel([model]),
        folder=str(target),
        settings=settings,
    )
    inputs = {"model": [model], "infra_blessing": [blessing]}
    pusher.Executor(context(place, 1)).Do(inputs, {"pushed_model": [pushed]}, dict(component.exec_properties))
    return [path.name for path in target.glob("[0-9]*")]


def test_a_model_that_answers_as_evaluated_is_measured_and_pushed(exported, settings, tmp_path):
    process.start_ahead()
    names = [name.decode() for name in exported.names]
    model, blessing = run_check(tmp_path, Path(exported.path), exported.files, exported.probabilities, settings, names)
    result = read_check(blessing.uri)
    assert result.reasons == []
    assert result.passed
    assert result.images == 64
    assert result.largest_difference < 1e-6
    for key in ("start_seconds", "load_seconds", "first_answer_seconds", "latency_p50_ms", "image_ms"):
        assert 0 < result.measured[key] < 100_000
    assert result.measured["latency_p50_ms"] <= result.measured["latency_p99_ms"]
    assert 200 < result.measured["memory_mb"] < 4000
    assert len(result.bad_inputs) == 9
    refused = {name for name, outcome in result.bad_inputs.items() if outcome.startswith("refused")}
    assert refused >= set(result.bad_inputs) - {"serving_default, an empty batch", "predict_examples, an empty batch"}
    assert (Path(blessing.uri) / "INFRA_BLESSED").exists()
    assert model_utils.is_infra_validated(blessing)
    assert len(push(tmp_path, model, blessing)) == 1


def test_a_process_that_was_started_ahead_is_asked_once_and_ends_when_nobody_takes_it():
    process.start_ahead()
    waiting = process.take()
    with waiting, process.take() as another:  # there was one only
        assert another.folder != waiting.folder
    process.start_ahead()
    (unused,) = process._ahead
    process.stop_ahead()
    assert process._ahead == []
    for ended in (waiting, another, unused):
        assert ended._process.returncode == -signal.SIGKILL
        assert not ended.folder.exists()


def abort(without_error: bool) -> tf.Tensor:
    """Ends the process in the midst of a graph."""
    with tf.control_dependencies([tf.raw_ops.Abort(error_msg="", exit_without_error=without_error)]):
        return tf.constant(0)


class Brittle(tf.Module):
    """Answers the same to every file, and ends its process with an abort where a file is shorter than 10 bytes."""

    def __init__(self) -> None:
        super().__init__()

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
        def serving_default(image_bytes):
            is_short = tf.reduce_any(tf.strings.length(image_bytes) < 10)
            rows = tf.cond(is_short, lambda: abort(False), lambda: tf.size(image_bytes))
            return {"probabilities": tf.tile([[0.75, 0.25]], [rows, 1])}

        self.serving_default = serving_default


def test_a_model_that_answers_otherwise_and_dies_of_a_bad_file_is_named_and_not_pushed(settings, tmp_path):
    brittle = Brittle()
    tf.saved_model.save(brittle, str(tmp_path / "saved"), signatures={"serving_default": brittle.serving_default})
    expected = np.array([[0.75, 0.25], [0.5, 0.5]])
    files = [b"a file of some length", b"another file of some length"]
    model, blessing = run_check(tmp_path, tmp_path / "saved", files, expected, settings, ["cat", "dog"])
    result = read_check(blessing.uri)
    assert not result.passed
    assert result.reasons == [
        "serving_default, batch of 1: 1.png: a probability is 0.25 off the Evaluator's, at most 1e-05 (check.max_difference)",
        "the process was killed by SIGABRT, in: serving_default, a file that is no image",
    ]
    assert result.largest_difference == 0.25
    assert (Path(blessing.uri) / "INFRA_NOT_BLESSED").exists()
    assert not model_utils.is_infra_validated(blessing)
    assert push(tmp_path, model, blessing) == []


@pytest.mark.extra
@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("no variables", "the model can't be loaded: "),
        ("hangs", "the process was stopped after 20 s (check.timeout_seconds), in: serving_default, batch of 1"),
        ("exits", "the process was ended by the model, in: serving_default, batch of 1"),
    ],
)
def test_a_model_that_can_not_be_asked_fails_with_a_reason(exported, settings, tmp_path, what, reason):
    path = tmp_path / "saved"
    if what == "no variables":
        tf.io.gfile.makedirs(str(path / "variables"))
        for file in Path(exported.path).rglob("*"):
            if file.is_file():
                (path / file.relative_to(exported.path)).parent.mkdir(parents=True, exist_ok=True)
                content = file.read_bytes()
                (path / file.relative_to(exported.path)).write_bytes(content[: 0 if "data" in file.name else None])
    else:

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
        def serving_default(image_bytes):
            number = abort(True) if what == "exits" else tf.size(image_bytes)
            while number > 0 and what == "hangs":
                number += tf.cast(tf.timestamp() < 0, tf.int32)
            return {"probabilities": tf.zeros([number, 3])}

        module = tf.Module()
        module.serving_default = serving_default
        tf.saved_model.save(module, str(path), signatures={"serving_default": serving_default})
    names = [name.decode() for name in exported.names]
    limited = replace(settings, timeout_seconds=20.0)
    _, blessing = run_check(tmp_path, path, exported.files, exported.probabilities, limited, names)
    (found,) = read_check(blessing.uri).reasons
    assert found.startswith(reason)


def test_a_limit_that_is_passed_fails_the_model(settings):
    measured = {"load_seconds": 2.5, "latency_p99_ms": 8.0, "memory_mb": 900.0}
    findings = [{"step": "loading"}, {"measured": measured}, {"done": True}]
    limits = {"max_load_seconds": 2.0, "max_latency_ms": 7.5, "max_memory_mb": 1000.0}
    assert judge(findings, settings, 64, 9.0).passed
    result = judge(findings, replace(settings, **limits), 64, 9.0)
    assert not result.passed
    assert result.reasons == [
        "loading took 2.5 s, at most 2 s (check.max_load_seconds)",
        "99 of 100 single images were answered in 8 ms, at most 7.5 ms (check.max_latency_ms)",
    ]


def test_networks_of_16_bits_may_differ_by_more(settings, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps({"name": "a", "data": {"path": "x"}, "train": {"mixed_precision": True}}))
    assert settings.max_difference == 1e-5
    assert check_settings(load_config(path), TRAIN_EVAL_TEST).max_difference == 0.02
    assert check_settings(load_config(path, overrides=["check.max_difference=1e-3"]), TRAIN_EVAL_TEST).max_difference == 1e-3


def test_without_test_images_a_person_is_told(settings, tmp_path):
    with pytest.raises(UserError, match=r"no images in the test split .* give data\.splits\.test a share"):
        run_check(tmp_path, tmp_path, [], np.zeros((1, 2)), settings, ["cat", "dog"])
