"""The screen. Labels, file names and paths are no markup and no emoji, and what would change the screen is escaped."""

from collections.abc import Iterable
from typing import IO, Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from base.visible import visible


def plain_console(file: IO[str] | None = None, *, width: int | None = None, soft_wrap: bool = False) -> Console:
    """A console that takes text literally; colours come from `rich.text.Text` and from styles.

    Args:
      file: where to print; standard output if not given.
      width: columns; those of the terminal if not given.
      soft_wrap: whether long lines are left to the terminal, so that paths can be copied.
    """
    return _PlainConsole(file=file, width=width, soft_wrap=soft_wrap, markup=False, emoji=False, highlight=False)


class _PlainConsole(Console):
    """Shows `visible` texts. In tables, names from data must be strings, so that columns are as wide as what is shown."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(visible(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        if isinstance(renderable, Text) and (text := visible(renderable.plain)) != renderable.plain:
            renderable = Text(text, renderable.style, end=renderable.end)
        return super().render(renderable, options)
