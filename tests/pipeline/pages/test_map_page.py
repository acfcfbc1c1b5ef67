"""The map of a data set: points, pictures and tables, in a real browser."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pages import Page
from PIL import Image

from base.errors import UserError
from images.file_settings import FileSettings
from pipeline.local.dataset_map import OUTLIERS, PAGE, PAIRS, MapResult, write_map
from pipeline.pushed.embeddings import Embedded

NUMBER = 60
CLASSES = ["<i>cat", "dog"]


def make_embedded(folder: Path) -> Embedded:
    """Images of two classes, 24 x 16 pixels; the last is a copy of the first, and has another class."""
    generator = np.random.default_rng(0)
    codes = np.arange(NUMBER) % 2
    vectors = np.eye(16)[codes] + 0.1 * generator.normal(size=(NUMBER, 16))
    vectors[-1] = vectors[0] + 1e-4
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    for number in range(NUMBER):
        Image.fromarray(generator.integers(0, 256, (16, 24), dtype=np.uint8)).save(folder / f"{number:02d}.png")
    truths = [CLASSES[code] for code in codes]
    answers = list(truths)
    answers[5], truths[7] = CLASSES[0], None
    rows = pd.DataFrame(
        {
            "path": [f"{number:02d}.png" for number in range(NUMBER)],
            "group": "",
            "label": answers,
            "probability": generator.uniform(0.5, 1, NUMBER).astype(np.float32),
            "true_label": truths,
        }
    )
    settings = FileSettings(max_pixels=10**6, pages="first", intensity="type", window=None)
    shares = np.full((NUMBER, 2), 0.5, np.float32)
    return Embedded(rows, vectors.astype(np.float32), shares, CLASSES, False, str(folder), Path("pushed/1"), settings)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, MapResult]:
    folder = tmp_path_factory.mktemp("map")
    (folder / "data").mkdir()
    return folder / "out", write_map(make_embedded(folder / "data"), folder / "out", most=50)


def test_the_tables_and_the_page_have_what_was_found(made: tuple[Path, MapResult]) -> None:
    output, result = made
    assert (result.images, result.shown) == (NUMBER, 50)
    pairs = pd.read_csv(output / PAIRS)
    assert pairs.loc[0, ["path_a", "path_b", "label_a", "label_b"]].tolist() == ["00.png", "59.png", "<i>cat", "dog"]
    assert len(pairs) == result.pairs
    assert pd.read_csv(output / OUTLIERS)["path"].tolist()[0] == "59.png"
    page = Page((output / PAGE).read_text())
    assert "different classes, cosine" in " ".join(page.text.split())
    points = json.loads((output / PAGE).read_text().split('id="points">')[1].split("</script>")[0])
    assert sorted(points["colours"]) == ["answer", "class", "right or wrong"]
    assert len(points["path"]) == 50
    assert min(map(min, (points["x"], points["y"]))) == 0
    assert max(map(max, (points["x"], points["y"]))) == 4095
    known = {"right": [], "wrong": [], None: []}
    names = points["colours"]["right or wrong"]["names"]
    for path, code in zip(points["path"], points["colours"]["right or wrong"]["of"], strict=True):
        known[names[code] if code >= 0 else None].append(path)
    assert set(known["wrong"]) <= {"05.png"}
    assert set(known[None]) <= {"07.png"}
    assert all(number not in near for number, near in enumerate(points["near"]))


@pytest.mark.parametrize(("classes", "names"), [(CLASSES, ["not answered", "right"]), (["<i>cat", "unknown"], ["right"])])
def test_unknown_is_no_answer_unless_a_class_is_named_so(tmp_path: Path, classes: list[str], names: list[str]) -> None:
    embedded = make_embedded(tmp_path)
    rows = embedded.rows.assign(label=embedded.rows["true_label"].replace("dog", "unknown"))
    rows["true_label"] = rows["label"].where(rows["label"] != "unknown", classes[1])
    write_map(replace(embedded, rows=rows, classes=classes), tmp_path / "out", most=50)
    points = json.loads((tmp_path / "out" / PAGE).read_text().split('id="points">')[1].split("</script>")[0])
    assert points["colours"]["right or wrong"]["names"] == names


def test_a_map_needs_images(tmp_path: Path) -> None:
    embedded = make_embedded(tmp_path)
    few = Embedded(**{**vars(embedded), "rows": embedded.rows.head(3), "vectors": embedded.vectors[:3]})
    with pytest.raises(UserError, match="has 3 images; a map needs 10 or more"):
        write_map(few, tmp_path / "out", most=50)


def test_a_folder_that_can_t_be_written_is_told_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file: can't be written \(File exists\); give another --output"):
        write_map(make_embedded(tmp_path), tmp_path / "file", most=50)


@pytest.fixture
def window(browser: Any, made: tuple[Path, MapResult]) -> Iterator[Any]:
    opened = browser.new_page(viewport={"width": 1280, "height": 900})
    opened.set_default_timeout(5000)
    complaints: list[str] = []
    opened.on("console", lambda message: complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.goto((made[0] / PAGE).as_uri())
    yield opened
    assert complaints == []
    opened.close()


def test_a_point_that_is_clicked_shows_its_image(window: Any) -> None:
    place = window.evaluate(
        """() => {
            const box = canvas.getBoundingClientRect(), [x, y] = place(0);
            return [box.left + x * box.width / canvas.width, box.top + y * box.height / canvas.height, points.path[0]];
        }"""
    )
    window.mouse.click(place[0], place[1])
    chosen = window.locator("#chosen")
    assert chosen.locator("dd").first.inner_text() == place[2]
    assert chosen.locator(".near button").count() == 5
    neighbour = chosen.locator(".near button").first.get_attribute("title")
    chosen.locator(".near button").first.click()
    assert chosen.locator("dd").first.inner_text() == neighbour


def test_keyboard_and_screen_reader_have_a_table(window: Any) -> None:
    assert window.get_by_role("status").inner_text() == "1 to 25 of 50"
    window.get_by_role("button", name="Next").press("Enter")
    assert window.get_by_role("status").inner_text() == "26 to 50 of 50"
    name, code = window.evaluate("[points.path[30], points.colours.answer.of[30]]")
    window.get_by_label("Name contains").fill(name.upper())
    button = window.locator("#rows button")
    assert button.count() == 1
    button.press("Enter")
    told = dict(zip(*(window.locator(f"#chosen {part}").all_inner_texts() for part in ("dt", "dd")), strict=True))
    assert (told["Image"], told["Answer"]) == (name, CLASSES[code])


def test_the_legend_hides_and_shows(window: Any) -> None:
    whole = window.evaluate("canvas.toDataURL()")
    window.get_by_label("Colour by").select_option("answer")
    for button in window.locator("#legend button").all():
        button.press("Enter")
        assert button.get_attribute("aria-pressed") == "false"
    assert window.get_by_role("status").inner_text() == "none"
    window.wait_for_function("before => canvas.toDataURL() !== before", arg=whole)
    empty = window.evaluate("canvas.toDataURL()")
    window.locator("#legend button").first.press("Enter")
    window.wait_for_function("before => canvas.toDataURL() !== before", arg=empty)
