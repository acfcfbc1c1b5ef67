"""A metadata store as TFX writes it, as far as it is read, and as a kill leaves it."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import ml_metadata as mlmd
from ml_metadata.proto import metadata_store_pb2

from pipeline.records import store

Execution, Event, Artifact = metadata_store_pb2.Execution, metadata_store_pb2.Event, metadata_store_pb2.Artifact

_WRITE_AND_STOP: Final = """
import sqlite3, sys, time
store = sqlite3.connect(sys.argv[1], isolation_level=None)
store.execute("PRAGMA cache_size = 1")  # so that pages reach the file before the end of the transaction
store.execute("BEGIN IMMEDIATE")
for number in range(2000):
    store.execute("INSERT INTO Type (name, type_kind) VALUES (?, 1)", (f"unfinished {number}",))
print("written", flush=True)
time.sleep(100)
"""


class Store:
    def __init__(self, path, pipeline="digits", artifacts=""):
        self.connection = metadata_store_pb2.ConnectionConfig()
        self.connection.sqlite.filename_uri = str(path)
        self.connection.sqlite.connection_mode = metadata_store_pb2.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
        self.store = store.Store(self.connection)
        self._store = mlmd.MetadataStore(self.connection)
        self._pipeline = pipeline
        self._artifacts = artifacts
        self._contexts = {}

    def run(self, component, began, state=Execution.COMPLETE, outputs=(), inputs=(), internal=(), properties=(), **of_outputs):
        """Records an execution in the run that began at a time.

        Args:
          component: its name, and that of its type.
          began: datetime.
          state: of the execution.
          outputs: key -> type of a new artifact, or the id of an old one.
          inputs: key -> id of an artifact.
          internal: likewise, as a resolver records both.
          properties: of the execution.
          **of_outputs: properties of the new artifacts.

        Returns:
          Key -> id of the outputs.
        """
        type_id = self._store.put_execution_type(metadata_store_pb2.ExecutionType(name=f"tfx.{component}"))
        execution = Execution(type_id=type_id, last_known_state=state, custom_properties=_values(dict(properties)))
        pairs = []
        for kind, artifacts in ((Event.OUTPUT, outputs), (Event.INPUT, inputs), (Event.INTERNAL_OUTPUT, internal)):
            for key, artifact in dict(artifacts).items():
                if isinstance(artifact, str):
                    type_id = self._store.put_artifact_type(metadata_store_pb2.ArtifactType(name=artifact))
                    item = Artifact(
                        type_id=type_id, uri=f"{self._artifacts}/{component}/{key}", custom_properties=_values(of_outputs)
                    )
                else:
                    (item,) = self._store.get_artifacts_by_id([artifact])
                steps = [Event.Path.Step(key=key), Event.Path.Step(index=0)]
                pairs.append((item, Event(type=kind, path=Event.Path(steps=steps))))
        contexts = [self._context("pipeline_run", began.isoformat()), self._context("node", f"{self._pipeline}.{component}")]
        _, ids, _ = self._store.put_execution(execution, pairs, self._store.get_contexts_by_id(contexts))
        return dict(zip(dict(outputs), ids, strict=False))

    def _context(self, kind, name):
        if (kind, name) not in self._contexts:
            type_id = self._store.put_context_type(metadata_store_pb2.ContextType(name=kind))
            context = metadata_store_pb2.Context(type_id=type_id, name=name)
            (self._contexts[kind, name],) = self._store.put_contexts([context])
        return self._contexts[kind, name]


def _values(properties):
    kinds = {int: "int_value", str: "string_value"}
    return {name: metadata_store_pb2.Value(**{kinds[type(value)]: value}) for name, value in properties.items()}


def kill_while_written(path: Path) -> None:
    """Leaves a store as a kill does in the middle of a transaction: with pages of it in the file, and a hot journal."""
    with subprocess.Popen([sys.executable, "-c", _WRITE_AND_STOP, path], stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"written\n"
        process.send_signal(signal.SIGKILL)
    assert path.with_name(f"{path.name}-journal").stat().st_size
