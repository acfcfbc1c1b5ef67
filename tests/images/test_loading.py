"""The pixels of ingestion's one decode, against Transform's and the exported model's own."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft
from corpus import GREY, GREY_16, RGB, RGBA, save, tiff
from executors import SETTINGS, read_values

from images.dataset.row import Row
from images.files.decoding import RejectedImage
from images.loading import Decoder, Loader
from models import features
from models.preprocessing import parse_images
from pipeline.config.data import ImageConfig
from pipeline.dag.component_settings import image_settings

IMAGE = image_settings(ImageConfig(height=24, width=20, channels=1))  # of the fixture `exported`
FILES = {
    "JPEG": save(RGB, "JPEG"),
    "PNG": save(RGBA, "PNG"),
    "PNG of 16 bits": save(GREY_16, "PNG"),
}


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    return Decoder(IMAGE)


@pytest.mark.parametrize("name", FILES)
def test_pixels_are_those_that_transform_and_the_exported_model_decode(name: str, decoder: Decoder, exported) -> None:
    (decoded,) = decoder.decode([FILES[name]])
    layer = tft.TFTransformOutput(str(Path(exported.path).parent / "transform")).transform_features_layer()
    for pixels in (b"", decoded.pixels.tobytes()):
        raw = {features.ENCODED: FILES[name], features.PIXELS: pixels, features.LABEL: b"cat"}
        (result,) = layer({key: tf.constant([[value]]) for key, value in raw.items()})[features.IMAGE].numpy()
        assert result == decoded.pixels.tobytes()
        np.testing.assert_array_equal(parse_images(tf.constant([result]), (24, 20, 1))[0], decoded.pixels)
    explain = tf.saved_model.load(exported.path).signatures["explain"]
    served = explain(image_bytes=tf.constant([FILES[name]]), label=tf.constant([""]))["images"]
    np.testing.assert_array_equal(served[0], decoded.pixels)


def test_a_damaged_file_does_not_cost_the_others_of_its_batch(decoder: Decoder) -> None:
    whole, cut, other = decoder.decode([FILES["JPEG"], FILES["PNG"][:-40], FILES["PNG of 16 bits"]])
    assert isinstance(cut, RejectedImage)
    for found, name in ((whole, "JPEG"), (other, "PNG of 16 bits")):
        np.testing.assert_array_equal(found.pixels, decoder.decode([FILES[name]])[0].pixels)
        np.testing.assert_array_equal(found.summaries, decoder.decode([FILES[name]])[0].summaries)


@pytest.mark.case(15)
def test_a_thin_image_is_taken_into_a_letterbox(tmp_path: Path) -> None:
    (tmp_path / "thin.png").write_bytes(save(np.full((3, 900), 200, np.uint8), "PNG"))
    image = replace(IMAGE, height=32, width=32, resize="letterbox")
    ((found, examples),) = Loader(str(tmp_path), replace(SETTINGS, image=image)).load([Row("thin.png", ("cat",), "a", "train")])
    assert (found.reason, found.height, found.width) == ("", 3, 900)
    assert examples
    assert examples.decoded
    (pixels,) = read_values(examples.decoded)[features.PIXELS]
    seen = np.frombuffer(pixels, np.uint8).reshape(32, 32)
    assert (seen.any(axis=1).sum(), seen.max()) == (1, 200)


@pytest.mark.case(25)
def test_missing_pages_are_set_aside_with_their_numbers_beside_those_that_are_there(tmp_path: Path) -> None:
    whole = tiff(GREY, GREY, GREY, GREY, GREY, GREY)
    (tmp_path / "cut.tif").write_bytes(whole[: len(whole) // 6 + 30])
    loaded = list(
        Loader(str(tmp_path), replace(SETTINGS, pages="all", image=IMAGE)).load([Row("cut.tif", ("cat",), "a", "train")])
    )
    assert [(found.path, found.reason, examples is None) for found, examples in loaded] == [
        ("cut.tif", "", False),
        ("cut.tif#1", "damaged: page 2 and all after it are missing", True),
    ]
    assert loaded[1][0].kind == "damaged"


def test_pages_are_images_of_their_own_with_their_numbers_in_the_name(tmp_path: Path) -> None:
    (tmp_path / "pages.tif").write_bytes(tiff(GREY, 255 - GREY, GREY))
    (tmp_path / "one.png").write_bytes(save(GREY, "PNG"))
    rows = [Row(path, ("cat",), path, "train") for path in ("pages.tif", "one.png")]
    loaded = list(Loader(str(tmp_path), replace(SETTINGS, pages="all", image=IMAGE)).load(rows))
    assert [found.path for found, _ in loaded] == ["pages.tif", "pages.tif#1", "pages.tif#2", "one.png"]
    assert {found.group for found, _ in loaded[:3]} == {"pages.tif"}
    pixels = []
    for found, examples in loaded:
        assert examples
        assert examples.decoded
        whole, decoded = map(read_values, (examples.whole, examples.decoded))
        assert whole[features.FILENAME] == [found.path.encode()]
        assert whole[features.PIXELS] == decoded.pop(features.ENCODED) == [b""]
        assert whole[features.ENCODED] != [b""]
        pixels += decoded.pop(features.PIXELS)
        assert decoded == {name: whole[name] for name in (features.LABEL, features.GROUP)}
    assert pixels[0] == pixels[2] == pixels[3] != pixels[1]
