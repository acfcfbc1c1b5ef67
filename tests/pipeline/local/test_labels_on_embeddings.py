"""`fpn labels --scores`: wrong labels by linear models on what `fpn score --embeddings` has written."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from rich.console import Console

from base.errors import UserError
from pipeline.config.loading import load_config
from pipeline.local.labels import CORRECTIONS, PAGE, TABLE, run_on_embeddings
from pipeline.pushed.scoring import score

# By the folder that the image is in. How many of them are found depends on the random weights of the exported network: the
# fewer there are, the less sure it is.
SWAPPED = {"cat": [f"dog_{number}.png" for number in range(1, 9)], "dog": [f"cat_{number}.png" for number in range(1, 9)]}


def picture(label: str, generator: np.random.Generator) -> bytes:
    """Dark or bright, with some noise."""
    pixels = generator.integers(0, 40, (24, 20)) + (20 if label == "cat" else 190)
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def place(exported, tmp_path_factory):
    """Folders of images, of which some are in the wrong class, and of the answers to them."""
    folder = tmp_path_factory.mktemp("labels")
    generator = np.random.default_rng(0)
    swapped = {name: label for label, names in SWAPPED.items() for name in names}
    for label in ("cat", "dog"):
        (folder / "data" / label).mkdir(parents=True)
    for label in ("cat", "dog"):
        for number in range(40):
            name = f"{label}_{number}.png"
            (folder / "data" / swapped.get(name, label) / name).write_bytes(picture(label, generator))
    config = load_config(None, str(folder / "data"), ["score.embeddings=true"])
    score(config, Path(exported.path), str(folder / "scores"), Console(quiet=True))
    return folder


def test_images_in_the_wrong_class_are_found_without_a_training(place):
    result = run_on_embeddings(load_config(None, str(place / "data"), []), place / "scores", folds=5)
    table = pd.read_csv(place / "scores" / TABLE)
    wrong = {f"{label}/{name}" for label, names in SWAPPED.items() for name in names}
    found = wrong & set(table["path"])
    assert len(found) > len(wrong) / 2
    assert (result.images, result.issues) == (80, len(table))
    assert result.crossval is None
    corrections = pd.read_csv(place / "scores" / CORRECTIONS).set_index("path")
    assert all(corrections.loc[path, "label"] == path.split("/")[1].split("_")[0] for path in found)
    assert all(path in (place / "scores" / PAGE).read_text() for path in found)


def test_answers_to_other_data_are_refused(place, tmp_path):
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "1.png").write_bytes(picture(label, np.random.default_rng(0)))
    with pytest.raises(UserError, match=r"has answers to .*data, and data.path is"):
        run_on_embeddings(load_config(None, str(tmp_path), []), place / "scores", folds=5)
    with pytest.raises(UserError, match="give 2 or more"):
        run_on_embeddings(load_config(None, str(place / "data"), []), place / "scores", folds=1)
    with pytest.raises(UserError, match="too few classes have labelled images of 81 groups or more; give fewer --folds"):
        run_on_embeddings(load_config(None, str(place / "data"), []), place / "scores", folds=81)
