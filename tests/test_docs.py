"""The documentation says what is so."""

import re
from pathlib import Path

import pytest

from scripts import configuration_table, metrics_table

PROJECT = Path(__file__).parents[1]
PAGES = [*sorted(PROJECT.glob("*.md")), *sorted((PROJECT / "docs").glob("*.md"))]
COLUMNS = 120


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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_prose_is_wrapped(page):
    text = re.sub(r"^```.*?^```$", _blank_lines, page.read_text(), flags=re.M | re.S)
    text = re.sub(r"<!--.*?-->", _blank_lines, text, flags=re.S)
    lines = [f"line {number}: {line}" for number, line in enumerate(text.splitlines(), 1) if _is_too_long(line)]
    assert not lines, f"wrap these at {COLUMNS} columns:\n" + "\n".join(lines)


def _blank_lines(match: re.Match[str]) -> str:
    return "\n" * match[0].count("\n")


def _is_too_long(line: str) -> bool:
    if line.startswith(("|", "#", "![", "[![", "    ")):  # a table, a heading, a picture, indented code
        return False
    is_one_link = re.fullmatch(r"\s*(- |\d+\. )?\[[^]]*\]\([^)]*\)[.,:;]?", line)
    return len(line) > COLUMNS and not is_one_link


def test_what_counts_as_a_line_of_prose_that_is_too_long():
    words = "word " * 25
    assert _is_too_long(words)
    assert _is_too_long(f"- {words}")
    assert not _is_too_long(words[:COLUMNS])
    for line in (f"| {words} |", f"## {words}", f"    {words}", f"![{words}](a.png)", f"- [{words}](a.md)."):
        assert not _is_too_long(line), line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_module_that_is_named_exists(page):
    if not page.exists():
        pytest.skip("there is no such page")
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)
    for quoted in re.findall(r"`([^`]+)`", text):
        for path in re.findall(r"(?<![\w/.{}-])[\w*.-]+/[\w*./-]*\.py\b", quoted):
            assert next(PROJECT.glob(path.replace("NAME", "*")), None), path
