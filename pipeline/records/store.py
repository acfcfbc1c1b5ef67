"""The store of ML Metadata that runs are recorded in: a file in the output folder, or a database on a server."""

import atexit
import contextlib
import datetime
import os
import shutil
import socket
import sqlite3
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import ml_metadata as mlmd
from ml_metadata.proto import metadata_store_pb2

from base.errors import UserError
from base.local_files import write_text
from base.redirection import output_to
from pipeline.config.metadata_server import MetadataServer
from pipeline.records.postgresql import PostgresqlStore
from pipeline.records.recovery import backup_of, copy_store, is_readable, recover, store_age
from pipeline.records.run_lock import no_run

METADATA_FILE: Final = "metadata.sqlite"
PASSWORD_VARIABLE: Final = "FPN_METADATA_PASSWORD"
_OWNER_FILE: Final = ".metadata-owner"
_CLIENT_VARIABLES: Final = {"postgresql": "PGPASSWORD", "mysql": "MYSQL_PWD"}  # read by the client libraries
_REACHED_WITHIN: Final = 10.0  # seconds, to the server
_MADE_WITHIN: Final = 30.0  # seconds: tables or types that another process is making
_LOCK_TYPE: Final = "mlmd.Dataset"  # a type that ML Metadata makes together with the tables

MetadataType: TypeAlias = metadata_store_pb2.ArtifactType | metadata_store_pb2.ExecutionType | metadata_store_pb2.ContextType


@dataclass(frozen=True)
class Store:
    """Where runs are recorded.

    On a server, the names of pipelines and runs end with "@OWNER", so that each output folder sees only its own: what a run
    takes from the cache must be below its own folder. In a file there are no others.

    Attributes:
      connection: in the form that ML Metadata takes, without the password.
      server: the server; None if the store is a file.
      owner: what stands for the output folder in names on a server; empty for a file.
    """

    connection: metadata_store_pb2.ConnectionConfig
    server: MetadataServer | None = None
    owner: str = ""

    @property
    def kind(self) -> type[mlmd.MetadataStore]:
        """The class that opens the connection."""
        return PostgresqlStore if self.connection.HasField("postgresql") else mlmd.MetadataStore

    def pipeline_name(self, name: str) -> str:
        """The name that a pipeline has in the store."""
        return f"{name}@{self.owner}" if self.owner else name

    def new_run_name(self) -> str:
        """A name for a run that begins now."""
        return self.pipeline_name(datetime.datetime.now().isoformat())

    def owns(self, name: str) -> bool:
        """Whether the pipeline or run of this name in the store belongs to the output folder."""
        return name.partition("@")[2] == self.owner

    def open(self) -> mlmd.MetadataStore:
        """Connects; makes the tables if the database is empty.

        Raises:
          UserError: the server can't be reached or refuses the user, or the store that is there can't be used.
        """
        if self.server:
            _check_reachable(self.server)
        until = time.monotonic() + _MADE_WITHIN
        while True:
            with _captured_output() as output_file:
                try:
                    return self.kind(self.connection)
                except RuntimeError as error:
                    text = f"{error}\n{output_file.read_text(errors='replace')}"
                    failure = error
            if not self.server:
                raise UserError(f"{self.connection.sqlite.filename_uri}: {_cure_of_file(text)}") from failure
            if not _is_being_made(text) or time.monotonic() > until:
                raise UserError(f"metadata: {self.server}: {_cure(self.server, text)}")
            time.sleep(0.5)


def make_store(server: MetadataServer | None, output: Path) -> Store:
    """The store of a new run.

    Args:
      server: `metadata` in the configuration.
      output: the run's output folder, locked.
    """
    if server is None:
        return _file_store(output / METADATA_FILE, metadata_store_pb2.SqliteMetadataSourceConfig.READWRITE_OPENCREATE)
    path = output / _OWNER_FILE
    if not path.exists():
        write_text(path, uuid.uuid4().hex[:8] + "\n")
    return _server_store(server, path.read_text(encoding="utf-8").strip())


def find_store(server: MetadataServer | None, output: Path, tell: Callable[[str], None] = lambda line: None) -> Store | None:
    """The store of earlier runs, to read from; None if no run has begun.

    A file that can't be read as it is, after a run was killed or the file was damaged, is copied to a temporary folder and
    recovered there. So nothing is written to the output folder.

    Args:
      server: `metadata` in the configuration.
      output: the output folder.
      tell: is given a line about what was found damaged.

    Raises:
      UserError: the file can't be read at all.
    """
    if server is None:
        path = output / METADATA_FILE
        if not path.exists() and not backup_of(path).exists():
            return None
        return _file_store(_readable(path, tell), metadata_store_pb2.SqliteMetadataSourceConfig.READONLY)
    path = output / _OWNER_FILE
    return _server_store(server, path.read_text(encoding="utf-8").strip()) if path.exists() else None


def check_server(server: MetadataServer) -> None:
    """Connects once, before anything has begun.

    Raises:
      UserError: see `Store.open`.
    """
    _server_store(server).open()


def _readable(path: Path, tell: Callable[[str], None]) -> Path:
    """The store if it can be read where it is, or a run writes it; else a recovered copy, which goes when the process ends."""
    with no_run(path.parent) as quiet:
        if not quiet or is_readable(path):
            return path
        folder = Path(tempfile.mkdtemp(prefix="fpn-records-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        try:
            copied = copy_store(path, folder)
        except OSError as error:
            raise UserError(f"{path}: can't be read ({error.strerror}); check your rights, or start the run again") from error
    try:
        done = recover(copied)
    except (OSError, sqlite3.Error, RuntimeError) as error:
        raise UserError(f"{path}: can't be read ({_reason(str(error))}); start the run again, which recovers it") from error
    if done:
        tell(f"{path.parent}: read from a copy: {done}")
    return copied


def _file_store(path: Path, mode: int) -> Store:
    connection = metadata_store_pb2.ConnectionConfig()
    connection.sqlite.filename_uri = str(path)
    connection.sqlite.connection_mode = mode
    return Store(connection)


def _server_store(server: MetadataServer, owner: str = "") -> Store:
    """Passes the password through the environment, because TFX writes the connection into its log."""
    password = os.environ.get(PASSWORD_VARIABLE) or server.password
    if password:
        os.environ[_CLIENT_VARIABLES[server.system]] = password
    connection = metadata_store_pb2.ConnectionConfig()
    if server.system == "postgresql":
        os.environ.setdefault("PGCONNECT_TIMEOUT", str(round(_REACHED_WITHIN)))
        connection.postgresql.host = _quote(server.host)
        connection.postgresql.port = str(server.port)
        connection.postgresql.user = _quote(server.user)
        connection.postgresql.dbname = _quote(server.database)
        connection.postgresql.skip_db_creation = True
    else:
        connection.mysql.host = "127.0.0.1" if server.host == "localhost" else server.host  # not a Unix socket
        connection.mysql.port = server.port
        connection.mysql.user = server.user
        connection.mysql.database = server.database
        connection.mysql.skip_db_creation = True
        for name, value in server.options.items():
            setattr(connection.mysql.ssl_options, name.removeprefix("ssl_"), value)
    return Store(connection, server, owner)


def _quote(value: str) -> str:
    """Quotes a value of libpq's connection string (PostgreSQL's documentation, 34.1.1.1), as ML Metadata does not."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _check_reachable(server: MetadataServer) -> None:
    try:
        socket.create_connection((server.host, server.port), timeout=_REACHED_WITHIN).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"metadata: {server}: no server answers there ({reason}); start it, or correct the address") from error


@contextlib.contextmanager
def _captured_output() -> Iterator[Path]:
    """Redirects what the client libraries print to a file; PostgreSQL gives its reasons only there."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "output.txt"
        with output_to(path):
            yield path


def _is_being_made(text: str) -> bool:
    """Whether another process is making the tables at this moment."""
    return any(sign in text for sign in ("Please retry", "already exists", "duplicate key value", "Duplicate entry"))


def _cure_of_file(text: str) -> str:
    if age := store_age(text):
        return f"{age}; use the version that made it, or give another --output"
    return f"can't be opened ({_reason(text)}); check your rights to it and its folder, and do it again"


def _cure(server: MetadataServer, text: str) -> str:
    """What is wrong, and what to do about it.

    Args:
      server: the server that was asked.
      text: messages of ML Metadata and the client library.
    """
    user, database = server.user, server.database
    password = f"set {PASSWORD_VARIABLE}" + (", or write it into ~/.pgpass" if server.system == "postgresql" else "")
    if age := store_age(text):
        return f"{age}; use another database, or upgrade that one"
    if "no password supplied" in text:
        return f"{user} needs a password: {password}"
    if "authentication failed" in text or f'role "{user}" does not exist' in text:
        return f"the server does not let {user} in; check user and password ({password})"
    if "was not initialized" in text:  # for MySQL, ML Metadata says no more than this
        return f"the server does not let {user} in; check user and password ({password}), TLS, and how the account logs in"
    if "no pg_hba.conf entry" in text:
        return f"the server's pg_hba.conf does not let {user} in from here without TLS; add a line for it"
    if f'database "{database}" does not exist' in text or "Access denied" in text or "Unknown database" in text:
        return f"there is no database {database} that {user} may use; make it as docs/metadata.md tells"
    if "permission denied" in text:
        return f"{user} may not make tables in {database}; let {user} own it: ALTER DATABASE {database} OWNER TO {user}"
    return _reason(text)


def _reason(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line.partition("error: ")[2] for line in lines if "PostgreSQL error: " in line]
    return (errors or lines or ["can't be opened"])[0][:200]


def register_types(store: mlmd.MetadataStore, types: Sequence[MetadataType]) -> None:
    """Makes the types that are not in the store yet, one process at a time.

    If two processes make a type at the same moment, PostgreSQL ends up with two of that name, as it has no constraint against
    it. So a process that makes types holds a lock: an artifact with a name that no second artifact can have.

    Args:
      store: a store on a server.
      types: as TFX would make them.
    """
    if not _missing_types(store, types):
        return
    with _type_lock(store):
        for item in _missing_types(store, types):  # again: another process may have made some
            if isinstance(item, metadata_store_pb2.ArtifactType):
                store.put_artifact_type(item, can_add_fields=True, can_omit_fields=True)
            elif isinstance(item, metadata_store_pb2.ExecutionType):
                store.put_execution_type(item, can_add_fields=True, can_omit_fields=True)
            else:
                store.put_context_type(item, can_add_fields=True, can_omit_fields=True)


def _missing_types(store: mlmd.MetadataStore, types: Sequence[MetadataType]) -> list[MetadataType]:
    """Types that are not in the store, or lack one of their properties there; each once."""
    stored = {
        (type(item), item.name): item
        for item in (*store.get_artifact_types(), *store.get_execution_types(), *store.get_context_types())
    }
    missing = {}
    for item in types:
        known = stored.get((type(item), item.name))
        if known is None or not item.properties.items() <= known.properties.items():
            missing[type(item), item.name] = item
    return list(missing.values())


@contextlib.contextmanager
def _type_lock(store: mlmd.MetadataStore) -> Iterator[None]:
    """Waits for the lock and holds it. A holder that does not release it in time has died: a waiting process releases it."""
    pending, live = metadata_store_pb2.Artifact.PENDING, metadata_store_pb2.Artifact.LIVE
    type_id = store.get_artifact_type(_LOCK_TYPE).id
    number = 0
    while True:
        lock = metadata_store_pb2.Artifact(type_id=type_id, name=f"fpn types {number}", state=pending)
        holder = store.get_artifact_by_type_and_name(_LOCK_TYPE, lock.name)
        until = time.monotonic() + _MADE_WITHIN
        while holder and holder.state == pending and time.monotonic() < until:
            time.sleep(0.2)
            holder = store.get_artifact_by_type_and_name(_LOCK_TYPE, lock.name)
        if holder:
            if holder.state == pending:
                holder.state = live
                store.put_artifacts([holder])
            number += 1
            continue
        try:
            (lock.id,) = store.put_artifacts([lock])
        except mlmd.errors.AlreadyExistsError:
            continue
        break
    try:
        yield
    finally:
        lock.state = live
        store.put_artifacts([lock])
