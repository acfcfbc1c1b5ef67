"""Ctrl-C ends a command with one line and exit status 130."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from components.pusher.record import Record
from components.pusher.versions import push
from pipeline.local.workplace import _explain


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_command_that_is_interrupted_says_so_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "saved_model.pb").write_text("graph")
    number = push(str(tmp_path / "model"), str(tmp_path / "pushed"), Record(), None).number
    command = [sys.executable, "-m", "pipeline.cli", "push", "--to", str(tmp_path / "pushed"), "--version", str(number)]
    with open(tmp_path / "pushed" / ".lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 60
        while not any(os.path.realpath(path) == lock.name for path in Path(f"/proc/{process.pid}/fd").iterdir()):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.2)  # it has opened the file, and now waits for the lock
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60) == ("", "fpn: interrupted\n")
    assert process.returncode == 130


def test_a_run_that_is_interrupted_names_the_component_and_how_to_go_on() -> None:
    place: Any = None
    assert _explain(KeyboardInterrupt(), "Trainer", place) == (
        130,
        "interrupted in Trainer; start again to go on from the last finished component",
    )
