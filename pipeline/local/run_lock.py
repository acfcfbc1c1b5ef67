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
    """Locks the output folder, whose files two runs at a time would spoil.

    The lock ends with its process, even if the process is killed.

    Args:
      output: the folder; made if it is not there.
      run_id: name of the run, for the error message of other runs that find the folder locked.

    Raises:
      UserError: another run holds the lock, or the folder can't be written to.
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
        holder = json.loads(file.read())
        return f"another run, {holder['run']} (process {holder['process']} on {holder['host']}, since {holder['since']}),"
    except (ValueError, KeyError):  # the holder has just begun
        return "another run"
