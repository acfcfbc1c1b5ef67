"""The network in other formats answers as the SavedModel does, and is shipped only if it holds its thresholds."""

from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from executors import context, make_artifact
from tfx.types import channel_utils, standard_artifacts

from base.errors import UserError
from components.model_formats import executor
from components.model_formats.component import ModelFormats
from components.model_formats.results import read_results
from components.model_formats.settings import FormatSettings
from evaluation.predictions import Predictions
from models import features, formats
from models.packing import pack, unpack
from pipeline.config.whole import Config
from pipeline.dag.eval_config import format_settings
from pipeline.dag.splits import TRAIN_EVAL_TEST

TOLERANCES = {"float16": 2e-3, "int8": 0.05, "onnx": 1e-5}


@pytest.fixture(scope="module")
def converted(exported):
    """Converts each format once."""
    files: dict[str, bytes] = {}

    def get(path, kind, representative=()):
        if kind not in files:
            files[kind] = formats.convert(exported.path, kind, list(representative) or list(exported.pictures[..., None]))
        return files[kind]

    return get


@pytest.mark.parametrize(
    "kind", ["float16", pytest.param("int8", marks=pytest.mark.extra), pytest.param("onnx", marks=pytest.mark.extra)]
)
def test_a_format_answers_as_the_saved_model_does(exported, converted, kind):
    content = converted(exported.path, kind)
    predict = formats.load(content, kind, threads=1)
    images = tf.saved_model.load(exported.path).signatures["decode"](tf.constant(exported.files))["images"].numpy()
    np.testing.assert_array_equal(images, exported.pictures[..., None])
    for batch in (slice(0, 1), slice(0, 7)):
        answers = predict(images[batch])["probabilities"]
        assert np.abs(answers - exported.probabilities[batch]).max() < TOLERANCES[kind]
    weights = 4 * exported.classifier.count_params()
    least, most = {"float16": (0.5, 0.6), "int8": (0.25, 0.4), "onnx": (0.95, 1.1)}[kind]
    assert least < len(content) / weights < most


def run(place: Path, exported, **section):
    """Runs the executor on the model's seven images; the exported model's folder."""
    examples = make_artifact(standard_artifacts.Examples, place, "ImageExampleGen", "examples", 1)
    examples.split_names = '["train", "test"]'
    for split in ("train", "test"):
        folder = Path(examples.uri) / f"Split-{split}"
        folder.mkdir()
        with tf.io.TFRecordWriter(str(folder / "data_tfrecord-00000-of-00001")) as writer:
            for file in exported.files:
                example = tf.train.Example()
                example.features.feature[features.ENCODED].bytes_list.value.append(file)
                writer.write(example.SerializeToString())
    model = make_artifact(standard_artifacts.Model, place, "Trainer", "model", 1)
    (Path(model.uri) / "Format-Serving").symlink_to(exported.path)
    evaluation = make_artifact(standard_artifacts.ModelEvaluation, place, "Evaluator", "evaluation", 1)
    predictions(exported.probabilities).write(evaluation.uri)
    config = Config.model_validate({"name": "x", "data": {"path": "x"}, "export": section})
    component = ModelFormats(
        **{
            name: channel_utils.as_channel([item])
            for name, item in (("examples", examples), ("model", model), ("evaluation", evaluation))
        },
        settings=format_settings(config, TRAIN_EVAL_TEST),
        code="",
    )
    result = make_artifact(standard_artifacts.Model, place, "ModelFormats", "exported_model", 1)
    inputs = {"examples": [examples], "model": [model], "evaluation": [evaluation]}
    executor.Executor(context(place, 1)).Do(inputs, {"exported_model": [result]}, dict(component.exec_properties))
    return Path(result.uri) / "Format-Serving"


def test_pixels_in_place_of_a_file_are_the_image(exported, tmp_path):
    with tf.io.TFRecordWriter(str(tmp_path / "examples")) as writer:
        for picture in exported.pictures:
            example = tf.train.Example()
            for name, value in {features.ENCODED: b"", features.PIXELS: picture.tobytes()}.items():
                example.features.feature[name].bytes_list.value.append(value)
            writer.write(example.SerializeToString())
    (images,) = executor._images(tf.saved_model.load(exported.path).signatures, [str(tmp_path / "examples")])
    np.testing.assert_array_equal(images, exported.pictures[..., None])


def predictions(probabilities):
    """Of images whose class is the most probable one, but for the last."""
    names = np.array(["cat", "dog", "owl"])
    right = probabilities.argmax(-1)
    right[-1] = (right[-1] + 1) % 3
    rows = pd.DataFrame({features.LABEL: names[right], features.GROUP: np.arange(len(right)).astype(str)})
    rows["meta/site"] = ["a"] * 4 + ["b"] * (len(right) - 4)
    return Predictions(rows, list(names), False, probabilities)


def test_a_format_that_holds_its_thresholds_is_shipped_inside_the_saved_model(exported, converted, tmp_path, monkeypatch):
    monkeypatch.setattr(executor.formats, "convert", converted)
    model = run(tmp_path, exported, formats=["float16"])
    file = model / "assets.extra" / "formats" / "model_float16.tflite"
    assert file.read_bytes() == converted(exported.path, "float16")
    whole, float16 = read_results(str(model))
    assert whole.name == "saved_model"
    assert whole.metrics["accuracy"] == pytest.approx(6 / 7)
    assert float16.shipped
    assert float16.bytes == file.stat().st_size
    assert whole.bytes > float16.bytes
    assert min(whole.latency_ms, float16.latency_ms) > 0
    loaded = tf.saved_model.load(str(model)).signatures["serving_default"]
    np.testing.assert_allclose(loaded(tf.constant(exported.files))["probabilities"], exported.probabilities, atol=1e-6)


def test_a_format_that_fails_a_threshold_is_kept_out_and_the_saved_model_is_not(exported, converted, tmp_path, monkeypatch):
    monkeypatch.setattr(executor.formats, "convert", converted)
    thresholds = [{"metric": "accuracy", "change": 0.0}, {"metric": "accuracy", "lower": 0.99}]
    model = run(tmp_path, exported, formats=["float16"], thresholds=thresholds)
    assert [path.name for path in (model / "assets.extra" / "formats").iterdir()] == ["formats.json"]
    _, float16 = read_results(str(model))
    assert float16.failed == ["accuracy on all examples must be at least 0.99, is 0.8571"]
    assert float16.file == ""
    assert (model / "saved_model.pb").exists()


def test_what_cannot_be_converted_costs_no_run(exported, tmp_path, monkeypatch):
    def refuse(*_):
        raise ValueError("no such operation\nand much more")

    monkeypatch.setattr(executor.formats, "convert", refuse)
    _, int8 = read_results(str(run(tmp_path, exported, formats=["int8"])))
    assert int8.failed == ["could not be converted: no such operation"]


def test_a_missing_package_is_named_with_its_cure(exported, tmp_path, monkeypatch):
    def refuse(*_):
        raise ModuleNotFoundError("No module named 'tf2onnx'", name="tf2onnx")

    monkeypatch.setattr(executor.formats, "convert", refuse)
    with pytest.raises(UserError, match=r"export.formats: onnx needs the package tf2onnx; .* extra onnx"):
        run(tmp_path, exported, formats=["onnx"])


def test_thresholds_are_on_values_on_changes_and_on_slices():
    reference = predictions(np.tile(np.array([[0.8, 0.1, 0.1]], np.float32), (10, 1)))  # nine of ten right
    worse = reference.probabilities.copy()
    worse[5] = [0.1, 0.8, 0.1]  # of site b: eight of ten, there four of six
    config = {"name": "x", "data": {"path": "x"}, "evaluate": {"min_slice_size": 2}}

    def failed(**threshold):
        export = {"formats": ["int8"], "thresholds": [{"metric": "accuracy", **threshold}]}
        settings = format_settings(Config.model_validate(config | {"export": export}), TRAIN_EVAL_TEST)
        verdicts = executor.judge_format(reference, worse, unpack(FormatSettings, pack(settings)))
        return [str(verdict) for verdict in verdicts if not verdict.passed]

    assert failed(lower=0.8, change=-0.1) == []
    assert failed(change=-0.09) == ["accuracy on all examples must be at least -0.09 against the SavedModel, is -0.1000"]
    assert failed(lower=0.7, slice={"meta/site": "b"}) == ["accuracy on meta/site=b must be at least 0.7, is 0.6667"]
    assert failed(lower=0.99, slice={"meta/site": "a"}) == []


def test_a_threshold_on_an_unknown_metric_is_refused_by_its_section():
    content = {"name": "x", "data": {"path": "x"}, "export": {"thresholds": [{"metric": "acuracy", "lower": 0.1}]}}
    with pytest.raises(UserError, match=r"acuracy.*accuracy"):
        format_settings(Config.model_validate(content), TRAIN_EVAL_TEST)


def test_the_recipe_for_litert_in_the_docs_gives_the_models_answers(exported, converted, tmp_path, monkeypatch):
    monkeypatch.setattr(executor.formats, "convert", converted)
    model = str(run(tmp_path, exported, formats=["float16"]))
    page = (Path(__file__).parents[2] / "docs" / "export.md").read_text()
    names = {"model": model, "file": exported.files[0]}
    exec(page.split("```python\n")[1].split("```")[0], names)
    np.testing.assert_allclose(names["probabilities"], exported.probabilities[:1], atol=TOLERANCES["float16"])


@pytest.mark.extra
def test_gelu_is_the_same_in_onnx(tmp_path):
    archive = keras.export.ExportArchive()
    spec = tf.TensorSpec([None, 2, 2, 3], tf.uint8, name="images")
    archive.add_endpoint(formats.SIGNATURE, gelu_of_pixels, input_signature=[spec])
    archive.write_out(str(tmp_path), verbose=False)
    images = np.random.default_rng(0).integers(0, 256, (2, 2, 2, 3), dtype=np.uint8)
    predict = formats.load(formats.convert(str(tmp_path), "onnx", []), "onnx", threads=1)
    np.testing.assert_allclose(predict(images)["probabilities"], gelu_of_pixels(images)["probabilities"], atol=1e-6)


def gelu_of_pixels(images):
    return {"probabilities": keras.activations.gelu(tf.reduce_mean(tf.cast(images, tf.float32) / 64 - 2, axis=(1, 2)))}
