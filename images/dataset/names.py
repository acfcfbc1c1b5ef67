"""Checks the names of classes, which become lines of a vocabulary and cells of tables."""

import unicodedata
from collections.abc import Iterable
from typing import Final

from base.errors import UserError, shorten
from images.dataset.row import Row
from models import features

_BREAKING: Final = {"Cc", "Cs", "Zl", "Zp"}  # Unicode categories: control, surrogate, line and paragraph separators


def check_names(folder: str, rows: Iterable[Row], multi_label: bool) -> None:
    """Checks the names of the classes of all rows that are used.

    Args:
      folder: the data folder, for messages.
      rows: the rows.
      multi_label: whether an image can have any number of classes.

    Raises:
      UserError: a name has a line break or a control character, or consists of spaces; or, in multi-label data, it has the
        separator of classes.
    """
    first: dict[str, Row] = {}
    for row in rows:
        if not row.reason:
            for label in row.labels:
                first.setdefault(label, row)
    for label, row in first.items():
        if wrong := _what_is_wrong(label, multi_label):
            raise UserError(f"{folder}: the class {shorten(repr(label))} (of {row.name!r}) {wrong}; rename the class")


def _what_is_wrong(label: str, multi_label: bool) -> str:
    if any(unicodedata.category(character) in _BREAKING for character in label):
        return "has a line break or a control character in its name"
    if not label.strip():
        return "has a name of spaces"
    if multi_label and features.LABEL_SEPARATOR in label:
        return f"has {features.LABEL_SEPARATOR} in its name, which stands between the classes of an image (data.multi_label)"
    return ""
