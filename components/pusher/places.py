"""Folders of versions, on a file system and on an object store; see `components.pusher.versions`."""

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from base.errors import UserError
from components.pusher.integrity import find_problem, read_record
from components.pusher.model_files import (
    GRAPH,
    copy_file,
    copy_files,
    exists,
    fetch,
    files_of,
    link_file,
    read_file,
    sync,
    sync_folder,
    walk,
)
from components.pusher.record import CHECKSUM_FILE, OLD_RECORD_FILE, RECORD_FILE, Record, checksum_line, format_record
from components.pusher.signing import SIGNATURE_FILE, sign_folder

LATEST_FILE: Final = "latest"
_TEMPORARY_PREFIX: Final = ".push-"
_LOCK: Final = ".lock"
_DAY: Final = 86_400  # seconds; without locks, an unfinished push that is older was killed
_LONGEST_NUMBER: Final = 12  # digits of a time in seconds
_MOST_DIGITS: Final = 18  # of a version's number


@dataclass(frozen=True)
class Version:
    """A version.

    Attributes:
      number: its number.
      path: its folder, local or a URI.
      record: None if another program has put the version there, or if the record can't be read.
      problem: what is wrong with its record or, if they were compared with it, its files; "" for nothing.
    """

    number: int
    path: str
    record: Record | None
    problem: str = ""


class Place:
    """The common part of both kinds of folders."""

    def __init__(self, path: str) -> None:
        self.path = path.rstrip("/")
        self.files = files_of(path)

    def names(self) -> list[str]:
        return [name.rstrip("/") for name in self.files.listdir(self.path)] if self.files.isdir(self.path) else []

    def folders(self) -> dict[int, str]:
        """Paths of the complete versions by number, in ascending order; empty if the folder does not exist."""
        paths = {int(name): f"{self.path}/{name}" for name in self.names() if _is_number(name)}
        return {number: path for number, path in sorted(paths.items()) if self.files.exists(f"{path}/{GRAPH}")}

    def numbers(self) -> list[int]:
        """Numbers of the complete versions, in ascending order; a folder 007 is none that can be named again."""
        return [number for number, path in self.folders().items() if path == f"{self.path}/{number}"]

    def listed_numbers(self) -> list[int]:
        """Numbers of the versions to list, in ascending order: the complete ones, and where it can be told, damaged ones."""
        return self.numbers()

    def version(self, number: int, *, verify: bool = False) -> Version:
        """The version of this number.

        Args:
          number: of a version that is there.
          verify: whether to compare its files with its record.
        """
        path, problem = f"{self.path}/{number}", ""
        try:
            record = read_record(path)
        except ValueError as error:
            record, problem = None, str(error)
        return Version(number, path, record, problem or (find_problem(path) if verify else ""))

    def versions(self, *, verify: bool = False) -> list[Version]:
        """The versions to list, the oldest first."""
        first: dict[bytes, int] = {}
        found = []
        for version in (self.version(number, verify=verify) for number in self.listed_numbers()):
            origin = first.setdefault(format_record(version.record), version.number) if version.record else version.number
            if version.record and version.record.copy_of is None and origin != version.number:
                version = replace(version, record=replace(version.record, copy_of=origin))
            found.append(version)
        return found

    def find(self, number: int | None) -> Version:
        """The version of this number, or the newest, with what is wrong with it; a UserError if there is none."""
        numbers = self.listed_numbers()
        if not numbers or number not in (None, *numbers):
            which = "yet" if number is None else number
            raise UserError(f"{self.path}: no version {which}; there are {', '.join(map(str, numbers)) or 'none'}")
        return self.version(numbers[-1] if number is None else number, verify=True)

    def fill(self, temporary: str, model: str, record: Record, private_key: Path | None) -> None:
        """Copies a model's files to the folder `temporary`, and writes its record and signature."""
        copy_files(model, temporary, record.files, copy_file)
        content = format_record(record)
        self.write(f"{temporary}/{RECORD_FILE}", content)
        self.write(f"{temporary}/{CHECKSUM_FILE}", checksum_line(content))
        if private_key:
            self.sign(temporary, private_key)

    def sign(self, version: str, private_key: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="fpn-sign-") as folder:
            self.write(f"{version}/{SIGNATURE_FILE}", sign_folder(fetch(version, folder), private_key))

    def mark(self, number: int) -> None:
        self.write(f"{self.path}/{LATEST_FILE}", f"{number}\n".encode())

    def write(self, path: str, content: bytes) -> None:
        """Writes a file whole, also in the place of another."""
        with self.files.open(path, "wb") as file:
            file.write(content)

    def next_number(self) -> int:
        """The time in seconds, as in TFX, or more if needed to exceed all numbers that there are and the last one pushed.

        Numbers of versions that are not complete count, too. A number must not come back for another model: a server that has
        loaded the first would keep it.
        """
        return max([int(time.time()), (self.latest() or 0) + 1, *(int(name) + 1 for name in self.names() if _is_number(name))])

    def latest(self) -> int | None:
        path = f"{self.path}/{LATEST_FILE}"
        text = read_file(path, 2 * _LONGEST_NUMBER).decode("ascii", "replace").strip() if exists(path) else ""
        return int(text) if text.isdecimal() and len(text) <= _LONGEST_NUMBER else None

    @property
    def new_temporary(self) -> str:
        """A new path for a temporary folder."""
        return f"{self.path}/{_TEMPORARY_PREFIX}{int(time.time())}-{uuid.uuid4().hex[:12]}"


class Folder(Place):
    """A folder of versions on a file system."""

    copy_within = staticmethod(link_file)

    def listed_numbers(self) -> list[int]:
        """Here a version appears as a whole, so one with a record and without a graph was damaged later."""
        folders = (name for name in self.names() if _is_number(name) and name == str(int(name)))
        files = (GRAPH, RECORD_FILE, OLD_RECORD_FILE)
        return sorted(int(name) for name in folders if any(os.path.exists(f"{self.path}/{name}/{file}") for file in files))

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Waits for the lock, so that one push at a time works here, and deletes temporary folders of killed pushes.

        A process loses its lock when it ends, also when it is killed. So temporary folders that exist once the lock is held
        belong to killed pushes. On a file system without locks, only those that are older than a day are deleted.
        """
        with open(f"{self.path}/{_LOCK}", "w", opener=_open_at_once) as file:
            locked = True
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError:  # a file system without locks
                locked = False
            for name in self.names():
                if name.startswith(_TEMPORARY_PREFIX) and (locked or _is_old(name)):
                    _remove(f"{self.path}/{name}")
            yield

    def add(self, fill: Callable[[str], None]) -> int:
        temporary = self.new_temporary
        try:
            os.mkdir(temporary)
            fill(temporary)
            for folder, _, _ in os.walk(temporary):
                sync_folder(folder)
            number = self._take_number(temporary)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        sync_folder(self.path)
        return number

    def _take_number(self, temporary: str) -> int:
        while True:
            number = self.next_number()
            try:
                os.rename(temporary, f"{self.path}/{number}")
                return number
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):  # without locks, another push may have taken it
                    raise

    def write(self, path: str, content: bytes) -> None:
        folder, name = os.path.split(path)
        temporary = f"{folder}/.{name}"
        with open(temporary, "wb") as file:
            file.write(content)
            sync(file)
        os.replace(temporary, path)
        sync_folder(folder)

    def delete(self, number: int) -> None:
        temporary = self.new_temporary
        os.rename(f"{self.path}/{number}", temporary)  # no reader sees a version that is deleted in part
        shutil.rmtree(temporary)


class Bucket(Place):
    """A folder of versions on an object store, or any other file system that TFX knows by a URI."""

    def copy_within(self, source: str, target: str) -> None:
        self.files.copy(source, target)

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Deletes the remains of killed pushes. There are no locks, so files that are younger than a day are kept."""
        for name in self.names():
            if name.startswith(_TEMPORARY_PREFIX) and _is_old(name):
                self.files.rmtree(f"{self.path}/{name}")
            elif _is_number(name) and not self.files.exists(f"{self.path}/{name}/{GRAPH}"):
                claims = self._claims(f"{self.path}/{name}")
                if claims and all(map(_is_old, claims)):
                    self.files.rmtree(f"{self.path}/{name}")
        yield

    def add(self, fill: Callable[[str], None]) -> int:
        temporary = self.new_temporary
        try:
            self.files.makedirs(temporary)
            fill(temporary)
            number, claim = self._claim(os.path.basename(temporary))
            paths = sorted(walk(temporary), key=lambda path: path == GRAPH)
            for path in paths:
                target = f"{self.path}/{number}/{path}"
                self.files.makedirs(os.path.dirname(target))
                self.files.rename(f"{temporary}/{path}", target)
            self.files.remove(claim)
        finally:
            with contextlib.suppress(Exception):
                self.files.rmtree(temporary)
        return number

    def _claim(self, token: str) -> tuple[int, str]:
        """Reserves a number, by a file in its folder; returns the number and the path of the file.

        A push that finds the file of another push beside its own tries a later number. Of two pushes, at least the one that
        writes second sees the file of the other, because stores list everything that has been written.
        """
        number = self.next_number()
        while True:
            folder = f"{self.path}/{number}"
            claim = f"{folder}/{token}"
            self.files.makedirs(folder)
            with self.files.open(claim, "w") as file:
                file.write(token)
            if self._claims(folder) == [token] and not self.files.exists(f"{folder}/{GRAPH}"):
                return number, claim
            self.files.remove(claim)
            number = max(number, self.next_number()) + uuid.uuid4().int % 8  # random, so that two pushes don't collide again

    def _claims(self, folder: str) -> list[str]:
        return [name for name in self.files.listdir(folder) if name.startswith(_TEMPORARY_PREFIX)]

    def delete(self, number: int) -> None:
        self.files.remove(f"{self.path}/{number}/{GRAPH}")  # without this file it is not a version any more
        self.files.rmtree(f"{self.path}/{number}")


def place_of(folder: str) -> Folder | Bucket:
    """A folder of versions, local or a URI; it need not exist."""
    return Bucket(folder) if "://" in folder else Folder(folder)


@contextlib.contextmanager
def open_place(folder: str, make: bool = True) -> Iterator[Folder | Bucket]:
    place = place_of(folder)
    if make:
        if "://" in folder:
            from storage.stores import check_bucket

            check_bucket(folder)
        place.files.makedirs(place.path)
    elif not place.files.isdir(place.path):
        raise UserError(f"{folder}: no such folder; give the one that a run has pushed to, such as output/digits/pushed")
    with place.exclusive():
        yield place


def _is_old(name: str) -> bool:
    begun = name.removeprefix(_TEMPORARY_PREFIX).partition("-")[0]
    return begun.isdecimal() and int(begun) < time.time() - _DAY


def _is_number(name: str) -> bool:
    """Whether a folder's name is the number of a version; servers read it as an integer of 64 bits."""
    return name.isdecimal() and len(name) <= _MOST_DIGITS


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.remove(path)


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK, 0o666)  # a pipe in the lock's place is an error, and not waited for
