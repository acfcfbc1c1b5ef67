"""Settings of ModelCheck. They have no defaults; the configuration sets every value."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class CheckSettings:
    """Settings of the component ModelCheck.

    Attributes:
      images: number of images in the requests.
      max_difference: largest accepted difference between a probability and the Evaluator's.
      max_load_seconds: largest accepted time to load the model; None: any.
      max_latency_ms: time in which 99 of 100 requests of one image must be answered; None: any.
      max_memory_mb: largest accepted memory of the process, in 10^6 bytes; None: any.
      timeout_seconds: after this time the check is stopped and has failed.
      splits: splits of the images; the Evaluator must have predicted them.
    """

    images: int
    max_difference: float
    max_load_seconds: float | None
    max_latency_ms: float | None
    max_memory_mb: float | None
    timeout_seconds: float
    splits: tuple[str, ...]
