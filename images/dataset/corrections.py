"""Corrections: a table of labels that stand in for those of the data, which stays as it is."""

import difflib
import os
import posixpath
import unicodedata
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any

from base.errors import UserError
from base.tables import unquote
from images.dataset import listing
from images.dataset.row import LABEL_MISSING, Row, label_text, split_label
from images.dataset.table_files import SUFFIXES, open_table
from images.settings import SourceSettings

_ROLES = ("path", "label")


@dataclass(frozen=True)
class _Line:
    """A line of the table; `where` names it, and path and label are texts as they are written."""

    where: str
    path: str
    label: str


def apply_corrections(folder: str, rows: list[Row], settings: SourceSettings) -> tuple[list[Row], list[str]]:
    """Gives rows the labels that the table `data.corrections` has for them.

    The table has the columns path (the name of an image, as in `fpn labels`) and label; others are for people. Without a
    label, an image is left out; in multi-label data it then has no class. A row that was set aside because its label is
    missing is used with its new one.

    Args:
      folder: the data folder; the table's path is relative to it.
      rows: of the whole data set, with the splits that the data gives, also of those that are set aside. Their labels are not
        compared with `data.labels` yet.
      settings: settings of the data set.

    Returns:
      The rows that are not left out, in the same order, and lines that tell a person what was corrected.

    Raises:
      UserError: there is no such table, a line of it can't be used, or none of them is of this data.
    """
    if not settings.corrections or not settings.labelled:
        return rows, []
    table = settings.corrections
    known = set(settings.labels or {label for row in rows if not row.reason for label in row.labels})
    names = {_plain(row.name): row.name for row in rows}
    labels: dict[str, tuple[str, ...]] = {}
    unknown = []
    for line in _read(folder, settings):
        name = next((names[key] for key in map(_plain, _readings(line.path)) if key in names), None)
        if name is None:
            unknown.append(line.path)
        elif name in labels:
            raise UserError(f"{line.where} names {name} a second time; keep one of them")
        else:
            labels[name] = _find_classes(line, known, settings.multi_label)
    if unknown and not labels:
        raise UserError(
            f"{table}: none of its images is in the data, the first {unknown[0]}; write paths as fpn labels does, "
            f"such as {next(iter(names.values()), '')}"
        )
    corrected, changed, useless = [], 0, []
    for row in rows:
        found = labels.get(row.name, row.labels)
        if not found and row.name in labels and not settings.multi_label:
            continue
        if found != row.labels:
            if row.reason and row.reason != LABEL_MISSING:
                useless.append(f"{row.name} ({row.reason})")
            else:
                changed += 1
                row = replace(row, labels=found, reason="")
        corrected.append(row)
    notes = [f"Data: {table} changes the labels of {_count(changed)} and leaves {_count(len(rows) - len(corrected))} out"]
    if unknown:
        notes.append(f"Data: {table} names {_count(len(unknown))} that the data does not have, first {unknown[0]}")
    if useless:
        notes.append(f"Data: {table} names {_count(len(useless))} that can't be used, first {useless[0]}")
    if lost := sorted(known - {label for row in corrected for label in row.labels}) if not settings.labels else []:
        notes.append(f"Data: by {table}, no image is left of {', '.join(lost[:5])}")
    return corrected, notes


def find_corrections(folder: str, settings: SourceSettings) -> dict[str, listing.File]:
    """The table's file, by its path; empty if there is none to apply, or if it is missing."""
    place = [listing.join(folder, settings.corrections)] if settings.corrections and settings.labelled else []
    return listing.look_up(folder, place, allow_links=True)


def path_in_data(folder: str, settings: SourceSettings) -> str:
    """The table's path relative to the data folder; "" if it does not lie in it."""
    if not settings.corrections:
        return ""
    place = listing.join(folder, settings.corrections)
    if listing.is_remote(place) or listing.is_remote(folder):
        root = folder.rstrip("/") + "/"
        return posixpath.normpath(place.removeprefix(root)) if place.startswith(root) else ""
    path = os.path.relpath(os.path.realpath(place), os.path.realpath(folder))
    return "" if path.startswith("..") else path


def _read(folder: str, settings: SourceSettings) -> Iterator[_Line]:
    table = settings.corrections
    assert table
    if not table.lower().endswith(SUFFIXES):
        raise UserError(f"data.corrections: {table} must end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")
    if table == settings.manifest:
        raise UserError(f"data.corrections: {table} is the manifest; give a table of the labels that are to change")
    if not find_corrections(folder, settings):
        raise UserError(
            f"data.corrections: no table {listing.join(folder, table)}; correct it, a path in the data folder or a whole path"
        )
    opened = open_table("", listing.join(folder, table))
    columns = [column.strip().casefold() for column in opened.columns]
    for role in _ROLES:
        if columns.count(role) != 1:
            raise UserError(
                f"{opened.name}: needs one column {role}, beside one column {_ROLES[_ROLES[0] == role]}; "
                f"it has {', '.join(opened.columns)}"
            )
    path, label = map(columns.index, _ROLES)
    for number, values in opened.lines:
        texts = list(map(_text, values))
        where = f"{opened.name}: {opened.unit} {number}"
        if texts[path].strip():
            yield _Line(where, texts[path], texts[label])
        elif any(text.strip() for text in texts):  # not one that was emptied in a spreadsheet
            raise UserError(f"{where} has no path; add it, or remove the {opened.unit}")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else label_text(value)


def _readings(text: str) -> Iterator[str]:
    """What a cell may mean: what is written; without the quotes of `base.tables`; both without spaces around them."""
    yield text
    yield text.strip()
    try:
        yield unquote(text)
        yield unquote(text).strip()
    except UnicodeDecodeError:  # not quoted by this project
        pass


def _plain(path: str) -> str:
    """A path in one of its spellings."""
    path = unicodedata.normalize("NFC", path)
    return path if listing.is_remote(path) else posixpath.normpath(path.replace("\\", "/"))


def _find_classes(line: _Line, known: Collection[str], multi_label: bool) -> tuple[str, ...]:
    """The classes that a line gives; none leaves the image out, or says that it has none."""
    for text in _readings(line.label):
        found = split_label(text) if multi_label else (text,) * bool(text.strip())
        if all(label in known for label in found):
            return found
    wrong = next(label for label in (split_label(line.label) if multi_label else (line.label,)) if label not in known)
    near = difflib.get_close_matches(wrong, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"the classes are {', '.join(sorted(known)[:10])}"
    raise UserError(f"{line.where}: the data has no class {wrong}; {hint}")


def _count(images: int) -> str:
    return f"{images} image" if images == 1 else f"{images} images"
