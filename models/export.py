"""The SavedModel that leaves the pipeline: files in, named probabilities out, with nothing of this package needed to run it."""

import keras
import tensorflow as tf
import tensorflow_transform as tft

from models import features
from models.preprocessing import parse_images


def export_model(model: keras.Model, transform_output: tft.TFTransformOutput, path: str) -> None:
    """Writes a SavedModel without optimizer state.

    Signatures:
      serving_default: `image_bytes` string [N], image files; gives `probabilities` float [N, classes], `label` string [N]
        (the most probable) and `labels` string [classes] (the names, in the order of the probabilities).
      predict_examples: `examples` string [N], serialised tf.Example with raw features; gives `probabilities` and `label`.
      transform_labels: `examples` likewise; gives `label` int64 [N], the index of the true label, -1 where it is unknown.
        It reads no pixels; the Evaluator takes its labels from it.

    Args:
      model: from uint8 images to calibrated logits, as `models.inference.build_inference_model` makes it.
      transform_output: of the Transform component; its graph becomes part of the SavedModel.
      path: folder to write to.
    """
    labels = tf.constant(transform_output.vocabulary_by_name(features.LABEL_VOCABULARY))
    transform = transform_output.transform_features_layer()

    def classify(encoded: tf.Tensor) -> dict[str, tf.Tensor]:
        serialized = transform({features.ENCODED: encoded[:, tf.newaxis]})[features.IMAGE]
        logits = model(parse_images(serialized, model.input_shape[1:]), training=False)
        return {"probabilities": tf.nn.softmax(logits), "label": tf.gather(labels, tf.argmax(logits, axis=-1))}

    def parse(examples: tf.Tensor, feature: str) -> tf.Tensor:
        return tf.io.parse_example(examples, {feature: tf.io.FixedLenFeature([], tf.string)})[feature]

    def serving_default(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        return {**classify(image_bytes), "labels": labels}

    def predict_examples(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        return classify(parse(examples, features.ENCODED))

    def transform_labels(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        label = parse(examples, features.LABEL)
        return {"label": transform({features.LABEL: label[:, tf.newaxis]})[features.LABEL_INDEX]}

    # ExportArchive, not tf.saved_model.save: only this form is also read by session loaders, as TensorFlow Serving has one.
    # It finds the model's variables through the endpoints (tracking the model as well would store them twice), but not the
    # vocabulary's table.
    archive = keras.export.ExportArchive()
    archive.track(transform)
    for endpoint, name in (
        (serving_default, "image_bytes"),
        (predict_examples, "examples"),
        (transform_labels, "examples"),
    ):
        archive.add_endpoint(endpoint.__name__, endpoint, input_signature=[tf.TensorSpec([None], tf.string, name=name)])
    archive.write_out(path, verbose=False)
