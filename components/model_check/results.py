"""The result of a model check, and whether the model passes."""

import json
import os
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from tfx.dsl.io import fileio

from components.model_check.settings import CheckSettings
from storage.files import replace_file

CHECK_FILE: Final = "check.json"
# Limit in the configuration -> the measurement, its text in messages, and its unit.
_LIMITS: Final = {
    "max_load_seconds": ("load_seconds", "loading took", "s"),
    "max_latency_ms": ("latency_p99_ms", "99 of 100 single images were answered in", "ms"),
    "max_memory_mb": ("memory_mb", "the process took", "MB"),
}


@dataclass(frozen=True)
class CheckResult:
    """How a model has answered the requests of a model check.

    Attributes:
      passed: whether the model may be pushed.
      reasons: why it may not, one line each.
      images: number of images of the test split in the requests.
      max_difference: largest accepted difference between a probability and the Evaluator's.
      largest_difference: largest difference that was found; None if there was no answer.
      measured: "start_seconds" (Python and TensorFlow), "load_seconds", "first_answer_seconds" (after loading),
        "latency_p50_ms" and "latency_p99_ms" (requests of one image), "timed" (number of these requests), "image_ms" (time per
        image in a batch of 64), "memory_mb" (peak memory of the process, with TensorFlow, 10^6 bytes). Values that the check
        did not reach are missing.
      bad_inputs: bad request -> "refused (type of the error)" or "answered".
      seconds: duration of the check.
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
    """Makes the result of a check from the checker's findings.

    Args:
      findings: the findings, in order.
      settings: settings of the component.
      images: number of images in the requests.
      seconds: duration of the check.
      died: how the checker's process died, such as "killed by SIGABRT"; "" if it ended normally.
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
    """Reads the file that `write_check` writes."""
    with fileio.open(os.path.join(folder, CHECK_FILE)) as file:
        return CheckResult(**json.load(file))
