"""Which files a component has put out, recorded to tell later whether they are still as they were made.

    artifacts/Trainer/model/17/                     an output, in TFX's layout
    artifacts/Trainer/.system/files/model/17.json   its record: path, bytes, time of change and SHA-256 of each file

The record is a file, because databases don't take long texts into an index. Its digest is kept as a property of the artifact
in ML Metadata, so an artifact and its record count from the same moment on, and neither can be changed alone.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from base.local_files import write_text

FILES_PROPERTY: Final = "files"  # of an artifact in ML Metadata: the digest of its record


@dataclass(frozen=True)
class _MadeFile:
    """A file: path relative to the output, bytes, nanoseconds since 1970, hexadecimal digest."""

    path: str
    size: int
    mtime_ns: int
    sha256: str


def begin_records(folder: str) -> None:
    """Tells before a component begins that its output will have a record; without one, the output then counts as unfinished."""
    _record_of(folder).parent.mkdir(parents=True, exist_ok=True)


def record_files(folder: str) -> str:
    """Records all files below a component's output.

    Args:
      folder: the output, a local folder.

    Returns:
      The record's digest, for `FILES_PROPERTY`.
    """
    files = []
    for path in _walk(folder):
        about = os.stat(os.path.join(folder, path))
        files.append(asdict(_MadeFile(path, about.st_size, about.st_mtime_ns, file_digest(os.path.join(folder, path)))))
    text = json.dumps(files, indent=1)
    write_text(_record_of(folder), text)
    return hashlib.sha256(text.encode()).hexdigest()


def find_change(folder: str, digest: str, *, contents: bool = False) -> str:
    """The first file of an output that is not as it was recorded.

    A file with the recorded size and time is believed to be the same. If only the time differs, as in a copy, the contents are
    compared. A further file is a change, too, unless it is hidden, because readers take all files of a folder.

    Args:
      folder: the output.
      digest: the record's digest; "" to take the record as it is.
      contents: compare the contents of all files.

    Returns:
      The path and what is wrong there; "" if all is as it was.
    """
    if not os.path.isdir(folder):
        return f"{folder} is gone"
    record = _record_of(folder)
    try:
        text = record.read_text(encoding="utf-8")
        files = [_MadeFile(**item) for item in json.loads(text)]
    except FileNotFoundError:
        return f"{record} is gone"
    except (OSError, ValueError, TypeError):
        return f"{record} can't be read"
    if digest and hashlib.sha256(text.encode()).hexdigest() != digest:
        return f"{record} has changed"
    recorded = {file.path for file in files}
    if added := next((path for path in _walk(folder) if path not in recorded and not _is_hidden(path)), ""):
        return f"{os.path.join(folder, added)} was not there when it was made"
    return next((change for file in files if (change := _change(folder, file, contents))), "")


def is_whole(folder: str) -> bool:
    """Whether an earlier output beside a new one may be used in part: it is as it was recorded, or nothing is recorded here."""
    return not _record_of(folder).parent.is_dir() or not find_change(folder, "")


def _change(folder: str, file: _MadeFile, contents: bool) -> str:
    path = os.path.join(folder, file.path)
    try:
        about = os.stat(path)
        if about.st_size != file.size:
            return f"{path} has {about.st_size} bytes instead of {file.size}"
        if (contents or about.st_mtime_ns != file.mtime_ns) and file_digest(path) != file.sha256:
            return f"{path} has other contents"
    except FileNotFoundError:
        return f"{path} is gone"
    except OSError as error:
        return f"{path} can't be read ({error.strerror})"
    return ""


def _record_of(folder: str) -> Path:
    output = Path(folder)
    return output.parents[1] / ".system" / "files" / output.parent.name / f"{output.name}.json"


def _walk(folder: str) -> Iterator[str]:
    """Paths of all files, relative to the folder, sorted."""
    paths = [os.path.join(parent, name) for parent, _, names in os.walk(folder) for name in names]
    return iter(sorted(os.path.relpath(path, folder) for path in paths))


def _is_hidden(path: str) -> bool:
    return any(part.startswith(".") for part in path.split(os.sep))


def file_digest(path: str | os.PathLike[str]) -> str:
    """SHA-256 over a local file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
