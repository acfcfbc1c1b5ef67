"""What was measured of each format, written and read."""

import json
import os
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from tfx.dsl.io import fileio

from evaluation.results import Verdict, read_verdict
from storage.files import replace_file

FOLDER: Final = "assets.extra/formats"  # in the SavedModel's folder, where TensorFlow Serving does not look
RESULTS_FILE: Final = "formats.json"


@dataclass(frozen=True)
class FormatResult:
    """A format on the test split.

    Attributes:
      name: float16, int8 or onnx; "saved_model" for what the others are compared with.
      file: its name in `FOLDER`, if it is shipped; else "".
      bytes: size of the file, or of the SavedModel's graph and weights; 0 if there is none.
      latency_ms: median time of one image through the network alone, in milliseconds; None if there is no file.
      metrics: on all test images, by name.
      verdicts: on the thresholds, of which differences are to the SavedModel.
      error: why it could not be converted; "" if it could.
    """

    name: str
    file: str = ""
    bytes: int = 0
    latency_ms: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    verdicts: list[Verdict] = field(default_factory=list)
    error: str = ""

    @property
    def failed(self) -> list[str]:
        """Why it is not shipped, a line each; empty if it is."""
        lines = [str(verdict) for verdict in self.verdicts if not verdict.passed]
        return [f"could not be converted: {self.error}", *lines] if self.error else lines

    @property
    def summary(self) -> dict[str, Any]:
        """As a run's summary has it: the verdicts as lines under `failed`, empty if it is shipped."""
        known = {key: value for key, value in asdict(self).items() if key not in ("verdicts", "error")}
        return {**known, "failed": self.failed}

    @property
    def shipped(self) -> bool:
        return not self.error and all(verdict.passed for verdict in self.verdicts)


def write_results(results: list[FormatResult], model: str) -> None:
    """Writes `RESULTS_FILE` into a SavedModel's folder, where the formats are."""
    text = json.dumps([asdict(result) for result in results], indent=2) + "\n"
    replace_file(os.path.join(model, FOLDER, RESULTS_FILE), lambda file: file.write(text.encode()))


def read_results(model: str) -> list[FormatResult]:
    """Reads what `write_results` has written; empty if the model has no other formats."""
    name = os.path.join(model, FOLDER, RESULTS_FILE)
    if not fileio.exists(name):
        return []
    with fileio.open(name) as file:
        content: list[dict[str, Any]] = json.loads(file.read())
    return [FormatResult(**{**item, "verdicts": [read_verdict(verdict) for verdict in item["verdicts"]]}) for item in content]
