"""The page of `fpn monitor`, in a real browser."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pages import Page

from evaluation.drift import Check
from evaluation.predictions import Predictions
from evaluation.results import Metric
from models import features
from pipeline.pages.monitor_page import write_monitor_page
from pipeline.pushed.reference import SUMMARIES, Answers, Reference
from pipeline.pushed.traffic import NUMBERS, Traffic

CLASSES = ["<i>cat", "dog"]
DAYS = pd.date_range("2026-11-01 10:00", periods=5, freq="D", tz="UTC")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five days of 100 images; on the fourth they are brighter, by four standard errors of their mean."""
    generator = np.random.default_rng(0)
    hours = pd.DataFrame({"rows": 100, "confidence": 80.0, **dict.fromkeys(NUMBERS, 50.0)}, index=DAYS)
    hours["mean"] = [50, 50, 50, 50 + 4 * 0.1 * 10, 50]
    hours[["label/<i>cat", "label/dog"]] = [[60, 40]] * 5
    images = pd.DataFrame({name: [0.4, 0.6] * 50 for name in SUMMARIES})  # brightness: 0.5, standard deviation 0.1
    shares = np.tile([[0.8, 0.2], [0.2, 0.8]], (50, 1))
    answers = Answers(pd.DataFrame({"label": CLASSES * 50, "unusual": np.nan}), shares, np.zeros((100, 0)))
    known = Reference(Path("pushed/1"), CLASSES, images, answers, {"accuracy": Metric(0.9, 0.85, 0.94)}, {})
    named = pd.DataFrame({features.LABEL: generator.choice(CLASSES, 60), features.GROUP: map(str, range(60))})
    times = pd.Series(DAYS[[0, 0, 1, 1, 3, 3]].repeat(10))
    traffic = Traffic(500, 7, pa.table({}), hours, times, Predictions(named, CLASSES, False, np.tile(shares, (1, 1))[:60]))
    checks = [
        Check("answers: classes", "largest difference of a share", 0.02, 0.4),
        Check("images: brightness", "Jensen-Shannon divergence", 0.1, 1e-9, failed=True),
        Check("embeddings", "squared maximum mean discrepancy", note="the model gives none"),
    ]
    output = tmp_path_factory.mktemp("page") / "monitor.html"
    write_monitor_page(Path("captured"), known, traffic, checks, traffic.measure(["accuracy"]), output)
    return output


@pytest.fixture
def window(browser: Any, page: Path) -> Iterator[Any]:
    opened = browser.new_page(viewport={"width": 400, "height": 800})
    opened.set_default_timeout(5000)
    complaints: list[str] = []
    opened.on("console", lambda message: complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("request", lambda request: request.url.startswith(("file:", "data:")) or complaints.append(request.url))
    opened.goto(page.as_uri())
    yield opened
    assert complaints == []
    opened.close()


def test_failed_checks_come_first_and_those_that_were_not_made_last(page: Path) -> None:
    rows = Page(page.read_text()).tables["Checks, failed ones first"][1:]
    assert [row[:2] for row in rows] == [
        ["images: brightness", "failed"],
        ["answers: classes", "passed"],
        ["embeddings", "not made: the model gives none"],
    ]


def test_the_table_has_the_figures_and_marks_what_is_outside_the_band(page: Path) -> None:
    (head, *rows) = next(table for name, table in Page(page.read_text()).tables.items() if name.startswith("By day"))
    columns = {name: [row[number] for row in rows] for number, name in enumerate(head)}
    assert columns["Day"] == ["2026-11-01", "2026-11-02", "2026-11-03", "2026-11-04", "2026-11-05"]
    assert columns["Images"] == ["100"] * 5
    assert columns["Brightness"] == ["0.5", "0.5", "0.5", "0.54*", "0.5"]  # the band is 0.5 +- 3 * 0.1 / 10
    assert columns["Contrast"] == ["0.5"] * 5
    assert columns["Share of <i>cat"] == ["0.600"] * 5  # of 0.5 +- 0.15
    assert columns["Accuracy of the labelled"][2] == columns["Accuracy of the labelled"][4] == ""
    assert all(columns["Accuracy of the labelled"][number] for number in (0, 1, 3))


def test_the_page_fits_a_telephone_and_is_read_by_keyboard_and_by_ear(window: Any) -> None:
    assert window.evaluate("document.documentElement.scrollWidth") <= 400
    pictures = window.locator("svg")
    assert pictures.count() == 2 + 1 + len(CLASSES) + len(NUMBERS)
    for number in range(pictures.count()):
        assert pictures.nth(number).get_attribute("role") == "img"
        assert "over time: the figures are in the table" in pictures.nth(number).get_attribute("aria-label")
    assert window.get_by_role("status").inner_text() == "Something has changed: images: brightness"
    assert not window.locator("details table").is_visible()
    window.locator("summary").focus()
    window.keyboard.press("Enter")
    assert window.locator("details table").is_visible()
    window.keyboard.press("Tab")
    assert window.evaluate("document.activeElement.getAttribute('aria-label')") == "Figures over time"
