"""Shards of captured requests: what is written is read, the disk's bound holds, and nothing unfinished is left or read."""

import fcntl
import hashlib
import json
import os
import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from base.errors import UserError
from pipeline.captured import shards
from pipeline.captured.columns import make_batch, make_schema
from pipeline.captured.shards import ShardWriter, read_captured

LARGE = 10**9
SCHEMA = make_schema(["cat", "dog"], 3, "pets", False)
NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)


def batch_of(rows: int, start: int = 0, schema: pa.Schema = SCHEMA, time: datetime = NOON, image: bytes | None = None):
    numbers = range(start, start + rows)
    columns = {
        "time": [time] * rows,
        "version": [7] * rows,
        "request": [f"request-{number}" for number in numbers],
        "row": list(numbers),
        "content_hash": [hashlib.sha256(bytes([number % 256])).hexdigest() for number in numbers],
        "probabilities": np.full([rows, len(json.loads(schema.metadata[b"classes"]))], 0.5),
        "image": image and [image] * rows,
    }
    if size := schema.field("embedding").type.list_size:
        columns["embedding"] = np.linspace(-1, 1, rows * size).reshape(rows, size)
    return make_batch(columns, schema)


def rows_in(folder: Path, since: datetime | None = None) -> list[int]:
    return [row for table in read_captured(folder, since) for row in table["row"].to_pylist()]


def test_what_is_written_is_read(tmp_path):
    writer = ShardWriter(tmp_path / "captured", LARGE)
    writer.add(batch_of(3))
    writer.add(batch_of(2, start=3))
    assert writer.rows == 5
    assert not list(read_captured(tmp_path / "captured"))
    writer.write()
    (table,) = read_captured(tmp_path / "captured")
    assert table.schema.equals(SCHEMA, check_metadata=True)
    assert table.to_pylist() == pa.Table.from_batches([batch_of(3), batch_of(2, start=3)]).to_pylist()
    assert table["mean"].null_count == 5
    assert [dict(table.schema.metadata)[name] for name in (b"classes", b"model", b"multi_label")] == [
        b'["cat", "dog"]',
        b"pets",
        b"false",
    ]


def test_a_model_without_embeddings_has_none_of_length_0(tmp_path):
    writer = ShardWriter(tmp_path, LARGE)
    schema = make_schema(["cat", "dog"], 0, "pets", True)
    writer.add(batch_of(4, schema=schema))
    writer.write()
    (table,) = read_captured(tmp_path)
    assert table["embedding"].null_count == 4
    assert table.schema.equals(schema, check_metadata=True)


def test_rows_of_another_version_with_other_classes_need_another_shard(tmp_path):
    writer = ShardWriter(tmp_path, LARGE)
    other = make_schema(["cat", "dog", "owl"], 3, "pets", False)
    assert writer.takes(other)
    writer.add(batch_of(1))
    assert not writer.takes(other)
    writer.write()
    assert writer.takes(other)
    writer.add(batch_of(1, schema=other))
    writer.write()
    assert [table["probabilities"].type.list_size for table in read_captured(tmp_path)] == [2, 3]


@pytest.mark.parametrize("limit", ["_MOST_ROWS", "_MOST_BYTES", "_MOST_SECONDS"])
def test_a_shard_is_due_by_rows_by_bytes_and_by_age(limit, tmp_path, monkeypatch):
    writer = ShardWriter(tmp_path, LARGE)
    assert not writer.is_due()
    writer.add(batch_of(5))
    assert not writer.is_due()
    monkeypatch.setattr(shards, limit, 5 if limit == "_MOST_ROWS" else 0)
    assert writer.is_due()
    writer.write()
    assert not writer.is_due()


def test_the_oldest_shards_are_deleted_for_new_ones(tmp_path):
    writers = [ShardWriter(tmp_path, 100_000) for _ in range(2)]
    for number in range(20):
        writers[number % 2].add(batch_of(1, start=number, image=os.urandom(5000)))
        writers[number % 2].write()
        used = sum(path.stat().st_size for path in tmp_path.iterdir())
        assert used <= 100_000
        assert writers[number % 2].disk_bytes == used
    left = rows_in(tmp_path)
    assert left == list(range(20 - len(left), 20))
    assert 1 < len(left) < 20


def test_a_shard_that_is_larger_than_the_bound_is_not_written(tmp_path):
    writer = ShardWriter(tmp_path, 100_000)
    writer.add(batch_of(1))
    writer.write()
    writer.add(batch_of(1, start=1, image=os.urandom(130_000)))
    with pytest.raises(OSError, match="larger than --capture-gb"):
        writer.write()
    writer.add(batch_of(1, start=2))
    writer.write()
    assert rows_in(tmp_path) == [0, 2]


def test_only_rows_since_a_time_are_read_and_old_shards_are_not_opened(tmp_path):
    writer = ShardWriter(tmp_path, LARGE)
    old = tmp_path / "captured-20261029T000000.000000-1.parquet"
    old.write_bytes(b"would be damaged")
    for hour in range(3):
        writer.add(batch_of(1, start=hour, time=NOON + timedelta(hours=hour)))
    writer.write()
    assert rows_in(tmp_path, NOON + timedelta(hours=1)) == [1, 2]
    assert rows_in(tmp_path, NOON + timedelta(hours=3)) == []
    with pytest.raises(UserError, match=r"captured-20261029.*delete it"):
        rows_in(tmp_path)


def test_only_the_columns_that_are_asked_for_are_read(tmp_path):
    writer = ShardWriter(tmp_path, LARGE)
    writer.add(batch_of(2))
    writer.write()
    (table,) = read_captured(tmp_path, NOON, ["time", "label"])
    assert table.column_names == ["time", "label"]


def test_a_shard_that_is_deleted_meanwhile_is_passed_over(tmp_path):
    writer = ShardWriter(tmp_path, LARGE)
    for number in range(3):
        writer.add(batch_of(1, start=number))
        writer.write()
    tables = read_captured(tmp_path)
    assert next(tables)["row"].to_pylist() == [0]
    sorted(tmp_path.glob("captured-*"))[1].unlink()
    assert [table["row"].to_pylist() for table in tables] == [[2]]


def test_what_a_killed_server_has_left_is_deleted_but_not_what_another_is_writing(tmp_path):
    ShardWriter(tmp_path, LARGE)
    left = tmp_path / ".captured-20261029T000000.000000-1.parquet"
    left.write_bytes(b"half")
    assert rows_in(tmp_path) == []
    with (tmp_path / ".lock").open("wb") as lock:  # as a server has it that is writing
        fcntl.flock(lock, fcntl.LOCK_EX)
        starting = threading.Thread(target=ShardWriter, args=(tmp_path, LARGE))
        starting.start()
        starting.join(0.2)
        assert left.exists()
    starting.join(10)
    assert not left.exists()


def test_a_shard_that_can_not_be_written_leaves_nothing(tmp_path, monkeypatch):
    writer = ShardWriter(tmp_path, LARGE)
    writer.add(batch_of(1))
    monkeypatch.setattr(Path, "rename", lambda *_: (_ for _ in ()).throw(OSError("no")))
    with pytest.raises(OSError, match="no"):
        writer.write()
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    assert writer.rows == 0


def test_only_the_owner_can_read_shards(tmp_path):
    writer = ShardWriter(tmp_path / "captured", LARGE)
    writer.add(batch_of(1))
    writer.write()
    (shard,) = (tmp_path / "captured").glob("captured-*")
    assert [stat.S_IMODE(path.stat().st_mode) for path in (shard, shard.parent)] == [0o600, 0o700]


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_folder_that_can_not_be_written_is_the_users_error(name, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"can't be written .*give another --capture"):
        ShardWriter(tmp_path / name, LARGE)


def test_no_folder_is_the_users_error(tmp_path):
    with pytest.raises(UserError, match="give the folder of fpn serve --capture"):
        next(read_captured(tmp_path / "none"))


def test_other_readers_see_the_columns_as_they_are(tmp_path):
    writer = ShardWriter(tmp_path, LARGE)
    writer.add(batch_of(2))
    writer.write()
    (path,) = tmp_path.glob("captured-*.parquet")
    frame = parquet.read_table(path).to_pandas()
    np.testing.assert_allclose(np.stack(frame["embedding"]), np.linspace(-1, 1, 6).reshape(2, 3), atol=1e-3)
    assert frame["time"].tolist() == [NOON, NOON]
