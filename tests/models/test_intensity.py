"""Which pixel values become black and white, against NumPy; percentiles through a real analysis of a training split."""

import io
from dataclasses import replace
from pathlib import Path

import apache_beam as beam
import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from apache_beam.options.pipeline_options import PipelineOptions
from PIL import Image
from tensorflow_transform.tf_metadata import dataset_metadata, schema_utils

from models import features, preprocessing
from models.image_settings import TransformSettings
from models.packing import as_dict
from pipeline.config.data import ImageConfig
from pipeline.dag.component_settings import image_settings

PERCENTILES = (2.0, 97.5)
SIZE = image_settings(ImageConfig(height=20, width=30, channels=1))


def encode(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def seen(pixels: np.ndarray, limits: list[float] | None = None, **image: object) -> np.ndarray:
    size = {"height": pixels.shape[0], "width": pixels.shape[1]}
    given = None if limits is None else tf.constant(limits, tf.float32)
    return preprocessing.images_from_files(tf.constant([encode(pixels)]), replace(SIZE, **size | image), given).numpy()[0]


def stretched(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.round(255 * np.clip((values - low) / (high - low), 0, 1))


def ramp(height: int = 20, width: int = 30) -> np.ndarray:
    return np.linspace(0, 65535, height * width).astype(np.uint16).reshape(height, width)


def test_a_window_is_of_the_pixel_values_of_16_bit_images() -> None:
    found = seen(ramp(), intensity="window", window=(1000.0, 9000.0))[..., 0]
    np.testing.assert_array_equal(found, stretched(ramp().astype(float), 1000, 9000))


def test_a_window_leaves_8_bit_images_alone() -> None:
    pixels = np.arange(250, dtype=np.uint8).reshape(10, 25)
    np.testing.assert_array_equal(seen(pixels, intensity="window", window=(20.0, 30.0))[..., 0], pixels)


def test_values_beyond_the_window_are_clipped_before_the_image_is_resized() -> None:
    pixels = np.array([[0, 60_000]] * 2, np.uint16)
    found = seen(pixels, intensity="window", window=(0.0, 1000.0), height=1, width=1)
    assert found[0, 0, 0] in (127, 128)  # half black, half white; not the clipped mean


def test_limits_are_of_255_in_images_of_any_type_and_spare_alpha() -> None:
    colours = np.random.default_rng(1).integers(0, 256, (8, 9, 4), dtype=np.uint8)
    found = seen(colours, limits=[30.5, 200.25], channels=4, intensity="percentiles")
    np.testing.assert_allclose(found[..., :3], stretched(colours[..., :3].astype(float), 30.5, 200.25), atol=1)
    np.testing.assert_array_equal(found[..., 3], colours[..., 3])
    deep = seen(ramp(), limits=[30.5, 200.25], intensity="percentiles")[..., 0]
    np.testing.assert_allclose(deep, stretched(ramp() / 257, 30.5, 200.25), atol=1)


def test_without_limits_percentiles_are_as_type() -> None:
    np.testing.assert_array_equal(seen(ramp(), intensity="percentiles"), seen(ramp()))


def analyze(folder: Path, files: list[bytes]) -> tft.TransformFeaturesLayer:
    """The layer that a training split of these files gives, as a model exports it."""
    names = (features.ENCODED, features.PIXELS, features.LABEL)
    spec = {name: tf.io.FixedLenFeature([1], tf.string) for name in names}
    metadata = dataset_metadata.DatasetMetadata(schema_utils.schema_from_feature_spec(spec))
    image = replace(SIZE, intensity="percentiles", percentiles=PERCENTILES)
    settings = as_dict(TransformSettings(image=image, multi_label=False, code=""))
    rows = [{features.ENCODED: [file], features.PIXELS: [b""], features.LABEL: [b"cat"]} for file in files]
    with (
        beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner"])) as pipeline,
        tft_beam.Context(temp_dir=str(folder / "temp"), desired_batch_size=7),
    ):
        raw = pipeline | beam.Create(rows)
        transform = (raw, metadata) | tft_beam.AnalyzeDataset(lambda inputs: preprocessing.preprocessing_fn(inputs, settings))
        _ = transform | tft_beam.WriteTransformFn(str(folder / "out"))
    return tft.TFTransformOutput(str(folder / "out")).transform_features_layer()


def served(layer: tft.TransformFeaturesLayer, pixels: np.ndarray) -> np.ndarray:
    """What the layer makes of one grey image of the network's size."""
    result = layer({features.ENCODED: tf.constant([[encode(pixels)]]), features.PIXELS: tf.constant([[b""]])})
    return preprocessing.parse_images(result[features.IMAGE], (20, 30, 1)).numpy()[0, ..., 0]


def limits_of(layer: tft.TransformFeaturesLayer) -> tuple[float, float]:
    """Values of 255 that the layer maps to 0 and 255, by a line through what it maps between."""
    levels = served(layer, ramp()).astype(float).ravel()
    values = ramp().ravel() / 257
    inside = (levels > 10) & (levels < 245)
    slope, offset = np.polyfit(values[inside], levels[inside], 1)
    return -offset / slope, (255 - offset) / slope


def test_percentiles_are_those_of_the_training_splits_pixels_and_part_of_the_exported_graph(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    pictures = [
        *(random.normal(20_000, 5_000, (40, 30)).clip(0, 65535).astype(np.uint16) for _ in range(12)),
        *(random.integers(60, 120, (25, 50), dtype=np.uint8) for _ in range(4)),
        *(random.integers(40, 160, (30, 30, 3), dtype=np.uint8) for _ in range(4)),
        np.dstack([random.integers(40, 60, (30, 30, 3), dtype=np.uint8), np.full((30, 30), 255, np.uint8)]),
    ]
    layer = analyze(tmp_path, [encode(picture) for picture in pictures])
    colours = [picture[..., :3] if picture.ndim == 3 else picture for picture in pictures]
    values = np.concatenate([picture.ravel() / (257 if picture.dtype == np.uint16 else 1) for picture in colours])
    # The error of the analyzer is one of rank: 0.01 percent of all pixels, and half a level of 255 by rounding here.
    for found, percentile in zip(limits_of(layer), PERCENTILES, strict=True):
        least, most = np.percentile(values, [percentile - 0.05, percentile + 0.05])
        assert least - 0.5 <= found <= most + 0.5
    low, high = np.percentile(values, PERCENTILES)
    picture = pictures[0][:20]
    np.testing.assert_allclose(served(layer, picture), stretched(picture / 257, low, high), atol=2)


def test_of_an_even_training_split_the_limits_still_differ(tmp_path: Path) -> None:
    even = np.full((20, 30), 65535, np.uint16)
    layer = analyze(tmp_path, [encode(even)] * 2)
    assert served(layer, even).max() == 0
