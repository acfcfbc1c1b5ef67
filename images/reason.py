"""Why a file is set aside: a kind, by which files are counted, and often a detail about this one file."""

from typing import Any


class Reason(str):
    """A reason with a detail. Its text is, for example, "damaged: wrong checksum".

    A reason without a detail is a plain str, and its text is its kind.

    Attributes:
      kind: "damaged".
      detail: "wrong checksum".
    """

    kind: str
    detail: str

    def __new__(cls, kind: str, detail: str) -> "Reason":
        """Joins kind and detail to the text."""
        reason = super().__new__(cls, f"{kind}: {detail}")
        reason.kind, reason.detail = kind, detail
        return reason

    def __reduce__(self) -> tuple[Any, ...]:
        return Reason, (self.kind, self.detail)


def kind_of(reason: str) -> str:
    """The kind of a reason, by which files are counted."""
    return reason.kind if isinstance(reason, Reason) else reason
