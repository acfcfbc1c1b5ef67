"""Reads image files, several at a time."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby
from typing import Final

from images.dataset import archives, listing, parquet_shards, records
from images.dataset.row import Row
from images.files.decoding import RejectedImage
from images.files.regular_file import LONGEST, read_regular_file
from images.reason import Reason

_THREADS: Final = 4
_REMOTE_THREADS: Final = 16  # more, as they mostly wait for the network
_BATCH: Final = 16  # largest number of files that a thread reads one after the other
_BATCH_BYTES: Final = 4 * 2**20
_AHEAD_BYTES: Final = 64 * 2**20  # limit of the bytes that are read ahead, or one batch if that is larger


def read_files(folder: str, rows: Iterable[Row]) -> Iterator[bytes | RejectedImage]:
    """Reads the files of images, at most 64 MB ahead of the caller.

    Args:
      folder: the data folder.
      rows: rows of the images. Those of one TFRecord or Parquet file should be together and in the file's order; then it is
        read once.

    Yields:
      For each row, in the order of `rows`, the file's bytes, or the reason why there are none: unreadable, deleted, empty, not
      a regular file, or the row is set aside. Reading never waits for a pipe or a device.
    """
    for (record_file, remote), run in groupby(rows, key=lambda row: _place(folder, row)):
        if record_file is None:
            yield from _read_ahead(folder, run, remote)
            continue
        read_images = records.read_images if records.is_record_file(record_file) else parquet_shards.read_images
        for content, reason in read_images(folder, record_file, (row.record or 0 for row in run)):
            yield RejectedImage(reason) if reason else content or RejectedImage("empty file")


def _place(folder: str, row: Row) -> tuple[str | None, bool]:
    """The TFRecord or Parquet file that holds the row, or None, and whether the row is read over the network."""
    remote = listing.is_remote(listing.join(folder, row.path))
    return row.path if row.record is not None and not row.reason else None, remote


def _read_ahead(folder: str, rows: Iterable[Row], remote: bool) -> Iterator[bytes | RejectedImage]:
    threads = _REMOTE_THREADS if remote else _THREADS
    pool = ThreadPoolExecutor(threads)
    waiting: deque[tuple[Future[list[bytes | RejectedImage]], int]] = deque()
    ahead = 0
    try:
        for batch, size in _batches(rows, 1 if remote else _BATCH):
            while waiting and (ahead + size > _AHEAD_BYTES or len(waiting) >= 2 * threads):
                first, its_size = waiting.popleft()
                yield from first.result()
                ahead -= its_size
            waiting.append((pool.submit(_read_batch, folder, batch), size))
            ahead += size
        while waiting:
            yield from waiting.popleft()[0].result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _batches(rows: Iterable[Row], most: int) -> Iterator[tuple[list[Row], int]]:
    batch: list[Row] = []
    size = 0
    for row in rows:
        if batch and (len(batch) >= most or size + row.size > _BATCH_BYTES):
            yield batch, size
            batch, size = [], 0
        batch.append(row)
        size += row.size
    if batch:
        yield batch, size


def _read_batch(folder: str, rows: list[Row]) -> list[bytes | RejectedImage]:
    return [_read(folder, row) for row in rows]


def _read(folder: str, row: Row) -> bytes | RejectedImage:
    if row.reason:
        return RejectedImage(row.reason)
    if row.size > LONGEST:
        return RejectedImage("larger than 2 GiB")
    path = listing.join(folder, row.path)
    try:
        if listing.is_remote(path) or archives.split_path(path):
            with listing.open_file(path) as file:
                content = file.read()
        else:
            content = read_regular_file(path)
    except RejectedImage as reason:
        return reason
    except Exception as error:  # each file system raises exceptions of its own
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return RejectedImage(Reason("unreadable", text))
    return content or RejectedImage("empty file")
