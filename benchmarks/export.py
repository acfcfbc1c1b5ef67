"""What the exported model costs beside the network: time of one image through `serving_default`, and bytes beside the weights.

    .venv/bin/python -m benchmarks.export

Each network has random weights, which cost what trained ones do. It is exported with a Transform graph over a few images. The
peer, in the same run and by turns, is the least that a caller could do: one function that decodes and resizes the file by
TensorFlow's own operations, then the bare network, each a tf.function on one image.
"""

import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import apache_beam as beam
import keras
import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from apache_beam.options.pipeline_options import PipelineOptions
from PIL import Image
from tensorflow_transform.tf_metadata import dataset_metadata, schema_utils

from models import features
from models.export import export_model
from models.fpn import build_classifier
from models.image_settings import ImageSettings, TransformSettings
from models.packing import as_dict
from models.preprocessing import preprocessing_fn
from pipeline.config.data import ImageConfig
from pipeline.config.network import ModelConfig
from pipeline.dag.component_settings import classifier_config, image_settings

NETWORKS: Final[dict[str, dict[str, Any]]] = {
    "small_resnet10 at 32x32x1, d = 32": {
        "image": (32, 32, 1),
        "file": ("PNG", (32, 32)),
        "model": {"backbone": "small_resnet10", "min_level": 2, "max_level": 4, "num_filters": 32},
    },
    "mobilenet_v2 at 224x224x3, d = 256": {
        "image": (224, 224, 3),
        "file": ("JPEG", (320, 240)),
        "model": {"backbone": "mobilenet_v2"},
    },
    "resnet50 at 224x224x3, d = 256": {
        "image": (224, 224, 3),
        "file": ("JPEG", (320, 240)),
        "model": {"backbone": "resnet50"},
    },
}
ROUNDS: Final = 100


def transform_graph(files: list[bytes], image: ImageSettings, folder: Path) -> tft.TFTransformOutput:
    """Transform's output over some image files of two classes."""
    names = (features.ENCODED, features.PIXELS, features.LABEL)
    rows = [
        {features.ENCODED: [file], features.PIXELS: [b""], features.LABEL: [b"cat" if number % 2 else b"dog"]}
        for number, file in enumerate(files)
    ]
    schema = schema_utils.schema_from_feature_spec({name: tf.io.FixedLenFeature([1], tf.string) for name in names})
    settings = as_dict(TransformSettings(image=image, multi_label=False, code=""))
    with (
        beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner"])) as pipeline,
        tft_beam.Context(temp_dir=str(folder / "temp")),
    ):
        raw = pipeline | beam.Create(rows)
        metadata = dataset_metadata.DatasetMetadata(schema)
        found = (raw, metadata) | tft_beam.AnalyzeDataset(lambda inputs: preprocessing_fn(inputs, settings))
        _ = found | tft_beam.WriteTransformFn(str(folder / "transform"))
        _ = metadata | tft_beam.WriteMetadata(str(folder / "transform" / "metadata"), pipeline)
    return tft.TFTransformOutput(str(folder / "transform"))


def encoded_images(kind: str, size: tuple[int, int], channels: int, number: int) -> list[bytes]:
    """Image files of coarse noise, of a (width, height)."""
    random = np.random.default_rng(0)
    files = []
    for _ in range(number):
        buffer = io.BytesIO()
        small = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize(size)
        small.convert("L" if channels == 1 else "RGB").save(buffer, kind)
        files.append(buffer.getvalue())
    return files


def median_times(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median seconds of each call; they take turns."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 10):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if number >= 10:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(found) for name, found in times.items()}


def measure(network: dict[str, Any], folder: Path, rounds: int = ROUNDS) -> dict[str, float]:
    """Exports a network, and measures it.

    Args:
      network: a value of `NETWORKS`.
      folder: to write to.
      rounds: calls of each kind.

    Returns:
      `serving_ms` and `bare_ms`, medians; `weights` and `size` in bytes, the latter of the whole folder.
    """
    height, width, channels = network["image"]
    kind, size = network["file"]
    files = encoded_images(kind, size, channels, 4)
    image = image_settings(ImageConfig(height=height, width=width, channels=channels))
    keras.utils.set_random_seed(0)
    model = build_classifier(
        classifier_config(ModelConfig.model_validate(network["model"])),
        image_shape=(height, width, channels),
        num_classes=2,
        channel_mean=[127.0] * channels,
        channel_variance=[5000.0] * channels,
    )
    path = folder / "model"
    export_model(model, transform_graph(files, image, folder), str(path))
    serving = tf.saved_model.load(str(path)).signatures["serving_default"]

    @tf.function(input_signature=[tf.TensorSpec([], tf.string)])
    def decode(file: tf.Tensor) -> tf.Tensor:
        decoder = tf.io.decode_png if kind == "PNG" else tf.io.decode_jpeg
        pixels = decoder(file, channels=channels)
        resized = tf.image.resize(pixels, [height, width], antialias=True)
        return tf.cast(tf.round(resized), tf.uint8)[tf.newaxis]

    @tf.function(input_signature=[tf.TensorSpec([1, height, width, channels], tf.uint8)])
    def bare(images: tf.Tensor) -> tf.Tensor:
        return tf.nn.softmax(model(images, training=False))

    one, several = tf.constant(files[0]), tf.constant(files[:1])
    calls = {
        "serving": lambda: serving(image_bytes=several)["probabilities"].numpy(),
        "bare": lambda: bare(decode(one)).numpy(),
    }
    times = median_times(calls, rounds)
    return {
        "serving_ms": 1000 * times["serving"],
        "bare_ms": 1000 * times["bare"],
        "weights": 4.0 * model.count_params(),
        "size": float(sum(file.stat().st_size for file in path.rglob("*") if file.is_file())),
    }


def main() -> None:
    for name, network in NETWORKS.items():
        with tempfile.TemporaryDirectory() as folder:
            found = measure(network, Path(folder))
        print(
            f"{name}: serving_default {found['serving_ms']:.2f} ms, decode and bare network {found['bare_ms']:.2f} ms, "
            f"ratio {found['serving_ms'] / found['bare_ms']:.3f}; folder {found['size'] / 1e6:.2f} MB, weights "
            f"{found['weights'] / 1e6:.2f} MB, ratio {found['size'] / found['weights']:.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
