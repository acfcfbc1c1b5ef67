"""Which columns of a table hold file, class and split, where the configuration leaves that open."""

import re
from dataclasses import replace
from typing import Final

from base.errors import UserError, shorten
from images.settings import Columns

# Usual names without case, spaces, hyphens and underscores. A column is guessed from the first list that has one of them.
_USUAL: Final = {
    "path": (
        ("path",),
        ("file", "filename", "filepath", "image", "imagefile", "imagename", "imagepath", "img", "imgname", "imgpath"),
        ("id", "idcode", "imageid", "imgid", "isicid"),
    ),
    "label": (
        ("label",),
        ("category", "class", "classlabel", "classname", "labelname", "target"),
        ("categoryid", "classid", "labelid"),
        ("breed", "diagnosis", "disease", "dx", "species"),
    ),
    "split": (("split",), ("usage",)),
}
_SEPARATORS: Final = ",;\t"


def guess_columns(table: str, found: list[str], columns: Columns) -> Columns:
    """The columns, with usual names where file, class and split have no column of the default name.

    Args:
      table: path of the table, for messages.
      found: names of all columns of the table.
      columns: the columns that the configuration names.

    Raises:
      UserError: several columns have usual names. Of the last list, of names that say more than "class", none is taken then.
    """
    taken = {*columns.by_role.values(), *columns.types}
    guessed: dict[str, str] = {}
    for role, lists in _USUAL.items():
        if columns.by_role[role] != role or role in found:
            continue
        for usual in lists:
            names = [name for name in found if re.sub(r"[\s_-]", "", name.casefold()) in usual and name not in taken]
            if len(names) > 1 and usual is _USUAL["label"][-1]:
                break
            if len(names) > 1:
                both = " and ".join(map(shorten, names[:2]))
                raise UserError(f"{table}: {both} may both be the column of the {role}; set data.columns.{role} to one")
            if names:
                guessed[role] = names[0]
                break
    chosen = columns.by_role | guessed
    return replace(columns, path=chosen["path"], label=chosen["label"], split=chosen["split"])


def separator_of(header: str) -> str:
    """The separator of a table with this first line: a comma, a semicolon or a tab, whichever is there most."""
    return max(_SEPARATORS, key=re.sub(r'"[^"]*"', "", header).count)
