"""Each recipe of docs/data.md, executed on a folder that is made for it: what it prints, and which images it finds."""

import re
import shlex
from pathlib import Path

import pytest
from layouts import LAYOUTS, count

from images.dataset import source
from pipeline.cli import main
from pipeline.config.loading import load_config
from pipeline.dag.component_settings import source_settings

PAGE = Path(__file__).parents[1] / "docs/data.md"
ELSEWHERE = {"Remote folders"}  # test_object_stores.py


def recipes() -> dict[str, str]:
    (section,) = re.findall(r"^## One recipe a source$(.*?)^## ", PAGE.read_text(), flags=re.M | re.S)
    _, *parts = re.split(r"^### ", section, flags=re.M)
    return {heading: text for heading, _, text in (part.partition("\n") for part in parts)}


def test_every_recipe_is_executed() -> None:
    assert recipes().keys() == LAYOUTS.keys() | ELSEWHERE


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_recipe_does_what_the_page_says(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    layout = LAYOUTS[name]
    layout.write(tmp_path / layout.data)
    (block,) = re.findall(r"^```console\n\$ \.venv/bin/fpn (.*?)\n(.*?)```$", recipes()[name], flags=re.M | re.S)
    command, printed = block
    for path in re.findall(r"images/[\w./-]+", command.partition("#")[2]):
        assert (tmp_path / path).is_file(), path
    assert main(shlex.split(command, comments=True)) == 0
    output = capsys.readouterr().out.splitlines()
    for line in printed.splitlines():
        assert line in output

    (written,) = re.findall(r"^Wrote (.*?);", "\n".join(output), flags=re.M)
    config = load_config(tmp_path / written.strip("'"))
    found = source.find_rows(config.data.path, source_settings(config.data))
    assert not any(row.reason for row in found.rows)
    assert count(found.rows) == layout.found
    rows = source.assign_splits(config.data.path, found.rows, source_settings(config.data))
    assert count(rows).keys() == {(split, label) for split in ("train", "eval", "test") for _, label in layout.found}
