"""One run at a time in an output folder."""

import contextlib
import datetime
import fcntl
import json
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TextIO

from base.errors import UserError
from base.inputs import open_regular

LOCK_FILE: Final = ".lock"
_PATIENCE: Final = 1.0  # seconds: a reader holds the lock for less


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
            _take(file)
        except BlockingIOError as error:
            raise UserError(f"{output}: {_holder(file)} is writing here; wait for its end, or give another --output") from error
        except OSError as error:
            raise UserError(f"{path}: can't be locked ({error.strerror}); give an --output on another file system") from error
        since = datetime.datetime.now().isoformat(sep=" ", timespec="seconds")
        file.truncate(0)
        json.dump({"run": run_id, "process": os.getpid(), "host": platform.node(), "since": since}, file)
        file.flush()
        yield


@contextlib.contextmanager
def no_run(output: Path) -> Iterator[bool]:
    """Yields whether no run writes to the output folder. If so, none can begin before the context ends; be quick."""
    try:
        file = open_regular(output / LOCK_FILE)
    except OSError:  # no run has begun yet, or the lock may not be read: then it can't be a run of this user
        yield True
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError:  # a file system without locks
            pass
        yield True


def _take(file: TextIO) -> None:
    """Locks the file; raises BlockingIOError if another run has it."""
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


def _holder(file: TextIO) -> str:
    file.seek(0)
    try:
        holder = json.loads(file.read())
        return f"another run, {holder['run']} (process {holder['process']} on {holder['host']}, since {holder['since']}),"
    except (ValueError, KeyError):  # the holder has just begun
        return "another run"
