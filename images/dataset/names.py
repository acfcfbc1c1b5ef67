"""Checks the names of classes, which become lines of a vocabulary and cells of tables."""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from typing import Final

from base.errors import UserError, shorten
from images.dataset.row import Row
from models import features

_BREAKING: Final = {"Cc", "Cs", "Zl", "Zp"}  # Unicode categories: control, surrogate, line and paragraph separators
_MAX_NAMED: Final = 5  # pairs that a line names


def check_names(folder: str, rows: Iterable[Row], multi_label: bool) -> list[str]:
    """Checks the names of the classes of all rows that are used.

    Args:
      folder: the data folder, for messages.
      rows: the rows.
      multi_label: whether an image can have any number of classes.

    Returns:
      Lines that tell a person which names differ by upper and lower case alone.

    Raises:
      UserError: a name has a line break or a control character, or consists of spaces; two names differ by spaces around them
        or by their Unicode form alone; or, in multi-label data, a name has the separator of classes.
    """
    first: dict[str, Row] = {}
    for row in rows:
        if not row.reason:
            for label in row.labels:
                first.setdefault(label, row)
    for label, row in first.items():
        if wrong := _what_is_wrong(label, multi_label):
            raise UserError(f"{folder}: the class {shorten(repr(label))} (of {row.name!r}) {wrong}; rename the class")
    cleaned: dict[str, str] = {}
    cases: dict[str, list[str]] = defaultdict(list)
    for label, row in sorted(first.items()):
        name = unicodedata.normalize("NFC", label.strip())
        other = cleaned.setdefault(name, label)
        if other != label:
            raise UserError(
                f"{folder}: the classes {shorten(ascii(other))} (of {first[other].name!r}) and {shorten(ascii(label))} "
                f"(of {row.name!r}) look the same, and differ by spaces or by their Unicode form (NFC, NFD); "
                f"rename one as the other"
            )
        cases[name.casefold()].append(label)
    same = [" and ".join(labels) for labels in cases.values() if len(labels) > 1]
    more = f" and {len(same) - _MAX_NAMED} more" if len(same) > _MAX_NAMED else ""
    told = f"Data: classes that differ by upper and lower case alone: {', '.join(same[:_MAX_NAMED])}{more}"
    return [f"{told}; if they are one class, give them one name"] if same else []


def _what_is_wrong(label: str, multi_label: bool) -> str:
    if any(unicodedata.category(character) in _BREAKING for character in label):
        return "has a line break or a control character in its name"
    if not label.strip():
        return "has a name of spaces"
    if multi_label and features.LABEL_SEPARATOR in label:
        return f"has {features.LABEL_SEPARATOR} in its name, which stands between the classes of an image (data.multi_label)"
    return ""
