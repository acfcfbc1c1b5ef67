"""A folder of numbered versions of a model, as TensorFlow Serving reads it: the largest number is served.

    pushed/
      1767225600/           a SavedModel; assets.extra/push.json is its `Record`
      1767312000/
      latest                text file: the number of the version that was pushed last
      .push-1767312000-x/   being copied; no number, so that no server takes it for a version

On a file system a version is copied aside, flushed to the disk and renamed, and one push at a time works in a folder. A killed
push leaves a hidden folder, which the next one deletes. Object stores have no rename of folders and no locks: there the files
are uploaded aside, then moved inside the store to the number, `saved_model.pb` last, by which readers tell that a version is
whole.

Servers take the largest number, whatever `latest` says. So going back means copying: `roll_back` gives an earlier version a
new, larger number, with a record of what it is a copy of. Every reader follows, and going forward again is the same step.
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
_GRAPH: Final = "saved_model.pb"  # is copied last
_ASIDE: Final = ".push-"
_LOCK: Final = ".lock"
_DAY: Final = 86_400  # seconds after which what is unfinished on an object store is taken for a killed push's
_CHUNK: Final = 1 << 20

_LOCAL: Final = SimpleNamespace(  # what is used of TFX's file operations, without loading TensorFlow
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
    """Where a version comes from.

    Attributes:
      time: of the push, UTC, as 2026-01-01T12:00:00+00:00.
      digest: SHA-256 over the model's files, this record left out.
      pipeline: its name.
      run: the run's id.
      run_folder: the run's own folder, with `config.yaml` and `report.html`; empty where runs have none.
      data: fingerprint of the data.
      metrics: on all test images, by name: {"value", "lower", "upper"}, the bounds of the 95 % interval, or None.
      copy_of: the version that was rolled back to.
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
    """A whole version; `record` is None where something else has put it there."""

    number: int
    path: str
    record: Record | None


def push(model: str, folder: str, record: Record, keep: int | None) -> Version:
    """Makes a SavedModel the newest version. If it is that already, byte for byte, nothing is copied.

    Args:
      model: its folder, local or a URI.
      folder: of the versions, local or a URI such as gs://bucket/models or s3://bucket/models; made if it is not there.
      record: where the model comes from; time and digest are filled in.
      keep: versions to keep, the newest; None for all. The one that `latest` names is never deleted.

    Raises:
      UserError: the folder can't be written. What was served before is untouched.
    """
    with _failures_told(folder), _open(folder) as place:
        digest = model_digest(model)
        versions = place.versions()
        if versions and versions[-1].record and versions[-1].record.digest == digest:
            number = versions[-1].number
        else:
            filled = replace(record, time=_now(), digest=digest)
            number = place.add(lambda aside: _fill(aside, model, filled, _copy))
        place.mark(number)
        for old in place.numbers()[:-keep] if keep else []:
            if old not in (number, place.latest()):
                place.delete(old)
        return place.version(number)


def roll_back(folder: str, number: int) -> Version:
    """Makes a copy of an earlier version the newest one (on a file system of hard links, which take no room).

    Args:
      folder: of the versions.
      number: of the version.

    Raises:
      UserError: there is no such version, its model is served already, or the folder can't be written.
    """
    with _failures_told(folder), _open(folder, make=False) as place:
        versions = {version.number: version for version in place.versions()}
        if number not in versions:
            raise UserError(f"{folder}: no version {number}; there are {', '.join(map(str, versions)) or 'none'}")
        newest, found = max(versions), versions[number]
        old, served = (item.record or Record(digest=model_digest(item.path)) for item in (found, versions[newest]))
        if old.digest == served.digest:
            raise UserError(f"{folder}: {newest}, which is served, has the model of {number} already; see fpn push --list")
        record = replace(old, time=_now(), copy_of=number if old.copy_of is None else old.copy_of)
        made = place.add(lambda aside: _fill(aside, found.path, record, place.copy_within))
        place.mark(made)
        return place.version(made)


def list_versions(folder: str) -> list[Version]:
    """All whole versions, the oldest first; the last one is served.

    Raises:
      UserError: the folder is not there, or can't be read.
    """
    with _failures_told(folder, "read"):
        if not _files(folder).isdir(folder):
            raise UserError(f"{folder}: no such folder; give the one that a run has pushed to, such as output/digits/pushed")
        place = _Bucket(folder) if "://" in folder else _Folder(folder)
        return place.versions()


def version_folders(folder: str) -> dict[int, str]:
    """The whole versions in a folder, local or a URI, by their numbers, rising; none if it is not there."""
    place = _Place(folder)
    paths = {int(name): f"{place.path}/{name}" for name in place.names() if name.isdecimal()}
    return {number: path for number, path in sorted(paths.items()) if place.files.exists(f"{path}/{_GRAPH}")}


def fetch(version: str, folder: str) -> str:
    """The local folder of a version: its own, or a copy in `folder` of one on an object store.

    Raises:
      UserError: it can't be read.
    """
    if "://" not in version:
        return version
    with _failures_told(version, "read"):
        for path in _walk(version):
            os.makedirs(os.path.dirname(f"{folder}/{path}"), exist_ok=True)
            _copy(f"{version}/{path}", f"{folder}/{path}")
    return folder


class _Place:
    """What both kinds of folders share."""

    def __init__(self, path: str) -> None:
        self.path = path.rstrip("/")
        self.files = _files(path)

    def names(self) -> list[str]:
        return [name.rstrip("/") for name in self.files.listdir(self.path)] if self.files.isdir(self.path) else []

    def numbers(self) -> list[int]:
        """Of the whole versions, rising."""
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
        """The time in seconds, as TFX numbers versions; larger than all there are, whole or not."""
        return max([int(time.time()), *(int(name) + 1 for name in self.names() if name.isdecimal())])

    def latest(self) -> int | None:
        path = f"{self.path}/{LATEST_FILE}"
        if not self.files.exists(path):
            return None
        with self.files.open(path, "r") as file:
            text = file.read().strip()
        return int(text) if text.isdecimal() else None

    @property
    def aside(self) -> str:
        """A new name for what is unfinished."""
        return f"{self.path}/{_ASIDE}{int(time.time())}-{uuid.uuid4().hex[:12]}"


class _Folder(_Place):
    """On a file system."""

    copy_within = staticmethod(lambda source, target: _link(source, target))

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Waits for another push to end, which its lock does too, be it killed; then what is unfinished is of nobody."""
        with open(f"{self.path}/{_LOCK}", "w") as file:
            locked = True
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError:  # a file system without locks
                locked = False
            for name in self.names():
                if name.startswith(_ASIDE) and (locked or _is_old(name)):
                    shutil.rmtree(f"{self.path}/{name}")
            yield

    def add(self, fill: Callable[[str], None]) -> int:
        aside = self.aside
        try:
            os.mkdir(aside)
            fill(aside)
            for folder, _, _ in os.walk(aside):
                _sync_folder(folder)
            number = self._take_number(aside)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        _sync_folder(self.path)
        return number

    def _take_number(self, aside: str) -> int:
        while True:
            number = self.next_number()
            try:
                os.rename(aside, f"{self.path}/{number}")
                return number
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):  # taken since, where there are no locks
                    raise

    def mark(self, number: int) -> None:
        aside = f"{self.path}/.{LATEST_FILE}"
        with open(aside, "w") as file:
            file.write(f"{number}\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, f"{self.path}/{LATEST_FILE}")
        _sync_folder(self.path)

    def delete(self, number: int) -> None:
        aside = self.aside
        os.rename(f"{self.path}/{number}", aside)  # gone at once for those who look for versions
        shutil.rmtree(aside)


class _Bucket(_Place):
    """On an object store, or anything else that TFX knows by a URI."""

    def copy_within(self, source: str, target: str) -> None:
        self.files.copy(source, target)

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """There are no locks: what others may be at work on is left alone for a day."""
        for name in self.names():
            if name.startswith(_ASIDE) and _is_old(name):
                self.files.rmtree(f"{self.path}/{name}")
            elif name.isdecimal() and not self.files.exists(f"{self.path}/{name}/{_GRAPH}"):
                claims = self._claims(f"{self.path}/{name}")
                if claims and all(map(_is_old, claims)):
                    self.files.rmtree(f"{self.path}/{name}")
        yield

    def add(self, fill: Callable[[str], None]) -> int:
        aside = self.aside
        try:
            self.files.makedirs(aside)
            fill(aside)
            number, claim = self._claim(os.path.basename(aside))
            paths = sorted(_walk(aside), key=lambda path: path == _GRAPH)
            for path in paths:
                target = f"{self.path}/{number}/{path}"
                self.files.makedirs(os.path.dirname(target))
                self.files.rename(f"{aside}/{path}", target)
            self.files.remove(claim)
        finally:
            with contextlib.suppress(Exception):
                self.files.rmtree(aside)
        return number

    def _claim(self, token: str) -> tuple[int, str]:
        """A number that nobody else has: who finds another's claim beside its own takes a later one.

        Of two pushes at least the second to write sees the other's claim, for stores list what has been written.
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
            number = max(number, self.next_number()) + uuid.uuid4().int % 8  # two that saw each other part

    def _claims(self, folder: str) -> list[str]:
        return [name for name in self.files.listdir(folder) if name.startswith(_ASIDE)]

    def mark(self, number: int) -> None:
        with self.files.open(f"{self.path}/{LATEST_FILE}", "w") as file:
            file.write(f"{number}\n")

    def delete(self, number: int) -> None:
        self.files.remove(f"{self.path}/{number}/{_GRAPH}")  # from here on it is no version
        self.files.rmtree(f"{self.path}/{number}")


def _files(path: str) -> Any:
    if "://" not in path:
        return _LOCAL
    from tfx.dsl.io import fileio, filesystem_registry  # noqa: F401  # fileio makes TensorFlow's file systems known

    import storage.s3  # noqa: F401  # makes s3:// known
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
    """SHA-256 over names and contents of a SavedModel's files, in hexadecimal; a copy of a version has the version's.

    Args:
      model: its folder, local or a URI.
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


def _fill(aside: str, model: str, record: Record, copy: Callable[[str, str], None]) -> None:
    """Writes a model's files, the graph last, and its record before that."""
    files = _files(aside)
    paths = [path for path in _walk(model) if path not in (_GRAPH, RECORD_FILE)]
    for path in [*paths, _GRAPH]:
        files.makedirs(os.path.dirname(f"{aside}/{path}"))
        copy(f"{model}/{path}", f"{aside}/{path}")
    files.makedirs(os.path.dirname(f"{aside}/{RECORD_FILE}"))
    with files.open(f"{aside}/{RECORD_FILE}", "w") as file:
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
    except (AttributeError, io.UnsupportedOperation):  # on no disk
        return
    os.fsync(descriptor)


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_old(name: str) -> bool:
    return int(name.removeprefix(_ASIDE).partition("-")[0]) < time.time() - _DAY


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


@contextlib.contextmanager
def _failures_told(folder: str, what: str = "written") -> Iterator[None]:
    """Tells the failures of file systems as a person's to mend."""
    try:
        yield
    except OSError as error:
        raise UserError(_told(folder, what, error.strerror or str(error) or str(error.__cause__))) from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in ("tensorflow", "apache_beam", "botocore"):
            raise
        raise UserError(_told(folder, what, str(error).splitlines()[0])) from error


def _told(folder: str, what: str, reason: str) -> str:
    cure = "check the path and your rights, or make room, and do it again"
    return f"{folder}: can't be {what} ({reason}); what was served before still is: {cure}"
