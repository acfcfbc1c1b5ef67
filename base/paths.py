"""Paths as people read them."""

from pathlib import Path


def short_path(path: str | Path) -> str:
    """A path as a person would type it: relative where it is below the working folder."""
    path = Path(path)
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
