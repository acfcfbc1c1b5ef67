"""The screen. Labels, file names and paths are printed as they are: none of their characters is markup or an emoji."""

from typing import IO

from rich.console import Console


def plain_console(file: IO[str] | None = None, *, width: int | None = None, soft_wrap: bool = False) -> Console:
    """A console that takes text literally; colours come from `rich.text.Text` and from styles.

    Args:
      file: where to print; standard output if not given.
      width: columns; those of the terminal if not given.
      soft_wrap: whether long lines are left to the terminal, so that paths can be copied.
    """
    return Console(file=file, width=width, soft_wrap=soft_wrap, markup=False, emoji=False, highlight=False)
