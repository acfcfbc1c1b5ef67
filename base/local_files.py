"""Writes local files and folders so that each exists as a whole or not at all.

Does not need TensorFlow; for other file systems see `models.files`.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from base.errors import UserError
from base.full_disk import full_disk


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 text file and replaces an existing one; creates the parent folders."""
    with new_file(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def user_errors_of_writing(path: Path, option: str) -> Iterator[None]:
    """Tells why a file or folder that the user has named can't be written, instead of raising an OSError.

    A full disk stays one: see `base.full_disk`.

    Args:
      path: what was named.
      option: that names it.
    """
    try:
        yield
    except OSError as error:
        if full_disk(error, path):
            raise
        reason = error.strerror or str(error)
        raise UserError(f"{error.filename or path}: can't be written ({reason}); give another {option}") from error


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yields a temporary path next to `path`. The file that the caller writes there is renamed to `path` at the end.

    Creates the parent folders. After an exception the temporary file is deleted and `path` is as before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yields an empty temporary folder next to `folder`, which is renamed to `folder` at the end.

    After an exception the temporary folder is deleted.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield unfinished
        os.chmod(unfinished, 0o755)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
