"""The screen shows names from data so that no character of them is hidden or does anything."""

import io
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text

from pipeline.cli import main
from pipeline.terminal.console import plain_console

NAME = "cat\u202egnp.exe \x1b[2J \u2066x\u2069 \udcff"
SHOWN = r"cat\u202egnp.exe \x1b[2J \u2066x\u2069 \udcff"


def printed(*items: object, width: int = 100) -> str:
    file = io.StringIO()
    plain_console(file, width=width).print(*items)
    return file.getvalue()


@pytest.mark.parametrize("item", [NAME, Text(NAME, "bold"), Text.assemble("", NAME)])
def test_what_would_change_the_screen_is_written_out(item: str | Text) -> None:
    assert printed(item) == SHOWN + "\n"


def test_a_table_is_as_wide_as_what_is_shown() -> None:
    table = Table("image", "label", title=NAME)
    table.add_row(NAME, "dog")
    text = printed(table)
    assert f"│ {SHOWN} │ dog   │" in text.splitlines()
    assert text.count(SHOWN) == 2


@pytest.mark.parametrize(
    "name", ["\u05d7\u05ea\u05d5\u05dc", "\u0642\u0637\u0629 \u200f1", "\U0001f468\u200d\U0001f469", "caf\u0065\u0301"]
)
def test_names_in_all_scripts_are_shown_as_they_are(name: str) -> None:
    assert printed(name) == name + "\n"


def test_errors_and_what_was_found_are_written_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / NAME
    for label in ("a", "a\u202eb"):
        (data / label).mkdir(parents=True)
        (data / label / "\x1b[2J.png").write_bytes(b"no image")
    assert main(["init", str(data), "--output", str(tmp_path / "made.yaml")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"fpn: {tmp_path}/{SHOWN}: 2 of 2 files tried can't be used, the first a")
    assert r"\x1b[2J.png (not an image)" in error
    assert not set(NAME) & set("\u202e\x1b\u2066\udcff") & set(error)
