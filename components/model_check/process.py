"""The process that checks a model. It can be started ahead, because it needs seconds to load TensorFlow."""

import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Final

from components.model_check import checker

_LOG_LINES: Final = 30  # last lines of the process's output that are logged if it died
_ahead: "list[CheckerProcess]" = []  # the process that was started ahead, if any


class CheckerProcess:
    """A process that runs `checker.main`, which waits until `run` tells it that the request is in `folder`.

    Its module path has the folders of installed packages, but not what their .pth files add, because an editable install of
    this project is such a file.
    """

    def __init__(self) -> None:
        self._temporary = tempfile.TemporaryDirectory()
        self.folder = Path(self._temporary.name)
        packages = [path for path in sys.path if os.path.basename(path) in ("site-packages", "dist-packages")]
        program = f"import runpy, sys; sys.path += {packages!r}; runpy.run_path({checker.__file__!r}, run_name='__main__')"
        command = [sys.executable, "-I", "-S", "-X", "faulthandler", "-c", program, str(self.folder), str(time.time())]
        self._log = self.folder / "log.txt"
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                command, cwd=self.folder, stdin=subprocess.PIPE, stdout=output, stderr=output, text=True
            )

    def run(self, timeout: float) -> str:
        """Starts the check and waits; returns how the process died, or "" if it ended normally."""
        try:
            self._process.communicate(checker.GO, timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            died = f"stopped after {timeout:g} s (check.timeout_seconds)"
        else:
            died = _explain(self._process.returncode)
        if died:
            lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
            logging.error("ModelCheck: the process was %s; its last lines:\n%s", died, "\n".join(lines[-_LOG_LINES:]))
            if died.startswith("ended") and lines:
                died += f" ({lines[-1][:200]})"
        return died

    def __enter__(self) -> "CheckerProcess":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        with self._process:
            self._process.kill()
        self._temporary.cleanup()


def start_ahead() -> None:
    """Starts a process, which the next `take` returns unless `stop_ahead` is called first."""
    stop_ahead()
    _ahead.append(CheckerProcess())


def take() -> CheckerProcess:
    """Returns the process that was started ahead, or else a new one; the caller has to end it."""
    return _ahead.pop() if _ahead else CheckerProcess()


def stop_ahead() -> None:
    """Ends the process that was started ahead, if `take` has not returned it."""
    while _ahead:
        with _ahead.pop():
            pass


def _explain(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}" if status else ""
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"killed by {name}" + (", perhaps for want of memory" if -status == signal.SIGKILL else "")
