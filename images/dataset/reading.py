"""How a data folder is read. A run decides it when it begins, and ingestion keeps to it or stops."""

from collections.abc import Iterable, Iterator

from base.errors import UserError
from images.dataset.row import Row
from images.settings import Reading

_CURE = "put the data back as it was, or start the run again"
_MAX_NAMED = 5  # largest number of classes that a message names


def reading_of(rows: Iterable[Row], sources: dict[str, str], labelled: bool) -> Reading:
    """The reading by which rows were found.

    Args:
      rows: the rows, with the splits that the data itself gives.
      sources: as `Reading.sources`.
      labelled: whether the data is for training.
    """
    taken = [row for row in rows if not row.reason]
    return Reading(
        sources=sources,
        classes=tuple(sorted({label for row in taken for label in row.labels})) if labelled else (),
        groups=any(row.group != row.name for row in taken),
        splits=any(row.split for row in taken),
    )


def check_source(folder: str, prefix: str, source: str, decided: Reading | None) -> None:
    """Checks what a span is read from, before it is read.

    Args:
      folder: the span's folder, for the message.
      prefix: the span's prefix.
      source: what it would be read from now.
      decided: the reading that holds; None if nothing was decided yet.

    Raises:
      UserError: it was decided otherwise.
    """
    if decided is None or decided.sources.get(prefix) == source:
        return
    before = f"was read from {decided.sources[prefix]}" if prefix in decided.sources else "was not there"
    raise UserError(f"{folder}: {before} when the run began, and would be read from {source} now; {_CURE}")


def check_reading(folder: str, found: Reading, decided: Reading | None) -> None:
    """Checks what was found.

    Args:
      folder: the data folder, for the message.
      found: what was found now.
      decided: the reading that holds; None if nothing was decided yet.

    Raises:
      UserError: something else was decided.
    """
    if decided is not None and (changes := list(_changes(found, decided))):
        raise UserError(f"{folder}: {' and '.join(changes)} since the run began; {_CURE}")


def _changes(found: Reading, decided: Reading) -> Iterator[str]:
    if gone := [prefix for prefix in decided.sources if prefix not in found.sources]:
        yield f"the folder {gone[0]} is gone"
    if lost := [name for name in decided.classes if name not in found.classes]:
        yield f"the images of {_name(lost)} are gone"
    if new := [name for name in found.classes if name not in decided.classes]:
        yield f"images of {_name(new)} were added"
    for what, was, is_now in (("groups", decided.groups, found.groups), ("splits", decided.splits, found.splits)):
        if was != is_now:
            yield f"{what} have {'come' if is_now else 'gone'}"


def _name(classes: list[str]) -> str:
    more = f" and {len(classes) - _MAX_NAMED} other classes" if len(classes) > _MAX_NAMED else ""
    return f"the class{'es' if len(classes) > 1 else ''} {', '.join(classes[:_MAX_NAMED])}{more}"
