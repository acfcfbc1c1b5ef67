"""A folder of numbered versions of a model, in the layout of TensorFlow Serving, which serves the largest number.

    pushed/
      1767225600/           a SavedModel; assets.extra/push.json is its `Record`
      1767312000/
      latest                text file: the number of the version that was pushed last
      .push-1767312000-x/   a temporary folder of an unfinished push; servers ignore it, as the name is not a number

On a file system a version is copied to a temporary folder, flushed to the disk and renamed. A lock allows one push at a time.
A killed push leaves its temporary folder, which the next push deletes. Object stores can't rename folders and have no locks.
There the files are uploaded to a temporary folder, then moved inside the store to the folder with the number. `saved_model.pb`
is moved last; a version is complete if that file exists.

Servers use the largest number, whatever `latest` says. So a rollback makes a copy: `roll_back` gives an earlier version a new,
larger number, and its record names the version that was copied. All readers then use it. Undoing a rollback is another
rollback.
"""

import contextlib
import datetime
import errno
import fcntl
import hashlib
import io
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from types import SimpleNamespace
from typing import Any, Final

from base.errors import UserError

RECORD_FILE: Final = "assets.extra/push.json"
LATEST_FILE: Final = "latest"
_GRAPH: Final = "saved_model.pb"  # copied last
_TEMPORARY_PREFIX: Final = ".push-"
_LOCK: Final = ".lock"
_DAY: Final = 86_400  # seconds; without locks, an unfinished push that is older was killed
_CHUNK: Final = 1 << 20

_LOCAL: Final = SimpleNamespace(  # replaces TFX's file operations for local paths, without loading TensorFlow
    open=open,
    exists=os.path.exists,
    isdir=os.path.isdir,
    listdir=os.listdir,
    makedirs=lambda path: os.makedirs(path, exist_ok=True),
    remove=os.remove,
    rmtree=shutil.rmtree,
    walk=os.walk,
)


@dataclass(frozen=True)
class Record:
    """The origin of a version.

    Attributes:
      time: time of the push, UTC, as 2026-01-01T12:00:00+00:00.
      digest: SHA-256 over the model's files, without this record.
      pipeline: name of the pipeline.
      run: id of the run.
      run_folder: folder of the run, with `config.yaml` and `report.html`; empty if runs have no folder.
      data: fingerprint of the data.
      metrics: metrics on all test images, by name: {"value", "lower", "upper"}, with the bounds of the 95 % interval or None.
      copy_of: after a rollback, the earlier version of which this is a copy; else None.
    """

    time: str = ""
    digest: str = ""
    pipeline: str = ""
    run: str = ""
    run_folder: str = ""
    data: str = ""
    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    copy_of: int | None = None


@dataclass(frozen=True)
class Version:
    """A complete version; `record` is None if another program has put it there."""

    number: int
    path: str
    record: Record | None


def push(model: str, folder: str, record: Record, keep: int | None) -> Version:
    """Makes a SavedModel the newest version. If the newest version has the same files already, nothing is copied.

    Args:
      model: folder of the SavedModel, local or a URI.
      folder: folder of the versions, local or a URI such as gs://bucket/models or s3://bucket/models; created if missing.
      record: origin of the model; time and digest are filled in here.
      keep: number of newest versions to keep; None for all. The version that `latest` names is never deleted.

    Raises:
      UserError: the folder can't be written. The version that was served before is unchanged.
    """
    with _user_errors(folder), _open(folder) as place:
        digest = model_digest(model)
        versions = place.versions()
        if versions and versions[-1].record and versions[-1].record.digest == digest:
            number = versions[-1].number
        else:
            filled = replace(record, time=_now(), digest=digest)
            number = place.add(lambda temporary: _write_version(temporary, model, filled, _copy))
        place.mark(number)
        for old in place.numbers()[:-keep] if keep else []:
            if old not in (number, place.latest()):
                place.delete(old)
        return place.version(number)


def roll_back(folder: str, number: int) -> Version:
    """Makes a copy of an earlier version the newest version. On a file system the copy has hard links, which need no space.

    Args:
      folder: folder of the versions.
      number: number of the earlier version.

    Raises:
      UserError: there is no such version, its model is served already, or the folder can't be written.
    """
    with _user_errors(folder), _open(folder, make=False) as place:
        versions = {version.number: version for version in place.versions()}
        if number not in versions:
            raise UserError(f"{folder}: no version {number}; there are {', '.join(map(str, versions)) or 'none'}")
        newest, found = max(versions), versions[number]
        old, served = (item.record or Record(digest=model_digest(item.path)) for item in (found, versions[newest]))
        if old.digest == served.digest:
            raise UserError(f"{folder}: {newest}, which is served, has the model of {number} already; see fpn push --list")
        record = replace(old, time=_now(), copy_of=number if old.copy_of is None else old.copy_of)
        made = place.add(lambda temporary: _write_version(temporary, found.path, record, place.copy_within))
        place.mark(made)
        return place.version(made)


def list_versions(folder: str) -> list[Version]:
    """Lists all complete versions, the oldest first; the last one is served.

    Raises:
      UserError: the folder does not exist or can't be read.
    """
    with _user_errors(folder, "read"):
        if not _files(folder).isdir(folder):
            raise UserError(f"{folder}: no such folder; give the one that a run has pushed to, such as output/digits/pushed")
        place = _Bucket(folder) if "://" in folder else _Folder(folder)
        return place.versions()


def version_folders(folder: str) -> dict[int, str]:
    """Paths of the complete versions by number, in ascending order; empty if the folder, local or a URI, does not exist."""
    place = _Place(folder)
    paths = {int(name): f"{place.path}/{name}" for name in place.names() if name.isdecimal()}
    return {number: path for number, path in sorted(paths.items()) if place.files.exists(f"{path}/{_GRAPH}")}


def fetch(version: str, folder: str) -> str:
    """The local folder of a version. A version on an object store is first copied to `folder`.

    Raises:
      UserError: the version can't be read.
    """
    if "://" not in version:
        return version
    with _user_errors(version, "read"):
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

    def versions(self) -> list[Version]:
        return [self.version(number) for number in self.numbers()]

    def version(self, number: int) -> Version:
        path, record = f"{self.path}/{number}", None
        if self.files.exists(f"{path}/{RECORD_FILE}"):
            with self.files.open(f"{path}/{RECORD_FILE}", "r") as file:
                record = Record(**json.loads(file.read()))
        return Version(number, path, record)

    def next_number(self) -> int:
        """The time in seconds, as in TFX, or more if needed to exceed all existing numbers, of complete versions or not."""
        return max([int(time.time()), *(int(name) + 1 for name in self.names() if name.isdecimal())])

    def latest(self) -> int | None:
        path = f"{self.path}/{LATEST_FILE}"
        if not self.files.exists(path):
            return None
        with self.files.open(path, "r") as file:
            text = file.read().strip()
        return int(text) if text.isdecimal() else None

    @property
    def new_temporary(self) -> str:
        """A new path for a temporary folder."""
        return f"{self.path}/{_TEMPORARY_PREFIX}{int(time.time())}-{uuid.uuid4().hex[:12]}"


class _Folder(_Place):
    """A folder of versions on a file system."""

    copy_within = staticmethod(lambda source, target: _link(source, target))

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Waits for the lock, so that one push at a time works here, and deletes temporary folders of killed pushes.

        A process loses its lock when it ends, also when it is killed. So temporary folders that exist once the lock is held
        belong to killed pushes. On a file system without locks, only those that are older than a day are deleted.
        """
        with open(f"{self.path}/{_LOCK}", "w") as file:
            locked = True
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError:  # a file system without locks
                locked = False
            for name in self.names():
                if name.startswith(_TEMPORARY_PREFIX) and (locked or _is_old(name)):
                    shutil.rmtree(f"{self.path}/{name}")
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

    def mark(self, number: int) -> None:
        temporary = f"{self.path}/.{LATEST_FILE}"
        with open(temporary, "w") as file:
            file.write(f"{number}\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, f"{self.path}/{LATEST_FILE}")
        _sync_folder(self.path)

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
            elif name.isdecimal() and not self.files.exists(f"{self.path}/{name}/{_GRAPH}"):
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

    def mark(self, number: int) -> None:
        with self.files.open(f"{self.path}/{LATEST_FILE}", "w") as file:
            file.write(f"{number}\n")

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
    """Paths of all files, relative to the folder, sorted."""
    folder = folder.rstrip("/")
    paths = [os.path.join(parent, name) for parent, _, names in _files(folder).walk(folder) for name in names]
    return iter(sorted(path[len(folder) :].lstrip("/") for path in paths))


def model_digest(model: str) -> str:
    """SHA-256 over the names and contents of a SavedModel's files, hexadecimal. Copies of a version have the same digest.

    Args:
      model: folder of the SavedModel, local or a URI.
    """
    digest, files = hashlib.sha256(), _files(model)
    for path in _walk(model):
        if path == RECORD_FILE:
            continue
        content = hashlib.sha256()
        with files.open(f"{model}/{path}", "rb") as file:
            while chunk := file.read(_CHUNK):
                content.update(chunk)
        digest.update(f"{path}\0{content.hexdigest()}\0".encode())
    return digest.hexdigest()


def _write_version(temporary: str, model: str, record: Record, copy: Callable[[str, str], None]) -> None:
    """Copies the files of a model to the folder `temporary`, the graph after all others, and then writes the record."""
    files = _files(temporary)
    paths = [path for path in _walk(model) if path not in (_GRAPH, RECORD_FILE)]
    for path in [*paths, _GRAPH]:
        files.makedirs(os.path.dirname(f"{temporary}/{path}"))
        copy(f"{model}/{path}", f"{temporary}/{path}")
    files.makedirs(os.path.dirname(f"{temporary}/{RECORD_FILE}"))
    with files.open(f"{temporary}/{RECORD_FILE}", "w") as file:
        file.write(json.dumps(asdict(record), indent=2) + "\n")
        _sync(file)


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
    return int(name.removeprefix(_TEMPORARY_PREFIX).partition("-")[0]) < time.time() - _DAY


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


@contextlib.contextmanager
def _user_errors(folder: str, what: str = "written") -> Iterator[None]:
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
