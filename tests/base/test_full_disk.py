"""A full disk is recognised in the words of those who meet it, and a log that can't be written ends nothing."""

import errno
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from base.errors import UserError
from base.full_disk import full_disk


def test_the_file_is_named_from_the_error_of_the_system():
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/out/report.html")
    assert full_disk(error, "/data") == "/data/out/report.html: the disk is full; make room, and do the same again"


@pytest.mark.parametrize(
    "text",
    [
        "/data/out/x.tfrecord; No space left on device",
        "Failed to write: /data/out/x.tfrecord; No space left on device [[{{node SaveV2}}]] [Op:SaveV2]",
        "[Errno 28] No space left on device: '/data/out/x.tfrecord' [while running 'WriteShard']",
        "something first\n/data/out/x.tfrecord; Disk quota exceeded\nsomething last",
    ],
)
def test_the_file_is_named_from_the_message_of_a_library(text):
    assert full_disk(RuntimeError(text), "/data").startswith("/data/out/x.tfrecord: the disk is full")


def test_without_a_file_the_folder_is_named(tmp_path):
    query = "INSERT INTO `ExecutionProperty` VALUES ('input_base', '/other/data')"
    error = RuntimeError(f"Error when executing query: database or disk is full query: {query}")
    assert full_disk(error, tmp_path).startswith(f"{tmp_path}: the disk is full")


@pytest.mark.parametrize(("free", "told"), [(70_000, True), (1 << 30, False)])
def test_what_is_only_a_consequence_counts_if_there_is_little_room(free, told, monkeypatch, tmp_path):
    monkeypatch.setattr("base.full_disk.shutil.disk_usage", lambda folder: SimpleNamespace(free=free))
    error = RuntimeError("Error when executing query: cannot commit - no transaction is active query: COMMIT;")
    assert bool(full_disk(error, tmp_path)) == told


def fail_with_others_in_between():
    try:
        try:
            raise OSError(errno.EDQUOT, "Disk quota exceeded", "/data/a")
        except OSError as error:
            raise UserError("can't be written") from error
    except UserError:
        raise ValueError("and then this") from None


def test_it_is_found_behind_other_exceptions():
    with pytest.raises(ValueError, match="and then this") as failure:
        fail_with_others_in_between()
    assert full_disk(failure.value, "/data").startswith("/data/a: ")


@pytest.mark.parametrize("error", [OSError(errno.EACCES, "Permission denied", "/data/a"), ValueError("5"), KeyboardInterrupt()])
def test_other_failures_are_none(error):
    assert full_disk(error, "/data") == ""


def test_a_log_on_a_full_disk_costs_the_log_alone():
    program = """
import logging, sys
from pathlib import Path
from base.redirection import output_to
with output_to(Path("/dev/full")):
    sys.stdout.write("into the log")
    logging.warning("into the log")
print("{}")
"""
    environment = {**os.environ, "PYTHONUNBUFFERED": ""}  # with buffers that are written out at the end
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "{}\n", "")
