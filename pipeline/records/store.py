"""The store of ML Metadata that runs are recorded in: a file in the output folder, or a database on a server."""

import contextlib
import datetime
import os
import socket
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
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

METADATA_FILE: Final = "metadata.sqlite"
PASSWORD_VARIABLE: Final = "FPN_METADATA_PASSWORD"
_OWNER_FILE: Final = ".metadata-owner"
_CLIENT_VARIABLES: Final = {"postgresql": "PGPASSWORD", "mysql": "MYSQL_PWD"}  # where the client libraries look
_REACHED_WITHIN: Final = 10.0  # seconds, to the server
_MADE_WITHIN: Final = 30.0  # seconds: tables or types that another process is making
_LOCK_TYPE: Final = "mlmd.Dataset"  # a type that ML Metadata makes with the tables

MetadataType: TypeAlias = metadata_store_pb2.ArtifactType | metadata_store_pb2.ExecutionType | metadata_store_pb2.ContextType


@dataclass(frozen=True)
class Store:
    """Where runs are recorded.

    Pipelines and runs of a server's store have "@OWNER" at the end of their names: each output folder sees its own alone,
    for what a run takes from the cache must be below its own folder. In a file there are no others.

    Attributes:
      connection: as ML Metadata takes it, without the password.
      server: None if it is a file.
      owner: of the output folder on a server; empty in a file.
    """

    connection: metadata_store_pb2.ConnectionConfig
    server: MetadataServer | None = None
    owner: str = ""

    @property
    def kind(self) -> type[mlmd.MetadataStore]:
        """What to open the connection with."""
        return PostgresqlStore if self.connection.HasField("postgresql") else mlmd.MetadataStore

    def pipeline_name(self, name: str) -> str:
        """Name of a pipeline in the store."""
        return f"{name}@{self.owner}" if self.owner else name

    def new_run_name(self) -> str:
        """Name of a run that begins now."""
        return self.pipeline_name(datetime.datetime.now().isoformat())

    def owns(self, name: str) -> bool:
        """Whether a pipeline or a run of this name in the store is of the output folder."""
        return name.partition("@")[2] == self.owner

    def open(self) -> mlmd.MetadataStore:
        """Connects, and makes the tables of an empty database.

        Raises:
          UserError: the server can't be reached or does not let the user in, or what is there can't be used.
        """
        if self.server:
            _check_reachable(self.server)
        until = time.monotonic() + _MADE_WITHIN
        while True:
            with _said() as said:
                try:
                    return self.kind(self.connection)
                except RuntimeError as error:
                    text = f"{error}\n{said.read_text(errors='replace')}"
            if not self.server:
                raise UserError(f"{self.connection.sqlite.filename_uri}: {_cure_of_file(text)}")
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
        return _file_store(output, metadata_store_pb2.SqliteMetadataSourceConfig.READWRITE_OPENCREATE)
    path = output / _OWNER_FILE
    if not path.exists():
        write_text(path, uuid.uuid4().hex[:8] + "\n")
    return _server_store(server, path.read_text(encoding="utf-8").strip())


def find_store(server: MetadataServer | None, output: Path) -> Store | None:
    """The same to read from; None if no run has begun."""
    if server is None:
        read_only = metadata_store_pb2.SqliteMetadataSourceConfig.READONLY
        return _file_store(output, read_only) if (output / METADATA_FILE).exists() else None
    path = output / _OWNER_FILE
    return _server_store(server, path.read_text(encoding="utf-8").strip()) if path.exists() else None


def check_store(server: MetadataServer | None, output: Path) -> None:
    """Connects once, before anything has begun.

    Raises:
      UserError: see `Store.open`.
    """
    store = _server_store(server) if server else find_store(None, output)
    if store:
        store.open()


def _file_store(output: Path, mode: int) -> Store:
    connection = metadata_store_pb2.ConnectionConfig()
    connection.sqlite.filename_uri = str(output / METADATA_FILE)
    connection.sqlite.connection_mode = mode
    return Store(connection)


def _server_store(server: MetadataServer, owner: str = "") -> Store:
    """The password goes by the environment: TFX writes the connection into its log."""
    password = os.environ.get(PASSWORD_VARIABLE) or server.password
    if password:
        os.environ[_CLIENT_VARIABLES[server.system]] = password
    connection = metadata_store_pb2.ConnectionConfig()
    if server.system == "postgresql":
        os.environ.setdefault("PGCONNECT_TIMEOUT", str(round(_REACHED_WITHIN)))
        connection.postgresql.host = _quoted(server.host)
        connection.postgresql.port = str(server.port)
        connection.postgresql.user = _quoted(server.user)
        connection.postgresql.dbname = _quoted(server.database)
        connection.postgresql.skip_db_creation = True
    else:
        connection.mysql.host = "127.0.0.1" if server.host == "localhost" else server.host  # which stands for a Unix socket
        connection.mysql.port = server.port
        connection.mysql.user = server.user
        connection.mysql.database = server.database
        connection.mysql.skip_db_creation = True
        for name, value in server.options.items():
            setattr(connection.mysql.ssl_options, name.removeprefix("ssl_"), value)
    return Store(connection, server, owner)


def _quoted(value: str) -> str:
    """A value in a connection string of libpq (PostgreSQL's documentation, 34.1.1.1), which ML Metadata does not quote."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _check_reachable(server: MetadataServer) -> None:
    try:
        socket.create_connection((server.host, server.port), timeout=_REACHED_WITHIN).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"metadata: {server}: no server answers there ({reason}); start it, or correct the address") from error


@contextlib.contextmanager
def _said() -> Iterator[Path]:
    """What the client libraries print meanwhile, where PostgreSQL's reasons are."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "said.txt"
        with output_to(path):
            yield path


def _is_being_made(text: str) -> bool:
    """Whether another process is just making the tables."""
    return any(sign in text for sign in ("Please retry", "already exists", "duplicate key value", "Duplicate entry"))


def _cure_of_file(text: str) -> str:
    if age := _age(text):
        return f"{age}; move the file away to begin a new one"
    return f"{_reason(text)}; move the file away to begin a new one"


def _cure(server: MetadataServer, text: str) -> str:
    """What is wrong, and what to do about it.

    Args:
      server: that was asked.
      text: what ML Metadata and the client library have said.
    """
    user, database = server.user, server.database
    password = f"set {PASSWORD_VARIABLE}" + (", or write it into ~/.pgpass" if server.system == "postgresql" else "")
    if age := _age(text):
        return f"{age}; use another database, or upgrade that one"
    if "no password supplied" in text:
        return f"{user} needs a password: {password}"
    if "authentication failed" in text or f'role "{user}" does not exist' in text:
        return f"the server does not let {user} in; check user and password ({password})"
    if "was not initialized" in text:  # of MySQL, ML Metadata tells no more
        return f"the server does not let {user} in; check user and password ({password}), TLS, and how the account logs in"
    if "no pg_hba.conf entry" in text:
        return f"the server's pg_hba.conf does not let {user} in from here without TLS; add a line for it"
    if f'database "{database}" does not exist' in text or "Access denied" in text or "Unknown database" in text:
        return f"there is no database {database} that {user} may use; make it as docs/metadata.md tells"
    if "permission denied" in text:
        return f"{user} may not make tables in {database}; let {user} own it: ALTER DATABASE {database} OWNER TO {user}"
    return _reason(text)


def _age(text: str) -> str:
    """Empty if the store's version fits."""
    if "older than library version" in text:
        return "made by an older version of ML Metadata"
    return "made by a newer version of ML Metadata" if "greater than library version" in text else ""


def _reason(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line.partition("error: ")[2] for line in lines if "PostgreSQL error: " in line]
    return (errors or lines or ["can't be opened"])[0][:200]


def register_types(store: mlmd.MetadataStore, types: Sequence[MetadataType]) -> None:
    """Makes types that are not in the store, one process at a time.

    Two processes that make a type at the same moment leave two of that name in PostgreSQL, which has no constraint against
    it. So who makes types holds a lock: an artifact whose name none other can have.

    Args:
      store: on a server.
      types: as TFX would make them.
    """
    if not _missing(store, types):
        return
    with _type_lock(store):
        for item in _missing(store, types):  # as some may be there now
            if isinstance(item, metadata_store_pb2.ArtifactType):
                store.put_artifact_type(item, can_add_fields=True, can_omit_fields=True)
            elif isinstance(item, metadata_store_pb2.ExecutionType):
                store.put_execution_type(item, can_add_fields=True, can_omit_fields=True)
            else:
                store.put_context_type(item, can_add_fields=True, can_omit_fields=True)


def _missing(store: mlmd.MetadataStore, types: Sequence[MetadataType]) -> list[MetadataType]:
    """Types that are not there, or without one of their properties; each once."""
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
    """Waits for its turn. A holder that does not release it in time has died, and is released by those who wait."""
    pending, live = metadata_store_pb2.Artifact.PENDING, metadata_store_pb2.Artifact.LIVE
    type_id = store.get_artifact_type(_LOCK_TYPE).id
    number = 0
    while True:
        lock = metadata_store_pb2.Artifact(type_id=type_id, name=f"fpn types {number}", state=pending)
        held = store.get_artifact_by_type_and_name(_LOCK_TYPE, lock.name)
        until = time.monotonic() + _MADE_WITHIN
        while held and held.state == pending and time.monotonic() < until:
            time.sleep(0.2)
            held = store.get_artifact_by_type_and_name(_LOCK_TYPE, lock.name)
        if held:
            if held.state == pending:
                held.state = live
                store.put_artifacts([held])
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
