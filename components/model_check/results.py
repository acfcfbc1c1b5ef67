"""What the check of a model has found, and whether the model passes."""

import json
import os
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from tfx.dsl.io import fileio

from components.model_check.settings import CheckSettings
from storage.files import replace_file

CHECK_FILE: Final = "check.json"
# Limit in the configuration -> the measurement, its name for a person, and its unit.
_LIMITS: Final = {
    "max_load_seconds": ("load_seconds", "loading took", "s"),
    "max_latency_ms": ("latency_p99_ms", "99 of 100 single images were answered in", "ms"),
    "max_memory_mb": ("memory_mb", "the process took", "MB"),
}


@dataclass(frozen=True)
class CheckResult:
    """How a model has answered as a server would ask it.

    Attributes:
      passed: whether it may be pushed.
      reasons: why not, a line each.
      images: of the test split that it was asked about.
      max_difference: between a probability and the Evaluator's, that is still the same answer.
      largest_difference: found; None where nothing was answered.
      measured: "start_seconds" (Python and TensorFlow), "load_seconds", "first_answer_seconds" (after loading),
        "latency_p50_ms" and "latency_p99_ms" (requests of one image), "timed" (how many of these), "image_ms" (of each in a
        batch of 64), "memory_mb" (the process at most, TensorFlow included, 10^6 bytes); what it did not get to is missing.
      bad_inputs: what it was sent that is no image -> "refused (type of the error)" or "answered".
      seconds: that the check took.
    """

    passed: bool
    reasons: list[str]
    images: int
    max_difference: float
    largest_difference: float | None = None
    measured: dict[str, float] = field(default_factory=dict)
    bad_inputs: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


def judge(findings: list[dict[str, Any]], settings: CheckSettings, images: int, seconds: float, died: str = "") -> CheckResult:
    """Makes a result of the checker's findings.

    Args:
      findings: its lines, in order.
      settings: of the component.
      images: it was asked about.
      seconds: that it took.
      died: how its process ended, if not by itself: "killed by SIGABRT".
    """
    measured: dict[str, float] = {}
    for finding in findings:
        measured |= {name: value for name, value in finding.get("measured", {}).items() if value is not None}
    reasons = [finding["failure"] for finding in findings if "failure" in finding]
    compared = [finding for finding in findings if "difference" in finding]
    worst = max(compared, key=lambda finding: finding["difference"], default=None)
    if worst and worst["difference"] > settings.max_difference:
        reasons.append(
            f"{worst['where']}: {worst['image']}: a probability is {worst['difference']:.2g} off the Evaluator's, "
            f"at most {settings.max_difference:.2g} (check.max_difference)"
        )
    if died:
        step = next((finding["step"] for finding in reversed(findings) if "step" in finding), "starting")
        reasons.append(f"the process was {died}, in: {step}")
    for limit, (name, what, unit) in _LIMITS.items():
        most: float | None = getattr(settings, limit)
        if most is not None and measured.get(name, 0.0) > most:
            reasons.append(f"{what} {measured[name]:.4g} {unit}, at most {most:.4g} {unit} (check.{limit})")
    return CheckResult(
        passed=not reasons,
        reasons=reasons,
        images=images,
        max_difference=settings.max_difference,
        largest_difference=worst["difference"] if worst else None,
        measured=measured,
        bad_inputs={finding["bad"]: finding["outcome"] for finding in findings if "bad" in finding},
        seconds=round(seconds, 2),
    )


def write_check(result: CheckResult, folder: str) -> None:
    """Writes `CHECK_FILE` into a folder."""
    content = json.dumps(asdict(result), indent=2) + "\n"
    replace_file(os.path.join(folder, CHECK_FILE), lambda file: file.write(content.encode()))


def read_check(folder: str) -> CheckResult:
    """Reads what `write_check` has written."""
    with fileio.open(os.path.join(folder, CHECK_FILE)) as file:
        return CheckResult(**json.load(file))
