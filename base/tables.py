"""CSV tables for people, whose texts no spreadsheet takes for formulas, and which can be read back exactly.

A cell that begins with an apostrophe is quoted: a spreadsheet would run the text (it begins with =, +, - or @), or the text has
hidden characters (see `base.visible`) or line breaks, or it begins with an apostrophe itself. Behind the apostrophe,
backslashes are doubled, and hidden characters are written as in Python: `\\t`, `\\n`, `\\x1b`, `\\u2028`. Numbers and all other
texts are as they are.
See https://owasp.org/www-community/attacks/CSV_Injection.
"""

import codecs
import csv
import io
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from base.visible import HIDDEN, escape

_FORMULA: Final = "[=+\\-@\uff1d\uff0b\uff0d\uff20]"  # the last four are their wide forms
# A semicolon separates cells where the comma is the decimal point.
_QUOTED: Final = re.compile(f"^['\\s]*{_FORMULA}|^'|[{HIDDEN}]|;[\\s\"']*{_FORMULA}")
_NUMBER: Final = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?")
_ESCAPED: Final = re.compile(f"[{HIDDEN};\\\\]")


def write_table(file: Any, header: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
    """Writes a table.

    Args:
      file: a binary file.
      header: names of the columns.
      rows: the cells of each row. Texts are quoted if needed; None becomes an empty cell, anything else its own text.
    """
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    writer = csv.writer(text, lineterminator="\n")
    for row in itertools.chain([header], rows):
        writer.writerow([quote(cell) if isinstance(cell, str) else cell for cell in row])
    text.detach()


def read_table(file: Iterable[str]) -> Iterator[dict[str, str]]:
    """Reads a table that `write_table` has written: for each row, column to text, as it was before it was quoted.

    Args:
      file: the lines of the table.
    """
    for row in csv.DictReader(file):
        yield {unquote(name): unquote(cell) for name, cell in row.items()}


def quote(text: str) -> str:
    """The text of a cell."""
    if not _QUOTED.search(text) or _NUMBER.fullmatch(text):
        return text
    return "'" + _ESCAPED.sub(lambda found: _escape(found.group()), text)


def unquote(cell: str) -> str:
    """The text that `quote` has made a cell of."""
    if not cell.startswith("'"):
        return cell
    return re.sub(r"\\(x..|u....|.)", lambda found: codecs.decode(found.group(), "unicode_escape"), cell[1:])


def _escape(character: str) -> str:
    return "\\x3b" if character == ";" else escape(character)
