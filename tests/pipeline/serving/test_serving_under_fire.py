"""What takes `fpn serve` longer to show: hostile requests, load through reloads, and the recipes of its page."""

import json
import random
import re
import shutil
import socket
import string
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from serving_process import PROJECT, encode, serving

pytestmark = pytest.mark.extra
REQUESTS = 1000
IMAGES = 200


def hostile_requests(good: bytes) -> list[tuple[str, str, bytes]]:
    """Methods, paths and bodies of all kinds that must be refused, the same ones every time."""
    draw = random.Random(5)
    path = "/v1/models/fpn:predict"
    huge = good[:16] + (50_000).to_bytes(4, "big") * 2 + good[24:]

    def noise(size: int) -> str:
        return "".join(draw.choices(string.printable, k=size))

    def instances(value: object) -> bytes:
        return json.dumps({"instances": value}).encode()

    makers = [
        lambda: ("POST", path, b""),
        lambda: ("POST", path, noise(draw.randrange(1, 500)).encode()),
        lambda: ("POST", path, instances([{"b64": encode(good)}])[: -draw.randrange(1, 60)]),
        lambda: ("POST", path, instances([{"b64": noise(40) + "#"}])),
        lambda: ("POST", path, instances([{"b64": encode(draw.randbytes(draw.randrange(200)))}])),
        lambda: ("POST", path, instances([{"b64": encode(huge)}])),
        lambda: ("POST", path, instances([{"b64": encode(good[: draw.randrange(8, 60)])}])),
        lambda: ("POST", path, instances(draw.choice([None, 3, "x", {}, [], [[]], [None], [1.5], [True], [{"b64": None}]]))),
        lambda: ("POST", path, instances([{"b64": encode(good)}] * 200)),
        lambda: ("POST", path, b'{"instances": ' + b"[" * draw.randrange(1, 100_000)),
        lambda: ("POST", path, b'{"a":' * draw.randrange(1, 50_000)),
        lambda: ("POST", path, b'{"instances": [' + b"{}," * 100_000 + b"{}]}"),
        lambda: (
            "POST",
            path,
            json.dumps({"signature_name": draw.choice([1, None, [], noise(9)]), "instances": ["x"]}).encode(),
        ),
        lambda: (draw.choice(["GET", "PUT", "DELETE", "PATCH", "OPTIONS"]), path, b""),
        lambda: ("POST", draw.choice(["/", "/metrics", "/healthz", "/v1/models", "/v2/health/live"]), b"{}"),
        lambda: ("POST", "/v2/repository/models/fpn/" + draw.choice(["load", "unload"]), b""),
        lambda: ("POST", f"/v1/models/{draw.randrange(10**6)}:predict", b"{}"),
        lambda: ("POST", f"/v1/models/fpn/versions/{draw.randrange(100, 10**20)}:predict", b"{}"),
        lambda: ("GET", "/" + draw.choice(["../" * 9, "%2e%2e/" * 9, "..%2f" * 9, "%00", "//"]) + "etc/passwd", b""),
        lambda: (
            "GET",
            "/v1/models/" + draw.choice(["", "fpn/", "fpn/versions", "fpn/versions/-1", "fpn/versions/x", "a" * 9000]),
            b"",
        ),
    ]
    return [makers[number % len(makers)]() for number in range(REQUESTS)]


def memory(process: int) -> int:
    """Bytes that a process holds."""
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{process}/status").read_text())[1]) * 1024


def test_a_thousand_hostile_requests_are_refused_and_leave_the_server_as_it_was(exported, tmp_path):
    shutil.copytree(exported.path, tmp_path / "1")
    requests = hostile_requests(exported.files[0])
    with serving(tmp_path, "--max-body", "2", "--timeout", "2") as server:
        waiting = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(50)]  # and never say what they want
        for request in requests:  # what a server takes once it is busy, such as threads, is not a leak
            server.ask(*request)
        before = memory(server.process.pid)
        refused = [server.ask(*request) for request in requests]
        assert server.ask("POST", "/v1/models/fpn:predict", bytes(5_000_000))[0] == 413
        after = memory(server.process.pid)
        assert {status // 100 for status, _ in refused} == {4}
        assert all(content.get("error") or content.get("detail") for _, content in refused)
        assert after - before < 20e6
        status, answer = server.predict(exported.files)
        assert status == 200
        np.testing.assert_allclose([row["probabilities"] for row in answer["predictions"]], exported.probabilities, atol=1e-5)
        for connection in waiting:
            assert connection.recv(100).startswith(b"HTTP/1.1 400")
            connection.close()


def test_many_clients_get_the_models_answers_while_two_versions_are_pushed(exported, tmp_path):
    shutil.copytree(exported.path, tmp_path / "1")
    with serving(tmp_path) as server:
        stopped, answers = threading.Event(), []

        def client(number: int) -> None:
            while not stopped.is_set():
                number = (number + 1) % len(exported.files)
                answers.append((number, server.predict([exported.files[number]])))

        with ThreadPoolExecutor(32) as clients:
            asked = [clients.submit(client, number) for number in range(32)]
            try:
                for version in (2, 3):
                    shutil.copytree(exported.path, tmp_path / f".{version}")
                    (tmp_path / f".{version}").rename(tmp_path / str(version))
                    deadline = time.monotonic() + 60
                    while server.version() != version:
                        assert time.monotonic() < deadline
                        time.sleep(0.2)
                while len(answers) < IMAGES:
                    time.sleep(0.1)
            finally:
                stopped.set()
            for each in asked:
                each.result()
        assert {status for _, (status, _) in answers} == {200}
        found = np.array([answer["predictions"][0]["probabilities"] for _, (_, answer) in answers])
        np.testing.assert_allclose(found, exported.probabilities[[number for number, _ in answers]], atol=1e-5)


def test_the_recipes_of_the_page_work(exported, tmp_path):
    page = (PROJECT / "docs" / "serving.md").read_text()
    recipes = re.findall(r"<!-- run -->\n```(\w+)\n(.*?)```", page, re.S)
    assert [language for language, _ in recipes] == ["sh", "python", "sh"]
    assert "http://127.0.0.1:8501/" in page
    shutil.copytree(exported.path, tmp_path / "pushed" / "1")
    (tmp_path / "digit.png").write_bytes(exported.files[0])
    best = exported.names[exported.probabilities[0].argmax()].decode()
    with serving(tmp_path / "pushed") as server:
        for language, recipe in recipes:
            command = ["bash", "-c"] if language == "sh" else [sys.executable, "-c"]
            text = recipe.replace("127.0.0.1:8501", f"127.0.0.1:{server.port}")
            done = subprocess.run([*command, text], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
            assert done.returncode == 0, done.stderr
            if language == "python":
                assert done.stdout.startswith(best)
            else:
                answer = json.loads(done.stdout)
                label = answer["predictions"][0]["label"] if "predictions" in answer else answer["outputs"]["label"][0]
                assert label == best


def test_bombs_without_pause_leave_others_their_answers(exported, tmp_path):
    """What tests/sweeps/bombs.py measures, with limits for a busy machine."""
    shutil.copytree(exported.path, tmp_path / "model" / "1")
    (tmp_path / "images").mkdir()
    for number, file in enumerate(exported.files):
        (tmp_path / "images" / f"{number}.png").write_bytes(file)
    command = [sys.executable, PROJECT / "tests/sweeps/bombs.py", "--seconds", "2", "--senders", "4"]
    command += ["--model", tmp_path / "model", "--images", tmp_path / "images"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    table = [line.strip("| ") for line in done.stdout.splitlines() if line.startswith("| ")]
    _, _, *rows, end = [[cell.strip() for cell in line.split("|")] for line in table]
    assert len(rows) > 25
    for name, _, statuses, answered, _, _, others, _, health in rows:
        assert float(others) < 1000, name  # milliseconds, 99th percentile
        assert float(health) < 1000, name  # at most
        if name != "none":
            assert set(statuses.split(", ")) <= {"200", "400", "413", "415", "503", "0"}, name
            assert float(answered) < 20, name
    assert re.fullmatch(r"SIGTERM meanwhile: status 0 after \d+\.\d\d s", end[0])
