"""The one exception whose text is meant for the user of the pipeline, and the exit status after Ctrl-C."""

import contextlib
from collections.abc import Iterable, Iterator
from typing import Final

INTERRUPTED: Final = 130  # exit status after Ctrl-C, as shells give it: 128 + SIGINT


class UserError(Exception):
    """Bad usage, configuration or input.

    The text has one or two lines. It names the file, row or key that is wrong and says how to correct it. The command
    line prints the text without a traceback and exits with status 2.
    """


@contextlib.contextmanager
def add_notes_to_errors(lines: Iterable[str]) -> Iterator[None]:
    """Adds lines to a UserError as its notes. The command line prints them before the error, which they may explain."""
    try:
        yield
    except UserError as error:
        for line in lines:
            error.add_note(line)
        raise


def shorten(text: str, most: int = 100) -> str:
    """The text for a message, cut after `most` characters."""
    return text if len(text) <= most else f"{text[:most]}..."


def user_error(failure: BaseException, *others: type[Exception]) -> Exception | None:
    """Finds the UserError, or one of other classes, in an exception's chain of causes; None if there is none.

    TFX and Beam wrap exceptions of their components in exceptions of their own.
    """
    kinds: tuple[type[Exception], ...] = (UserError, *others)
    cause: BaseException | None = failure
    while cause:
        if isinstance(cause, kinds):
            return cause
        cause = cause.__cause__ or cause.__context__
    return None
