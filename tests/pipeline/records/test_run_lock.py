"""One run at a time in an output folder: who holds it is told, and a lock ends with its process."""

import os
import platform
import subprocess
import sys

import pytest

from base.errors import UserError
from pipeline.records.run_lock import locked

HOLD = """
import sys
from pathlib import Path
from pipeline.records.run_lock import locked
with locked(Path(sys.argv[1]), "2026-03-01T12-00-00"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_another_process_is_told_who_holds_the_folder_until_it_is_killed(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert holder.stdout.readline() == b"held\n"
        for _ in range(2):  # being refused changes nothing
            with pytest.raises(UserError) as failure, locked(tmp_path, "2026-03-01T12-00-05"):
                pass
            text = str(failure.value)
            assert f"another run, 2026-03-01T12-00-00 (process {holder.pid} on {platform.node()}, since 20" in text
            assert text.endswith("is writing here; wait for its end, or give another --output")
    finally:
        holder.kill()
        holder.communicate()
    with locked(tmp_path, "2026-03-01T12-00-05"):
        assert f'"process": {os.getpid()}' in (tmp_path / ".lock").read_text()
