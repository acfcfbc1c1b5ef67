"""Paths for messages."""

from pathlib import Path


def short_path(path: str | Path) -> str:
    """The path relative to the working folder if it is below that folder, else the path as given."""
    path = Path(path)
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
