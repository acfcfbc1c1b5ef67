"""Brings `metadata.sqlite` into a state that ML Metadata can open, whatever a killed run, a full disk or a bad disk has left.

    metadata.sqlite                   the store
    metadata.sqlite-journal           SQLite's, beside the store only while something is written, or after a kill
    metadata.sqlite.backup            a copy, from the end of the last run
    metadata.sqlite.damaged-TIME-1    a store that could not be read, moved aside

SQLite's write-ahead log (WAL) is not used, though ML Metadata bears it: it does not work on network file systems, a copy of the
file alone lacks what was written last, and what a kill leaves must be recovered all the same.
"""

import contextlib
import datetime
import itertools
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import ml_metadata as mlmd
from ml_metadata.proto import metadata_store_pb2

from base.errors import UserError
from base.inputs import open_regular
from base.local_files import new_file

_PATIENCE: Final = 10.0  # seconds to wait for another program that has the file open
_BESIDE: Final = ("-journal", "-wal", "-shm")  # what SQLite keeps beside a database, by the end of its name
_DAMAGE: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_REFERENCES: Final = (  # table of ML Metadata, column, and the table whose rows the column names
    ("Artifact", "type_id", "Type"),
    ("Execution", "type_id", "Type"),
    ("Context", "type_id", "Type"),
    ("TypeProperty", "type_id", "Type"),
    ("ParentType", "type_id", "Type"),
    ("ArtifactProperty", "artifact_id", "Artifact"),
    ("ExecutionProperty", "execution_id", "Execution"),
    ("ContextProperty", "context_id", "Context"),
    ("Event", "artifact_id", "Artifact"),
    ("Event", "execution_id", "Execution"),
    ("EventPath", "event_id", "Event"),
    ("Association", "context_id", "Context"),
    ("Association", "execution_id", "Execution"),
    ("Attribution", "context_id", "Context"),
    ("Attribution", "artifact_id", "Artifact"),
    ("ParentContext", "context_id", "Context"),
    ("ParentContext", "parent_context_id", "Context"),
)
_OTHER_REASONS: Final = (
    "locked",
    "is full",
    "readonly",
    "I/O error",
    "unable to open",
)  # for which an intact file is refused too


def recover(path: Path) -> str:
    """Makes sure that the store can be opened; begins a new one if there is none, and none to restore.

    Unfinished writing of a killed run is rolled back. A store that can't be read is moved aside and restored from its copy.

    Args:
      path: the store. Nothing else may use it: the caller holds the run's lock.

    Returns:
      What was done, in a line; "" if nothing had to be done.

    Raises:
      UserError: the store is of another version of ML Metadata, or a pipe or a folder is in its place, or its copy's.
      sqlite3.Error, RuntimeError: the file can't be opened for a reason that is not in it, such as missing rights.
    """
    copy = backup_of(path)
    _check_regular(path)
    interrupted = _size(path) > 0 and _size(_beside(path, "-journal")) > 0
    damage = _find_damage(path)
    if not damage:
        done = f"{path.name}: what a killed run had recorded in part was rolled back" if interrupted else ""
    elif not path.exists() and not copy.exists():
        done = ""
    else:
        done = f"{path.name} {damage}{_replace(path, copy)}"
    if damage:
        _open(path)
    if remove_fragments(path) and not done:
        done = f"{path.name}: a record that a full disk had cut short was removed"
    _skip_used_numbers(path)
    return done


def remove_fragments(path: Path) -> int:
    """Deletes rows that belong to no other row, and returns their number.

    On a full disk SQLite ends a transaction by itself, and ML Metadata writes on without one. What it had written before is
    then missing, and a later execution would get the number of one that is missing, with its events and its contexts.
    """
    with _connected(path) as store:
        before = store.total_changes
        for table, column, owner in _REFERENCES:
            store.execute(f"DELETE FROM {table} WHERE {column} NOT IN (SELECT id FROM {owner})")
        store.commit()
        return store.total_changes - before


def back_up(path: Path) -> None:
    """Replaces the store's copy, unless the store is damaged.

    Raises:
      OSError, sqlite3.Error: the copy can't be written; the one before is still there.
    """
    with new_file(backup_of(path)) as unfinished:
        for end in ("", *_BESIDE):
            _beside(unfinished, end).unlink(missing_ok=True)  # of a killed run
        with _connected(path) as store, _connected(unfinished) as copied:
            copied.execute("PRAGMA journal_mode = OFF")
            store.backup(copied)
        if damage := _find_damage_in_file(unfinished):
            raise sqlite3.DatabaseError(f"{path}: {damage}")
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())


def backup_of(path: Path) -> Path:
    """The path of the store's copy."""
    return path.with_name(f"{path.name}.backup")


def is_readable(path: Path) -> bool:
    """Whether the store can be read as it is, without the right to write to its folder."""
    if _size(path) == 0 or _size(_beside(path, "-journal")):
        return False
    try:
        with _connected(path, "ro") as store:
            return store.execute("PRAGMA quick_check(1)").fetchone() == ("ok",)
    except sqlite3.Error:
        return False


def copy_store(path: Path, folder: Path) -> Path:
    """Copies the store, with its copy and what SQLite keeps beside it, into another folder; returns its path there.

    Raises:
      UserError: a pipe or a folder is in the place of one of them.
      OSError: one can't be read.
    """
    for file in (path, backup_of(path), *(_beside(path, end) for end in _BESIDE)):
        if file.exists():
            _check_regular(file)
            shutil.copyfile(file, folder / file.name)
    return folder / path.name


def _find_damage(path: Path) -> str:
    """What is wrong with the store, as the continuation of its name; "" if ML Metadata can use it."""
    if not path.exists():
        return "was gone"
    if damage := _find_damage_in_file(path):
        return f"was damaged ({damage})"
    if _size(path) == 0:
        return "was empty"
    try:
        _open(path)
    except RuntimeError as error:
        if any(sign in str(error) for sign in _OTHER_REASONS):
            raise
        return f"was damaged ({str(error).splitlines()[0][:60].strip()})"
    return ""


def _find_damage_in_file(path: Path) -> str:
    """What SQLite finds wrong with a file; first it rolls back what was not finished."""
    try:
        with _connected(path) as store:
            (found,) = store.execute("PRAGMA integrity_check(1)").fetchone()
            return "" if found == "ok" else str(found).splitlines()[-1]
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _DAMAGE:
            raise
        return str(error)


def _replace(path: Path, copy: Path) -> str:
    """Moves the store aside, and puts its copy in its place if that is intact; returns what was done."""
    _check_regular(copy)
    aside = _damaged_name(path)
    kept = f"; it is kept as {aside.name}" if _size(path) else ""
    # The journal goes after the store: a store without its journal would look intact, and a copy must not find the journal.
    for end in ("", *_BESIDE):
        if _size(_beside(path, end)):
            _beside(path, end).rename(_beside(aside, end))
    if not copy.exists():
        return f": a new one was begun, so nothing comes from the cache{kept}"
    if _find_damage_in_file(copy) or not _size(copy):
        copy.rename(_damaged_name(copy))
        return f", and its copy as well: a new one was begun, so nothing comes from the cache{kept}"
    with new_file(path) as unfinished:
        shutil.copyfile(copy, unfinished)
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
    return f": restored as it was at the end of the run before{kept}"


def _damaged_name(path: Path) -> Path:
    """A name for a damaged file that no other has."""
    now = datetime.datetime.now().strftime("%Y-%m-%dT%H-%M-%S")
    names = (path.with_name(f"{path.name}.damaged-{now}-{number}") for number in itertools.count(1))
    return next(name for name in names if not name.exists())


def _open(path: Path) -> None:
    """Opens the store by ML Metadata, which makes the tables if there are none."""
    connection = metadata_store_pb2.ConnectionConfig()
    connection.sqlite.filename_uri = str(path)
    connection.sqlite.connection_mode = metadata_store_pb2.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
    try:
        mlmd.MetadataStore(connection)
    except RuntimeError as error:
        if age := store_age(str(error)):
            raise UserError(f"{path}: {age}; use the version that made it, or give another --output") from error
        raise


def store_age(text: str) -> str:
    """Whether the store is older or newer than this version of ML Metadata, in words; "" if it is neither.

    Args:
      text: the message of ML Metadata.
    """
    if "older than library version" in text:
        return "made by an older version of ML Metadata"
    return "made by a newer version of ML Metadata" if "greater than library version" in text else ""


def _skip_used_numbers(path: Path) -> None:
    """Lets the next execution have a number that no folder of an earlier one has.

    A restored or new store does not know the executions since. Components would write into folders that have files.
    """
    folders = path.parent.glob("artifacts/*/*/*")
    highest = max((int(folder.name) for folder in folders if folder.name.isdecimal()), default=0)
    with _connected(path) as store:
        used = store.execute("SELECT seq FROM sqlite_sequence WHERE name = 'Execution'").fetchone()
        if highest > (used[0] if used else 0):
            store.execute("DELETE FROM sqlite_sequence WHERE name = 'Execution'")
            store.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('Execution', ?)", (highest,))
            store.commit()


@contextlib.contextmanager
def _connected(path: Path, mode: str = "rwc") -> Iterator[sqlite3.Connection]:
    with contextlib.closing(
        sqlite3.connect(f"{path.resolve().as_uri()}?mode={mode}", timeout=_PATIENCE, uri=True)
    ) as connection:
        yield connection


def _check_regular(path: Path) -> None:
    """Raises UserError if what is there is no file, for which SQLite has no words."""
    if path.exists() and not path.is_file():
        try:
            open_regular(path).close()
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}; move it away, or give another --output") from error


def _beside(path: Path, end: str) -> Path:
    return path.with_name(f"{path.name}{end}")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
