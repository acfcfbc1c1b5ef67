"""One run at a time in an output folder."""

import contextlib
import datetime
import fcntl
import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TextIO

from base.errors import UserError

LOCK_FILE: Final = ".lock"


@contextlib.contextmanager
def locked(output: Path, run_id: str) -> Iterator[None]:
    """Holds the output folder, whose files two runs would spoil; a lock ends with its process, killed or not.

    Args:
      output: the folder; made if it is not there.
      run_id: of the run, for those that find the folder held.

    Raises:
      UserError: another run holds it, or it can't be written to.
    """
    path = output / LOCK_FILE
    try:
        output.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")  # "w" would wipe out what the holder has written
    except OSError as error:
        raise UserError(f"{path}: can't be written ({error.strerror}); give another --output") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"{output}: {_holder(file)} is writing here; wait for its end, or give another --output") from error
        except OSError as error:
            raise UserError(f"{path}: can't be locked ({error.strerror}); give an --output on another file system") from error
        since = datetime.datetime.now().isoformat(sep=" ", timespec="seconds")
        file.truncate(0)
        json.dump({"run": run_id, "process": os.getpid(), "host": platform.node(), "since": since}, file)
        file.flush()
        yield


def _holder(file: TextIO) -> str:
    file.seek(0)
    try:
        told = json.loads(file.read())
        return f"another run, {told['run']} (process {told['process']} on {told['host']}, since {told['since']}),"
    except (ValueError, KeyError):  # it has just begun
        return "another run"
