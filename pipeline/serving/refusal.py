"""What a client is told instead of an answer."""


class Refusal(Exception):
    """A request that is not answered: its HTTP status, the reason in one line, and headers beside it."""

    def __init__(self, status: int, reason: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.headers = headers or {}
