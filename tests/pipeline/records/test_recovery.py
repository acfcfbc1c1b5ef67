"""The metadata store after kills and damage: real SQLite files, opened by ML Metadata itself."""

import datetime
import os
import sqlite3
import subprocess
import sys

import ml_metadata as mlmd
import pytest
from metadata_records import Store, kill_while_written
from ml_metadata.proto import metadata_store_pb2

from base.errors import UserError
from pipeline.records.recovery import back_up, backup_of, copy_store, is_readable, recover
from pipeline.records.run_lock import locked, no_run
from pipeline.records.store import find_store, make_store

BEGAN = datetime.datetime(2026, 3, 1, 12)


@pytest.fixture
def store(tmp_path):
    """A store with one run, and its copy."""
    path = tmp_path / "metadata.sqlite"
    Store(path).run("Trainer", BEGAN, outputs={"model": "Model"})
    back_up(path)
    return path


def runs_in(path):
    connection = metadata_store_pb2.ConnectionConfig()
    connection.sqlite.filename_uri = str(path)
    opened = mlmd.MetadataStore(connection)
    assert not [item for item in opened.get_artifact_types() if item.name.startswith("unfinished")]
    return [item.name for item in opened.get_contexts_by_type("pipeline_run")]


def test_an_intact_store_stays_as_it_is(store):
    content = store.read_bytes()
    assert recover(store) == ""
    assert store.read_bytes() == content
    assert sorted(path.name for path in store.parent.iterdir()) == ["metadata.sqlite", "metadata.sqlite.backup"]


def test_what_a_killed_run_was_writing_is_rolled_back(store):
    kill_while_written(store)
    assert recover(store) == "metadata.sqlite: what a killed run had recorded in part was rolled back"
    assert runs_in(store) == [BEGAN.isoformat()]
    assert not store.with_name("metadata.sqlite-journal").exists()


@pytest.mark.parametrize("content", [None, b"", b"SQLite format 3\0", b"no database " * 1000, "half", "page"])
@pytest.mark.parametrize("copied", [True, False])
def test_a_store_that_cannot_be_used_is_restored_or_begun_anew_and_nothing_is_deleted(store, content, copied):
    intact = store.read_bytes()
    if not copied:
        backup_of(store).unlink()
    if content is None:
        store.unlink()
    elif content == "half":  # some of ML Metadata's tables
        with sqlite3.connect(store) as connection:
            connection.execute("DROP TABLE Event")
        connection.close()
    elif content == "page":
        store.write_bytes(intact[:8192] + b"\xff" * 4096 + intact[12288:])
    else:
        store.write_bytes(content)
    before = store.read_bytes() if store.exists() else b""
    told = recover(store)
    assert runs_in(store) == ([BEGAN.isoformat()] if copied else [])
    if content is None and not copied:
        assert told == ""  # a first run
    else:
        assert told.startswith("metadata.sqlite was ")
        assert ("restored as it was at the end of the run before" if copied else "a new one was begun") in told
    kept = list(store.parent.glob("metadata.sqlite.damaged-*"))
    assert [path.read_bytes() for path in kept] == ([before] if before else [])
    assert all(path.name in told for path in kept)
    assert recover(store) == ""


def test_a_copy_that_is_damaged_too_is_moved_aside(store):
    store.write_bytes(b"no database" * 100)
    backup_of(store).write_bytes(b"no copy" * 100)
    assert "and its copy as well: a new one was begun" in recover(store)
    assert runs_in(store) == []
    assert len(list(store.parent.glob("metadata.sqlite.*damaged-*"))) == 2


def test_a_kill_between_moving_aside_and_restoring_loses_nothing(store):
    kill_while_written(store)
    store.rename(store.with_name("metadata.sqlite.damaged-then-1"))
    assert "restored" in recover(store)  # and the old journal is not applied to the copy
    assert runs_in(store) == [BEGAN.isoformat()]


def test_a_damaged_store_never_replaces_its_copy(store):
    copy = backup_of(store).read_bytes()
    content = store.read_bytes()
    store.write_bytes(content[:8192] + b"\xff" * 4096 + content[12288:])
    with pytest.raises(sqlite3.DatabaseError):
        back_up(store)
    assert backup_of(store).read_bytes() == copy
    assert not list(store.parent.glob(".metadata*"))


@pytest.mark.parametrize(("version", "age"), [(99, "newer"), (3, "older")])
def test_a_store_of_another_version_is_no_damage_and_no_advice_gives_it_up(store, version, age):
    with sqlite3.connect(store) as connection:
        connection.execute("UPDATE MLMDEnv SET schema_version = ?", (version,))
    connection.close()
    content = store.read_bytes()
    with pytest.raises(UserError, match=f"made by an? {age} version of ML Metadata; use the version that made it, or give"):
        recover(store)
    assert store.read_bytes() == content


def test_a_store_that_another_program_has_locked_is_no_damage(store, monkeypatch):
    monkeypatch.setattr("pipeline.records.recovery._PATIENCE", 0.1)
    other = sqlite3.connect(store, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        recover(store)
    other.close()
    assert recover(store) == ""


def test_after_a_restore_no_execution_gets_the_number_of_a_folder_that_is_there(store):
    (store.parent / "artifacts" / "Trainer" / "model" / "41").mkdir(parents=True)
    (store.parent / "artifacts" / "checkpoints" / "ab12" / "checkpoint.npz").mkdir(parents=True)
    store.write_bytes(b"")
    recover(store)
    connection = make_store(None, store.parent).open()
    type_id = connection.put_execution_type(metadata_store_pb2.ExecutionType(name="Trainer"))
    assert connection.put_executions([metadata_store_pb2.Execution(type_id=type_id)]) == [42]


def test_what_a_full_disk_has_left_of_a_record_does_not_pass_to_the_next_one(store):
    with sqlite3.connect(store) as connection:  # as ML Metadata leaves it: an execution is missing, what belongs to it is not
        (number,) = connection.execute("SELECT MAX(id) FROM Execution").fetchone()
        connection.execute("UPDATE sqlite_sequence SET seq = ? WHERE name = 'Execution'", (number - 1,))
        connection.execute("DELETE FROM Execution WHERE id = ?", (number,))
    connection.close()
    assert recover(store) == "metadata.sqlite: a record that a full disk had cut short was removed"
    opened = make_store(None, store.parent).open()
    type_id = opened.put_execution_type(metadata_store_pb2.ExecutionType(name="Pusher"))
    assert opened.put_executions([metadata_store_pb2.Execution(type_id=type_id)]) == [number]
    assert opened.get_events_by_execution_ids([number]) == []
    with pytest.raises(mlmd.errors.NotFoundError, match="No contexts found"):
        opened.get_contexts_by_execution(number)
    assert recover(store) == ""


def test_readers_answer_after_a_kill_and_leave_the_folder_as_it_is(store):
    kill_while_written(store)
    before = {path.name: path.read_bytes() for path in store.parent.iterdir()}
    told = []
    found = find_store(None, store.parent, told.append)
    assert [item.name for item in found.open().get_contexts_by_type("pipeline_run")] == [BEGAN.isoformat()]
    assert len(told) == 1
    assert {path.name: path.read_bytes() for path in store.parent.iterdir()} == before


def test_readers_answer_from_the_copy_of_a_damaged_store(store):
    store.write_bytes(b"no database" * 1000)
    told = []
    found = find_store(None, store.parent, told.append)
    assert [item.name for item in found.open().get_contexts_by_type("pipeline_run")] == [BEGAN.isoformat()]
    assert told[0].startswith(f"{store.parent}: read from a copy: metadata.sqlite was damaged")
    assert store.read_bytes() == b"no database" * 1000


def test_readers_read_beside_a_run_where_it_writes(store):
    with locked(store.parent, "2026-03-01T12-00-00"):
        other = sqlite3.connect(store, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        other.execute("INSERT INTO Type (name, type_kind) VALUES ('x', 1)")
        found = find_store(None, store.parent)
        assert found.connection.sqlite.filename_uri == str(store)
        assert len(found.open().get_contexts_by_type("pipeline_run")) == 1
        other.execute("COMMIT")
        other.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting takes root")
def test_readers_answer_on_a_read_only_disk_with_an_unfinished_journal(store):
    kill_while_written(store)
    program = f"""
from pathlib import Path
from pipeline.records.store import find_store
print(len(find_store(None, Path({str(store.parent)!r})).open().get_contexts_by_type("pipeline_run")))
"""
    mount = f"mount --bind {store.parent} {store.parent} && mount -o remount,bind,ro {store.parent}"
    command = ["unshare", "-m", "sh", "-c", f'{mount} || exit 77; exec "$0" -c "$1"', sys.executable, program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 77:
        pytest.skip("mounting is not allowed here")
    assert done.stdout == "1\n", done.stderr


def test_a_run_waits_for_a_reader_and_a_reader_sees_a_run(tmp_path):
    with locked(tmp_path, "2026-03-01T12-00-00"), no_run(tmp_path) as quiet:
        assert not quiet
    with no_run(tmp_path) as quiet:
        assert quiet
    with locked(tmp_path, "2026-03-01T12-00-05"):
        pass


def test_a_full_disk_is_told_as_it_is_and_no_damage(tmp_path):
    code = f"""
import resource, signal, sys
from pathlib import Path
from pipeline.records.recovery import recover
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    recover(Path({str(tmp_path / "metadata.sqlite")!r}))
except (RuntimeError, OSError) as error:
    print(type(error).__name__)
resource.setrlimit(resource.RLIMIT_FSIZE, (10**9, 10**9))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() in ("RuntimeError", "OSError"), done.stderr
    assert "begun" in (told := recover(tmp_path / "metadata.sqlite")) or told == ""
    assert runs_in(tmp_path / "metadata.sqlite") == []


def test_the_copy_in_another_folder_has_all_that_recovery_needs(store, tmp_path_factory):
    kill_while_written(store)
    copied = copy_store(store, tmp_path_factory.mktemp("copy"))
    assert not is_readable(copied)
    recover(copied)
    assert is_readable(copied)
