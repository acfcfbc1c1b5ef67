"""Shards of captured requests: Parquet files in a folder, which several servers may write, and which are read meanwhile.

A shard's name has the time at which it was written, after that of all its rows, and the id of the process that wrote it. Until
it is complete, it has a hidden name. One process at a time writes a shard and deletes old ones.
"""

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from base.errors import UserError
from base.inputs import open_regular
from base.local_files import user_errors_of_writing
from pipeline.captured.columns import is_captured

_SHARDS: Final = "captured-*.parquet"
_LOCK_FILE: Final = ".lock"
_TIME: Final = "%Y%m%dT%H%M%S.%f"
_MOST_ROWS: Final = 10_000
_MOST_BYTES: Final = 64_000_000
_MOST_SECONDS: Final = 600.0
_LEAST_SHARDS: Final = 8  # that there is room for


class ShardWriter:
    """Collects rows in memory, and writes them as a shard. It is used by one thread at a time.

    Files can be read by their owner alone.

    Attributes:
      rows: number of the rows that are not written yet; they are lost if the process is killed.
      disk_bytes: of all shards in the folder, as of the last writing.
    """

    def __init__(self, folder: Path, disk_bytes: int) -> None:
        """Makes the folder if there is none, and deletes what killed processes have left unfinished.

        Args:
          folder: the folder of the shards.
          disk_bytes: what all shards in it may have; the oldest are deleted for new ones.

        Raises:
          UserError: the folder can't be written.
        """
        self._folder = folder
        self._disk_bytes = disk_bytes
        self._batches: list[pa.RecordBatch] = []
        self.rows = self._bytes = 0
        self._began = 0.0
        with user_errors_of_writing(folder, "--capture"):
            folder.mkdir(0o700, parents=True, exist_ok=True)
            with self._locked():
                self.disk_bytes = sum(self._sizes().values())

    def takes(self, schema: pa.Schema) -> bool:
        """Whether rows of a schema can be in the same shard as those that are not written yet."""
        return not self._batches or self._batches[0].schema.equals(schema, check_metadata=True)

    def add(self, batch: pa.RecordBatch) -> None:
        """Adds rows; `takes` must be true of their schema."""
        if not self._batches:
            self._began = time.monotonic()
        self._batches.append(batch)
        self.rows += batch.num_rows
        self._bytes += batch.nbytes

    def is_due(self) -> bool:
        """Whether it is time to write: there are rows, and they are many, or large, or old."""
        return self.rows > 0 and (
            self.rows >= _MOST_ROWS
            or self._bytes >= min(_MOST_BYTES, self._disk_bytes // _LEAST_SHARDS)
            or time.monotonic() - self._began >= _MOST_SECONDS
        )

    def write(self) -> None:
        """Writes the rows as a shard, for which the oldest shards are deleted as far as needed.

        Raises:
          OSError: they can't be written, and are lost.
        """
        if not self._batches:
            return
        table = pa.Table.from_batches(self._batches)
        self._batches, self.rows, self._bytes = [], 0, 0
        sink = pa.BufferOutputStream()
        parquet.write_table(table, sink, compression="zstd")
        content = sink.getvalue()
        with self._locked():
            self._make_room(content.size)
            name = _SHARDS.replace("*", f"{datetime.now(UTC).strftime(_TIME)}-{os.getpid()}")
            unfinished = self._folder / f".{name}"
            with open(unfinished, "wb", opener=_open_private) as file:
                file.write(content)
            unfinished.rename(self._folder / name)
        self.disk_bytes += content.size

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Nobody else writes meanwhile; so what is unfinished afterwards has failed, or its process was killed."""
        with open(self._folder / _LOCK_FILE, "wb", opener=_open_private) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                for path in self._folder.glob(f".{_SHARDS}"):
                    path.unlink()

    def _make_room(self, size: int) -> None:
        if size > self._disk_bytes:
            raise OSError(errno.EFBIG, "a shard is larger than --capture-gb", str(self._folder))
        sizes = self._sizes()
        self.disk_bytes = sum(sizes.values())
        for path in sorted(sizes):
            if self.disk_bytes + size <= self._disk_bytes:
                break
            path.unlink(missing_ok=True)  # a person may have done it
            self.disk_bytes -= sizes[path]

    def _sizes(self) -> dict[Path, int]:
        """The complete shards, with their bytes."""
        sizes = {}
        for path in self._folder.glob(_SHARDS):
            with contextlib.suppress(FileNotFoundError):
                sizes[path] = path.stat().st_size
        return sizes


def read_captured(folder: Path, since: datetime | None = None, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Reads the complete shards in a folder, one at a time, the oldest first.

    Args:
      folder: what `fpn serve --capture` names.
      since: with a time zone; earlier rows are passed over.
      columns: those to read, among them `time` if `since` is given; None for all. Without `image`, a shard takes little memory.

    Yields:
      The rows of a shard, if there are any, with the schema of `columns.make_schema`. Shards of different versions of a model
      can have different classes and embeddings.

    Raises:
      UserError: there is no such folder, or a shard is damaged.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no captured requests here; give the folder of fpn serve --capture")
    for path in sorted(folder.glob(_SHARDS)):
        if since and _written_at(path) < since:
            continue
        try:
            with open_regular(path) as opened, parquet.ParquetFile(opened) as file:
                if not is_captured(file.schema_arrow):
                    raise OSError("other columns than those of captured requests")
                table = file.read(columns)
        except FileNotFoundError:  # deleted for newer shards
            continue
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{path}: can't be read ({error}); delete it") from error
        if since:
            table = table.filter(pc.field("time") >= since)
        if table.num_rows:
            yield table


def _written_at(path: Path) -> datetime:
    """The time in a shard's name; the present if it has another name."""
    try:
        return datetime.strptime(path.stem.split("-")[1], _TIME).replace(tzinfo=UTC)
    except ValueError:
        return datetime.now(UTC)


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
