"""The SavedModel that leaves the pipeline: files in, named probabilities out, with nothing of this package needed to run it."""

import os
from typing import Final

import keras
import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from models import features
from models.choices import TestTimeAugmentation
from models.compaction import compact
from models.fitting import NOTHING, Answers, Fitted
from models.gradcam import explain_maps, explain_tiles
from models.image_settings import ImageSettings
from models.inference import InferenceModel
from models.packing import pack
from models.preprocessing import is_multi_label, multi_hot, parse_images, transform_files
from models.reference import Sample, write_reference

_WARMUP_SIZES: Final = (1, 8)  # images a request
_WARMUP_BYTES: Final = 2**26  # of the pixels of a request of several images


def export_model(
    classifier: keras.Model,
    transform_output: tft.TFTransformOutput,
    path: str,
    *,
    fitted: Fitted = NOTHING,
    test_time_augmentation: TestTimeAugmentation = "none",
    reference: Answers | None = None,
) -> None:
    """Writes a SavedModel without optimizer state, and without anything else that training alone needs.

    Where `fitted.sets` is given, each signature that gives `probabilities` gives `label_set` bool [N, classes] as well, whether
    a class is in the image's set, and `set_size` int64 [N], how many are. Where `fitted.unusual` is given, each gives `unusual`
    float [N], 0..100: the percentile of the image's distance from the training images among those of the eval split. `label` is
    features.UNKNOWN for images whose largest probability is not above the threshold of `fitted.abstention`, or that are more
    unusual than the cut-off; `probabilities` stay.

    All outputs have one row per image, as TensorFlow Serving's row format (`"instances"`) and TFX's BulkInferrer demand.

    Signatures:
      serving_default: `image_bytes` string [N], image files; gives `probabilities` float [N, classes], `label` string [N]
        (the most probable; of multi-label data all whose probability is at least 0.5, as "cat|dog", or "") and `labels`
        string [N, classes] (the names, in the order of the probabilities; all rows are the same).
      predict_examples: `examples` string [N], serialised tf.Example with raw features; gives `probabilities` and `label`.
      decode: `image_bytes` likewise; gives `images` uint8 [N, height, width, channels], what the network sees.
      predict_images: such `images`; gives `probabilities`. It is the network alone, which `models.formats` converts.
      explain: `image_bytes` likewise, and `label` string [N], the class to explain, "" for the most probable; [1] goes for all
        images. Gives, beside the outputs of serving_default, `explained` string [N], the explained class; `levels` string
        [N, levels], the names of the explained maps, finest first; `shares` float [N, levels], what each contributed to the
        class, negative where it argues against it; `maps` float [N, levels, h, w] and `combined` float [N, h, w], where the
        evidence lies, 0..1, h and w being the finest level's (see `models.gradcam`); and `images` uint8 [N, height, width,
        channels], what the network sees.
      embed: `image_bytes` likewise; gives, beside the outputs of serving_default, `embedding` float [N, d] of length 1: what
        the heads see on all levels, see `models.embedding`. It is of the image itself, without test-time augmentation, and
        the mean of the tiles'.
      transform_labels: `examples` likewise; gives `label` int64 [N], the index of the true label, -1 where it is unknown; of
        multi-label data float [N, classes], one for each true label. It reads no pixels; TFMA takes labels from it where it
        is run on the model itself.

    Args:
      classifier: as `models.fpn.build_classifier` or `models.tiles.tile_classifier` makes it; explanations are of its plain
        logits.
      transform_output: of the Transform component; its graph becomes part of the SavedModel.
      path: folder to write to.
      fitted: what the model says of its answers.
      test_time_augmentation: as in `models.inference.average_views`.
      reference: answers to the eval split, of which a sample goes into the folder, see `models.reference`.
    """
    endpoints = _Endpoints(classifier, transform_output, fitted, test_time_augmentation)
    # ExportArchive, not tf.saved_model.save: only this form is also read by session loaders, as TensorFlow Serving has one.
    # It finds the model's variables through the endpoints (tracking the model as well would store them twice), but not the
    # vocabulary's table. To track the layer that has it would trace Keras functions that no signature needs.
    archive = keras.export.ExportArchive()
    for item in tf.train.TrackableView(endpoints.transform).descendants():
        if isinstance(item, tf.saved_model.experimental.TrackableResource):
            archive.track(item)
    pixels = tf.TensorSpec(classifier.input_shape, tf.uint8, name="images")
    archive.add_endpoint("predict_images", endpoints.predict_images, input_signature=[pixels])
    for endpoint, *names in (
        (endpoints.serving_default, "image_bytes"),
        (endpoints.decode, "image_bytes"),
        (endpoints.predict_examples, "examples"),
        (endpoints.explain, "image_bytes", "label"),
        (endpoints.embed, "image_bytes"),
        (endpoints.transform_labels, "examples"),
    ):
        signature = [tf.TensorSpec([None], tf.string, name=name) for name in names]
        archive.add_endpoint(endpoint.__name__, endpoint, input_signature=signature)
    archive.write_out(path, verbose=False)
    compact(path)
    _write_warmup(classifier.input_shape[1:], path)
    if reference and reference.sample:
        endpoints.write_reference(reference, reference.sample, path)


class _Labels:
    """The classes' names, and which of them a model's probabilities stand for."""

    def __init__(self, transform_output: tft.TFTransformOutput) -> None:
        names = transform_output.vocabulary_by_name(features.LABEL_VOCABULARY)
        self.names = tf.constant(names)
        self.number = len(names)
        self.multi_label = is_multi_label(transform_output)
        self._alphabetical = sorted(range(len(names)), key=names.__getitem__)  # as manifests are read

    def most_probable(self, probabilities: tf.Tensor) -> tf.Tensor:
        return tf.gather(self.names, tf.argmax(probabilities, axis=-1))

    def predicted(self, probabilities: tf.Tensor) -> tf.Tensor:
        """The most probable; of multi-label data all that are likely, in one text."""
        if not self.multi_label:
            return self.most_probable(probabilities)
        likely = tf.gather(probabilities, self._alphabetical, axis=-1) >= 0.5
        in_order = tf.broadcast_to(tf.gather(self.names, self._alphabetical), tf.shape(likely))
        chosen = tf.ragged.boolean_mask(in_order, likely)
        return tf.strings.reduce_join(chosen, axis=-1, separator=features.LABEL_SEPARATOR)

    def equal(self, labels: tf.Tensor) -> tf.Tensor:
        """Bool [N, classes], which class each label [N] is; an error where one is none."""
        same = tf.equal(labels[:, tf.newaxis], self.names)
        known = tf.reduce_all(tf.reduce_any(same, axis=-1))
        tf.debugging.Assert(known, ["label must be empty or one of", self.names], self.number)
        return same


class _Endpoints:
    """The functions behind the signatures, which `export_model` describes; `transform` holds the vocabulary's table."""

    def __init__(
        self,
        classifier: keras.Model,
        transform_output: tft.TFTransformOutput,
        fitted: Fitted,
        test_time_augmentation: TestTimeAugmentation,
    ) -> None:
        self.transform = transform_output.transform_features_layer()
        self._raw_spec = transform_output.raw_feature_spec()
        self._labels = _Labels(transform_output)
        self._image_shape = classifier.input_shape[1:]
        self._fitted = fitted
        self._look = InferenceModel(classifier, test_time_augmentation)
        # Functions of their own, so that the signatures share them in the SavedModel instead of each having a copy.
        files, pixels = tf.TensorSpec([None], tf.string), tf.TensorSpec(classifier.input_shape, tf.uint8)
        self._read = tf.function(self._read_files, input_signature=[files], autograph=False)
        self._numbers = tf.function(self._find_numbers, input_signature=[pixels], autograph=False)

    def serving_default(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        return {**self._answer(self._read(image_bytes)), "labels": _on_every_row(self._labels.names, image_bytes)}

    def predict_images(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        return _without_embedding(self._numbers(images))

    def decode(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"images": self._read(image_bytes)}

    def predict_examples(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._answer(self._read(_parse(examples, features.ENCODED, tf.io.FixedLenFeature([], tf.string))))

    def explain(self, image_bytes: tf.Tensor, label: tf.Tensor) -> dict[str, tf.Tensor]:
        images = self._read(image_bytes)
        answers = self._answer(images)
        explained = tf.where(tf.equal(label, ""), self._labels.most_probable(answers["probabilities"]), label)
        index = tf.argmax(self._labels.equal(explained), axis=-1)
        look, multi_label = self._look, self._labels.multi_label
        if look.tiles:
            explanation = explain_tiles(look.tiles, images, index, multi_label)
        else:
            explanation = explain_maps(look.see(images), look.levels, look.head, index, multi_label)
        return {
            **answers,
            "labels": _on_every_row(self._labels.names, images),
            "explained": explained,
            "levels": _on_every_row(tf.constant(explanation.levels), images),
            "shares": explanation.shares,
            "maps": explanation.scaled_maps,
            "combined": explanation.scaled_combined,
            "images": images,
        }

    def embed(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        images = self._read(image_bytes)
        numbers = self._numbers(images)
        return {
            **self._name(_without_embedding(numbers)),
            "labels": _on_every_row(self._labels.names, images),
            "embedding": numbers["embedding"],
        }

    def transform_labels(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        multi_label = self._labels.multi_label
        # Of multi-label data as the schema has it: sparse, unless all images have as many labels.
        kind = self._raw_spec[features.LABEL] if multi_label else tf.io.FixedLenFeature([1], tf.string)
        positions = self.transform({features.LABEL: _parse(examples, features.LABEL, kind)})[features.LABEL_INDEX]
        return {"label": multi_hot(positions, self._labels.number) if multi_label else positions}

    def _read_files(self, encoded: tf.Tensor) -> tf.Tensor:
        """Files to what the network sees."""
        serialized = transform_files(self.transform, self._raw_spec, encoded)[features.IMAGE]
        return parse_images(serialized, self._image_shape)

    def _find_numbers(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Images to all that is said of them without any text, which XLA could not take into the step of a training."""
        return self._to_numbers(*self._look(images))

    def _to_numbers(self, logits: tf.Tensor, embeddings: tf.Tensor) -> dict[str, tf.Tensor]:
        logits = logits / self._fitted.temperature
        probabilities = tf.nn.sigmoid(logits) if self._labels.multi_label else tf.nn.softmax(logits)
        numbers = {"probabilities": probabilities, "embedding": embeddings, **self._sets(probabilities)}
        return {**numbers, "unusual": self._fitted.unusual(embeddings)} if self._fitted.unusual else numbers

    def _answer(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Images to numbers and predicted labels."""
        return self._name(_without_embedding(self._numbers(images)))

    def _name(self, numbers: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {**numbers, "label": self._label(numbers)}

    def _label(self, numbers: dict[str, tf.Tensor]) -> tf.Tensor:
        label = self._labels.predicted(numbers["probabilities"])
        abstention, unusual = self._fitted.abstention, self._fitted.unusual
        if abstention and abstention.threshold:
            is_sure = tf.reduce_max(numbers["probabilities"], axis=-1) > abstention.threshold
            label = tf.where(is_sure, label, features.UNKNOWN)
        if unusual and unusual.cutoff is not None:
            label = tf.where(numbers["unusual"] > unusual.cutoff, features.UNKNOWN, label)
        return label

    def _sets(self, probabilities: tf.Tensor) -> dict[str, tf.Tensor]:
        if not self._fitted.sets:
            return {}
        chosen = self._fitted.sets.select(probabilities)
        return {"label_set": chosen, "set_size": tf.reduce_sum(tf.cast(chosen, tf.int64), axis=-1)}

    def write_reference(self, answers: Answers, sample: Sample, path: str) -> None:
        """Writes what the model says to some images of the eval split into the SavedModel's folder."""
        found = self._name(self._to_numbers(tf.constant(answers.logits[sample.rows]), tf.constant(sample.embeddings)))
        names = [name.decode() for name in self._labels.names.numpy()]
        known = [sorted(np.array(names)[row > 0].tolist()) for row in answers.labels[sample.rows]]
        true = [features.join_labels(some) if some or self._labels.multi_label else None for some in known]
        groups = answers.groups[sample.rows]
        write_reference(path, {name: value.numpy() for name, value in found.items()}, true, groups, names)


def _without_embedding(numbers: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    return {name: value for name, value in numbers.items() if name != "embedding"}


def _parse(examples: tf.Tensor, feature: str, kind: tf.io.FixedLenFeature | tf.io.VarLenFeature) -> tf.Tensor:
    return tf.io.parse_example(examples, {feature: kind})[feature]


def _on_every_row(values: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    return tf.repeat(values[tf.newaxis], tf.shape(rows)[0], axis=0)


def _write_warmup(image_shape: tuple[int, int, int], path: str) -> None:
    """Writes requests that TensorFlow Serving sends itself when it loads the model, so that no client waits for the first ones.

    They are grey images of the network's size, one and several together.
    """
    grey = np.full(image_shape, 127, np.uint8)
    image = tf.io.encode_png(grey).numpy()
    name = os.path.join(path, features.WARMUP)
    tf.io.gfile.makedirs(os.path.dirname(name))
    with tf.io.TFRecordWriter(name) as writer:
        for images in _WARMUP_SIZES:
            if images > 1 and images * grey.size > _WARMUP_BYTES:
                continue
            request = predict_pb2.PredictRequest()
            request.model_spec.signature_name = "serving_default"
            request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto([image] * images, tf.string))
            log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
            writer.write(log.SerializeToString())


def export_image_settings(image: ImageSettings, path: str) -> None:
    """Writes what the network sees into a SavedModel's folder: ingestion maps DICOM and real-valued pixels by it."""
    name = os.path.join(path, features.IMAGE_SETTINGS)
    tf.io.gfile.makedirs(os.path.dirname(name))
    with tf.io.gfile.GFile(name, "w") as file:
        file.write(pack(image))
