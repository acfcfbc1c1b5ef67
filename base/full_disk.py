"""Recognises that a disk is full, in whatever words a library says so."""

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from base.paths import short_path

_ERRNOS: Final = (errno.ENOSPC, errno.EDQUOT)
_OF_SQLITE: Final = "database or disk is full"
_AFTERWARDS: Final = "cannot commit - no transaction is active"  # of ML Metadata, after SQLite has ended the transaction itself
_LITTLE: Final = 1 << 20  # bytes
_SIGNS: Final = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT), _OF_SQLITE)
_QUOTED: Final = re.compile(r": '([^']+)'")
_PATH: Final = re.compile(r"(?<![\w/])/[^\s:;,'\"\])]+")


def full_disk(failure: BaseException, folder: str | Path) -> str:
    """A line for the user if a full disk is behind an exception; "" if it is not.

    Args:
      failure: the exception, whose causes are looked at as well.
      folder: what to name if the exception names no file; the temporary folder, if that has less room.
    """
    for cause in _causes(failure):
        of_system = isinstance(cause, OSError) and cause.errno in _ERRNOS
        sign = next((sign for sign in _SIGNS if sign in str(cause)), None)
        if of_system or sign or (_AFTERWARDS in str(cause) and _free(folder) < _LITTLE):
            named = cause.filename if isinstance(cause, OSError) else None
            place = named or (sign and _path_in(str(cause), sign)) or _fuller(folder)
            return f"{short_path(os.fsdecode(place))}: the disk is full; make room, and do the same again"
    return ""


def _causes(failure: BaseException) -> Iterator[BaseException]:
    """The exception and all that led to it, the last one first."""
    waiting, seen = [failure], set()
    while waiting:
        cause = waiting.pop(0)
        if id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        waiting += [item for item in (cause.__cause__, cause.__context__) if item]


def _path_in(text: str, sign: str) -> str:
    """The path that a message names: in quotes after the sign, as Python writes it, or before it; "" if there is none."""
    line = next((line for line in text.splitlines() if sign in line), "")
    before, _, after = line.partition(sign)
    if quoted := _QUOTED.match(after):
        return quoted[1]
    return "" if sign == _OF_SQLITE else next(reversed(_PATH.findall(before)), "")  # there a query follows


def _fuller(folder: str | Path) -> str | Path:
    """The folder, or the temporary one if less is free there."""
    temporary = tempfile.gettempdir()
    return temporary if _free(temporary) < _free(folder) else folder


def _free(folder: str | Path) -> int:
    """Bytes that are free on the disk of a folder; 0 if there is no such folder."""
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 0
