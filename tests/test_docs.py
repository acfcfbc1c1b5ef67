"""The documentation says what is so."""

import re
from pathlib import Path

import pytest

from scripts import configuration_table, metrics_table

PROJECT = Path(__file__).parents[1]
PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]


def test_the_page_of_the_configuration_is_the_configuration():
    assert configuration_table.PAGE.read_text() == configuration_table.page(), (
        "run .venv/bin/python -m scripts.configuration_table"
    )


def test_the_table_of_the_metrics_is_the_metrics():
    text = metrics_table.PAGE.read_text()
    assert text == metrics_table.page(text), "run .venv/bin/python -m scripts.metrics_table"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_local_link_leads_somewhere(page):
    for target in re.findall(r"\]\((?!http)([^)#]+)[^)]*\)", page.read_text()):
        assert (page.parent / target).exists(), target
