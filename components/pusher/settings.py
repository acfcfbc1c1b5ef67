"""What the Pusher goes by: a record without defaults, which are the configuration's to have."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PusherSettings:
    """Of the component.

    Attributes:
      pipeline: its name, for the version's record.
      keep: versions to keep, the newest; None: all.
    """

    pipeline: str
    keep: int | None
