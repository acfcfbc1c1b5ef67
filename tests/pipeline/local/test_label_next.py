"""`fpn label-next`: a list of images to label, which comes back as data from labelling tools and from a spreadsheet."""

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from data_folders import settings
from pages import Page
from PIL import Image
from rich.console import Console

from base.errors import UserError
from evaluation.selection import uncertainty
from images.dataset import source
from pipeline.config.loading import load_config
from pipeline.local.label_next import answers_without_abstaining, label_next
from pipeline.pushed.embeddings import read_embedded

CHOSEN = 6
LABELS = ["cat", "dog", "owl"]


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """Forty pictures without labels, in folders whose names need quoting in a URL."""
    folder = tmp_path_factory.mktemp("pool")
    generator = np.random.default_rng(4)
    (folder / "day 1 & 2").mkdir()
    for number in range(40):
        picture = generator.integers(0, 256, (24, 20 + number % 3), dtype=np.uint8)
        Image.fromarray(picture).save(folder / "day 1 & 2" / f"{number:02d}.png")
    return folder


@pytest.fixture(scope="module")
def chosen(exported, pool, tmp_path_factory):
    output = tmp_path_factory.mktemp("next") / "next.csv"
    result = label_next(load_config(None, str(pool), ["score.embeddings=true"]), Path(exported.path), CHOSEN, output, quiet())
    return output, result


def quiet():
    return Console(quiet=True)


def test_the_list_has_unsure_images_the_least_sure_first(chosen):
    output, result = chosen
    table = pd.read_csv(output, keep_default_na=False)
    embedded = read_embedded(output.with_suffix(".scores"))
    doubt = pd.Series(uncertainty(embedded.probabilities, False), embedded.rows["path"])
    assert (result.images, result.unlabelled, result.chosen) == (40, 40, CHOSEN)
    assert table["path"].nunique() == CHOSEN
    assert table["label"].tolist() == [""] * CHOSEN
    np.testing.assert_allclose(table["uncertainty"], doubt[table["path"]], atol=1e-4)
    assert table["uncertainty"].is_monotonic_decreasing
    page = Page(Path(result.files["page"]).read_text())
    assert all(path in page.text for path in table["path"])
    assert len(page.images) == CHOSEN


def again(exported, pool, output, **options):
    return label_next(
        load_config(None, str(pool), ["score.embeddings=true"]), Path(exported.path), CHOSEN, output, quiet(), **options
    )


def test_labels_that_are_filled_in_are_not_lost(exported, pool, tmp_path):
    output = tmp_path / "next.csv"
    again(exported, pool, output)
    again(exported, pool, output)  # nothing is filled in yet
    table = pd.read_csv(output, keep_default_na=False)
    table.loc[1, "label"] = "cat"
    table.to_csv(output, index=False)
    before = output.read_bytes()
    with pytest.raises(UserError, match="has 1 labels already; give another --output, or --overwrite"):
        again(exported, pool, output)
    table.to_csv(output, index=False, sep=";")  # as a spreadsheet may save it
    with pytest.raises(UserError, match="is another table, or was changed"):
        again(exported, pool, output)
    output.write_bytes(before)
    again(exported, pool, output, overwrite=True)
    assert pd.read_csv(output, keep_default_na=False)["label"].tolist() == [""] * CHOSEN


def test_what_can_t_be_written_is_told_with_the_cure(exported, pool, tmp_path):
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(UserError, match=r"folder.csv: is a folder; give the name of a table"):
        again(exported, pool, tmp_path / "folder.csv")
    (tmp_path / "next.html").mkdir()
    with pytest.raises(UserError, match=r"next.html: can't be written \(Is a directory\); give another --output"):
        again(exported, pool, tmp_path / "next.csv")
    assert not (tmp_path / "next.csv").exists()


def test_files_without_an_answer_are_counted(exported, pool, tmp_path):
    (tmp_path / "data").mkdir()
    for number, file in enumerate(exported.files):
        (tmp_path / "data" / f"{number}.png").write_bytes(file)
    (tmp_path / "data" / "broken.png").write_bytes(exported.files[0][:-30])
    assert again(exported, tmp_path / "data", tmp_path / "next.csv").rejected == 1
    for number in range(7):
        (tmp_path / "data" / f"{number}.png").unlink()
    with pytest.raises(UserError, match="no image can be used"):
        again(exported, tmp_path / "data", tmp_path / "none.csv")


def labels_of(pool, **changes):
    found = source.find_rows(str(pool), settings(**changes))
    return {row.path: row.label for row in found.rows if not row.reason}


def test_what_label_studio_makes_of_its_tasks_is_read_as_data(chosen, pool):
    """Accepting a suggestion copies its result into an annotation."""
    _, result = chosen
    tasks = json.loads(Path(result.files["label_studio"]).read_text())
    expected = {}
    for number, task in enumerate(tasks):
        (prediction,) = task["predictions"]
        assert prediction["result"][0]["value"]["choices"][0] in LABELS
        label = LABELS[number % 3]
        answer = {**prediction["result"][0], "value": {"choices": [label]}}
        task["annotations"] = [{"id": number, "was_cancelled": False, "ground_truth": False, "result": [answer]}]
        path = task["data"]["image"].partition("?d=")[2].replace("%20", " ").replace("%26", "&")
        assert path.startswith(f"{pool.name}/")  # Label Studio's storage is the folder around
        expected[path.partition("/")[2]] = label
    (pool / "export.json").write_text(json.dumps(tasks))
    try:
        assert labels_of(pool, manifest="export.json") == expected
    finally:
        (pool / "export.json").unlink()
    interface = ElementTree.parse(result.files["label_studio_interface"]).getroot()
    assert [choice.get("value") for choice in interface.iter("Choice")] == LABELS
    assert interface.find("Choices").get("choice") == "single"
    assert interface.find("Choices").get("name") == prediction["result"][0]["from_name"]


def test_cvat_file_with_the_suggestions_is_read_as_data(chosen, pool):
    output, result = chosen
    table = pd.read_csv(output)
    (pool / "annotations.xml").write_text(Path(result.files["cvat"]).read_text())
    try:
        found = labels_of(pool, manifest="annotations.xml")
    finally:
        (pool / "annotations.xml").unlink()
    assert found == dict(zip(table["path"], table["suggested"], strict=True))
    image = ElementTree.parse(result.files["cvat"]).getroot().find("image")
    with Image.open(pool / image.get("name")) as picture:
        assert (int(image.get("width")), int(image.get("height"))) == picture.size


@pytest.mark.parametrize(("multi_label", "expected"), [(False, ["owl", "dog"]), (True, ["cat|owl", ""])])
def test_where_the_model_abstains_its_likely_answer_is_suggested(chosen, multi_label, expected):
    probabilities = np.array([[0.1, 0.4, 0.2], [0.6, 0.2, 0.9]], np.float32)
    embedded = replace(read_embedded(chosen[0].with_suffix(".scores")), probabilities=probabilities, multi_label=multi_label)
    assert answers_without_abstaining(embedded, np.array([1, 0])) == expected


def test_the_list_itself_is_a_manifest_once_its_labels_are_filled_in(chosen, pool):
    table = pd.read_csv(chosen[0], keep_default_na=False)
    table["label"] = [LABELS[number % 3] for number in range(CHOSEN)]
    table.to_csv(pool / "next.csv", index=False)
    try:
        assert labels_of(pool, manifest="next.csv") == dict(zip(table["path"], table["label"], strict=True))
    finally:
        (pool / "next.csv").unlink()


def test_images_that_have_a_label_are_not_chosen(exported, pool, tmp_path):
    for label in ("cat", "dog"):
        (tmp_path / "data" / label).mkdir(parents=True)
        (tmp_path / "data" / label / "1.png").write_bytes(exported.files[0])
    with pytest.raises(
        UserError, match="all images have a label, by their folders or a table; give a folder of images without"
    ):
        label_next(
            load_config(None, str(tmp_path / "data"), ["score.embeddings=true"]),
            Path(exported.path),
            1,
            tmp_path / "next.csv",
            quiet(),
        )
