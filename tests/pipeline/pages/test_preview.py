"""`fpn preview`: the picture and its mistakes."""

import itertools

import numpy as np
import pytest
import yaml
from PIL import Image

RED, BLUE = (200, 0, 0), (0, 0, 200)
VERSIONS = 7


@pytest.fixture
def place(tmp_path):
    """Images whose left half is red and whose right half is blue; most files of the class cat are damaged."""
    image = Image.new("RGB", (16, 16), RED)
    image.paste(BLUE, (8, 0, 16, 16))
    for split, label, number in itertools.product(("train", "val", "test"), ("cat", "dog"), range(6)):
        path = tmp_path / "data" / split / label / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
        if label == "cat" and number:
            path.write_bytes(b"damaged")
    config = {
        "name": "trial",
        "data": {"path": str(tmp_path / "data")},
        "image": {"height": 16, "width": 16, "channels": 3},
        "augment": {"flip": "horizontal", "mixup": 0.3},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    return tmp_path


def test_each_row_shows_an_image_and_versions_of_it(place, fpn):
    output = place / "new" / "picture.png"
    ended = fpn("preview", "--config", place / "config.yaml", "--set", "augment.mixup=0", "--examples", 3, "--output", output)
    assert ended.status == 0, ended.stderr
    assert ended.stdout.strip() == str(output)
    assert [path.name for path in output.parent.iterdir()] == ["picture.png"]

    pixels = np.asarray(Image.open(output)).astype(int)
    red, blue = ((abs(pixels - colour).max(axis=-1) == 0) for colour in (RED, BLUE))
    inside = red | blue
    rows = runs(inside.any(axis=1))
    assert len(rows) == 3
    for top, bottom in rows:
        tiles = runs(inside[top])
        assert len(tiles) == 1 + VERSIONS
        for left, right in tiles:
            assert right - left == bottom - top >= 100  # enlarged for a person to see
            middle = (left + right) // 2
            as_it_was = red[top:bottom, left:middle].all() and blue[top:bottom, middle:right].all()
            mirrored = blue[top:bottom, left:middle].all() and red[top:bottom, middle:right].all()
            assert as_it_was or (mirrored and left != tiles[0][0])
    assert blue[rows[0][0] : rows[-1][1]][:, [left for left, _ in runs(inside[rows[0][0]])]].any()  # some are mirrored


def runs(mask):
    """Where each run of true values begins and ends."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(int), [0]])))
    return list(zip(edges[::2], edges[1::2], strict=True))


@pytest.mark.parametrize(
    ("arguments", "texts"),
    [
        (["--set", "augment.flipp=both"], ["augment.flipp: unknown key; did you mean augment.flip?"]),
        (["--data", "absent"], ["absent: no such folder", "data.path"]),
        (["--examples", "0"], ["--examples 0: give 1 or more"]),
    ],
)
def test_a_mistake_is_told_with_its_cure(place, fpn, arguments, texts):
    ended = fpn("preview", "--config", place / "config.yaml", "--output", place / "picture.png", *arguments)
    assert ended.status == 2
    for text in texts:
        assert text in ended.stderr
    assert len(ended.stderr.splitlines()) <= 2
    assert not (place / "picture.png").exists()


def test_a_place_that_can_not_be_written_is_told(place):
    from base.errors import UserError
    from pipeline.pages import preview

    with pytest.raises(UserError, match=r"picture\.png: can't be written .*--output"):
        preview._write(Image.new("RGB", (4, 4)), place / "config.yaml" / "picture.png")


def test_mixed_labels_are_told_in_shares():
    from pipeline.pages.preview import _shares

    assert _shares(np.array([0.28, 0.0, 0.72]), ["cat", "bird", "dog"]) == ["dog: 72 %", "cat: 28 %"]
    assert _shares(np.array([0.0, 1.0, 0.0]), ["cat", "bird", "dog"]) == ["bird: 100 %"]
