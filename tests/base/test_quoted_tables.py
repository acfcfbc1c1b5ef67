"""Tables for people: what spreadsheets run is quoted, and everything is read back exactly."""

import io
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from base.tables import quote, read_table, unquote, write_table

# The same as st.text(), which tries for seconds which characters UTF-8 has.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


def written(header: list[str], *rows: list[Any]) -> str:
    file = io.BytesIO()
    write_table(file, header, rows)
    return file.getvalue().decode()


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=HYPERLINK(1)", "'=HYPERLINK(1)"),
        ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
        ("-2+3", "'-2+3"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("  =1+1", "'  =1+1"),
        ("\uff1d1+1", "'\uff1d1+1"),
        ("\tx", "'\\tx"),
        ("\rx", "'\\rx"),
        ("two\nlines", "'two\\nlines"),
        ("bell\x07 and \x1b[31mred", "'bell\\x07 and \\x1b[31mred"),
        ("line\u2028break", "'line\\u2028break"),
        ("cat\u202egnp.exe", "'cat\\u202egnp.exe"),
        ("a;=1+1", "'a\\x3b=1+1"),
        ("'quoted", "''quoted"),
        ("=a\\b", "'=a\\\\b"),
        ("cat\\a.png", "cat\\a.png"),
        ("a=b-c", "a=b-c"),
        ("-0.5", "-0.5"),
        ("+1e-3", "+1e-3"),
        ("a|b", "a|b"),
        ("", ""),
    ],
)
def test_a_text_that_a_spreadsheet_would_run_is_quoted(text: str, cell: str) -> None:
    assert quote(text) == cell
    assert unquote(cell) == text


def test_numbers_stay_numbers() -> None:
    assert written(["score", "n"], [-0.5, -3], [None, float("-inf")]) == "score,n\n-0.5,-3\n,-inf\n"


def test_headers_are_quoted_too() -> None:
    text = written(["=a", "b"], ["x", "y"])
    assert text.startswith("'=a,b\n")
    assert list(read_table(io.StringIO(text, newline=""))) == [{"=a": "x", "b": "y"}]


@given(st.lists(st.tuples(TEXTS, TEXTS), max_size=5))
def test_any_text_is_read_back_exactly_and_none_begins_as_a_formula(rows: list[tuple[str, str]]) -> None:
    text = written(["one", "two"], *map(list, rows))
    assert text.count("\n") == len(rows) + 1, "a row is a line"
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]", text)
    assert list(read_table(io.StringIO(text, newline=""))) == [{"one": one, "two": two} for one, two in rows]
    for one, _ in rows:
        assert not re.match(r"[=@\t\r]", quote(one))
        assert not re.match(r"[+-]", quote(one)) or float(one) is not None


@given(st.characters(categories=["Cs"]))
def test_a_name_that_is_no_text_is_written_all_the_same(surrogate: str) -> None:
    assert unquote(quote(surrogate)) == surrogate
    assert quote(surrogate).isascii()
