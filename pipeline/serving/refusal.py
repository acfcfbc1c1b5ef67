"""The error that a client gets instead of an answer."""

from typing import Any


class Refusal(Exception):
    """A request is not answered, or not wholly: the HTTP status, the reason in one line, additional headers, and more JSON."""

    def __init__(
        self, status: int, reason: str, headers: dict[str, str] | None = None, content: dict[str, Any] | None = None
    ) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.headers = headers or {}
        self.content = content or {}
