"""~ at the beginning of a path stands for the home folder, in every option that takes a path."""

import argparse
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.cli import _parser

OTHERWISE = ("--data",)  # a key of the configuration, which expands it


def actions(parser: argparse.ArgumentParser, name: str = "fpn") -> Iterator[tuple[str, argparse.Action]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command, part in action.choices.items():
                yield from actions(part, f"{name} {command}")
        else:
            yield name, action


def takes_a_path(action: argparse.Action) -> bool:
    return any(word in str(action.metavar) for word in ("DIR", "FILE", "DATA", "IMAGE")) or action.metavar == "PATH"


def test_each_option_that_takes_a_path_knows_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    found = [(name, action) for name, action in actions(_parser()) if takes_a_path(action)]
    assert len(found) > 40
    for name, action in found:
        if not set(action.option_strings) & set(OTHERWISE):
            assert callable(action.type), (name, action.option_strings or action.dest)
            assert str(action.type("~/x")) == "/home/somebody/x", (name, action.option_strings or action.dest)


def test_a_folder_of_versions_is_found_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    from pipeline.cli import main

    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["push", "--to=~/nowhere", "--list"]) == 2
    assert capsys.readouterr().err.startswith(f"fpn: {tmp_path}/nowhere: no such folder")
