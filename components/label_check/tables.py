"""Tables of labels that are probably wrong: all of them, and corrections for a person to edit."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import pandas as pd

from base.tables import write_table
from images.dataset import source
from images.dataset.row import split_page
from images.settings import SourceSettings
from storage.files import replace_file

TABLE: Final = "labels.csv"
CORRECTIONS: Final = "corrections.csv"


def write_tables(issues: pd.DataFrame, names: Iterable[str], used: Mapping[str, tuple[str, str]], folder: str) -> None:
    """Writes TABLE and CORRECTIONS.

    Args:
      issues: as `label_issues.find_label_issues` returns them, perhaps with more columns of text.
      names: of all images that were looked at.
      used: as `used_corrections` returns them.
      folder: to write to, local or on one of Beam's file systems.
    """
    table = issues.assign(quality=issues["quality"].map("{:.4f}".format))
    _write(os.path.join(folder, TABLE), table.columns, table.itertuples(index=False))
    columns = ("path", "label", "given", "quality")
    _write(os.path.join(folder, CORRECTIONS), columns, _corrections(issues, names, dict(used)))


def used_corrections(data: str, settings: SourceSettings) -> dict[str, tuple[str, str]]:
    """The label that the data gives, and the one that `data.corrections` does, of each image where they differ.

    Args:
      data: the data folder; read only if corrections are in use.
      settings: settings of the data set.

    Raises:
      UserError: the data or the corrections can't be used.
    """
    if not settings.corrections:
        return {}
    given, found = (
        {row.name: row for row in source.find_rows(data, settings, corrected=corrected).rows} for corrected in (False, True)
    )
    left_out = {name: (row.label, "") for name, row in given.items() if name not in found}
    return left_out | {
        name: (given[name].label, row.label)
        for name, row in found.items()
        if name in given and row.labels != given[name].labels
    }


def _corrections(
    issues: pd.DataFrame, names: Iterable[str], used: dict[str, tuple[str, str]]
) -> Iterator[tuple[str, str, str, str]]:
    """Lines of CORRECTIONS: what is suggested, and then the corrections in use of other images.

    All pages of a file have its label, so a file of several pages is suggested only if all of them are for one label.
    """
    pages = Counter(split_page(name)[0] for name in names)
    of_file: dict[str, list[pd.Series]] = {}
    for _, row in issues.iterrows():
        of_file.setdefault(split_page(row["path"])[0], []).append(row)
    for file, rows in of_file.items():
        name = file if len(rows) > 1 else rows[0]["path"]
        if len(rows) == pages[file] and len({row["suggested"] for row in rows}) == 1:
            given, _ = used.pop(name, (rows[0]["label"], ""))
            yield name, rows[0]["suggested"], given, f"{min(row['quality'] for row in rows):.4f}"
    for name, (given, label) in used.items():
        yield name, label, given, ""


def _write(path: str, header: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    replace_file(path, lambda file: write_table(file, list(header), rows))
