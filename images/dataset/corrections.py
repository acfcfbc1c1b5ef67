"""Corrections: a table of labels that stand in for those of the data, which stays as it is."""

import difflib
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from base.errors import UserError
from base.tables import unquote
from images.dataset import listing
from images.dataset.row import Row, label_text, split_label
from images.dataset.table_files import SUFFIXES, open_table
from images.settings import SourceSettings

_COLUMNS: Final = ("path", "label")


def apply_corrections(folder: str, rows: Sequence[Row], settings: SourceSettings) -> tuple[list[Row], list[str]]:
    """Gives rows the labels that the table `data.corrections` has for them.

    The table has the columns path (the name of an image, as in `fpn labels`) and label; others are for people. Without a
    label, an image is left out; in multi-label data it then has no class.

    Args:
      folder: the data folder; the table's path is relative to it.
      rows: of the whole data set.
      settings: settings of the data set.

    Returns:
      The rows that are not left out, in the same order, and lines that tell a person what was corrected.

    Raises:
      UserError: there is no such table, or a line of it can't be used.
    """
    if not settings.corrections or not settings.labelled:
        return list(rows), []
    table = settings.corrections
    if not find_corrections(folder, settings):
        raise UserError(
            f"{folder}: no table {table}; correct data.corrections, a path relative to the data folder, or leave it out"
        )
    labels = _read(listing.join(folder, table))
    known = set(settings.labels or {label for row in rows for label in row.labels})
    corrected = []
    changed = left_out = 0
    for row in rows:
        text = labels.pop(row.name, None)
        if text is not None:
            found = split_label(text) if settings.multi_label else (text,) * bool(text)
            if unknown := [label for label in found if label not in known]:
                near = difflib.get_close_matches(unknown[0], known, n=1)
                hint = f"did you mean {near[0]}?" if near else f"the classes are {', '.join(sorted(known)[:10])}"
                raise UserError(f"{table}: {row.name}: the data has no class {unknown[0]}; {hint}")
            if not found and not settings.multi_label:
                left_out += 1
                continue
            if found != row.labels:
                changed += 1
                is_usable = row.reason.startswith("label ")  # is missing, or is not in data.labels
                row = replace(row, labels=found, reason="" if is_usable else row.reason)
        corrected.append(row)
    notes = [f"Data: {table} gives {changed} images another label, and leaves {left_out} out"]
    if labels:
        notes.append(f"Data: {table} names {len(labels)} images that the data does not have, the first {next(iter(labels))}")
    return corrected, notes


def find_corrections(folder: str, settings: SourceSettings) -> dict[str, listing.File]:
    """The table's file, by its path; empty if there is none to apply, or if it is missing."""
    place = [listing.join(folder, settings.corrections)] if settings.corrections and settings.labelled else []
    return listing.look_up(folder, place, allow_links=True)


def _read(table: str) -> dict[str, str]:
    """Name of each image in the table, and its label."""
    if not table.lower().endswith(SUFFIXES):
        raise UserError(f"data.corrections: {table} must end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")
    opened = open_table("", table)
    if missing := [column for column in _COLUMNS if column not in opened.columns]:
        raise UserError(f"{opened.name}: has no column {missing[0]}; it needs path and label")
    path, label = (opened.columns.index(column) for column in _COLUMNS)
    labels: dict[str, str] = {}
    for number, values in opened.lines:
        name = unquote(label_text(values[path])).removeprefix("./")
        if name in labels:
            raise UserError(f"{opened.name}: {opened.unit} {number} names {name} a second time; keep one of them")
        labels[name] = unquote(label_text(values[label]))
    return labels
