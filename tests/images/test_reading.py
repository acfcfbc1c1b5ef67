"""How the bytes of images are read, and what is read in their place if there are none."""

import os
import threading
import time
from pathlib import Path

import pytest

from images.dataset.row import Row
from images.files import reading
from images.files.decoding import RejectedImage
from images.files.reading import read_files


def row(path: str, size: int = 0, **more: str) -> Row:
    return Row(path, ("cat",), path, "train", size=size, **more)


def text_of(found: bytes | RejectedImage) -> str:
    assert isinstance(found, RejectedImage)
    return str(found)


def test_files_come_in_the_order_of_the_rows(tmp_path: Path) -> None:
    contents = [bytes([number % 256]) * (1 + number * 7919 % 5000) for number in range(500)]
    for number, content in enumerate(contents):
        (tmp_path / f"{number}.png").write_bytes(content)
    order = sorted(range(500), key=lambda number: number * 7919 % 500)
    rows = [row(f"{number}.png", len(contents[number])) for number in order]
    assert list(read_files(str(tmp_path), rows)) == [contents[number] for number in order]
    assert list(read_files(str(tmp_path), iter(rows[:3]))) == [contents[number] for number in order[:3]]
    assert list(read_files(str(tmp_path), [])) == []


def test_files_outside_of_the_folder_are_read_where_they_are(tmp_path: Path, memory: dict[str, bytes]) -> None:
    memory["memory://a/x.png"] = b"remote"
    (tmp_path / "data").mkdir()
    (tmp_path / "beside.png").write_bytes(b"beside")
    rows = [row("../beside.png"), row("memory://a/x.png"), row(str(tmp_path / "beside.png")), row("memory://a/gone.png")]
    *found, gone = read_files(str(tmp_path / "data"), rows)
    assert found == [b"beside", b"remote", b"beside"]
    assert text_of(gone).startswith("unreadable: ")
    assert list(read_files("memory://a/", [row("x.png")])) == [b"remote"]


def test_what_can_not_be_read_is_rejected_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "good.png").write_bytes(b"good")
    (tmp_path / "device.png").symlink_to("/dev/zero")
    (tmp_path / "loop.png").symlink_to("loop.png")
    names = ["pipe.png", "folder.png", "empty.png", "device.png", "gone.png", "loop.png", "good.png"]
    *bad, good = read_files(str(tmp_path), [row(name) for name in names])
    assert good == b"good"
    assert [text_of(found) for found in bad] == [
        "unreadable: not a regular file, but a pipe",
        "unreadable: not a regular file, but a folder",
        "empty file",
        "unreadable: not a regular file, but a device",
        "unreadable: No such file or directory",
        "unreadable: Too many levels of symbolic links",
    ]


def test_a_file_without_permission_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "1.png").write_bytes(b"secret")
    monkeypatch.setattr(os, "open", denied)
    assert [text_of(found) for found in read_files(str(tmp_path), [row("1.png")])] == ["unreadable: Permission denied"]


def test_rows_that_are_set_aside_are_not_opened(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(b"secret")
    assert [text_of(found) for found in read_files(str(tmp_path), [row("1.png", reason="label missing")])] == ["label missing"]


def test_a_file_too_long_for_an_example_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "sparse.png").open("wb") as file:
        file.truncate(2**31)
    for size in (2**31, 0):  # as listed, or grown since
        assert [text_of(found) for found in read_files(str(tmp_path), [row("sparse.png", size)])] == ["larger than 2 GiB"]


def test_reading_ahead_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_AHEAD_BYTES", 5000)
    monkeypatch.setattr(reading, "_BATCH_BYTES", 1000)
    opened: list[str] = []
    read = reading._read
    lock = threading.Lock()

    def counted(folder: str, one: Row) -> bytes | RejectedImage:
        with lock:
            opened.append(one.path)
        return read(folder, one)

    monkeypatch.setattr(reading, "_read", counted)
    for number in range(100):
        (tmp_path / f"{number}.png").write_bytes(b"x" * 500)
    found = read_files(str(tmp_path), [row(f"{number}.png", 500) for number in range(100)])
    next(found)
    time.sleep(0.2)
    assert len(opened) <= 12, "5,000 bytes, and the batch that is being given out"
    found.close()
    time.sleep(0.2)
    assert len(opened) <= 12, "nothing is read for nobody"
