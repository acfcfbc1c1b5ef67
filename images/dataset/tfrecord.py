"""Reads TFRecord files, plain or compressed, and accounts for every byte of a damaged one.

The format is that of tensorflow/core/lib/io/record_writer.h: length (8 bytes), its checksum (4), record, its checksum (4).
"""

import re
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO, Final, NamedTuple

import google_crc32c

_HEADER: Final = 12  # bytes of the length and its checksum
_LONGEST: Final = 2**31  # bytes; no tf.Example is longer
_LONGEST_HELD: Final = 2**28  # bytes of a record in a compressed file, where a few bytes can stand for many, or after damage
_MOST_COMPRESSED: Final = 200  # bytes that one byte stands for in a file of images, on average over more than ...
_BOMB_BYTES: Final = 2**30  # ... this number of bytes
_PIECE: Final = 2**20  # bytes that are looked at together
_COMPRESSED_PIECE: Final = 2**14
_MOST_TRIES: Final = 100  # headers in damaged bytes that are right by their checksum and are followed by no whole record
_ZEROS: Final = re.compile(rb"(?<=[^\x00])\x00{4,}")  # at the end of each length from 1 to _LONGEST


class Item(NamedTuple):
    """What comes next in a file: a record, or bytes that hold none that can be read.

    Attributes:
      record: the record; empty if there is a reason.
      reason: why it can't be read; "" if it can.
      start: position of its first byte in the file; in a compressed file, about.
      size: number of its bytes in the file; in a compressed file a small record may have 0, and a later one more.
      lost: whether it stands for a stretch of bytes that may hold any number of records.
    """

    record: bytes
    reason: str
    start: int
    size: int
    lost: bool = False


def read_items(file: BinaryIO, size: int = 0) -> Iterator[Item]:
    """Reads all of a file. The sizes of the items add up to its size, but for padding at the end of a compressed one.

    A record with a wrong checksum is skipped. After a length with a wrong checksum, reading goes on at the next record that is
    whole by both its checksums.

    Args:
      file: the file, from its beginning.
      size: bytes of the file, by which the rest is counted that can't be read or decompressed.
    """
    source = _Source(file)
    end = 0
    try:
        for record, reason, lost in _read(source):
            start, end = end, source.position
            yield Item(record, reason, start, end - start, lost)
    except (OSError, EOFError, zlib.error) as error:
        text = getattr(error, "strerror", None) or str(error)
        yield Item(b"", f"can't be read: {text}", end, max(size, source.position) - end, lost=True)


def _read(source: "_Source") -> Iterator[tuple[bytes, str, bool]]:
    """Yields (record, reason, lost); afterwards `source.position` is at the end of what was yielded."""
    while header := source.peek(_HEADER):
        length = _length(header)
        if length is None or length >= _LONGEST:
            reason = "no TFRecord" if not source.position else "truncated" if len(header) < _HEADER else "no length of a record"
            _skip_to_record(source)
            yield b"", reason, True
            continue
        if source.compressed and length > _LONGEST_HELD:
            raise EOFError(f"a record of {length:,} bytes; in compressed files, {_LONGEST_HELD:,} bytes are the most")
        source.read(_HEADER)
        content = source.read(length + 4)
        if len(content) < length + 4:
            yield b"", "truncated", True
            return
        record = content[:-4]
        if struct.unpack("<I", content[-4:])[0] != _masked_crc(record):
            yield b"", "wrong checksum", False
        else:
            yield record, "", False


def _skip_to_record(source: "_Source") -> None:
    """Skips damaged bytes up to the next record that is whole, or to the end of the file."""
    tries = _MOST_TRIES
    while window := source.peek(_PIECE):
        for start in _headers_in(window):
            length = _length(window[start : start + _HEADER]) or 0
            if not tries or length > _LONGEST_HELD:
                continue
            if _is_record(source.peek(start + _HEADER + length + 4)[start + _HEADER :], length):
                source.skip(start)
                return
            tries -= 1
        # The last bytes of a window may be the beginning of a header.
        source.skip(len(window) if len(window) < _PIECE else len(window) - _HEADER)


def _headers_in(window: bytes) -> Iterator[int]:
    """Positions of headers, after the first byte, whose length is right by its checksum.

    Lengths below 2 GiB end in four or more zeros, which are rare in images, so that only few places have to be tried.
    """
    for zeros in _ZEROS.finditer(window):
        for start in range(max(zeros.start() - 4, 1), zeros.start()):
            if zeros.end() >= start + 8 and _length(window[start : start + _HEADER]) is not None:
                yield start


def _is_record(content: bytes, length: int) -> bool:
    return len(content) == length + 4 and struct.unpack("<I", content[-4:])[0] == _masked_crc(content[:-4])


def _length(header: bytes) -> int | None:
    """The length that a header gives; None if its checksum is wrong."""
    if len(header) < _HEADER or struct.unpack("<I", header[8:])[0] != _masked_crc(header[:8]):
        return None
    return struct.unpack("<Q", header[:8])[0]


def _masked_crc(content: bytes) -> int:
    crc = google_crc32c.value(content)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


class _Source:
    """The decompressed bytes of a file, which can be looked at before they are taken.

    Attributes:
      compressed: whether the file is; this is found by its content, as TensorFlow's writers do not set a suffix.
    """

    def __init__(self, file: BinaryIO) -> None:
        header = _read_whole(file.read, _HEADER)
        self.compressed = _is_compressed(header)
        self._inflated = _Inflated(file, header) if self.compressed else None
        self._read_more: Callable[[int], bytes] = self._inflated.read if self._inflated else file.read
        self._ahead = b"" if self.compressed else header
        self._next = 0  # position in `_ahead`
        self._taken = 0

    @property
    def position(self) -> int:
        """Bytes of the file that were taken; of a compressed file, those that were decompressed."""
        return self._inflated.position if self._inflated else self._taken

    def peek(self, count: int) -> bytes:
        """The next bytes, fewer than `count` only at the end of the file."""
        there = len(self._ahead) - self._next
        if there < count:
            self._ahead = self._ahead[self._next :] + _read_whole(self._read_more, count - there)
            self._next = 0
        return self._ahead[self._next : self._next + count]

    def read(self, count: int) -> bytes:
        """Takes the next bytes, fewer than `count` only at the end of the file."""
        there = self._ahead[self._next : self._next + count]
        self._next += len(there)
        if len(there) < count:
            self._ahead, self._next = b"", 0
            there += _read_whole(self._read_more, count - len(there))
        self._taken += len(there)
        return there

    def skip(self, count: int) -> None:
        """Takes bytes that were looked at."""
        self._next += count
        self._taken += count


def _read_whole(read: Callable[[int], bytes], count: int) -> bytes:
    """Reads in pieces, because a length may be wrong, and a single read would allocate memory for all of it."""
    pieces = []
    while count and (piece := read(min(count, 16 * _PIECE))):
        pieces.append(piece)
        count -= len(piece)
    return b"".join(pieces)


def _is_compressed(header: bytes) -> bool:
    """Whether the file begins as gzip or as zlib (RFC 1950), and not with a record."""
    is_gzip = header.startswith(b"\x1f\x8b")
    is_zlib = header[:1] == b"\x78" and len(header) > 1 and int.from_bytes(header[:2]) % 31 == 0
    return (is_gzip or is_zlib) and _length(header) is None


class _Inflated:
    """The bytes that a compressed file stands for; `position` is the number of its bytes that were decompressed."""

    def __init__(self, file: BinaryIO, header: bytes) -> None:
        self._file = file
        self._waiting = header
        self._inflater = _inflater()
        self._produced = 0
        self.position = 0

    def read(self, count: int) -> bytes:
        """Some of the next bytes; none at the end.

        Raises:
          EOFError: the file ends too early, or stands for implausibly many bytes.
          zlib.error: it is damaged.
        """
        while True:
            content = self._waiting or self._file.read(_COMPRESSED_PIECE)
            if self._inflater.eof:
                if not content.strip(b"\0"):  # zeros may follow as padding
                    self.position += len(content)
                    if not content:
                        return b""
                    self._waiting = b""
                    continue
                self._inflater = _inflater()  # files may consist of several compressed parts
            found = self._inflater.decompress(content, count)
            self._waiting = self._inflater.unconsumed_tail or self._inflater.unused_data
            self.position += len(content) - len(self._waiting)
            self._produced += len(found)
            if self._produced > max(_BOMB_BYTES, _MOST_COMPRESSED * self.position):
                raise EOFError(f"each byte stands for more than {_MOST_COMPRESSED} others, as no file of images does")
            if found:
                return found
            if not content and not self._inflater.eof:
                raise EOFError("the compressed file ends too early")


def _inflater() -> "zlib._Decompress":
    return zlib.decompressobj(zlib.MAX_WBITS | 32)  # 32: gzip or zlib, by the first bytes
