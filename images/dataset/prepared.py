"""Finds the TensorFlow Datasets directory in a folder, also below folders for name, configuration and version."""

import posixpath
import re
from collections.abc import Iterable
from typing import Final

from base.errors import UserError

INFO_FILE: Final = "dataset_info.json"
FEATURES_FILE: Final = "features.json"
_VERSION: Final = re.compile(r"\d+(\.\d+)*")


def find_prepared(folder: str, paths: Iterable[str]) -> str | None:
    """Finds the directory of the newest version.

    Args:
      folder: the data folder, for messages.
      paths: paths of all files, relative to the folder.

    Returns:
      Path of the directory in the folder, "" if it is the folder itself; None if there is none.

    Raises:
      UserError: there are directories of several data sets or configurations.
    """
    paths = set(paths)
    found = [posixpath.dirname(path) for path in paths if posixpath.basename(path) == INFO_FILE]
    found = sorted(home for home in found if posixpath.join(home, FEATURES_FILE) in paths)
    if len({posixpath.dirname(home) if _VERSION.fullmatch(posixpath.basename(home)) else home for home in found}) > 1:
        raise UserError(f"{folder}: {found[0]} and {found[-1]} are different data sets; give the folder of one as data.path")
    return max(found, key=lambda home: [int(number) for number in re.findall(r"\d+", posixpath.basename(home))], default=None)
