"""No request and no connection keeps `fpn serve` from its others, and only those who may ask are answered."""

import http.client
import json
import os
import re
import resource
import shutil
import socket
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import bombs
import numpy as np
import pytest
from corpus import save
from PIL import Image
from serving_process import Server, encode, serving
from tensorflow.core.example.example_pb2 import Example

from pipeline.cli import main
from pipeline.serving.examples import encoded_images
from pipeline.serving.protocol import decode_base64
from pipeline.serving.refusal import Refusal

PREDICT = "/v1/models/fpn:predict"
TIMEOUT = 2.0
TOKEN = "correct-horse-battery-staple"


@pytest.fixture(scope="module")
def pushed(exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pushed")
    shutil.copytree(exported.path, folder / "7")
    return folder


@pytest.fixture(scope="module")
def server(pushed: Path) -> Iterator[Server]:
    with serving(pushed, "--timeout", str(TIMEOUT), "--allow-host", "*.example.com") as started:
        yield started


@pytest.fixture(scope="module")
def enduring(pushed: Path) -> Iterator[Server]:
    """A server that waits long for its clients."""
    with serving(pushed, "--timeout", "60") as started:
        yield started


def instances(*files: bytes) -> str:
    return json.dumps({"instances": [{"b64": encode(file)} for file in files]})


def raw(server: Server, sent: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    connection.sendall(sent)
    return connection


# --- requests

BOMBS = {
    "gif": (lambda: bombs.gif_of_comments(4_000_000), "more than 10,000 blocks of comments and the like in a GIF"),
    "jpeg": (lambda: bombs.jpeg_of_scans(5000, 5000, 2000), "JPEG of 2,000 scans; at most 100 are read"),
    "png": (lambda: bombs.png_of_chunks(900_000), "PNG chunks"),
    "texts": (lambda: bombs.png_of_texts(500, 8_000_000), "texts and profiles of more than 64,000,000 bytes in a PNG"),
    "exif": (lambda: bombs.jpeg_of_exif(9000, 8_000_000), "Exif tags with"),
    "bmp": (lambda: bombs.bmp_of_runs(20, side=9000), "9000 x 9000 pixels are more than"),
    "tiff": (lambda: bombs.tiff_of_strips(1_000_000), "more than 100,000 strips or tiles in a page of a TIFF"),
    "runs": (lambda: bombs.bmp_of_runs(1_000_000), "damaged: not enough image data"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_by_name_while_health_is_answered(server: Server, name: str) -> None:
    make, reason = BOMBS[name]
    body = instances(make())
    with ThreadPoolExecutor(1) as sender:
        began = time.monotonic()
        asked = sender.submit(server.ask, "POST", PREDICT, body)
        slowest = 0.0
        while not asked.done():
            started = time.monotonic()
            assert server.ask("GET", "/healthz") == (200, "ok\n")
            slowest = max(slowest, time.monotonic() - started)
        status, answer = asked.result()
    assert (status, answer["error"][:14]) == (400, "instances[0]: ")
    assert reason in answer["error"]
    assert time.monotonic() - began < 20
    assert slowest < 5  # seconds, however busy this machine is; tests/sweeps/bombs.py measures what they are


def test_images_that_take_long_do_not_keep_others_waiting(server: Server, exported) -> None:
    slow = instances(*[bombs.png_of_one_colour(5000, 5000)] * 3)
    with ThreadPoolExecutor(3) as senders:
        asked = [senders.submit(server.ask, "POST", PREDICT, slow) for _ in range(3)]
        between = 0
        while not all(each.done() for each in asked):
            assert server.predict(exported.files[:1])[0] == 200
            between += 1
        assert [each.result()[0] for each in asked] == [200] * 3
    assert between >= 10


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (bombs.nested_json(3_000_000), "more than 128 instances"),
        (bombs.nested_json(400), "must be"),
        (bombs.long_number(10_000_000), "must be|Parse error"),
        (bombs.many_instances(100_000), "more than 128 instances"),
        (b'{"instances": [{"b64": "' + b"A" * 8_000_000 + b'#"}]}', "wrong base64"),
        (
            json.dumps(
                {"instances": [{"b64": encode(bombs.example_of_features(500_000))}], "signature_name": "predict_examples"}
            ).encode(),
            "not a serialised tf.Example: more than 10000 fields",
        ),
    ],
    ids=["nested", "nested less", "number", "instances", "base64", "example"],
)
def test_json_bombs_are_refused(server: Server, body: bytes, reason: str) -> None:
    began = time.monotonic()
    status, answer = server.ask("POST", PREDICT, body)
    assert status == 400
    assert re.search(reason, answer["error"])
    assert len(answer["error"]) < 500
    assert time.monotonic() - began < 20


def test_base64_in_steps_is_what_it_is_at_once() -> None:
    content = np.random.default_rng(0).bytes(3_000_000)
    text = encode(content)
    assert decode_base64(text, "") == content
    for wrong in (
        text[:-1],
        text[: 2**20 - 1] + "=" + text[2**20 :],
        text[:-4] + "=" + text[-3:],
        text[:9] + "\u03b1",
    ):
        with pytest.raises(Refusal, match=r"^here: wrong base64"):
            decode_base64(wrong, "here")


def test_files_in_an_example_are_those_that_protocol_buffers_find() -> None:
    example = Example()
    feature = example.features.feature
    feature["image/encoded"].bytes_list.value.extend([b"one", b"\n\x03two" * 100])
    feature["image/label"].bytes_list.value.append(b"cat")
    feature["image/height"].int64_list.value.extend([1, -5, 2**40])
    feature["image/mean"].float_list.value.extend([0.5] * 40)
    assert encoded_images(example.SerializeToString()) == [b"one", b"\n\x03two" * 100]
    assert encoded_images(example.SerializeToString() * 2) == [b"one", b"\n\x03two" * 100] * 2  # merged
    assert encoded_images(b"") == []
    for wrong in (b"\x0a\x05a", b"\x0b", b"\x0a" + b"\xff" * 11, b"\x0a"):
        with pytest.raises(ValueError, match=r"ends too early|type 3|too long"):
            encoded_images(wrong)


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n" * 5000,
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"a:\r\n" * 5000 + b"\r\n",
        b"POST /v1/models/fpn:predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"1\r\nx\r\n" * 30_000,
    ],
    ids=["requests ahead", "headers", "small chunks"],
)
def test_a_connection_that_sends_very_many_parts_is_ended(server: Server, sent: bytes) -> None:
    with closing(raw(server, b"")) as connection:
        answer = b""
        try:
            connection.sendall(sent)
            while part := connection.recv(2**16):
                answer += part
        except ConnectionError:
            return
    assert b"HTTP/1.1 400" in answer


# --- connections


def test_clients_that_do_not_take_their_answers_are_cut_off(server: Server, exported) -> None:
    body = json.dumps({"instances": [{"b64": encode(exported.files[0])}] * 16}).encode()
    head = f"POST /v1/models/fpn:explain HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n%s\r\n"
    waiting = []
    for number in range(4):
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(30)
        connection.connect(("127.0.0.1", server.port))
        connection.sendall((head % ("Connection: close\r\n" if number % 2 else "")).encode() + body)
        waiting.append(connection)
    idle = [raw(server, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n") for _ in range(10)]
    deadline = time.monotonic() + 60
    while held := count_held(server, waiting + idle):
        assert time.monotonic() < deadline, f"{held} are held"
        time.sleep(0.2)
    for connection in waiting + idle:
        connection.close()


def count_held(server: Server, connections: list[socket.socket]) -> int:
    """Number of connections whose other end the server has open, as the kernel sees it."""
    ports = {connection.getsockname()[1] for connection in connections}
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    ends = [(int(line[1][-4:], 16), int(line[2][-4:], 16), line[3]) for line in lines]
    return sum(local == server.port and remote in ports and state in ("01", "08") for local, remote, state in ends)


def test_health_is_answered_beyond_all_connections(enduring: Server, exported) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 3000:
        pytest.skip("too few files may be open")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 3000), hard))
    begun = f"POST {PREDICT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{{".encode()
    connections: list[socket.socket] = []
    try:
        for _ in range(1100):
            connections.append(raw(enduring, begun))
        for _ in range(1200):
            connections.append(raw(enduring, b"GET /"))
        for path in ("/healthz", "/v2/health/live"):
            assert enduring.ask("GET", path)[0] == 200
        status, answer = enduring.predict(exported.files[:1])
        assert (status, answer["error"][:17]) == (503, "too many requests")
    finally:
        for connection in connections:
            connection.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    deadline = time.monotonic() + 20
    while enduring.predict(exported.files[:1])[0] != 200:
        assert time.monotonic() < deadline


def test_sigterm_ends_the_server_in_the_middle_of_bombs(enduring: Server) -> None:
    bodies = [instances(bombs.gif_of_comments(3_000_000)), instances(*[bombs.png_of_one_colour(5000, 5000)] * 4)]

    def send(body: str) -> None:
        for _ in range(100):
            try:
                enduring.ask("POST", PREDICT, body)
            except (OSError, http.client.HTTPException):
                return

    with ThreadPoolExecutor(4) as senders:
        for number in range(4):
            senders.submit(send, bodies[number % 2])
        time.sleep(1)
        began = time.monotonic()
        assert enduring.stop() == 0
        assert time.monotonic() - began < 20


# --- who may ask


@pytest.mark.parametrize(
    ("path", "kind", "status"),
    [
        (PREDICT, "application/json", 200),
        (PREDICT, "Application/JSON; charset=utf-8", 200),
        (PREDICT, None, 200),
        (PREDICT, "text/plain", 415),
        (PREDICT, "application/x-www-form-urlencoded", 415),
        (PREDICT, "multipart/form-data; boundary=x", 415),
        (PREDICT, "application/octet-stream", 415),
        ("/v1/models/fpn:explain", "text/plain", 415),
        ("/v2/models/fpn/infer", "text/plain", 415),
        ("/v2/models/fpn/infer", "application/octet-stream", 400),  # let in; it is no request of this protocol
    ],
)
def test_a_body_must_be_json(server: Server, exported, path: str, kind: str | None, status: int) -> None:
    headers = {"Content_Type": kind} if kind else {}
    found, answer = server.ask("POST", path, instances(exported.files[0]), **headers)
    assert found == status
    if status == 415:
        assert answer["error"].endswith("send the header Content-Type: application/json")


def test_a_compressed_body_is_refused(server: Server) -> None:
    status, answer = server.ask("POST", PREDICT, bombs.gzip_of_zeros(100), Content_Encoding="gzip")
    assert (status, answer["error"]) == (415, "Content-Encoding 'gzip': send the body without it")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "localhost"}, 200),
        ({"Host": "LOCALHOST:9"}, 200),
        ({"Host": "fpn.localhost"}, 200),
        ({"Host": "10.0.0.7:8501"}, 200),  # as probes of Kubernetes and Prometheus ask
        ({"Host": "[::1]:8501"}, 200),
        ({"Host": "models.example.com"}, 200),
        ({"Host": "evil.example.org"}, 421),
        ({"Host": "localhost.evil.org"}, 421),
        ({"Host": "127.0.0.1.evil.org"}, 421),
        ({"Host": ""}, 421),
        ({"Host": "localhost:8501", "Origin": "http://localhost:8501"}, 200),
        ({"Host": "10.0.0.7:8501", "Origin": "https://models.example.com"}, 200),
        ({"Host": "localhost:8501", "Origin": "http://localhost:3000"}, 403),
        ({"Host": "localhost:8501", "Origin": "http://10.0.0.8"}, 403),
        ({"Host": "localhost:8501", "Origin": "https://evil.example.org"}, 403),
        ({"Host": "localhost:8501", "Origin": "null"}, 403),
    ],
)
def test_hosts_and_origins_must_be_those_of_the_server(server: Server, exported, headers: dict[str, str], status: int) -> None:
    found, answer = server.ask("POST", PREDICT, instances(exported.files[0]), **headers)
    assert found == status
    if status != 200:
        assert "fpn serve --allow-host" in answer["error"]
    assert server.ask("GET", "/v1/models", **headers)[0] == status
    assert server.ask("GET", "/healthz", **headers)[0] == 200


def test_a_client_of_http_1_0_need_not_name_the_host(server: Server) -> None:
    with closing(raw(server, b"GET /v1/models HTTP/1.0\r\n\r\n")) as connection:
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
    with closing(raw(server, b"GET /v1/models HTTP/1.1\r\n\r\n")) as connection:
        assert connection.recv(100).startswith(b"HTTP/1.1 421")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Certificate and key of localhost."""
    folder = tmp_path_factory.mktemp("tls")
    command = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost -addext"
    names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
    if not shutil.which("openssl"):
        pytest.skip("there is no openssl to make a certificate")
    subprocess.run(
        ["openssl", *command.split(), names, "-keyout", folder / "key.pem", "-out", folder / "certificate.pem"],
        check=True,
        capture_output=True,
    )
    return folder / "certificate.pem", folder / "key.pem"


@pytest.fixture(scope="module")
def locked(pushed: Path, certificate: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a token and HTTPS."""
    token = tmp_path_factory.mktemp("token") / "token"
    token.write_text(TOKEN + "\n")
    files = ["--token-file", str(token), "--certificate", str(certificate[0]), "--key", str(certificate[1])]
    with serving(pushed, *files) as started:
        yield started


def ask_locked(
    locked: Server, certificate: Path, path: str, token: str | None = None, body: str | None = None
) -> tuple[int, dict[str, Any] | str]:
    headers = {"Content-Type": "application/json"} | ({"Authorization": token} if token else {})
    request = urllib.request.Request(f"https://127.0.0.1:{locked.port}{path}", body.encode() if body else None, headers)
    try:
        with urllib.request.urlopen(request, context=ssl.create_default_context(cafile=str(certificate))) as response:
            content = response.read()
            return response.status, json.loads(content) if content[:1] == b"{" else content.decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def test_over_https_the_token_opens_all_but_health_and_the_page(locked: Server, certificate, exported) -> None:
    body = instances(*exported.files)
    status, answer = ask_locked(locked, certificate[0], PREDICT, f"Bearer {TOKEN}", body)
    assert status == 200
    assert isinstance(answer, dict)
    found = [row["probabilities"] for row in answer["predictions"]]
    np.testing.assert_allclose(found, exported.probabilities, atol=1e-5)
    for wrong in (None, "Bearer", "Bearer x", f"Bearer {TOKEN}x", f"Basic {TOKEN}", TOKEN, "Bearer \xe9"):
        for path in (PREDICT, "/v1/models", "/metrics", "/v1/models/fpn"):
            status, answer = ask_locked(locked, certificate[0], path, wrong, body if path == PREDICT else None)
            assert (status, answer) == (401, {"error": "send the header Authorization: Bearer TOKEN"})
    for open_to_all in ("/healthz", "/v2/health/ready", "/"):
        assert ask_locked(locked, certificate[0], open_to_all)[0] == 200
    with closing(raw(locked, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")) as plain:
        assert not plain.recv(100).startswith(b"HTTP/1.1 200")


def test_the_page_asks_for_the_token_and_then_shows_the_answer(locked: Server, exported, tmp_path: Path) -> None:
    sync_api = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium")
    if not chromium:
        pytest.skip("there is no chromium")
    picture = tmp_path / "cat\u202egnp.exe.png"  # which would be shown as cat, and the rest backwards
    picture.write_bytes(exported.files[0])
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        window = browser.new_page(ignore_https_errors=True)
        window.set_default_timeout(30_000)
        window.goto(f"https://127.0.0.1:{locked.port}/")
        window.wait_for_selector("#token")
        window.set_input_files("#file", str(picture))
        window.locator("#error", has_text="Authorization").wait_for()
        window.fill("#token", TOKEN)
        window.click("#locked button")
        window.wait_for_selector("#rows tr")
        assert window.text_content("#version") == "7"
        assert window.text_content("#status").startswith("cat\\u202egnp.exe.png: ")
        assert window.is_hidden("#locked")
        browser.close()


def test_what_can_not_be_used_is_told_before_anything_is_loaded(pushed: Path, certificate, tmp_path: Path, capsys) -> None:
    empty, pipe, other = tmp_path / "empty", tmp_path / "pipe", tmp_path / "other.pem"
    empty.write_text("\n")
    os.mkfifo(pipe)
    subprocess.run(["openssl", "genpkey", "-algorithm", "ED25519", "-out", other], check=True, capture_output=True)
    two_words = tmp_path / "two"
    two_words.write_text("two words")
    shown, key = map(str, certificate)
    binary, cut, locked, large, alike = (tmp_path / name for name in ("binary", "cut", "locked", "large", "alike"))
    with large.open("wb") as file:
        file.truncate(2**21)
    cut.write_text(Path(shown).read_text()[:300])
    for command in (
        ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-out", alike],
        ["x509", "-in", shown, "-outform", "DER", "-out", binary],
        ["pkey", "-in", key, "-aes128", "-passout", "pass:abcd", "-out", locked],
    ):
        subprocess.run(["openssl", *command], check=True, capture_output=True)
    for arguments, reason in (
        (["--token-file", str(tmp_path / "none")], "No such file or directory; give a file that the server may read"),
        (["--token-file", str(empty)], "must hold the token alone"),
        (["--token-file", str(two_words)], "must hold the token alone"),
        (["--token-file", str(pipe)], "not a regular file, but a pipe; give a file that the server may read"),
        (["--certificate", str(tmp_path / "none"), "--key", key], "No such file or directory"),
        (["--token-file", str(large)], "is larger than 1 MiB; give the file that the option is for"),
        (["--certificate", shown], "has no key in it; give the file that has it with --key"),
        (["--certificate", shown, "--key", str(other)], f"is not the key of {shown}; give PEM files that belong together"),
        (["--certificate", shown, "--key", str(alike)], f"is not the key of {shown}; give PEM files that belong together"),
        (["--certificate", shown, "--key", str(two_words)], "has no key in it; give a PEM file that has one"),
        (["--certificate", shown, "--key", str(locked)], "the key has a password; write it without: openssl pkey -in FILE"),
        (["--certificate", str(empty), "--key", key], "has no certificate in it; give a PEM file, whose first line is"),
        (["--certificate", str(binary), "--key", key], "has no certificate in it; give a PEM file, whose first line is"),
        (["--certificate", str(cut), "--key", key], "damaged, or no PEM files"),
        (["--key", key], "--key: give the --certificate that it belongs to"),
    ):
        assert main(["serve", "--model", str(pushed), "--port", "0", *arguments]) == 2
        told = capsys.readouterr().err
        assert told.startswith((f"fpn: {arguments[0]}", f"fpn: {arguments[-2]}"))
        assert reason in told
        assert told.count("\n") == 1


def test_the_picture_of_a_bomb_is_seen_by_nobody_else(server: Server, exported) -> None:
    """A bomb in the middle of good files fails its own request alone."""
    bad = bombs.jpeg_of_scans(5000, 5000, 2000)
    with ThreadPoolExecutor(8) as clients:
        good = [clients.submit(server.predict, [file]) for file in exported.files]
        status, answer = server.predict([exported.files[0], bad])
        assert (status, answer["error"][:12]) == (400, "instances[1]")
        assert [each.result()[0] for each in good] == [200] * len(good)
    assert server.predict([save(Image.fromarray(exported.pictures[0]), "JPEG", progressive=True)])[0] == 200
