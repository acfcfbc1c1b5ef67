"""What ModelCheck goes by: a record without defaults, which are the configuration's to have."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class CheckSettings:
    """Of the component.

    Attributes:
      images: that the model is asked about.
      max_difference: between a probability and the Evaluator's, that is still the same answer.
      max_load_seconds: that loading may take; None: any.
      max_latency_ms: in which 99 of 100 requests of one image must be answered; None: any.
      max_memory_mb: 10^6 bytes that the process may take; None: any.
      timeout_seconds: after which the check is stopped and failed.
      splits: that the images are of, which the Evaluator has predicted.
    """

    images: int
    max_difference: float
    max_load_seconds: float | None
    max_latency_ms: float | None
    max_memory_mb: float | None
    timeout_seconds: float
    splits: tuple[str, ...]
