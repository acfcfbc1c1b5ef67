"""The exported model gives the trained model's answers to whoever loads it."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import prediction_log_pb2

from models import export, features
from models.compaction import compact
from models.gradcam import explain_maps, split

SIGNATURES = {"serving_default": "image_bytes", "predict_examples": "examples"}


def inputs(exported, signature):
    if signature == "serving_default":
        return exported.files
    return [
        tf.train.Example(
            features=tf.train.Features(
                feature={
                    features.ENCODED: tf.train.Feature(bytes_list=tf.train.BytesList(value=[file])),
                    features.LABEL: tf.train.Feature(bytes_list=tf.train.BytesList(value=[label])),
                }
            )
        ).SerializeToString()
        for file, label in zip(exported.files, exported.labels, strict=True)
    ]


@pytest.mark.parametrize("signature", SIGNATURES)
def test_a_loaded_model_gives_the_trained_models_probabilities(exported, signature):
    outputs = tf.saved_model.load(exported.path).signatures[signature](tf.constant(inputs(exported, signature)))
    np.testing.assert_allclose(outputs["probabilities"], exported.probabilities, atol=1e-6)
    assert outputs["label"].numpy().tolist() == [exported.names[best] for best in exported.probabilities.argmax(-1)]
    if signature == "serving_default":
        assert outputs["labels"].numpy().tolist() == [exported.names] * len(exported.files)


@pytest.mark.parametrize("signature", SIGNATURES)
def test_a_session_gives_the_same_probabilities(exported, signature):
    outputs = run_in_session(exported.path, signature, **{SIGNATURES[signature]: inputs(exported, signature)})
    np.testing.assert_allclose(outputs["probabilities"], exported.probabilities, atol=1e-6)


def run_in_session(path, signature, **values):
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        definition = tf.compat.v1.saved_model.loader.load(session, ["serve"], path).signature_def[signature]
        names = {name: info.name for name, info in definition.outputs.items()}
        return session.run(names, {definition.inputs[name].name: value for name, value in values.items()})


@pytest.mark.parametrize("size", [1, 7, 64])
def test_batches_of_any_size_are_answered(exported, size):
    files = [exported.files[index % 7] for index in range(size)]
    outputs = tf.saved_model.load(exported.path).signatures["serving_default"](tf.constant(files))
    np.testing.assert_allclose(outputs["probabilities"], exported.probabilities[np.arange(size) % 7], atol=1e-5)


def test_true_labels_are_read_without_pixels(exported):
    without_pixels = tf.train.Example(
        features=tf.train.Features(feature={features.LABEL: tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"owl"]))})
    )
    unknown = tf.train.Example(
        features=tf.train.Features(feature={features.LABEL: tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"yak"]))})
    )
    records = [without_pixels.SerializeToString(), unknown.SerializeToString()]
    outputs = tf.saved_model.load(exported.path).signatures["transform_labels"](tf.constant(records))
    assert outputs["label"].numpy().tolist() == [2, -1]


def test_no_optimizer_state_is_exported(exported):
    stored = sum(int(np.prod(shape)) for _, shape in tf.train.list_variables(f"{exported.path}/variables/variables"))
    # Beside the weights, a few scalars: table sizes and seeds, no second copy of any weight.
    assert stored <= exported.classifier.count_params() + 100


def test_the_model_runs_where_the_project_is_not(exported, tmp_path):
    (tmp_path / "image.png").write_bytes(exported.files[0])
    program = f"""
import json, sys
import tensorflow as tf
answer = tf.saved_model.load({exported.path!r}).signatures["serving_default"](tf.constant([open("image.png", "rb").read()]))
project = ("base", "models", "storage", "images", "evaluation", "components", "pipeline")
used = [name for name in sys.modules if name.split(".")[0] in (*project, "keras", "tfx")]
print(json.dumps([answer["probabilities"].numpy()[0].tolist(), [name for name in used if name.split(".")[0] != "keras"]]))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    answer, used = json.loads(done.stdout.splitlines()[-1])
    np.testing.assert_allclose(answer, exported.probabilities[0], atol=1e-5)
    assert used == []


@pytest.mark.parametrize("loader", ["saved_model", "session"])
def test_explanations_are_those_of_the_plain_classifier(exported, loader):
    wanted = [b"", b"owl", b"cat", b"", b"dog", b"owl", b""]
    if loader == "session":
        outputs = run_in_session(exported.path, "explain", image_bytes=exported.files, label=wanted)
    else:
        explain = tf.saved_model.load(exported.path).signatures["explain"]
        outputs = {
            name: value.numpy()
            for name, value in explain(image_bytes=tf.constant(exported.files), label=tf.constant(wanted)).items()
        }
    best = [exported.names[index] for index in exported.probabilities.argmax(-1)]
    assert outputs["label"].tolist() == best
    assert outputs["explained"].tolist() == [name or answer for name, answer in zip(wanted, best, strict=True)]
    assert outputs["labels"].tolist() == [exported.names] * 7
    assert outputs["levels"].tolist() == [[b"P2", b"P3", b"P4"]] * 7
    np.testing.assert_array_equal(outputs["images"], exported.pictures[..., None])
    np.testing.assert_allclose(outputs["probabilities"], exported.probabilities, atol=1e-6)
    index = np.array([exported.names.index(name) for name in outputs["explained"].tolist()])
    levels, trunk, head = split(exported.classifier)
    explanation = explain_maps(trunk(exported.pictures[..., None]), levels, head, index)
    assert outputs["maps"].shape == (7, 3, 6, 5)
    np.testing.assert_allclose(outputs["maps"], explanation.scaled_maps, atol=1e-4)
    np.testing.assert_allclose(outputs["combined"], explanation.scaled_combined, atol=1e-4)
    np.testing.assert_allclose(outputs["shares"], explanation.shares, atol=1e-4)


def test_one_label_is_explained_in_all_images_and_an_unknown_one_is_refused(exported):
    explain = tf.saved_model.load(exported.path).signatures["explain"]
    outputs = explain(image_bytes=tf.constant(exported.files[:2]), label=tf.constant(["dog"]))
    assert outputs["explained"].numpy().tolist() == [b"dog", b"dog"]
    with pytest.raises(tf.errors.InvalidArgumentError, match="label must be empty or one of"):
        explain(image_bytes=tf.constant(exported.files[:2]), label=tf.constant(["yak"]))


def functions_of(path):
    with open(f"{path}/saved_model.pb", "rb") as file:
        saved_model = saved_model_pb2.SavedModel.FromString(file.read())
    return saved_model.meta_graphs[0].graph_def.library.function


def test_no_operation_is_there_for_training_alone(exported):
    functions = functions_of(exported.path)
    operations = {node.op for function in functions for node in function.node_def}
    assert "Conv2D" in operations
    training = (
        "Random",
        "Dropout",
        "Multinomial",
        "FusedBatchNorm",
        "Conv2DBackprop",
        "ResourceApply",
        "AssignAdd",
        "AssignSub",
    )
    assert [name for name in operations if any(part in name for part in training)] == []
    # Only restoring writes variables, and each network layer is there once: explanations are of the answers' own maps.
    writers = {function.signature.name for function in functions for node in function.node_def if "Assign" in node.op}
    assert all("traced_restore" in name for name in writers)
    convolutions = [node for function in functions for node in function.node_def if node.op == "Conv2D"]
    kernels = [weight for weight in exported.classifier.weights if weight.path.endswith("kernel") and len(weight.shape) == 4]
    assert len(convolutions) == len(kernels)


def test_only_the_true_labels_signature_has_the_vocabularys_lookup(exported):
    lookups = [
        function.signature.name
        for function in functions_of(exported.path)
        if any(node.op == "LookupTableFindV2" for node in function.node_def)
    ]
    assert lookups
    assert all("transform_labels" in name or "pruned" in name for name in lookups)


def test_the_graph_is_small_and_compacting_it_again_changes_nothing(exported, tmp_path):
    shutil.copytree(exported.path, tmp_path / "again")
    compact(str(tmp_path / "again"))
    size = (tmp_path / "again" / "saved_model.pb").stat().st_size
    with open(f"{exported.path}/saved_model.pb", "rb") as file:
        assert size == len(file.read())
    weights = 4 * exported.classifier.count_params()
    assert size < 0.37 * weights  # of a network of 1.2 MB; not compacted, with a signature less, it was 0.5


def test_warm_up_requests_are_answered(exported):
    signatures = tf.saved_model.load(exported.path).signatures
    records = list(tf.data.TFRecordDataset(f"{exported.path}/{features.WARMUP}").as_numpy_iterator())
    logs = [prediction_log_pb2.PredictionLog.FromString(record) for record in records]
    assert [log.WhichOneof("log_type") for log in logs] == ["predict_log"] * 2
    sizes = []
    for log in logs:
        request = log.predict_log.request
        (name,) = request.inputs
        outputs = signatures[request.model_spec.signature_name](**{name: tf.make_ndarray(request.inputs[name])})
        sizes.append(len(outputs["probabilities"]))
    assert sizes == [1, 8]


def test_large_images_are_warmed_up_one_by_one(monkeypatch, tmp_path):
    monkeypatch.setattr(export, "_WARMUP_BYTES", 8 * 20 * 30 - 1)
    export._write_warmup((20, 30, 1), str(tmp_path))
    (record,) = tf.data.TFRecordDataset(f"{tmp_path}/{features.WARMUP}").as_numpy_iterator()
    request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
    assert len(tf.make_ndarray(request.inputs["image_bytes"])) == 1


def test_every_output_has_a_row_an_image(exported):
    signatures = tf.saved_model.load(exported.path).signatures
    files = tf.constant(exported.files[:2])
    for outputs in (signatures["serving_default"](files), signatures["explain"](image_bytes=files, label=tf.constant([""]))):
        assert {len(value) for value in outputs.values()} == {2}
