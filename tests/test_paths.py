"""Names of folders, files and classes are letters: neither patterns nor markup."""

import io
from pathlib import Path

import pytest
from few_digits import write_few_digits

from components.pusher.places import Version
from pipeline.terminal.console import plain_console
from pipeline.terminal.runs import render_versions
from pipeline.terminal.tables import print_scores


@pytest.mark.case(8, 9)
@pytest.mark.parametrize("name", ["out [v1]", "run?", "all*", "back\\slash"])
def test_an_output_that_tensorflow_takes_for_a_pattern_is_refused_before_anything_is_written(fpn, tmp_path: Path, name: str):
    write_few_digits(tmp_path / "digits", 200)
    ended = fpn(
        "run",
        "--config",
        "configs/digits.yaml",
        "--data",
        tmp_path / "digits",
        "--output",
        tmp_path / name,
        "--set",
        "data.splits.stratify=true",
    )
    assert ended.status == 2
    assert ended.stderr.startswith(f"fpn: --output: {tmp_path / name}: TensorFlow takes ")
    assert not (tmp_path / name).exists()


@pytest.mark.case(8)
@pytest.mark.parametrize("command", [["predict", "picture.png"], ["serve", "--port", "0"]])
def test_a_model_that_tensorflow_takes_for_a_pattern_is_refused(fpn, tmp_path: Path, command: list[str]):
    ended = fpn(command[0], "--model", tmp_path / "pushed [v1]", *command[1:])
    assert ended.status == 2
    assert "pushed [v1]: TensorFlow takes [ in a path for a pattern" in ended.stderr


@pytest.mark.case(11, 12)
@pytest.mark.parametrize("name", ["[/dog]", "cat[old]", ":dog:", "[bold]x", "a\\[b"])
def test_names_are_printed_as_they_are(name: str):
    file = io.StringIO()
    console = plain_console(file, width=120)
    summary = {
        "labels": {name: 3},
        "groups": None,
        "rejected": 1,
        "reasons": {f"not an image: {name}": 1},
        "lost": None,
        "shards_kept": 0,
        "images": 3,
        "seconds": 1.0,
        "output": f"/data/{name}",
    }
    print_scores(summary, console)
    console.print(render_versions([Version(1, f"/data/{name}/1", None)], f"/data/{name}"))
    console.print(name, soft_wrap=True)
    assert file.getvalue().count(name) == 5
