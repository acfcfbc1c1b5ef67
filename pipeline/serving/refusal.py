"""The error that a client gets instead of an answer."""


class Refusal(Exception):
    """A request is not answered: the HTTP status, the reason in one line, and additional headers."""

    def __init__(self, status: int, reason: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.headers = headers or {}
