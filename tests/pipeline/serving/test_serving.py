"""`fpn serve` as its clients see it."""

import io
import json
import shutil
import socket
import struct
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from serving_process import Server, encode, serving

from pipeline.cli import main
from pipeline.serving.images import pixels_of
from pipeline.serving.protocol import Query, read_query, write_answer
from pipeline.serving.refusal import Refusal

IMAGES = {"serving_default": ["image_bytes"]}


@pytest.fixture(scope="module")
def pushed(exported, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pushed")
    shutil.copytree(exported.path, folder / "7")
    return folder


@pytest.fixture(scope="module")
def server(pushed):
    with serving(pushed, "--max-body", "1", "--timeout", "2") as started:
        yield started


def header_of(width: int, height: int) -> bytes:
    """A PNG file that says so and has no pixels."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + b"\0\0\0\0IDAT"


# --- the protocol


@pytest.mark.parametrize(
    ("body", "columns", "in_rows"),
    [
        ({"instances": [{"b64": "YWI="}, {"b64": "Yw=="}]}, [b"ab", b"c"], True),
        ({"instances": [{"image_bytes": {"b64": "YWI="}}]}, [b"ab"], True),
        ({"instances": ["text"], "signature_name": "serving_default"}, [b"text"], True),
        ({"inputs": [{"b64": "YWI="}]}, [b"ab"], False),
        ({"inputs": {"image_bytes": [{"b64": "YWI="}]}}, [b"ab"], False),
    ],
)
def test_a_request_has_rows_or_columns(body, columns, in_rows):
    assert read_query(json.dumps(body).encode(), IMAGES, 10) == Query("serving_default", {"image_bytes": columns}, in_rows)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "JSON Parse error"),
        (b"[]", "must be a JSON object"),
        (b'{"instances": ' + b"[" * 5000 + b"]" * 5000 + b"}", "more than 10 instances"),
        (b'{"instances": ' + b"[" * 90 + b"]" * 90 + b"}", 'must be {"b64"'),
        (b"{}", "either instances or inputs"),
        (b'{"instances": [], "inputs": []}', "either instances or inputs"),
        (b'{"instances": []}', "no instances"),
        (b'{"instances": {"b64": "YQ=="}}', "must be a list"),
        (b'{"instances": [{"b64": "###"}]}', r"instances\[0\].*wrong base64"),
        (b'{"instances": [{"b64": "YQ"}]}', "wrong base64"),
        (b'{"instances": [{"b64": 3}]}', 'must be {"b64"'),
        (b'{"instances": [{"b64": "YQ==", "more": 1}]}', 'must be {"b64"'),
        (b'{"instances": [{"picture": {"b64": "YQ=="}}]}', "inputs are image_bytes"),
        (b'{"instances": [null]}', 'must be {"b64"'),
        (json.dumps({"instances": [{"b64": "YQ=="}] * 11}).encode(), "more than 10 instances"),
        (b'{"inputs": {"image_bytes": {"b64": "YQ=="}}}', "must be lists"),
        (b'{"instances": [{"b64": "YQ=="}], "signature_name": "none"}', "the model has serving_default"),
        (b'{"instances": [{"b64": "YQ=="}], "extra": 1}', "unknown key 'extra'"),
    ],
)
def test_another_request_is_refused_with_its_reason(body, reason):
    with pytest.raises(Refusal, match=reason) as refused:
        read_query(body, IMAGES, 10)
    assert refused.value.status == 400


def test_answers_are_rows_or_columns_as_asked():
    labels = np.array([[b"cat", b"dog"]], object)
    columns = {"probabilities": np.float32([[0.25, 0.75]]), "label": np.array([b"dog"], object), "labels": labels}
    row = {"probabilities": [0.25, 0.75], "label": "dog", "labels": ["cat", "dog"]}
    query = Query("serving_default", {"image_bytes": [b""]}, True)
    assert json.loads(write_answer(query, columns)) == {"predictions": [row]}
    assert json.loads(write_answer(query, {"x": np.float32([2])})) == {"predictions": [2]}
    query = Query("serving_default", {"image_bytes": [b""]}, False)
    answer = {"outputs": {"probabilities": [[0.25, 0.75]], "label": ["dog"], "labels": [["cat", "dog"]]}}
    assert json.loads(write_answer(query, columns)) == answer


def test_images_are_judged_by_their_headers():
    with pytest.raises(Refusal, match="50000 x 50000 pixels are more than the 25 million allowed"):
        pixels_of(header_of(50_000, 50_000), 25_000_000)
    for file, reason in ((b"", "empty file"), (b"\x89PNG", "not an image"), (b"BM", "a BMP file without a size")):
        with pytest.raises(Refusal, match=reason):
            pixels_of(file, 25_000_000)
    costs = {"PNG": (600, True), "JPEG": (600, True), "BMP": (600, False), "GIF": (600, False), "TIFF": (1_000_000, False)}
    for kind, cost in costs.items():
        file = io.BytesIO()
        Image.new("L", (30, 20)).save(file, kind)
        assert pixels_of(file.getvalue(), 25_000_000) == cost


# --- the server


def test_answers_are_those_of_the_model(server: Server, exported):
    status, rows = server.predict(exported.files)
    assert status == 200
    np.testing.assert_allclose([row["probabilities"] for row in rows["predictions"]], exported.probabilities, atol=1e-5)
    best = exported.probabilities.argmax(axis=1)
    assert [row["label"] for row in rows["predictions"]] == [exported.names[index].decode() for index in best]
    assert rows["predictions"][0]["labels"] == ["cat", "dog", "owl"]
    assert server.predict(exported.files, "/v1/models/fpn/versions/7:predict") == (200, rows)
    inputs = json.dumps({"inputs": {"image_bytes": [{"b64": encode(file)} for file in exported.files]}})
    status, columns = server.ask("POST", "/v1/models/fpn:predict", inputs)
    assert columns["outputs"]["probabilities"] == [row["probabilities"] for row in rows["predictions"]]


def test_an_unreadable_image_fails_its_own_request_alone(server: Server, exported):
    broken = exported.files[0][:60] + bytes(20) + exported.files[0][80:]  # the header is fine
    asked = [[file] for file in exported.files] * 4 + [[exported.files[1], broken]]
    with ThreadPoolExecutor(len(asked)) as clients:
        *good, (status, answer) = clients.map(server.predict, asked)
    assert (status, answer["error"][:12]) == (400, "instances[1]")
    assert [status for status, _ in good] == [200] * len(good)
    found = [answer["predictions"][0]["probabilities"] for _, answer in good]
    np.testing.assert_allclose(found, np.tile(exported.probabilities, (4, 1)), atol=1e-5)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/models/other", 404),
        ("GET", "/v1/models/fpn/versions/6", 404),
        ("POST", "/v1/models/fpn/versions/6:predict", 404),
        ("POST", "/v1/models/fpn:classify", 404),
        ("GET", "/v1/models/fpn:predict", 405),
        ("DELETE", "/v1/models/fpn", 405),
        ("POST", "/", 405),
        ("POST", "/v2/repository/models/fpn/unload", 404),
        ("GET", "/v1/models/../../etc/passwd", 404),
        ("GET", "/v1/models/%2e%2e%2f%2e%2e%2fetc%2fpasswd", 404),
    ],
)
def test_other_addresses_and_methods_are_refused(server: Server, method, path, status):
    found, content = server.ask(method, path, b"{}" if method == "POST" else None)
    assert found == status
    assert isinstance(content["error"], str)


def test_health_metrics_and_the_page(server: Server, exported):
    server.predict(exported.files[:1])
    assert server.ask("GET", "/healthz") == (200, "ok\n")
    assert server.ask("GET", "/v2/health/live")[0] == 200
    assert server.ask("GET", "/v2/health/ready") == (200, {"ready": True})
    status, metrics = server.ask("GET", "/metrics")
    assert 'fpn_model_version{name="fpn"} 7.0' in metrics
    for metric in ("fpn_requests_total", "fpn_request_seconds_bucket", "fpn_batch_size_bucket", "fpn_waiting_images"):
        assert metric in metrics
    status, page = server.ask("GET", "/")
    assert status == 200
    assert "<html" in page
    assert "https://" not in page
    assert server.ask("GET", "/v1/models/fpn/metadata")[1]["model_spec"] == {
        "name": "fpn",
        "signature_name": "",
        "version": "7",
    }


def test_an_explanation_has_pictures(server: Server, exported):
    body = json.dumps({"instances": [{"image_bytes": {"b64": encode(exported.files[0])}, "label": "owl"}]})
    status, answer = server.ask("POST", "/v1/models/fpn:explain", body)
    (row,) = answer["predictions"]
    assert status == 200
    assert row["explained"] == "owl"
    assert list(row["pictures"]) == ["input", "combined", *row["shares"]]
    np.testing.assert_allclose(row["probabilities"], exported.probabilities[0], atol=1e-5)
    assert server.ask("POST", "/v1/models/fpn:explain", body.replace("owl", "cow"))[0] == 400


def test_an_oversized_request_and_a_slow_one_are_refused(server: Server):
    assert server.ask("POST", "/v1/models/fpn:predict", bytes(3_000_000))[0] == 413
    for sent, status in (
        (b"POST /v1/models/fpn:predict HTTP/1.1\r\nHost: localhost\r\nX-", b"400"),
        (b"GET /" + b"x" * 100_000, b"400"),
        (b"\x16\x03\x01", b"400"),
        (b"POST /v1/models/fpn:predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{", b"408"),
    ):
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
            connection.sendall(sent)
            assert connection.recv(100).startswith(b"HTTP/1.1 " + status)


def test_versions_come_and_go_and_the_server_ends_without_a_failed_request(exported, tmp_path):
    shutil.copytree(exported.path, tmp_path / "1")
    with serving(tmp_path, "--max-batch", "1") as server:
        statuses, stopped = [], threading.Event()

        def client() -> None:
            while not stopped.is_set():
                statuses.append(server.predict(exported.files[:2])[0])

        with ThreadPoolExecutor(4) as clients:
            asked = [clients.submit(client) for _ in range(4)]
            (tmp_path / "3" / "variables").mkdir(parents=True)  # a push that was cut short
            shutil.copy(f"{exported.path}/saved_model.pb", tmp_path / "3")
            shutil.copytree(exported.path, tmp_path / ".4")  # its files are not those that were pushed
            record = {"time": "2026-01-01T00:00:00+00:00", "digest": "0" * 64}
            (tmp_path / ".4" / "assets.extra" / "push.json").write_text(json.dumps(record))
            (tmp_path / ".4").rename(tmp_path / "4")
            shutil.copytree(exported.path, tmp_path / ".2")
            (tmp_path / ".2").rename(tmp_path / "2")
            deadline = time.monotonic() + 60
            while server.version() != 2 and time.monotonic() < deadline:
                time.sleep(0.1)
            stopped.set()
            for each in asked:
                each.result()
        assert server.version() == 2
        assert set(statuses) == {200}
        shutil.rmtree(tmp_path / "2")  # taken back
        while server.version() != 1 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert server.version() == 1

        with ThreadPoolExecutor(1) as client:
            answer = client.submit(server.predict, exported.files * 10)
            while "fpn_waiting_images 0.0" in server.ask("GET", "/metrics")[1] and not answer.done():
                pass
            assert server.stop() == 0
            assert answer.result()[0] == 200


def test_what_can_not_be_served_is_told_with_its_cure(tmp_path, capsys):
    def main_of_the_server(*arguments: str) -> int:
        return main(["serve", "--model", str(tmp_path), *arguments])

    assert main_of_the_server("--port", "0") == 2
    assert capsys.readouterr().err.startswith(f"fpn: {tmp_path}: no SavedModel here; give the folder that a run has pushed to")
    (tmp_path / "saved_model.pb").touch()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main_of_the_server("--port", port) == 2
    assert capsys.readouterr().err.startswith(f"fpn: --host 127.0.0.1 --port {port}: ")


def test_the_server_needs_neither_tfx_nor_beam(exported):
    program = """
import os, sys
from pipeline.cli import main
os._exit(main(sys.argv[1:]) or len({"tfx", "apache_beam"} & sys.modules.keys()))
"""
    with serving(Path(exported.path), program=program) as server:
        assert server.predict(exported.files)[0] == 200
        body = json.dumps({"instances": [{"b64": encode(exported.files[0])}]})
        assert server.ask("POST", "/v1/models/fpn:explain", body)[0] == 200
        assert server.stop() == 0


@pytest.mark.parametrize(
    "option", [("--timeout", "nan"), ("--poll", "-1"), ("--max-delay", "inf"), ("--name", "a/b"), ("--max-batch", "0")]
)
def test_an_option_that_makes_no_sense_is_refused(fpn, tmp_path, option):
    ended = fpn("serve", "--model", tmp_path, "--port", "0", *option)
    assert ended.status == 2
    assert f"argument {option[0]}: " in ended.stderr
