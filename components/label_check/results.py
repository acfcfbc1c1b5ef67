"""What LabelCheck puts out beside its tables: counts, written and read."""

import json
import os
from dataclasses import asdict, dataclass
from typing import Final

from tfx.dsl.io import fileio

from storage.files import replace_file

OUTPUT_KEY: Final = "label_issues"
_FILE: Final = "label_check.json"


@dataclass(frozen=True)
class LabelCheckResult:
    """How many labels are probably wrong.

    Attributes:
      images: number of images whose labels were looked at.
      issues: number of these whose labels are probably wrong.
      left_out: number of images whose labels were not looked at: they have none, or one of too rare a class.
      reason: why no labels were looked at; "" if some were.
    """

    images: int
    issues: int
    left_out: int
    reason: str = ""


def write_result(result: LabelCheckResult, folder: str) -> None:
    """Writes the counts into a folder."""
    content = json.dumps(asdict(result), indent=2) + "\n"
    replace_file(os.path.join(folder, _FILE), lambda file: file.write(content.encode()))


def read_result(folder: str) -> LabelCheckResult:
    """Reads the file that `write_result` writes."""
    with fileio.open(os.path.join(folder, _FILE)) as file:
        return LabelCheckResult(**json.load(file))
