"""Pixels and statistics of the Transform step, run for real, against Pillow and NumPy."""

import io

import apache_beam as beam
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from apache_beam.options.pipeline_options import PipelineOptions
from PIL import Image
from tensorflow_transform.tf_metadata import dataset_metadata, schema_utils

from models import features, preprocessing, training
from models.image_settings import TransformSettings
from models.packing import as_dict
from pipeline.config.data import ImageConfig
from pipeline.dag.component_settings import image_settings

RANDOM = np.random.default_rng(7)
LUMA = [0.2989, 0.587, 0.114]


def encode(pixels, kind="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def load(encoded, height, width, channels=1, resize="stretch", antialias=True):
    image = ImageConfig(height=height, width=width, channels=channels, resize=resize, antialias=antialias)
    images = preprocessing.images_from_files(tf.constant([encoded]), image_settings(image))
    assert images.dtype == tf.uint8
    return images.numpy()[0]


def noise(*shape, dtype=np.uint8):
    return RANDOM.integers(0, np.iinfo(dtype).max + 1, shape, dtype=dtype)


def smooth(height, width):
    y, x = np.mgrid[:height, :width]
    return (127 + 100 * np.sin(y / 9) * np.cos(x / 7)).astype(np.uint8)


def test_an_image_of_the_networks_size_keeps_its_pixels():
    pixels = noise(12, 9)
    np.testing.assert_array_equal(load(encode(pixels), 12, 9)[..., 0], pixels)


@pytest.mark.case(4, 5, 6)
@pytest.mark.parametrize("kind", ["BMP", "GIF", "TIFF", "WEBP"])
def test_a_file_that_is_not_read_as_ingestion_reads_it_is_refused_by_its_format_with_the_cure(kind):
    with pytest.raises(
        tf.errors.InvalidArgumentError, match=r"(?i)" + kind + ": the model reads PNG and JPEG; convert it to PNG"
    ):
        load(encode(noise(12, 9), kind), 12, 9)


def test_a_16_bit_png_is_scaled_to_8_bit_by_rounding():
    pixels = noise(12, 9, dtype=np.uint16)
    np.testing.assert_array_equal(load(encode(pixels), 12, 9)[..., 0], np.round(pixels / 257))


def test_a_16_bit_png_is_averaged_before_it_is_rounded():
    pixels = np.array([[0, 257], [257, 257]], np.uint16) // np.uint16(2)  # levels 0 and just below one half
    assert load(encode(pixels), 1, 1)[0, 0, 0] == 0
    assert load(encode(pixels + np.uint16(257)), 1, 1)[0, 0, 0] == 1


@pytest.mark.parametrize("found", [1, 2, 3, 4])
@pytest.mark.parametrize("wanted", [1, 3, 4])
def test_channels_are_converted(found, wanted):
    pixels = noise(8, 8, found)
    grey, alpha = pixels[..., :1], np.full((8, 8, 1), 255, np.uint8)
    colour = np.repeat(grey, 3, -1) if found < 3 else pixels[..., :3]
    expected = {
        1: grey if found < 3 else np.round(pixels[..., :3] @ LUMA)[..., None],
        3: colour,
        4: np.concatenate([colour, pixels[..., -1:] if found in (2, 4) else alpha], -1),
    }[wanted]
    encoded = encode(pixels[..., 0] if found == 1 else pixels)
    np.testing.assert_allclose(load(encoded, 8, 8, wanted), expected, atol=0 if found == wanted or found < 3 else 1)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_graph_gives_images_of_all_kinds_the_same_pixels_as_separate_steps(channels):
    pictures = [noise(9, 7), noise(9, 7, dtype=np.uint16), noise(9, 7, 2), noise(9, 7, 3), noise(9, 7, 4)]
    files = [encode(picture) for picture in pictures] + [encode(noise(9, 7, 3), "JPEG"), encode(noise(9, 7), "JPEG")]
    settings = image_settings(ImageConfig(height=8, width=8, channels=channels))
    graph = tf.function(lambda encoded: preprocessing.images_from_files(encoded, settings))
    np.testing.assert_array_equal(graph(tf.constant(files)), np.stack([load(file, 8, 8, channels) for file in files]))


def test_jpeg_is_decoded_as_exactly_as_by_pillow():
    encoded = encode(noise(40, 30, 3), "JPEG")
    np.testing.assert_array_equal(load(encoded, 40, 30, 3), np.asarray(Image.open(io.BytesIO(encoded))))


@pytest.mark.parametrize("size", [(16, 24), (80, 50)])
def test_stretching_agrees_with_pillow(size):
    pixels = smooth(48, 40)
    expected = np.asarray(Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BILINEAR), int)
    assert np.abs(load(encode(pixels), *size)[..., 0] - expected).max() <= 2


def test_letterbox_keeps_the_aspect_ratio_and_pads_with_black():
    result = load(encode(np.full((20, 40), 200, np.uint8)), 32, 32, resize="letterbox")[..., 0]
    assert (result[8:24] == 200).all()
    assert (result[:8] == 0).all()
    assert (result[24:] == 0).all()


@pytest.mark.case(15)
@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("shape", [(3, 900), (900, 3), (1, 1), (30, 40), (33, 32), (64, 10), (32, 32), (7, 200)])
def test_letterbox_is_that_of_tensorflow_but_leaves_a_thin_image_a_row_or_a_column(shape, antialias):
    pixels = noise(*shape, 3) // 2 + 100
    result = preprocessing.resize_image(tf.constant(pixels), 32, 32, "letterbox", antialias).numpy()
    if max(shape) < 32 * min(shape):
        np.testing.assert_array_equal(result, tf.image.resize_with_pad(pixels, 32, 32, antialias=antialias))
    filled = result.any(axis=-1)
    assert [filled.any(axis=1).sum(), filled.any(axis=0).sum()] == [max(1, 32 * side // max(shape)) for side in shape]


@pytest.mark.parametrize("shape", [(20, 41), (41, 20)])
def test_crop_cuts_the_longer_side_around_the_centre(shape):
    pixels = noise(*shape)
    middle = pixels[:, 10:30] if shape[1] == 41 else pixels[10:30]
    np.testing.assert_array_equal(load(encode(pixels), 20, 20, resize="crop")[..., 0], middle)


def test_antialiasing_averages_what_plain_sampling_would_miss():
    stripes = np.tile(np.array([0, 255], np.uint8), (32, 16))
    averaged = load(encode(stripes), 8, 8, antialias=True)[1:-1, 1:-1]
    assert np.abs(averaged.astype(int) - 127.5).max() < 20


def test_serialised_images_come_back_unchanged():
    images = noise(3, 5, 4, 2)
    parsed = preprocessing.parse_images(preprocessing.serialize_images(tf.constant(images)), (5, 4, 2))
    np.testing.assert_array_equal(parsed, images)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("resize", ["stretch", "letterbox", "crop"])
def test_a_png_of_the_networks_size_is_what_the_network_sees(channels, resize):
    pixels = noise(10, 12, channels)
    file, none = preprocessing.store_image(pixels, "png")
    assert none == b""
    image = image_settings(ImageConfig(height=10, width=12, channels=channels, resize=resize))
    np.testing.assert_array_equal(preprocessing.decode_images(tf.constant([file, file]), (10, 12, channels)), [pixels] * 2)
    np.testing.assert_array_equal(preprocessing.images_from_files(tf.constant([file]), image), [pixels])


@pytest.mark.parametrize("channels", [1, 3])
def test_a_jpeg_of_the_networks_size_is_nearly_what_it_sees_and_the_same_in_analysis_and_training(channels):
    rows, columns = np.mgrid[:40, :48]
    pixels = np.stack([128 + 100 * np.sin(rows / 9 + k) * np.cos(columns / 7) for k in range(channels)], -1).astype(np.uint8)
    file, none = preprocessing.store_image(pixels, "jpeg")
    assert none == b""
    assert len(file) < pixels.size / 2
    decoded = preprocessing.decode_images(tf.constant([file]), (40, 48, channels)).numpy()
    image = image_settings(ImageConfig(height=40, width=48, channels=channels))
    np.testing.assert_array_equal(decoded, preprocessing.images_from_files(tf.constant([file]), image))
    assert 0 < np.abs(decoded[0].astype(int) - pixels).mean() < 2


@pytest.fixture(scope="module")
def transformed(tmp_path_factory):
    pictures = [noise(10, 12, 3) for _ in range(6)]
    rows = [
        {features.ENCODED: [encode(picture)], features.PIXELS: [b""], features.LABEL: [label]}
        for picture, label in zip(pictures, [b"cat", b"big dog", b"cat", b"cat", b"owl", b"big dog"], strict=True)
    ]
    spec = {name: tf.io.FixedLenFeature([1], tf.string) for name in (features.ENCODED, features.PIXELS, features.LABEL)}
    metadata = dataset_metadata.DatasetMetadata(schema_utils.schema_from_feature_spec(spec))
    image = image_settings(ImageConfig(height=10, width=12, channels=3))
    settings = as_dict(TransformSettings(image=image, multi_label=False, code=""))
    with (
        beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner"])) as pipeline,
        tft_beam.Context(temp_dir=str(tmp_path_factory.mktemp("temp"))),
    ):
        raw = pipeline | beam.Create(rows)
        transform = (raw, metadata) | tft_beam.AnalyzeDataset(lambda inputs: preprocessing.preprocessing_fn(inputs, settings))
        folder = str(tmp_path_factory.mktemp("graph") / "out")
        _ = transform | tft_beam.WriteTransformFn(folder)
        _ = metadata | tft_beam.WriteMetadata(f"{folder}/metadata", pipeline)
    return pictures, folder


def test_transform_writes_uint8_pixels_label_indices_and_class_counts(transformed):
    pictures, folder = transformed
    output = tft.TFTransformOutput(folder)
    assert output.vocabulary_by_name(features.LABEL_VOCABULARY) == [b"cat", b"big dog", b"owl"]
    assert training.read_class_counts(output) == [3, 2, 1]
    layer = output.transform_features_layer()
    result = layer(
        {
            features.ENCODED: tf.constant([[encode(picture)] for picture in pictures]),
            features.PIXELS: tf.constant([[b""]] * 6),
            features.LABEL: tf.constant([[b"owl"], [b"cat"], [b"big dog"], [b"cat"], [b"yak"], [b"owl"]]),
        }
    )
    parsed = preprocessing.parse_images(result[features.IMAGE], (10, 12, 3))
    np.testing.assert_array_equal(parsed, pictures)
    assert result[features.LABEL_INDEX].numpy().tolist() == [2, 0, 1, 0, -1, 2]


def test_positions_become_vectors_with_a_one_for_each():
    ragged = tf.ragged.constant([[2, 0], [], [-1], [1, -1]], tf.int64)
    expected = [[1, 0, 1], [0, 0, 0], [0, 0, 0], [0, 1, 0]]
    assert preprocessing.multi_hot(ragged.to_sparse(), 3).numpy().tolist() == expected
    none = tf.ragged.constant([[], []], tf.int64, ragged_rank=1)
    assert preprocessing.multi_hot(none.to_sparse(), 3).numpy().tolist() == [[0, 0, 0], [0, 0, 0]]


def test_analyzers_see_every_pixel_of_the_training_split(transformed):
    pictures, folder = transformed
    found = training.read_statistics(tft.TFTransformOutput(folder))
    pixels = np.stack(pictures).astype(np.float64)
    np.testing.assert_allclose(found[features.CHANNEL_MEAN], pixels.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(found[features.CHANNEL_VARIANCE], pixels.var((0, 1, 2)), rtol=1e-4)
    assert found[features.TRAIN_EXAMPLES] == 6
