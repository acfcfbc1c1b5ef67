"""Why a file is set aside: of a kind, by which files are counted, and often with a detail of this one file."""

from typing import Any


class Reason(str):
    """A reason with a detail. As a text it is "damaged: wrong checksum".

    A reason without a detail may be a plain text, which is its own kind.

    Attributes:
      kind: "damaged".
      detail: "wrong checksum".
    """

    kind: str
    detail: str

    def __new__(cls, kind: str, detail: str) -> "Reason":
        """Joins both to the text."""
        reason = super().__new__(cls, f"{kind}: {detail}")
        reason.kind, reason.detail = kind, detail
        return reason

    def __reduce__(self) -> tuple[Any, ...]:
        return Reason, (self.kind, self.detail)


def kind_of(reason: str) -> str:
    """What files with such a reason are counted by."""
    return reason.kind if isinstance(reason, Reason) else reason
