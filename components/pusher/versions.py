"""A folder of numbered versions of a model, in the layout of TensorFlow Serving, which serves the largest number.

    pushed/
      1767225600/           a SavedModel; manifest.json in it is its `Record`, model.sig its signature, if it has one
      1767312000/
      latest                text file: the number of the version that was pushed last
      .push-1767312000-x/   a temporary folder of an unfinished push; servers ignore it, as the name is not a number

On a file system a version is copied to a temporary folder, flushed to the disk and renamed. A lock allows one push at a time.
A killed push leaves its temporary folder, which the next push deletes. Object stores can't rename folders and have no locks.
There the files are uploaded to a temporary folder, then moved inside the store to the folder with the number. `saved_model.pb`
is moved last; a version is complete if that file exists.

Servers use the largest number, whatever `latest` says. So a rollback makes a copy: `roll_back` gives an earlier version, with
its record and signature, a new, larger number. All readers then use it. Undoing a rollback is another rollback.

A version is intact if its record can be read and has the digests of its files. The newest intact version is the one that is
served: `fpn serve` and `fpn predict` pass over damaged ones. Without a record, as other programs leave it, a version counts as
intact. Digests are computed when somebody goes by them, from the files as they are then. A reader that is given a public key
also passes over all versions that are not signed by it.
"""

import contextlib
import datetime
import errno
import fcntl
import hashlib
import io
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

from base.errors import UserError
from base.inputs import open_regular
from components.pusher.record import (
    CHECKSUM_FILE,
    OLD_RECORD_FILE,
    RECORD_FILE,
    Record,
    checksum_line,
    format_record,
    parse_record,
)
from components.pusher.signing import SIGNATURE_FILE, sign_folder, signature_problem

__all__ = [
    "CHECKSUM_FILE",
    "OLD_RECORD_FILE",
    "RECORD_FILE",
    "SIGNATURE_FILE",
    "Record",
    "Version",
    "digest_of",
    "exists",
    "fetch",
    "find_problem",
    "list_versions",
    "model_digest",
    "newest_first",
    "push",
    "read_file",
    "read_record",
    "roll_back",
    "served_version",
    "sign",
    "user_errors",
    "version_folders",
]

LATEST_FILE: Final = "latest"
_GRAPH: Final = "saved_model.pb"  # copied last
_TEMPORARY_PREFIX: Final = ".push-"
_LOCK: Final = ".lock"
_DAY: Final = 86_400  # seconds; without locks, an unfinished push that is older was killed
_CHUNK: Final = 1 << 20
_LARGEST_RECORD: Final = 1 << 24  # bytes
_ABOUT_THE_FILES: Final = (RECORD_FILE, CHECKSUM_FILE, SIGNATURE_FILE)  # which the record does not list
_LONGEST_NUMBER: Final = 12  # digits of a time in seconds
_MOST_DIGITS: Final = 18  # of a version's number


def _open_local(path: str, mode: str) -> Any:
    """Opens a file; one that is read must be a regular file, because a pipe would be waited for."""
    return open_regular(path) if mode == "rb" else open(path, mode)


_LOCAL: Final = SimpleNamespace(  # replaces TFX's file operations for local paths, without loading TensorFlow
    open=_open_local,
    exists=os.path.exists,
    isdir=os.path.isdir,
    listdir=os.listdir,
    makedirs=lambda path: os.makedirs(path, exist_ok=True),
    remove=os.remove,
    rmtree=shutil.rmtree,
    walk=os.walk,
)


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


def push(model: str, folder: str, record: Record, keep: int | None, private_key: Path | None = None) -> Version:
    """Makes a SavedModel the newest version. If the newest version has the same files already, nothing is copied.

    A newest version that was damaged is no reason not to push its model again, and does not count among those to keep.

    Args:
      model: folder of the SavedModel, local or a URI.
      folder: folder of the versions, local or a URI such as gs://bucket/models or s3://bucket/models; created if missing.
      record: origin of the model; time, digest and files are filled in here.
      keep: number of newest versions to keep; None for all. The version that `latest` names is never deleted.
      private_key: PEM file; the version is signed with it. None for no signature.

    Raises:
      UserError: the folder can't be written, or the key can't be used. The version that was served before is unchanged.
    """
    with user_errors(folder), _open(folder) as place:
        files, numbers = _list_files(model), place.numbers()
        newest = place.version(numbers[-1], verify=True) if numbers else None
        if newest and not newest.problem and newest.record and newest.record.digest == _digest(files):
            number = newest.number
            if private_key:
                place.sign(newest.path, private_key)
        else:
            filled = replace(record, time=_now(), digest=_digest(files), files=files)
            number = place.add(lambda temporary: place.fill(temporary, model, filled, private_key))
        place.mark(number)
        counted = [old for old in place.numbers() if not (newest and newest.problem and old == newest.number)]
        for old in counted[:-keep] if keep else []:
            if old not in (number, place.latest()):
                place.delete(old)
        return place.version(number)


def roll_back(folder: str, number: int) -> Version:
    """Makes a copy of an earlier version the newest version. On a file system the copy has hard links, which need no space.

    Args:
      folder: folder of the versions.
      number: number of the earlier version.

    Raises:
      UserError: there is no such version, it is damaged, its model is served already, or the folder can't be written.
    """
    with user_errors(folder), _open(folder, make=False) as place:
        found, newest = place.find(number), place.version(place.listed_numbers()[-1], verify=True)
        if found.problem:
            raise UserError(f"{folder}: {number} is damaged ({found.problem}); go back to another version, see fpn push --list")
        if not newest.problem and digest_of(found.path) == digest_of(newest.path):
            raise UserError(
                f"{folder}: {newest.number}, which is served, has the model of {number} already; see fpn push --list"
            )
        made = place.add(lambda temporary: _copy_files(found.path, temporary, _walk(found.path), place.copy_within))
        place.mark(made)
        return next(version for version in place.versions() if version.number == made)


def sign(folder: str, number: int | None, private_key: Path) -> Version:
    """Signs a version, in place of the signature that it has.

    Args:
      folder: folder of the versions.
      number: number of the version; None for the newest.
      private_key: PEM file.

    Raises:
      UserError: there is no such version, it is damaged, the key can't be used, or the folder can't be written.
    """
    with user_errors(folder), _open(folder, make=False) as place:
        found = place.find(number)
        if found.problem:
            raise UserError(f"{folder}: {found.number} is damaged ({found.problem}); sign another version, see fpn push --list")
        place.sign(found.path, private_key)
        return found


def list_versions(folder: str) -> list[Version]:
    """Lists all versions, the oldest first, each with what is wrong with it. Reads all their files.

    Raises:
      UserError: the folder does not exist or can't be read.
    """
    with user_errors(folder, "read"):
        if not _files(folder).isdir(folder):
            raise UserError(f"{folder}: no such folder; give the one that a run has pushed to, such as output/digits/pushed")
        return (_Bucket(folder) if "://" in folder else _Folder(folder)).versions(verify=True)


def newest_first(folder: str) -> Iterator[Version]:
    """The complete versions, the newest first. Their records are read, but not compared with their files.

    Args:
      folder: folder of the versions, local or a URI. If it does not exist, there are none.
    """
    place = _Place(folder)
    return (place.version(number) for number in reversed(version_folders(folder)))


def served_version(folder: str, public_key: Path | None = None) -> Version | None:
    """The newest version that `find_problem` finds nothing wrong with; None if there is none.

    Args:
      folder: folder of the versions, local or a URI.
      public_key: as for `find_problem`.

    Raises:
      UserError: the folder can't be read.
    """
    with user_errors(folder, "read"):
        return next(
            (version for version in newest_first(folder) if not (version.problem or find_problem(version.path, public_key))),
            None,
        )


def find_problem(version: str, public_key: Path | None = None) -> str:
    """Compares the files of a version with its record.

    Args:
      version: folder of a SavedModel, local or a URI.
      public_key: PEM file; the version must then also be signed by this key, record or not, and be local.

    Returns:
      What is wrong, such as "its files are not those that were pushed: saved_model.pb has changed"; "" if nothing is, or if
      there is no record.
    """
    try:
        record = read_record(version)
        problem = _difference(version, record) if record else ""
    except ValueError as error:
        return str(error)
    except OSError as error:
        return f"its files can't be read ({error.strerror or error})"
    return problem or (signature_problem(version, public_key) if public_key else "")


def _difference(version: str, record: Record) -> str:
    """How the files of a version differ from those in its record; "" if they do not."""
    if not _files(version).exists(f"{version}/{_GRAPH}"):
        return f"{_GRAPH} is missing"
    files = _list_files(version)
    if not record.files:
        return "" if _digest(files) == record.digest else "its files are not those that were pushed"
    wrong = [path for path in sorted(record.files.keys() | files) if files.get(path) != record.files.get(path)]
    if not wrong:
        return ""
    name = wrong[0] if wrong[0].isprintable() else ascii(wrong[0])
    what = "is missing" if wrong[0] not in files else "has changed" if wrong[0] in record.files else "was added"
    more = f", and {len(wrong) - 1} more" if wrong[1:] else ""
    return f"its files are not those that were pushed: {name} {what}{more}"


def read_record(version: str) -> Record | None:
    """The record in the folder of a version; None if there is none.

    Raises:
      ValueError: it can't be read; the text says why.
    """
    pair = [name for name in (RECORD_FILE, CHECKSUM_FILE) if exists(f"{version}/{name}")]
    if len(pair) == 1:
        raise ValueError(f"{RECORD_FILE if pair == [CHECKSUM_FILE] else CHECKSUM_FILE} is missing")
    name = RECORD_FILE if pair else OLD_RECORD_FILE
    if not pair and not exists(f"{version}/{name}"):
        return None
    try:
        content = read_file(f"{version}/{name}", _LARGEST_RECORD)
        if name == RECORD_FILE and read_file(f"{version}/{CHECKSUM_FILE}", _CHUNK) != checksum_line(content):
            raise ValueError(f"its SHA-256 is not the one in {CHECKSUM_FILE}")
        return parse_record(content)
    except ValueError as error:
        raise ValueError(f"{name} can't be read: {error}") from error
    except OSError as error:
        raise ValueError(f"{name} can't be read: {error.strerror or error}") from error


def digest_of(model: str) -> str:
    """The digest in a SavedModel's record; without a record that of its files, see `model_digest`.

    Args:
      model: folder of the SavedModel, local or a URI.

    Raises:
      ValueError: the record can't be read.
    """
    record = read_record(model)
    return record.digest if record else model_digest(model)


def exists(path: str) -> bool:
    """Whether there is a file or folder of this path, local or a URI."""
    found: bool = _files(path).exists(path)
    return found


def read_file(path: str, size: int = -1) -> bytes:
    """The content of a file, local or a URI; at most `size` bytes of it, if that is not negative."""
    with _files(path).open(path, "rb") as file:
        content: bytes = file.read(size)
    return content


def version_folders(folder: str) -> dict[int, str]:
    """Paths of the complete versions by number, in ascending order; empty if the folder, local or a URI, does not exist."""
    place = _Place(folder)
    paths = {int(name): f"{place.path}/{name}" for name in place.names() if _is_number(name)}
    return {number: path for number, path in sorted(paths.items()) if place.files.exists(f"{path}/{_GRAPH}")}


def fetch(version: str, folder: str) -> str:
    """The local folder of a version. A version on an object store is first copied to `folder`.

    Raises:
      UserError: the version can't be read.
    """
    if "://" not in version:
        return version
    with user_errors(version, "read"):
        for path in _walk(version):
            os.makedirs(os.path.dirname(f"{folder}/{path}"), exist_ok=True)
            _copy(f"{version}/{path}", f"{folder}/{path}")
    return folder


class _Place:
    """The common part of both kinds of folders."""

    def __init__(self, path: str) -> None:
        self.path = path.rstrip("/")
        self.files = _files(path)

    def names(self) -> list[str]:
        return [name.rstrip("/") for name in self.files.listdir(self.path)] if self.files.isdir(self.path) else []

    def numbers(self) -> list[int]:
        """Numbers of the complete versions, in ascending order."""
        return [number for number, path in version_folders(self.path).items() if path == f"{self.path}/{number}"]

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
        _copy_files(model, temporary, record.files, _copy)
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


class _Folder(_Place):
    """A folder of versions on a file system."""

    copy_within = staticmethod(lambda source, target: _link(source, target))

    def listed_numbers(self) -> list[int]:
        """Here a version appears as a whole, so one with a record and without a graph was damaged later."""
        folders = (name for name in self.names() if _is_number(name) and name == str(int(name)))
        files = (_GRAPH, RECORD_FILE, OLD_RECORD_FILE)
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
                _sync_folder(folder)
            number = self._take_number(temporary)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        _sync_folder(self.path)
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
            _sync(file)
        os.replace(temporary, path)
        _sync_folder(folder)

    def delete(self, number: int) -> None:
        temporary = self.new_temporary
        os.rename(f"{self.path}/{number}", temporary)  # no reader sees a version that is deleted in part
        shutil.rmtree(temporary)


class _Bucket(_Place):
    """A folder of versions on an object store, or any other file system that TFX knows by a URI."""

    def copy_within(self, source: str, target: str) -> None:
        self.files.copy(source, target)

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Deletes the remains of killed pushes. There are no locks, so files that are younger than a day are kept."""
        for name in self.names():
            if name.startswith(_TEMPORARY_PREFIX) and _is_old(name):
                self.files.rmtree(f"{self.path}/{name}")
            elif _is_number(name) and not self.files.exists(f"{self.path}/{name}/{_GRAPH}"):
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
            paths = sorted(_walk(temporary), key=lambda path: path == _GRAPH)
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
            if self._claims(folder) == [token] and not self.files.exists(f"{folder}/{_GRAPH}"):
                return number, claim
            self.files.remove(claim)
            number = max(number, self.next_number()) + uuid.uuid4().int % 8  # random, so that two pushes don't collide again

    def _claims(self, folder: str) -> list[str]:
        return [name for name in self.files.listdir(folder) if name.startswith(_TEMPORARY_PREFIX)]

    def delete(self, number: int) -> None:
        self.files.remove(f"{self.path}/{number}/{_GRAPH}")  # without this file it is not a version any more
        self.files.rmtree(f"{self.path}/{number}")


def _files(path: str) -> Any:
    if "://" not in path:
        return _LOCAL
    from tfx.dsl.io import fileio, filesystem_registry  # noqa: F401  # fileio registers TensorFlow's file systems

    import storage.s3  # noqa: F401  # registers s3://
    from storage.stores import check_packages

    check_packages(path)
    return filesystem_registry.DEFAULT_FILESYSTEM_REGISTRY.get_filesystem_for_path(path)


@contextlib.contextmanager
def _open(folder: str, make: bool = True) -> Iterator[_Folder | _Bucket]:
    place = _Bucket(folder) if "://" in folder else _Folder(folder)
    if make:
        if "://" in folder:
            from storage.stores import check_bucket

            check_bucket(folder)
        place.files.makedirs(place.path)
    elif not place.files.isdir(place.path):
        raise UserError(f"{folder}: no such folder; give the one that a run has pushed to, such as output/digits/pushed")
    with place.exclusive():
        yield place


def _walk(folder: str) -> Iterator[str]:
    """Paths of all files, relative to the folder, sorted; without hidden ones, such as .DS_Store, which no model has."""
    folder = folder.rstrip("/")
    walked = _files(folder).walk(folder)
    paths = [os.path.join(parent, name) for parent, _, names in walked for name in names if not name.startswith(".")]
    return iter(sorted(path[len(folder) :].lstrip("/") for path in paths))


def model_digest(model: str) -> str:
    """SHA-256 over the names and contents of a SavedModel's files, hexadecimal. Copies of a version have the same digest.

    Args:
      model: folder of the SavedModel, local or a URI.
    """
    return _digest(_list_files(model))


def _digest(files: dict[str, dict[str, Any]]) -> str:
    listed = "".join(f"{path}\0{file['sha256']}\0" for path, file in sorted(files.items()) if path != OLD_RECORD_FILE)
    return hashlib.sha256(listed.encode()).hexdigest()


def _list_files(model: str) -> dict[str, dict[str, Any]]:
    """SHA-256 and size of a SavedModel's files, as in `Record.files`. Reads them piece by piece."""
    files, found = _files(model), {}
    for path in _walk(model):
        if path in _ABOUT_THE_FILES:
            continue
        content, size = hashlib.sha256(), 0
        with files.open(f"{model}/{path}", "rb") as file:
            while chunk := file.read(_CHUNK):
                content.update(chunk)
                size += len(chunk)
        found[path] = {"sha256": content.hexdigest(), "size": size}
    return found


def _copy_files(source: str, target: str, paths: Iterable[str], copy: Callable[[str, str], None]) -> None:
    """Copies files from a folder into another, the graph after all others."""
    for path in sorted(paths, key=lambda path: path == _GRAPH):
        _files(target).makedirs(os.path.dirname(f"{target}/{path}"))
        copy(f"{source}/{path}", f"{target}/{path}")


def _copy(source: str, target: str) -> None:
    with _files(source).open(source, "rb") as read, _files(target).open(target, "wb") as written:
        while chunk := read.read(_CHUNK):
            written.write(chunk)
        _sync(written)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        _copy(source, target)


def _sync(file: Any) -> None:
    file.flush()
    try:
        descriptor = file.fileno()
    except (AttributeError, io.UnsupportedOperation):  # not on a disk
        return
    os.fsync(descriptor)


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


@contextlib.contextmanager
def user_errors(folder: str, what: str = "written") -> Iterator[None]:
    """Turns exceptions of file systems into UserErrors."""
    try:
        yield
    except OSError as error:
        raise UserError(_failure_text(folder, what, error.strerror or str(error) or str(error.__cause__))) from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in ("tensorflow", "apache_beam", "botocore"):
            raise
        raise UserError(_failure_text(folder, what, str(error).splitlines()[0])) from error


def _failure_text(folder: str, what: str, reason: str) -> str:
    cure = "check the path and your rights, or make room, and do it again"
    return f"{folder}: can't be {what} ({reason}); what was served before still is: {cure}"
