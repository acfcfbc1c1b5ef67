"""`fpn similar`: the nearest images of an embedded data set."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from base.errors import UserError
from pipeline.config.loading import load_config
from pipeline.pushed.embeddings import read_embedded
from pipeline.pushed.scoring import score
from pipeline.pushed.similar import find_similar


@pytest.fixture(scope="module")
def scored(exported, tmp_path_factory):
    """Folders of seven pictures and of the answers to them, in three shards."""
    folder = tmp_path_factory.mktemp("similar")
    (folder / "data").mkdir()
    for number, file in enumerate(exported.files):
        (folder / "data" / f"{number}.png").write_bytes(file)
    config = load_config(None, str(folder / "data"), ["score.shard_images=3", "score.embeddings=true"])
    score(config, Path(exported.path), str(folder / "out"), Console(quiet=True))
    return folder


def test_an_image_of_the_data_set_is_not_its_own_neighbour_and_another_file_finds_it(scored, tmp_path):
    embedded = read_embedded(scored / "out")
    (tmp_path / "copy.png").write_bytes((scored / "data" / "2.png").read_bytes())
    (tmp_path / "broken.png").write_bytes(b"no image")
    found, failures = find_similar(embedded, ["2.png", str(tmp_path / "copy.png"), str(tmp_path / "broken.png")], 3)
    own = embedded.rows.index[embedded.rows["path"] == "2.png"][0]
    cosines = embedded.vectors @ embedded.vectors[own]
    order = [place for place in np.argsort(-cosines, kind="stable") if place != own][:3]
    assert [item.path for item in found["2.png"]] == embedded.rows["path"].iloc[order].tolist()
    assert [item.cosine for item in found["2.png"]] == pytest.approx(cosines[order], abs=1e-5)
    (first, *_) = found[str(tmp_path / "copy.png")]
    assert (first.path, first.cosine) == ("2.png", pytest.approx(1, abs=1e-5))
    assert [(failure.image.name, failure.reason) for failure in failures] == [("broken.png", "not an image")]


def test_a_file_that_can_t_be_decoded_costs_no_other_its_answer(exported, scored, tmp_path, monkeypatch):
    (tmp_path / "cut.png").write_bytes(exported.files[0][:-30])
    (tmp_path / "2.png").write_bytes((scored / "data" / "2.png").read_bytes())
    monkeypatch.chdir(tmp_path)
    found, failures = find_similar(read_embedded(scored / "out"), [str(tmp_path / "cut.png"), "./2.png", "3.png"], 2)
    assert list(found) == ["3.png", "2.png"]
    assert found["2.png"][0].path == "2.png"  # the file is not the image of the data set that has its name
    assert [failure.image.name for failure in failures] == ["cut.png"]


def test_the_folder_can_be_read_from_anywhere(exported, scored, tmp_path, monkeypatch):
    monkeypatch.chdir(scored)
    config = load_config(None, "data", ["score.embeddings=true"])
    score(config, Path(os.path.relpath(exported.path)), str(tmp_path / "out"), Console(quiet=True))
    monkeypatch.chdir(tmp_path)
    embedded = read_embedded(Path("out"))
    assert (embedded.data, embedded.model) == (str(scored / "data"), Path(exported.path))


@pytest.mark.parametrize(
    ("name", "content"),
    [("summary.json", "{}"), ("job.json", "{}"), ("job.json", None), ("scores/part-00001-of-00003.parquet", None)],
)
def test_a_damaged_folder_is_told_with_the_cure(scored, tmp_path, name, content):
    shutil.copytree(scored / "out", tmp_path / "out")
    (tmp_path / "out" / name).unlink()
    if content:
        (tmp_path / "out" / name).write_text(content)
    with pytest.raises(UserError, match=r"run fpn score|has not finished here; give the folder of its --output"):
        read_embedded(tmp_path / "out")


def test_answers_without_embeddings_are_refused_with_the_cure(exported, scored, tmp_path):
    with pytest.raises(UserError, match="fpn score has not finished here"):
        read_embedded(scored / "data")
    config = load_config(None, str(scored / "data"), [])
    score(config, Path(exported.path), str(tmp_path / "plain"), Console(quiet=True))
    with pytest.raises(UserError, match="run fpn score with --embeddings and --overwrite"):
        read_embedded(tmp_path / "plain")
    part = next((scored / "out" / "scores").glob("part-*.parquet"))
    content = part.read_bytes()
    part.write_bytes(content[: len(content) // 2])
    try:
        with pytest.raises(UserError, match="is damaged"):
            read_embedded(scored / "out")
    finally:
        part.write_bytes(content)
