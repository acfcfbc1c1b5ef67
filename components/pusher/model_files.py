"""A model's files, local or on an object store: listed, digested, read, and copied."""

import contextlib
import hashlib
import io
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace
from typing import Any, Final

from base.errors import UserError
from base.inputs import open_regular
from components.pusher.record import CHECKSUM_FILE, OLD_RECORD_FILE, RECORD_FILE
from components.pusher.signing import SIGNATURE_FILE

GRAPH: Final = "saved_model.pb"  # copied last
CHUNK: Final = 1 << 20
_ABOUT_THE_FILES: Final = (RECORD_FILE, CHECKSUM_FILE, SIGNATURE_FILE)  # which the record does not list


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


def files_of(path: str) -> Any:
    if "://" not in path:
        return _LOCAL
    from tfx.dsl.io import fileio, filesystem_registry  # noqa: F401  # fileio registers TensorFlow's file systems

    import storage.s3  # noqa: F401  # registers s3://
    from storage.stores import check_packages

    check_packages(path)
    return filesystem_registry.DEFAULT_FILESYSTEM_REGISTRY.get_filesystem_for_path(path)


def exists(path: str) -> bool:
    """Whether there is a file or folder of this path, local or a URI."""
    found: bool = files_of(path).exists(path)
    return found


def read_file(path: str, size: int = -1) -> bytes:
    """The content of a file, local or a URI; at most `size` bytes of it, if that is not negative."""
    with files_of(path).open(path, "rb") as file:
        content: bytes = file.read(size)
    return content


def walk(folder: str) -> Iterator[str]:
    """Paths of all files, relative to the folder, sorted; without hidden ones, such as .DS_Store, which no model has."""
    folder = folder.rstrip("/")
    walked = files_of(folder).walk(folder)
    paths = [os.path.join(parent, name) for parent, _, names in walked for name in names if not name.startswith(".")]
    return iter(sorted(path[len(folder) :].lstrip("/") for path in paths))


def list_files(model: str) -> dict[str, dict[str, Any]]:
    """SHA-256 and size of a SavedModel's files, as in `Record.files`. Reads them piece by piece."""
    files, found = files_of(model), {}
    for path in walk(model):
        if path in _ABOUT_THE_FILES:
            continue
        content, size = hashlib.sha256(), 0
        with files.open(f"{model}/{path}", "rb") as file:
            while chunk := file.read(CHUNK):
                content.update(chunk)
                size += len(chunk)
        found[path] = {"sha256": content.hexdigest(), "size": size}
    return found


def digest_files(files: dict[str, dict[str, Any]]) -> str:
    listed = "".join(f"{path}\0{file['sha256']}\0" for path, file in sorted(files.items()) if path != OLD_RECORD_FILE)
    return hashlib.sha256(listed.encode()).hexdigest()


def fetch(version: str, folder: str) -> str:
    """The local folder of a version. A version on an object store is first copied to `folder`.

    Raises:
      UserError: the version can't be read.
    """
    if "://" not in version:
        return version
    with user_errors(version, "read"):
        for path in walk(version):
            os.makedirs(os.path.dirname(f"{folder}/{path}"), exist_ok=True)
            copy_file(f"{version}/{path}", f"{folder}/{path}")
    return folder


def copy_files(source: str, target: str, paths: Iterable[str], copy: Callable[[str, str], None]) -> None:
    """Copies files from a folder into another, the graph after all others."""
    for path in sorted(paths, key=lambda path: path == GRAPH):
        files_of(target).makedirs(os.path.dirname(f"{target}/{path}"))
        copy(f"{source}/{path}", f"{target}/{path}")


def copy_file(source: str, target: str) -> None:
    with files_of(source).open(source, "rb") as read, files_of(target).open(target, "wb") as written:
        while chunk := read.read(CHUNK):
            written.write(chunk)
        sync(written)


def link_file(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        copy_file(source, target)


def sync(file: Any) -> None:
    file.flush()
    try:
        descriptor = file.fileno()
    except (AttributeError, io.UnsupportedOperation):  # not on a disk
        return
    os.fsync(descriptor)


def sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
