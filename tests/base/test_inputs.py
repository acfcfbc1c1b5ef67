"""Files and texts that people give: what can't be taken is refused at once, in one line, and in bounded memory."""

import json
import os
import resource
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from base.errors import UserError
from base.inputs import MAX_CONFIG_BYTES, MAX_NODES, check_regular, open_regular, parse_json_object, read_json, read_text
from base.yaml_text import parse_documents, parse_yaml


@pytest.fixture(autouse=True)
def at_once() -> Iterator[None]:
    """Each refusal takes less than some seconds, on a busy machine, and less than 100 MB."""
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert time.monotonic() - began < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def refused(call: Callable[[], Any]) -> str:
    with pytest.raises(UserError) as caught:
        call()
    (line,) = str(caught.value).splitlines()
    assert len(line) < 400
    return line


# Files


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_folder(path: Path) -> None:
    path.mkdir()


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def make_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


MAKERS = [(make_pipe, "a pipe"), (make_folder, "a folder"), (make_socket, "a socket"), (make_device, "a device")]


@pytest.mark.parametrize(("make", "kind"), MAKERS)
def test_what_is_no_regular_file_is_refused_before_it_is_opened(
    make: Callable[[Path], None], kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    make(Path("x"))
    told = f"not a regular file, but {kind}"
    with pytest.raises(OSError, match=told):
        open_regular("x")
    assert refused(lambda: read_text("x", 10, "save it")) == f"x: {told}"
    assert refused(lambda: read_json("x", "run again")) == f"x: {told}"
    assert refused(lambda: check_regular("x", "data.schema")) == f"data.schema: x: {told}; give a file"


def test_a_file_and_a_link_to_one_are_read(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("Hände")
    (tmp_path / "y").symlink_to("x")
    assert read_text(tmp_path / "y", 10, "") == "Hände"
    check_regular(tmp_path / "y", "")


def test_a_larger_file_is_refused_without_being_read(tmp_path: Path) -> None:
    with (tmp_path / "x").open("wb") as file:
        file.truncate(10**11)  # takes no place on the disk
    assert refused(lambda: read_text(tmp_path / "x", MAX_CONFIG_BYTES, "save less")).endswith("is larger than 4 MiB; save less")


@pytest.mark.parametrize("path", ["gone", "a\0b", "x" * 300])
def test_a_path_that_leads_to_nothing_is_told(path: str) -> None:
    assert refused(lambda: read_text(path, 10, ""))[:100]


# YAML

LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{after}: &{after} [{','.join([f'*{before}'] * 9)}]\n" for before, after in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "a: &a {k: 1}\n" + "".join(
    f"{after}: &{after} {{<<: [{','.join([f'*{before}'] * 9)}]}}\n"
    for before, after in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.case(16)
@pytest.mark.parametrize(
    ("text", "told"),
    [
        (LAUGHS, f"line 6: stands for more than {MAX_NODES:,} values"),
        (MERGES, f"stands for more than {MAX_NODES:,} values"),
        ("a: &a [*a]", "line 1: *a contains itself"),
        ("[" * 100_000, "line 1: is nested too deeply; 50 levels are the most"),
        ("{a: " * 1000, "is nested too deeply"),
        ("- " * 100_000, "is nested too deeply"),
        ("".join(" " * depth + "a:\n" for depth in range(1000)), "line 51: is nested too deeply"),
        ("? " * 1000, "is nested too deeply"),
        ("[" + "1," * 10**6 + "1]", f"stands for more than {MAX_NODES:,} values"),
        ("a: 1" + "0" * 10_000, "an integer of 10001 digits"),
        ("a: -0x" + "f" * 10_000, "an integer of 10003 digits"),
        ("a: " + "59:" * 10_000 + "59", "an integer of 30002 digits"),
        ("a: 18446744073709551616", "an integer beyond 64 bits"),
        ("a: 2026-99-99", "not YAML: month must be in 1..12"),
        ("a: !!int x", "not YAML"),
        ("a: !!timestamp x", "not YAML"),
        ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("a: 1\n---\nb: 1", "has several documents; give one"),
        ("train: {}\ndata: {}\ntrain: {}", "train is given twice, in the lines 1 and 3; make one of them"),
        ("a:\n  b: 1\n  c: 2\n  'b': 3", "b is given twice, in the lines 2 and 4"),
        ("{a: 1, a: 2}", "a is given twice, in line 1;"),
    ],
)
def test_yaml_that_stands_for_too_much_or_contradicts_itself_is_refused(text: str, told: str) -> None:
    line = refused(lambda: parse_yaml(text, "file.yaml"))
    assert line.startswith("file.yaml: ")
    assert told in line


def test_usual_yaml_is_read() -> None:
    text = "a: &x {n: 1e-3, m: three}\nb: *x\nc: {<<: *x, n: 2}\nd: [18446744073709551615, 0x1f]\ne: {a: {a: {a: 1}}}"
    assert parse_yaml(text, "") == {
        "a": {"n": 0.001, "m": "three"},
        "b": {"n": 0.001, "m": "three"},
        "c": {"n": 2, "m": "three"},
        "d": [2**64 - 1, 31],
        "e": {"a": {"a": {"a": 1}}},
    }
    assert parse_yaml("", "") is None
    assert parse_documents("a: 1\n---\na: 2\n", "") == [{"a": 1}, {"a": 2}]


# JSON


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"a": ' + "[" * 100_000, "is nested too deeply"),
        ('{"a": 1' + "0" * 10_000 + "}", "an integer of 10001 digits"),
        ('{"a": ', "not JSON"),
        ("[1]", "holds no JSON object"),
    ],
)
def test_json_that_is_too_much_is_refused(text: str, told: str) -> None:
    line = refused(lambda: parse_json_object(text, "x.json", "run again"))
    assert line.startswith("x.json: ")
    assert told in line
    assert line.endswith("; run again")


def test_json_objects_are_read(tmp_path: Path) -> None:
    content = {"a": [1, 2.5, None, {"b": "ä"}]}
    (tmp_path / "x.json").write_text(json.dumps(content))
    assert read_json(tmp_path / "x.json", "") == content
