"""What `fpn serve --capture` writes, and that it never costs an answer."""

import contextlib
import errno
import fcntl
import hashlib
import json
import logging
import os
import re
import shutil
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from http.client import HTTPException
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from executors import SETTINGS
from prometheus_client import REGISTRY
from pyarrow import parquet
from serving_process import Server, encode, serving

from pipeline.captured.shards import ShardWriter, read_captured
from pipeline.serving.capture import Capture
from pipeline.serving.metrics import Verdict

LARGE = 10**9


def rows_in(folder: Path) -> list[dict[str, Any]]:
    return [row for table in read_captured(folder) for row in table.to_pylist()]


def metric(server: Server, name: str) -> float:
    """The sum of a metric's samples."""
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", server.ask("GET", "/metrics")[1], re.M))


def wait_until(holds, seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.fixture(scope="module")
def pushed(exported, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pushed")
    shutil.copytree(exported.path, folder / "7")
    return folder


def test_a_row_tells_what_was_asked_and_answered(exported, pushed, tmp_path):
    folder = tmp_path / "captured"
    before = datetime.now(UTC)
    with serving(pushed, "--capture", str(folder), "--share", "1", "--capture-images") as server:
        instances = [{"b64": encode(file)} for file in exported.files]
        body = json.dumps({"instances": instances})
        status, answer = server.ask("POST", "/v1/models/fpn:predict", body, X_Request_Id="mine")
        assert status == 200
        assert answer["predictions"][0].keys() == {"label", "labels", "probabilities"}
        found = np.array([row["probabilities"] for row in answer["predictions"]])
        np.testing.assert_allclose(found, exported.probabilities, atol=1e-5)
        tensor = {"name": "image_bytes", "datatype": "BYTES", "shape": [1], "data": [encode(exported.files[3])]}
        status, answer = server.ask("POST", "/v2/models/fpn/infer", json.dumps({"inputs": [tensor]}))
        assert [output["name"] for output in answer["outputs"]] == ["label", "labels", "probabilities"]
        assert server.predict([exported.files[0], b"no image"])[0] == 400  # not captured, and neither is the next
        assert server.ask("POST", "/v1/models/fpn:explain", json.dumps({"instances": instances[:1]}))[0] == 200
        assert metric(server, "fpn_captured_images_total") == 0  # its shard is still open
        assert server.stop() == 0

    (table,) = read_captured(folder)
    metadata = {name: table.schema.metadata[name].decode() for name in (b"classes", b"model", b"multi_label")}
    assert metadata == {b"classes": '["cat", "dog", "owl"]', b"model": "fpn", b"multi_label": "false"}
    rows = table.to_pylist()
    assert [(row["row"], row["image"]) for row in rows] == [*enumerate(exported.files), (0, exported.files[3])]
    assert [row["request"] for row in rows[:7]] == ["mine"] * 7
    assert re.fullmatch("[0-9a-f]{32}", rows[7]["request"])
    assert all(before <= row["time"] <= datetime.now(UTC) for row in rows)
    embed = tf.saved_model.load(exported.path).signatures["embed"](image_bytes=tf.constant(exported.files))
    for row, number in zip(rows, [*range(7), 3], strict=True):
        assert row["version"] == 7
        assert row["content_hash"] == hashlib.sha256(exported.files[number]).hexdigest()
        assert (row["format"], row["width"], row["height"], row["channels"]) == ("png", 20, 24, 1)
        assert row["bytes"] == len(exported.files[number])
        assert row["mean"] == pytest.approx(exported.pictures[number].mean() / 255, abs=1e-4)
        assert row["label"].encode() == exported.names[exported.probabilities[number].argmax()]
        assert row["unusual"] is None
        np.testing.assert_allclose(row["probabilities"], exported.probabilities[number], atol=1e-5)
        np.testing.assert_allclose(np.array(row["embedding"], float), embed["embedding"][number], atol=1e-3)


def load(server: Server, files: list[bytes], until: threading.Event) -> None:
    """Asks until the event is set or the server is gone."""
    while not until.is_set():
        try:
            assert server.predict(files)[0] == 200
        except (OSError, HTTPException):
            server.process.wait(10)
            return


def sizes_in(folder: Path) -> dict[str, int]:
    """Bytes of the shards, of which the server may delete some meanwhile."""
    sizes = {}
    for path in folder.glob("captured-*"):
        with contextlib.suppress(FileNotFoundError):
            sizes[path.name] = path.stat().st_size
    return sizes


def test_shards_have_the_room_they_may_have_under_load(exported, pushed, tmp_path):
    folder, bound, ended = tmp_path / "captured", 100_000, threading.Event()
    options = ("--capture", str(folder), "--share", "1", "--capture-gb", str(bound / 1e9), "--capture-images")
    with serving(pushed, *options) as server, ThreadPoolExecutor(2) as clients:
        asking = [clients.submit(load, server, exported.files * 5, ended) for _ in range(2)]
        names: set[str] = set()
        first = ""
        try:
            while not first or first in names:  # until the first shard is deleted
                sizes = sizes_in(folder)
                assert sum(sizes.values()) <= bound
                names, first = set(sizes), first or min(sizes, default="")
            assert 0 < metric(server, "fpn_capture_bytes") <= bound
        finally:
            ended.set()
        for each in asking:
            each.result()
        assert server.stop() == 0
    assert rows_in(folder)


def test_a_killed_server_loses_at_most_its_open_shard_and_starts_again(exported, pushed, tmp_path):
    folder, ended = tmp_path / "captured", threading.Event()
    options = ("--capture", str(folder), "--share", "1", "--capture-gb", "0.0004")
    with serving(pushed, *options) as killed, serving(pushed, *options) as other, ThreadPoolExecutor(2) as clients:
        asking = [clients.submit(load, server, exported.files * 5, ended) for server in (killed, other)]
        wait_until(lambda: metric(killed, "fpn_captured_images_total") > 0)
        complete = metric(killed, "fpn_captured_images_total")
        killed.process.send_signal(signal.SIGKILL)
        killed.process.wait()
        ended.set()
        for each in asking:
            each.result()
        written = sum(parquet.read_table(path).num_rows for path in folder.glob(f"captured-*-{killed.process.pid}.parquet"))
        assert written >= complete
        assert other.stop() == 0
    assert len(rows_in(folder)) > written
    (folder / ".captured-20261130T000000.000000-1.parquet").write_bytes(b"half")
    with serving(pushed, *options) as again:
        assert not list(folder.glob(".captured-*"))
        assert again.predict(exported.files)[0] == 200
        assert again.stop() == 0
    assert [row["row"] for row in rows_in(folder)[-7:]] == list(range(7))


# --- the thread, in this process


MODEL: Any = SimpleNamespace(version=3, labels=[b"cat", b"dog"], multi_label=False, files=SETTINGS.files)
ANSWERS = {
    "probabilities": np.array([[0.25, 0.75]] * 10, np.float32),
    "label": np.array([b"dog"] * 10, object),
    "labels": np.array([[b"cat", b"dog"]] * 10, object),
}


def lost(reason: str) -> float:
    return REGISTRY.get_sample_value("fpn_capture_dropped_images_total", {"reason": reason}) or 0


def test_a_random_share_of_the_images_is_captured(exported, tmp_path):
    capture = Capture("pets", ShardWriter(tmp_path, LARGE), 0.3, images=False)
    for _ in range(100):
        capture.take(MODEL, "", exported.files[:1] * 10, ANSWERS)
        time.sleep(0.001)
    capture.close()
    rows = rows_in(tmp_path)
    assert 230 < len(rows) < 370  # five standard deviations
    assert {row["row"] for row in rows} == set(range(10))
    assert len({row["request"] for row in rows}) > 80
    assert all(row["image"] is row["embedding"] is None for row in rows)


def test_what_can_not_be_written_in_time_is_dropped_and_counted(exported, tmp_path):
    writer = ShardWriter(tmp_path, 1)  # so that a shard is due at once
    before = lost("busy")
    with (tmp_path / ".lock").open("wb") as lock:  # the disk does not answer
        fcntl.flock(lock, fcntl.LOCK_EX)
        capture = Capture("pets", writer, 1, images=False)
        began = time.monotonic()
        for _ in range(300):
            capture.take(MODEL, "", exported.files[:1] * 10, ANSWERS)
        assert time.monotonic() - began < 1
        assert lost("busy") - before >= 3000 - 1000 - 32
    capture.close()


def test_large_files_that_wait_are_few(tmp_path):
    before = lost("busy")
    with (tmp_path / ".lock").open("wb") as lock:
        writer = ShardWriter(tmp_path, 1)
        fcntl.flock(lock, fcntl.LOCK_EX)
        capture = Capture("pets", writer, 1, images=False)
        for _ in range(20):
            capture.take(MODEL, "", [bytes(10_000_000)], ANSWERS)
        assert lost("busy") - before >= 20 - 6 - 6
    capture.close()


@pytest.mark.parametrize("cause", ["the disk is full", "the folder is gone", "the answer makes no sense"])
def test_a_failure_is_told_once_and_capturing_goes_on_when_it_is_over(cause, exported, tmp_path, monkeypatch, caplog):
    folder = tmp_path / "captured"
    writer = ShardWriter(folder, 100_000)
    monkeypatch.setattr(writer, "is_due", lambda: writer.rows > 0)
    capture = Capture("pets", writer, 1, images=False)
    before, answers = lost("failed"), ANSWERS
    with monkeypatch.context() as broken, caplog.at_level(logging.WARNING, "fpn"):
        if cause == "the disk is full":
            full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            broken.setattr(Path, "rename", lambda *_: (_ for _ in ()).throw(full))
        elif cause == "the folder is gone":
            shutil.rmtree(folder)
        else:
            answers = {**ANSWERS, "label": np.array([b"\xff"] * 10, object)}
        for number in range(3):
            capture.take(MODEL, "lost", exported.files[:1] * 5, answers)
            wait_until(lambda expected=5 * (number + 1): lost("failed") - before == expected)
    assert caplog.text.count("capturing fails, serving goes on") == 1
    folder.mkdir(exist_ok=True)
    capture.take(MODEL, "kept", exported.files[:1] * 5, ANSWERS)
    capture.close()
    assert [row["request"] for row in rows_in(folder)] == ["kept"] * 5


# --- the verdict of the monitor


def test_the_last_verdict_is_among_the_metrics(tmp_path):
    def samples() -> dict[str, dict[str, float]]:
        return {
            family.name: {"".join(sample.labels.values()): sample.value for sample in family.samples}
            for family in Verdict(tmp_path).collect()
        }

    assert samples() == {}
    checks = [
        {"name": "image/mean", "value": 0.25, "p": 0.001, "failed": True},
        {"name": "embedding", "value": None, "p": None, "failed": False},
    ]
    verdict = {"time": "2026-11-30T12:00:00+00:00", "checks": checks, "failed": True}
    (tmp_path / "monitor.json").write_text(json.dumps(verdict))
    assert samples() == {
        "fpn_monitor_check": {"image/mean": 0.25},
        "fpn_monitor_failed": {"image/mean": 1, "embedding": 0},
        "fpn_monitor_seconds": {"": datetime(2026, 11, 30, 12, tzinfo=UTC).timestamp()},
    }
    (tmp_path / "monitor.json").write_text('{"checks": [{}]}')
    assert samples() == {}


@pytest.mark.parametrize("share", ["0", "1.5", "nan"])
def test_a_share_that_makes_no_sense_is_refused(fpn, tmp_path, share):
    ended = fpn("serve", "--model", tmp_path, "--port", "0", "--share", share)
    assert ended.status == 2
    assert "argument --share: " in ended.stderr


def test_a_folder_that_can_not_be_written_is_told_at_the_start(fpn, pushed, tmp_path):
    (tmp_path / "file").touch()
    ended = fpn("serve", "--model", pushed, "--port", "0", "--capture", tmp_path / "file")
    assert ended.status == 2
    assert ended.stderr.startswith(f"fpn: {tmp_path / 'file'}: can't be written (File exists); give another --capture")
