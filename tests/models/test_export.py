"""The exported model gives the trained model's answers to whoever loads it."""

import io
import json
import subprocess
import sys

import apache_beam as beam
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from apache_beam.options.pipeline_options import PipelineOptions
from PIL import Image
from tensorflow_transform.tf_metadata import dataset_metadata, schema_utils

from models import features
from models.export import export_model
from models.fpn import build_classifier
from models.inference import build_inference_model
from models.preprocessing import preprocessing_fn

RANDOM = np.random.default_rng(11)
PICTURES = RANDOM.integers(0, 256, (7, 24, 20), dtype=np.uint8)
LABELS = [b"cat", b"dog", b"cat", b"owl", b"cat", b"dog", b"cat"]


def encode(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


FILES = [encode(picture) for picture in PICTURES]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    rows = [{features.ENCODED: [file], features.LABEL: [label]} for file, label in zip(FILES, LABELS, strict=True)]
    spec = {name: tf.io.FixedLenFeature([1], tf.string) for name in (features.ENCODED, features.LABEL)}
    metadata = dataset_metadata.DatasetMetadata(schema_utils.schema_from_feature_spec(spec))
    settings = {"image": {"height": 24, "width": 20, "channels": 1, "resize": "stretch", "antialias": True}}
    with (
        beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner"])) as pipeline,
        tft_beam.Context(temp_dir=str(folder / "temp")),
    ):
        raw = pipeline | beam.Create(rows)
        transform = (raw, metadata) | tft_beam.AnalyzeDataset(lambda inputs: preprocessing_fn(inputs, settings))
        _ = transform | tft_beam.WriteTransformFn(str(folder / "transform"))

    model = build_classifier(
        image_shape=(24, 20, 1),
        num_classes=3,
        channel_mean=[127.0],
        channel_variance=[5000.0],
        backbone="small_resnet10",
        weights="none",
        min_level=2,
        max_level=4,
        num_filters=8,
        fusion_type="concat",
        dropout=0.5,
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(PICTURES[..., None], np.arange(7) % 3, verbose=0)  # the optimizer has state, none of which may be exported
    inference = build_inference_model(model, temperature=1.7, test_time_augmentation="flip")
    export_model(inference, tft.TFTransformOutput(str(folder / "transform")), str(folder / "model"))
    views = [model(pictures[..., None], training=False) for pictures in (PICTURES, PICTURES[:, :, ::-1])]
    probabilities = tf.nn.softmax((views[0] + views[1]) / 2 / 1.7).numpy()
    return str(folder / "model"), probabilities, model


def examples():
    return [
        tf.train.Example(
            features=tf.train.Features(
                feature={
                    features.ENCODED: tf.train.Feature(bytes_list=tf.train.BytesList(value=[file])),
                    features.LABEL: tf.train.Feature(bytes_list=tf.train.BytesList(value=[label])),
                }
            )
        ).SerializeToString()
        for file, label in zip(FILES, LABELS, strict=True)
    ]


@pytest.mark.parametrize(("signature", "inputs"), [("serving_default", FILES), ("predict_examples", examples())])
def test_a_loaded_model_gives_the_trained_models_probabilities(exported, signature, inputs):
    path, probabilities, _ = exported
    outputs = tf.saved_model.load(path).signatures[signature](tf.constant(inputs))
    np.testing.assert_allclose(outputs["probabilities"], probabilities, atol=1e-6)
    names = np.array([b"cat", b"dog", b"owl"])
    assert outputs["label"].numpy().tolist() == names[probabilities.argmax(-1)].tolist()
    if signature == "serving_default":
        assert outputs["labels"].numpy().tolist() == names.tolist()


@pytest.mark.parametrize(
    ("signature", "name", "inputs"), [("serving_default", "image_bytes", FILES), ("predict_examples", "examples", examples())]
)
def test_a_session_gives_the_same_probabilities(exported, signature, name, inputs):
    path, probabilities, _ = exported
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        meta = tf.compat.v1.saved_model.loader.load(session, ["serve"], path)
        definition = meta.signature_def[signature]
        outputs = session.run(definition.outputs["probabilities"].name, {definition.inputs[name].name: inputs})
    np.testing.assert_allclose(outputs, probabilities, atol=1e-6)


@pytest.mark.parametrize("size", [1, 7, 64])
def test_batches_of_any_size_are_answered(exported, size):
    path, probabilities, _ = exported
    files = [FILES[index % 7] for index in range(size)]
    outputs = tf.saved_model.load(path).signatures["serving_default"](tf.constant(files))
    np.testing.assert_allclose(outputs["probabilities"], probabilities[np.arange(size) % 7], atol=1e-5)


def test_true_labels_are_read_without_pixels(exported):
    without_pixels = tf.train.Example(
        features=tf.train.Features(feature={features.LABEL: tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"owl"]))})
    )
    unknown = tf.train.Example(
        features=tf.train.Features(feature={features.LABEL: tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"yak"]))})
    )
    records = [without_pixels.SerializeToString(), unknown.SerializeToString()]
    outputs = tf.saved_model.load(exported[0]).signatures["transform_labels"](tf.constant(records))
    assert outputs["label"].numpy().tolist() == [2, -1]


def test_no_optimizer_state_is_exported(exported):
    path, _, model = exported
    stored = sum(int(np.prod(shape)) for _, shape in tf.train.list_variables(f"{path}/variables/variables"))
    # Beside the weights, a few scalars: table sizes and seeds, no second copy of any weight.
    assert stored <= model.count_params() + 100


def test_the_model_runs_where_the_project_is_not(exported, tmp_path):
    path, probabilities, _ = exported
    (tmp_path / "image.png").write_bytes(FILES[0])
    program = f"""
import json, sys
import tensorflow as tf
answer = tf.saved_model.load({path!r}).signatures["serving_default"](tf.constant([open("image.png", "rb").read()]))
used = [name for name in sys.modules if name.split(".")[0] in ("models", "components", "pipeline", "keras", "tfx")]
print(json.dumps([answer["probabilities"].numpy()[0].tolist(), [name for name in used if name.split(".")[0] != "keras"]]))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    answer, used = json.loads(done.stdout.splitlines()[-1])
    np.testing.assert_allclose(answer, probabilities[0], atol=1e-5)
    assert used == []
