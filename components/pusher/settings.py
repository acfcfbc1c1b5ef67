"""Settings of the Pusher. They have no defaults; the configuration sets every value."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PusherSettings:
    """Settings of the component Pusher.

    Attributes:
      pipeline: name of the pipeline, for the version's record.
      keep: number of newest versions to keep; None: all.
      replace: whether to push over a model with other classes.
      sign: PEM file with the private key that versions are signed with; None for no signature.
      code: SHA-256 of the project's code, for the version's record.
      configuration: SHA-256 of the configuration, for the version's record.
    """

    pipeline: str
    keep: int | None
    replace: bool
    sign: str | None
    code: str
    configuration: str
