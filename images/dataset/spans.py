"""Spans: numbered parts of the data, given by `{SPAN}` in the path of the data folder, as in TFX."""

import os
import re
from dataclasses import dataclass
from typing import Final

from base.errors import UserError
from images.dataset import listing

_MARK: Final = re.compile(r"\{SPAN(?::(\d+))?\}")


@dataclass(frozen=True)
class Span:
    """One part of the data.

    Attributes:
      number: number in the folder's name; 0 for data without spans.
      prefix: prefix of the paths in the span, relative to the root of all spans: "" or "span-7/".
    """

    number: int
    prefix: str


def root_of(folder: str) -> str:
    """The folder that contains all spans; the folder itself if it has no `{SPAN}`. Paths of rows are relative to the root."""
    match = _MARK.search(folder)
    return folder[: match.start()].rpartition("/")[0] or "." if match else folder


def find_spans(folder: str) -> list[Span]:
    """Lists the existing spans in the order of their numbers.

    Args:
      folder: a data folder, or a pattern such as `images/day-{SPAN}` or `{SPAN:3}/images`; `:3` means numbers of three digits.

    Raises:
      UserError: there are no spans, two have the same number, or the pattern has `{SPAN}` twice.
    """
    marks = _MARK.findall(folder)
    if not marks:
        return [Span(0, "")]
    if len(marks) > 1:
        raise UserError(f"{folder}: names {{SPAN}} twice; once is enough in data.path")
    root = root_of(folder)
    name, _, rest = folder.removeprefix(root).lstrip("/").rstrip("/").partition("/")
    before, digits, after = _MARK.split(name)
    pattern = re.compile(f"{re.escape(before)}([0-9]{f'{{{digits}}}' if digits else '+'}){re.escape(after)}")
    found: dict[int, Span] = {}
    for entry in sorted(_folders(root)):
        if not (match := pattern.fullmatch(entry)):
            continue
        span = Span(int(match.group(1)), f"{entry}/{rest}/" if rest else f"{entry}/")
        if other := found.get(span.number):
            raise UserError(f"{folder}: {other.prefix} and {span.prefix} are both span {span.number}; rename one of them")
        found[span.number] = span
    if not found:
        raise UserError(
            f"{folder}: no such folders; {{SPAN}} stands for a number, as in {name.replace('{', '').replace('}', '')}"
        )
    return [found[number] for number in sorted(found)]


def _folders(root: str) -> set[str]:
    if listing.is_remote(root):
        return {path.split("/")[0] for path in listing.list_files(root) if "/" in path}
    return {entry.name for entry in os.scandir(root) if entry.is_dir()} if os.path.isdir(root) else set()
