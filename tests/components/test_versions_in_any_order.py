"""Pushes, rollbacks, deletions and damage in any order: what is said, listed and served agrees after each step."""

import contextlib
import json
import logging
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from base.errors import UserError
from components.pusher import model_files, places
from components.pusher.record import CHECKSUM_FILE, RECORD_FILE, Record, checksum_line
from components.pusher.versions import list_versions, push, roll_back, served_version
from pipeline.pushed.pushed_model import find_version
from pipeline.serving import versions as serving

GRAPH = "saved_model.pb"
FILES = (GRAPH, "variables/variables.index", "variables/variables.data-00000-of-00001")
MODELS = "abc"
BAD_RECORDS = (
    b"",
    b"{",
    b"\xff\xfe{}",
    b"[]",
    b"{}",
    b'{"time": 7, "digest": null}',
    b"[" * 100_000,
    json.dumps({"time": "2026-01-01T00:00:00+00:00", "digest": "0" * 64}).encode(),  # of another model
)


class Loaded:
    """What a server has in memory: the graph's text, of a model that is whole."""

    def __init__(self, path: Path, version: int) -> None:
        self.version = version
        self.content = {(path / name).read_text()[:1] for name in FILES}


def write_model(folder: Path, content: str) -> None:
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content * 100 + name)


class PushedFolder(RuleBasedStateMachine):
    """A folder of versions, beside what should be in it.

    Attributes:
      contents: number -> the model that was put there.
      records: number -> the record as it was written; None for a version of another program.
    """

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp(prefix="versions-"))
        self.folder = self.place / "pushed"
        self.contents: dict[int, str] = {}
        self.records: dict[int, bytes | None] = {}
        self.last: int | None = None  # pushed, as `latest` should say
        self.server: Any = None
        self.now = 1_000_000.0
        self.patches = contextlib.ExitStack()
        logging.disable()
        self.patches.callback(logging.disable, logging.NOTSET)
        for module, name, value in (
            (serving, "Model", Loaded),
            *((module, "sync", lambda file: file.flush()) for module in (model_files, places)),
            (places, "sync_folder", lambda folder: None),
            (places.time, "time", lambda: self.now),
        ):
            self.patches.enter_context(mock.patch.object(module, name, value))
        for content in MODELS:
            write_model(self.place / content, content)

    def teardown(self) -> None:
        self.patches.close()
        shutil.rmtree(self.place)

    # What should be: from the bytes alone.

    def there(self) -> list[int]:
        """Versions that should be listed."""
        found = [path for path in self.folder.glob("[0-9]*") if (path / GRAPH).exists() or (path / RECORD_FILE).exists()]
        return sorted(int(path.name) for path in found)

    def is_intact(self, number: int) -> bool:
        version, record = self.folder / str(number), self.records[number]
        files = {str(path.relative_to(version)): path.read_bytes() for path in version.rglob("*") if path.is_file()}
        expected = {name: (self.place / self.contents[number] / name).read_bytes() for name in FILES}
        if record is not None:
            expected |= {RECORD_FILE: record, CHECKSUM_FILE: checksum_line(record)}
        return files == expected

    def newest_intact(self) -> int | None:
        return max(filter(self.is_intact, self.there()), default=None)

    # What happens.

    @initialize(content=st.sampled_from(MODELS))
    def first_push(self, content: str) -> None:
        self.push(content, None, 0)
        self.server = serving.Versions(self.folder)

    @rule(content=st.sampled_from(MODELS), keep=st.sampled_from([None, 1, 2, 3]), seconds=st.integers(0, 2))
    def push(self, content: str, keep: int | None, seconds: int) -> None:
        self.now += seconds
        before = self.there()
        whole = [number for number in before if (self.folder / str(number) / GRAPH).exists()]
        newest = max(whole, default=None)
        was_intact = newest is not None and self.is_intact(newest)
        stays = was_intact and self.contents[newest] == content and self.records[newest] is not None

        made = push(str(self.place / content), str(self.folder), Record(run=f"{content} {self.now}"), keep)

        assert stays == (made.number == newest)
        assert stays or all(made.number > number for number in before)
        self._note(made.number, content)
        gone = set(before) - set(self.there())
        counted = [number for number in self.there() if number != newest or was_intact]
        assert not gone or (keep and len(counted) >= keep and max(gone) < sorted(counted)[-keep])
        assert keep is None or len([number for number in whole if number in counted and number not in gone]) <= keep

    @precondition(lambda self: self.there())
    @rule(keep=st.sampled_from([None, 1, 2, 3]))
    def run_again(self, keep: int | None) -> None:
        self.push(self.contents[max(self.there())], keep, 1)

    @rule(data=st.data())
    def go_back(self, data: st.DataObject) -> None:
        before = self.there()
        number = data.draw(st.sampled_from([*before, 7]))
        refused = number not in before or not self.is_intact(number)
        if not refused:
            newest = max(before)
            refused = self.is_intact(newest) and self.contents[newest] == self.contents[number]
        if refused:
            with pytest.raises(UserError, match=f"{number}" if self.folder.exists() else "no such folder"):
                roll_back(str(self.folder), number)
            assert self.there() == before
            return
        made = roll_back(str(self.folder), number)
        assert made.number > max(before)
        self._note(made.number, self.contents[number])

    @rule(data=st.data())
    def damage_files(self, data: st.DataObject) -> None:
        """In place, and so in all versions that share the file."""
        ours = [number for number in self.there() if self.records[number] is not None]
        if not ours:
            return
        file = self.folder / str(data.draw(st.sampled_from([ours[-1], *ours]))) / data.draw(st.sampled_from(FILES))
        if self._is_shared_with_others(file):  # whose damage nobody can tell
            return
        how = data.draw(st.sampled_from(["truncate", "flip", "remove", "add"]))
        if how == "add":
            file.with_name("another").write_text("another")
        elif file.exists() and how == "remove":
            file.unlink()
        elif file.exists() and (size := file.stat().st_size):
            content = file.read_bytes()
            at = data.draw(st.integers(0, size - 1))
            with file.open("r+b") as opened:
                if how == "truncate":
                    opened.truncate(at)
                else:
                    opened.seek(at)
                    opened.write(bytes([content[at] ^ 1]))

    @rule(data=st.data(), content=st.sampled_from(BAD_RECORDS))
    def damage_record(self, data: st.DataObject, content: bytes) -> None:
        ours = [number for number in self.there() if self.records[number] is not None]
        if ours:
            record = self.folder / str(data.draw(st.sampled_from([ours[-1], *ours]))) / RECORD_FILE
            record.parent.mkdir(parents=True, exist_ok=True)
            record.write_bytes(content)

    @rule(data=st.data())
    def something_else_happens(self, data: st.DataObject) -> None:
        """What is rare, as one rule, so that it does not crowd out the others."""
        what = data.draw(st.sampled_from(["version deleted", "folder deleted", "latest damaged", "another program's version"]))
        if what == "version deleted" and (there := self.there()):
            shutil.rmtree(self.folder / str(data.draw(st.sampled_from(there))))
        elif what == "folder deleted":
            shutil.rmtree(self.folder, ignore_errors=True)
            self.last = None
        elif what == "latest damaged" and self.folder.exists():
            (self.folder / "latest").write_bytes(data.draw(st.sampled_from([b"", b"x", b"\xff", b"9" * 50])))
            self.last = None
        elif what == "another program's version":
            content, number = data.draw(st.sampled_from(MODELS)), max([int(self.now), *self.contents]) + 1
            shutil.copytree(self.place / content, self.folder / str(number))
            self.contents[number], self.records[number] = content, None
            self.now = float(number)
        self.now += 100  # a number does not come back so soon

    def _is_shared_with_others(self, file: Path) -> bool:
        others = (self.folder / str(number) for number in self.there() if self.records[number] is None)
        return file.exists() and any(file.samefile(path) for other in others for path in other.rglob("*"))

    # What must agree.

    def _note(self, number: int, content: str) -> None:
        self.contents[number], self.last = content, number
        path = self.folder / str(number) / RECORD_FILE
        record = path.read_bytes() if path.exists() else None  # a copy of another program's version
        assert self.records.setdefault(number, record) == record
        assert (self.newest_intact(), max(self.there())) == (number, number)  # what was said is served

    @invariant()
    def the_list_tells_the_damaged_from_the_intact(self) -> None:
        if self.folder.exists():
            listed = list_versions(str(self.folder))
            assert [version.number for version in listed] == self.there()
            assert {version.number: not version.problem for version in listed} == {
                number: self.is_intact(number) for number in self.there()
            }

    @invariant()
    def everybody_takes_the_newest_intact_version(self) -> None:
        newest = self.newest_intact()
        served = served_version(str(self.folder))
        assert (served and served.number) == newest
        if newest is None:
            for take in (find_version, serving.Versions):
                with pytest.raises(UserError):
                    take(self.folder)
            return
        assert find_version(self.folder) == self.folder / str(newest)
        assert serving.Versions(self.folder).current.version == newest

    @precondition(lambda self: self.server is not None)
    @invariant()
    def a_server_at_work_never_has_a_damaged_model(self) -> None:
        for _ in range(2 * len(self.there()) + 2):  # it looks at a version twice before it loads it
            if (found := self.server._newest()) and (model := self.server._load(*found)):
                self.server.current = model
        current, newest = self.server.current, self.newest_intact()
        assert current.content == {self.contents[current.version]}
        still_there = (self.folder / str(current.version) / GRAPH).exists()
        assert newest in (current.version, None) or (still_there and current.version > newest)

    @invariant()
    def latest_names_what_was_pushed_last(self) -> None:
        if self.last is not None:
            assert (self.folder / "latest").read_text() == f"{self.last}\n"


PushedFolder.TestCase.settings = settings(
    max_examples=50,
    stateful_step_count=30,
    deadline=None,
    derandomize=not os.environ.get("FPN_RANDOM_TESTS"),
    suppress_health_check=list(HealthCheck),
)
test_what_is_said_listed_and_served_agrees = PushedFolder.TestCase
