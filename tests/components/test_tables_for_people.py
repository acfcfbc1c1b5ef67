"""The tables that components and commands write: what a spreadsheet would run is quoted, and read back as it was."""

import io
from pathlib import Path

import numpy as np
import pytest
from executors import ingest
from PIL import Image

from base.tables import read_table
from components.bulk_inferrer import scores
from components.bulk_inferrer.model import Answers
from components.bulk_inferrer.model import Image as ScoredImage
from evaluation.settings import GroupRule
from pipeline.pages.data_page import _rows

FORMULA = "=HYPERLINK(\"x\",'y').png"
LINES = "@two\nlines\x1b[31m.png"


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(read_table(file))


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ingestion of two classes, with two equal images and two broken ones whose paths begin as formulas do."""
    place = tmp_path_factory.mktemp("tables")
    for label in ("-cat", "dog"):
        (place / "data" / label).mkdir(parents=True)
        for number in range(12):
            buffer = io.BytesIO()
            Image.fromarray(np.random.default_rng(number).integers(0, 256, (8, 8), np.uint8)).save(buffer, "PNG")
            name = FORMULA if number == 11 else f"{number}.png"
            (place / "data" / label / name).write_bytes(buffer.getvalue())
        (place / "data" / label / LINES).write_bytes(b"no image")
    (place / "data" / FORMULA).write_bytes(b"no image")
    return Path(ingest(place / "data", place / "out", max_rejected=0.5).uri)


def test_rejected_files_are_quoted(examples: Path) -> None:
    text = (examples / "rejected.csv").read_text()
    assert text.count("\n") == 4, "a file is a line"
    assert "\x1b" not in text
    assert f"'{FORMULA[:1]}" in text
    rows = read(examples / "rejected.csv")
    assert {row["path"] for row in rows} == {FORMULA, f"-cat/{LINES}", f"dog/{LINES}"}
    assert {row["label"] for row in rows} == {"", "-cat", "dog"}
    assert _rows(examples / "rejected.csv", 2) == rows[:2], "the page shows the names themselves"


def test_duplicates_are_quoted_and_their_distance_is_a_number(examples: Path) -> None:
    lines = (examples / "duplicates.csv").read_text().splitlines()
    assert all(line.startswith(("exact,0,", "near,")) for line in lines[1:])
    rows = read(examples / "duplicates.csv")
    assert f"-cat/{FORMULA}" in {row[side] for row in rows for side in ("path_a", "path_b")}
    assert any("'-cat/" in line for line in lines)


def test_rejected_files_of_a_scoring_are_quoted(tmp_path: Path) -> None:
    tables = scores.Tables(str(tmp_path), ["a|b", "a"], False, 1)
    images = [ScoredImage(str(number), str(number), ("a|b",), b"") for number in range(2)]
    answers = Answers(images, ["a|b", "a"], np.array([[0.9, 0.1], [0.2, 0.8]], np.float32), [])
    tables.write(0, [answers], [(FORMULA, "-1", "damaged"), (LINES, "=x", "empty file")])
    counts = tables.finish(GroupRule(rule="mean", share=0.5, positive=None))
    assert counts.labels == {"a|b": 1, "a": 1}, "the name of a class is not divided"
    assert (tmp_path / "rejected.csv").read_text().splitlines()[2].startswith("'@two\\nlines\\x1b[31m.png,'=x,")
    assert [list(row.values()) for row in read(tmp_path / "rejected.csv")] == [
        [FORMULA, "-1", "damaged"],
        [LINES, "=x", "empty file"],
    ]


def test_trials_are_quoted(tmp_path: Path) -> None:
    from base.tables import write_table
    from pipeline.records.results import Trial, trial_rows

    header, *rows = trial_rows([Trial(1, -0.5, {"train.optimizer": "=x", "train.momentum": -0.1})], "eval accuracy")
    with (tmp_path / "trials.csv").open("wb") as file:
        write_table(file, header, rows)
    assert (tmp_path / "trials.csv").read_text().splitlines()[1] == "1,1,-0.5,'=x,-0.1"
