"""Explanations are drawn so that a person sees them, and told by `fpn explain` from the pushed model alone."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from base.errors import UserError
from pipeline.pushed.explanation import Explanation, draw, explain, write_overlay
from pipeline.pushed.overlay import colours

HEAT = np.zeros((2, 4, 4), np.float32)
HEAT[0, 0, 0] = 1  # P3 sees all of it in the corner at the top left, P4 nothing
EXPLANATION = Explanation(
    image=Path("cat.png"),
    label="cat",
    explained="cat",
    probabilities={"cat": 0.75, "dog": 0.25},
    shares={"P3": 0.9, "P4": -0.1},
    pixels=np.full((32, 64, 1), 100, np.uint8),
    maps=HEAT,
    combined=HEAT[0],
)


def panels(picture, count, height, width):
    return [np.asarray(picture)[38 : 38 + height, 10 + i * (width + 10) : 10 + i * (width + 10) + width] for i in range(count)]


def test_the_colour_map_gets_steadily_lighter():
    lightness = colours(np.linspace(0, 1, 256)) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(lightness) > 0).all()
    assert lightness[0] < 2
    assert lightness[-1] > 230


def test_heat_is_drawn_where_it_is_and_the_rest_of_the_picture_stays():
    image, combined, fine, coarse = panels(draw(EXPLANATION), 4, height=128, width=256)
    assert (image == 100).all()
    assert (coarse == 100).all()
    for panel in (combined, fine):
        assert (panel[96:, 128:] == 100).all()
        assert panel[:8, :8, 0].min() > 200  # the brightest colour
        np.testing.assert_array_equal(panel, combined)


@pytest.mark.parametrize(
    ("size", "shown"),
    [((32, 64), (128, 256)), ((300, 200), (300, 200)), ((100, 96), (300, 288)), ((1024, 512), (512, 256))],
)
def test_small_images_are_enlarged_by_whole_numbers_and_large_ones_fit(size, shown):
    one_level = replace(EXPLANATION, pixels=np.zeros((*size, 3), np.uint8), shares={"C5": 1.0}, maps=HEAT[:1])
    picture = draw(one_level)
    assert picture.height - 38 - 35 == shown[0]  # below the title, above the captions
    assert picture.width >= 2 * shown[1] + 30
    assert all((panel[-1] == 0).all() for panel in panels(picture, 2, *shown))


def test_an_overlay_replaces_that_of_the_same_image_only(tmp_path):
    first = write_overlay(EXPLANATION, tmp_path)
    other_class = write_overlay(replace(EXPLANATION, explained="dog"), tmp_path)
    elsewhere = write_overlay(replace(EXPLANATION, image=Path("other/cat.png")), tmp_path)
    assert write_overlay(EXPLANATION, tmp_path) == first
    assert [path.name for path in (first, other_class, elsewhere)] == ["cat.png", "cat-2.png", "cat-3.png"]
    (tmp_path / "dog.png").write_text("not a picture")
    assert write_overlay(replace(EXPLANATION, image=Path("dog.png")), tmp_path).name == "dog-2.png"
    assert len(list(tmp_path.iterdir())) == 5


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file: .*; give another folder with --output"):
        write_overlay(EXPLANATION, tmp_path / "file")


def test_a_model_without_the_signature_is_told_to_be_made_again(tmp_path):
    model = tf.Module()
    model.serve = tf.function(lambda image_bytes: {"labels": image_bytes}, [tf.TensorSpec([None], tf.string)])
    tf.saved_model.save(model, str(tmp_path / "1"), signatures={"serving_default": model.serve})
    Image.new("L", (4, 4)).save(tmp_path / "image.png")
    with pytest.raises(UserError, match="exported before models could explain themselves; run the pipeline again"):
        list(explain(tmp_path, [tmp_path / "image.png"])[0])


def test_a_class_that_the_model_does_not_know_is_refused_with_those_that_it_knows(exported, tmp_path):
    (tmp_path / "image.png").write_bytes(exported.files[0])
    with pytest.raises(UserError, match="--label yak: the model knows cat, dog, owl"):
        list(explain(Path(exported.path), [tmp_path / "image.png"], "yak")[0])


def test_the_command_writes_an_overlay_of_each_image_and_tells_the_shares(exported, fpn, tmp_path):
    paths = []
    for index, name in enumerate(("a/1.png", "b/1.png")):
        path = tmp_path / name
        path.parent.mkdir()
        path.write_bytes(exported.files[index])
        paths.append(path)
    ended = fpn("explain", "--model", exported.path, "--output", tmp_path / "out", "--label", "owl", "--json", *paths)
    assert ended.status == 0, ended.stderr
    explanations = ended.json["explanations"]
    assert [item["image"] for item in explanations] == [str(path) for path in paths]
    assert [Path(item["overlay"]).name for item in explanations] == ["1.png", "1-2.png"]
    for item, probabilities in zip(explanations, exported.probabilities, strict=False):
        assert item["explained"] == "owl"
        assert item["label"] == exported.names[probabilities.argmax()].decode()
        assert list(item["probabilities"].values()) == pytest.approx(probabilities.tolist(), abs=1e-5)
        assert list(item["shares"]) == ["P2", "P3", "P4"]
        assert sum(abs(share) for share in item["shares"].values()) == pytest.approx(1, abs=1e-5)
        # 20x24 pixels are shown 11 times as large, in five panels.
        with Image.open(item["overlay"]) as picture:
            assert picture.size == (10 + 5 * (220 + 10), 38 + 264 + 35)
        for share in item["shares"].values():
            assert f"{share:+.0%}".replace("%", " %") in ended.stdout
    assert "P2" in ended.stdout
