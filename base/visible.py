"""Texts from data as a person is shown them: no character is hidden, and none changes the order of the others."""

import re
import sys
from typing import Final

# Control characters, separators of lines, what changes the direction of text (https://trojansource.codes), and surrogates,
# which stand for bytes that are not UTF-8.
HIDDEN: Final = "\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_HIDDEN: Final = re.compile(f"(?![\t\n])[{HIDDEN}]")


def visible(text: str) -> str:
    """The text with such characters written as in Python: `\\x1b`, `\\u202e`. Tabs and line breaks stay."""
    return _HIDDEN.sub(lambda found: escape(found.group()), text)


def escape(text: str) -> str:
    """The text with backslashes, and all characters beyond ASCII or not printable, written as in Python."""
    return text.encode("unicode_escape").decode()


def print_error(message: object) -> None:
    """Prints a line, or two, on standard error, as all commands do."""
    print(f"fpn: {visible(str(message))}", file=sys.stderr, flush=True)
