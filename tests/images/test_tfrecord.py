"""Damaged TFRecord files: what is whole is read, and what is lost is counted to the byte."""

import gzip
import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from images.dataset.tfrecord import Item, _masked_crc, read_items


def frame(record: bytes) -> bytes:
    """A record as TensorFlow writes it."""
    length = struct.pack("<Q", len(record))
    return length + struct.pack("<I", _masked_crc(length)) + record + struct.pack("<I", _masked_crc(record))


def random_records(count: int, seed: int = 0, most: int = 300) -> list[bytes]:
    random = np.random.default_rng(seed)
    return [random.bytes(int(random.integers(1, most))) for _ in range(count)]


def read(content: bytes) -> list[Item]:
    items = list(read_items(io.BytesIO(content), len(content)))
    assert sum(item.size for item in items) == len(content), "every byte is accounted for"
    assert [item.start for item in items] == [0, *np.cumsum([item.size for item in items])[:-1].tolist()][: len(items)]
    assert all(bool(item.record) != bool(item.reason) for item in items if item.size > 16 or item.reason)
    return items


def whole(items: list[Item]) -> list[bytes]:
    return [item.record for item in items if not item.reason]


def test_a_file_of_tensorflow_is_read(tmp_path: Path) -> None:
    import tensorflow as tf

    records = random_records(50)
    for compression in ("", "GZIP", "ZLIB"):
        with tf.io.TFRecordWriter(str(tmp_path / "x"), compression) as writer:
            for record in records:
                writer.write(record)
        assert whole(read((tmp_path / "x").read_bytes())) == records


@pytest.mark.parametrize("bit", range(64 + 32))
def test_a_flipped_bit_in_a_length_costs_that_record_alone(bit: int) -> None:
    records = random_records(300)
    framed = [frame(record) for record in records]
    damaged = bytearray(framed[200])
    damaged[bit // 8] ^= 1 << bit % 8
    items = read(b"".join([*framed[:200], bytes(damaged), *framed[201:]]))
    assert whole(items) == records[:200] + records[201:]
    assert items[200] == Item(b"", "no length of a record", sum(map(len, framed[:200])), len(framed[200]), lost=True)


def test_a_record_with_a_wrong_checksum_is_skipped_alone() -> None:
    framed = [bytearray(frame(record)) for record in random_records(9)]
    framed[4][-6] ^= 1
    items = read(b"".join(framed))
    assert [number for number, item in enumerate(items) if item.reason] == [4]
    assert items[4].reason == "wrong checksum"
    assert not items[4].lost


@pytest.mark.parametrize("cut", range(1, 30))
def test_of_a_truncated_file_the_last_bytes_are_lost(cut: int) -> None:
    content = b"".join(map(frame, [b"a" * 40, b"b" * 40, b"c" * 10]))
    items = read(content[:-cut])
    last = 26 if cut < 26 else 56
    assert whole(items) == [b"a" * 40, b"b" * 40][: 2 if cut <= 26 else 1]
    if cut != 26:
        assert (items[-1].reason, items[-1].size, items[-1].lost) == ("truncated", last - cut + (0 if cut < 26 else 26), True)


@pytest.mark.parametrize("hole", [5000, 3 * 2**20])
def test_a_hole_of_zeros_is_lost_and_what_follows_is_read(hole: int) -> None:
    records = random_records(30)
    framed = b"".join(map(frame, records))
    items = read(framed + bytes(hole) + framed)
    assert whole(items) == records + records
    assert items[30][1:] == ("no length of a record", len(framed), hole, True)


def test_foreign_bytes_of_any_size_are_skipped() -> None:
    """The next record may begin anywhere in the pieces that are searched, also across two of them."""
    record = frame(b"x" * 500)
    for size in (1, 2**20 - 300, *range(2**20 - 24, 2**20 + 12), 2**21 + 7):
        foreign = np.random.default_rng(size).bytes(size)
        items = read(record + foreign + record)
        assert [item.size for item in items] == [len(record), size, len(record)]


def test_what_is_no_tfrecord_file_is_lost_as_a_whole() -> None:
    (item,) = read(b"not opened")
    assert (item.reason, item.size, item.lost) == ("no TFRecord", 10, True)


def test_a_length_that_is_a_lie_ends_the_search_in_time() -> None:
    """Headers whose checksums are right, and that are followed by no record."""
    lengths = [struct.pack("<Q", 2**27 + number) for number in range(5000)]
    lies = b"".join(length + struct.pack("<I", _masked_crc(length)) for length in lengths)
    items = read(b"x" * 20 + lies)
    assert not whole(items)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 7)), min_size=1, max_size=8), st.integers(0, 2**32 - 1))
def test_whatever_bits_flip_whole_records_and_lost_bytes_make_the_file(flips: list[tuple[int, int]], seed: int) -> None:
    records = random_records(40, seed)
    framed = [frame(record) for record in records]
    content = bytearray(b"".join(framed))
    ends = np.cumsum([len(item) for item in framed])
    hit = set()
    for place, bit in flips:
        content[place % len(content)] ^= 1 << bit
        hit.add(int(np.searchsorted(ends, place % len(content), side="right")))
    found = whole(read(bytes(content)))
    untouched = [record for number, record in enumerate(records) if number not in hit]
    assert [record for record in found if record in untouched] == untouched, "no flip costs a record that it does not touch"
    assert all(record in records for record in found)


# Compressed files

COMPRESS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "zlib": zlib.compress}


@pytest.mark.parametrize("kind", COMPRESS)
def test_a_compressed_file_that_breaks_midway_gives_what_comes_before(kind: str) -> None:
    records = random_records(2000)
    content = COMPRESS[kind](b"".join(map(frame, records)))
    cut = read(content[: len(content) // 2])
    assert cut[-1].lost
    assert "ends too early" in cut[-1].reason
    damaged = bytearray(content)
    damaged[len(content) // 2 : len(content) // 2 + 2000] = bytes(2000)
    broken = read(bytes(damaged))
    for items in (cut, broken):
        found = whole(items)
        assert found == records[: len(found)]
        assert 900 <= len(found) < 1100
    lost = sum(item.size for item in broken if item.lost)
    assert 0.45 < lost / len(content) < 0.55


def test_parts_of_gzip_after_each_other_are_one_file() -> None:
    records = random_records(20)
    content = b"".join(gzip.compress(frame(record)) for record in records)
    assert whole(list(read_items(io.BytesIO(content + bytes(512))))) == records


@pytest.mark.parametrize("kind", COMPRESS)
def test_a_bomb_is_given_up_in_bounded_memory(kind: str) -> None:
    import resource

    length = struct.pack("<Q", 2**31 - 1)
    compressor = zlib.compressobj(9, wbits=31 if kind == "gzip" else 15)
    bomb = compressor.compress(length + struct.pack("<I", _masked_crc(length)))
    bomb += b"".join(compressor.compress(bytes(2**20)) for _ in range(64)) + compressor.flush()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (item,) = read(bomb)
    assert "a record of 2,147,483,647 bytes" in item.reason
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000, "kilobytes"


def test_many_empty_bytes_in_few_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("images.dataset.tfrecord._BOMB_BYTES", 2**24)
    compressor = zlib.compressobj(9, wbits=31)
    piece = compressor.compress(frame(b"x" * 100))
    bomb = piece + b"".join(compressor.compress(bytes(2**20)) for _ in range(20)) + compressor.flush()
    items = read(bomb)
    assert whole(items) == [b"x" * 100]
    assert "each byte stands for more than 200 others" in items[-1].reason
