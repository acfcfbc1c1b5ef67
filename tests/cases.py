"""Inputs that once gave a wrong model, a wrong answer or a wrong message, each with the tests of its whole kind.

    .venv/bin/python -m tests.cases

runs these tests and prints the list with pass or fail. A test belongs to a case by its marker, `@pytest.mark.case(number)`.
"""

import collections
import sys
from typing import Final

import pytest

CASES: Final = {
    1: "split folders named Training/ and Testing/",
    2: "class folders with a line break or a control character in their names",
    3: "a label with U+2028 in a manifest",
    4: "an 8-bit palette BMP: trained on and served",
    5: "a GIF with a transparent background: trained on and served",
    6: "a 1-bit BMP, sent to the server",
    7: "fpn predict of a good file and of one cut short",
    8: "an output folder with brackets in its name",
    9: "an output folder with a question mark in its name, beside one that it matches",
    10: "a learning rate at which training diverges",
    11: "a class or a path that looks like markup",
    12: "a file name with brackets on the screen",
    13: "an output folder inside the data folder",
    14: "a PNG with a colour profile or a text above 1 MB",
    15: "an image of 3x900 pixels, letterboxed to 32x32",
    16: "two sections of one name in a YAML file",
    17: "Thumbs.db and desktop.ini among few images",
    18: "a 16-bit DICOM file without a window",
    19: "a manifest with semicolons",
    20: "a manifest with Windows' paths",
    21: "~ in data.path",
    22: "TFRecord files named .tfrec or .record, or compressed by ZLIB",
    23: "HEIC, AVIF and JPEG 2000 files",
    24: "a DICOM file without its preamble",
    25: "a TIFF of several pages, cut after the first",
    26: "train/CLASS/ beside test/ without labels",
    27: "archive/train/CLASS/",
    28: "the parent folder of a prepared data set of TFDS",
    29: "int64 vectors of ones and zeros as labels in TFRecords",
    30: "a configuration without thresholds",
}


class _Outcomes:
    """A plug-in for pytest that keeps the outcomes of the tests of each case."""

    def __init__(self) -> None:
        self.of_case: dict[int, collections.Counter[str]] = {number: collections.Counter() for number in CASES}
        self._cases: dict[str, tuple[int, ...]] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            numbers = [number for marker in item.iter_markers("case") for number in marker.args]
            self._cases[item.nodeid] = tuple(dict.fromkeys(numbers))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            for number in self._cases[report.nodeid]:
                self.of_case[number][report.outcome] += 1


def main() -> int:
    """Runs the tests of all cases and prints the list; 1 if one failed, was skipped or has no test."""
    outcomes = _Outcomes()
    pytest.main(["-m", "case", *sys.argv[1:]], plugins=[outcomes])
    failed = 0
    for number, text in CASES.items():
        found = outcomes.of_case[number]
        passes = set(found) == {"passed"}
        failed += not passes
        counts = ", ".join(f"{count} {outcome}" for outcome, count in found.items()) or "no test"
        print(f"{number:>3}  {'pass' if passes else 'FAIL'}  {text} ({counts})")
    print(f"{len(CASES) - failed} of {len(CASES)} cases pass")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
