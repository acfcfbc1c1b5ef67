"""Settings of the Pusher. They have no defaults; the configuration sets every value."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PusherSettings:
    """Settings of the component Pusher.

    Attributes:
      pipeline: name of the pipeline, for the version's record.
      keep: number of newest versions to keep; None: all.
      replace: whether to push over a model with other classes.
    """

    pipeline: str
    keep: int | None
    replace: bool
