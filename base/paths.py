"""Paths: as options give them, short ones for messages, and those that TensorFlow can't use."""

import os.path
from pathlib import Path

from base.errors import UserError


def home_path(text: str) -> Path:
    """The path of an option; ~ at its beginning stands for the home folder, also in `--output=~/x`, which shells leave."""
    return Path(os.path.expanduser(text))


def short_path(path: str | Path) -> str:
    """The path relative to the working folder if it is below that folder, else the path as given."""
    path = Path(path)
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def absolute(path: str) -> str:
    """A path for processes with another working folder; a URI stays as it is."""
    return path if "://" in path else os.path.abspath(path)


def check_for_tensorflow(path: str | Path, name: str) -> None:
    """Checks that TensorFlow finds the files in a folder: it takes some characters of a path for patterns.

    A SavedModel in a folder named `[v1]` can't be loaded, and one in `run?` may be read from `run1`.

    Args:
      path: the folder, absolute.
      name: of the option or the key, for the message.

    Raises:
      UserError: the path has such a character.
    """
    if found := [character for character in "*?[\\" if character in str(path)]:
        raise UserError(
            f"{name}: {path}: TensorFlow takes {' and '.join(found)} in a path for a pattern and can't find the files there; "
            f"give a folder without * ? [ and \\ in its path"
        )
