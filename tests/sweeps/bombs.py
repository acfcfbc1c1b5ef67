"""Measures what others see of `fpn serve` while bombs are sent: a table of each bomb, its cost and theirs.

    .venv/bin/python tests/sweeps/bombs.py --model output/digits/pushed --images data/digits

32 clients in a process of their own ask for predictions all the time, over one connection each. Beside them, --senders others
send the same bomb again and again, each when its last one is answered. Another process asks for health, on a new connection
every 20 ms.
"""

import argparse
import asyncio
import base64
import http.client
import json
import multiprocessing
import re
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

PROJECT = Path(__file__).parents[2]
sys.path[:0] = [str(PROJECT), str(PROJECT / "tests" / "helpers")]

import bombs  # noqa: E402
from serving_process import serving  # noqa: E402

from benchmarks.serving import drive, read_images  # noqa: E402

CLIENTS = 32
PREDICT = "/v1/models/fpn:predict"
INFER = "/v2/models/fpn/infer"


@dataclass(frozen=True)
class Bomb:
    """A request: its body, and where and how it is sent."""

    body: Callable[[], bytes]
    path: str = PREDICT
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})


def files(*contents: bytes, signature: str = "serving_default") -> bytes:
    instances = [{"b64": base64.b64encode(content).decode()} for content in contents]
    return json.dumps({"instances": instances, "signature_name": signature}).encode()


BOMBS: dict[str, Bomb | None] = {
    "none": None,
    "GIF, 4,000,000 blocks of comments": Bomb(lambda: files(bombs.gif_of_comments(4_000_000))),
    "JPEG, 5000x5000, 2,000 scans": Bomb(lambda: files(bombs.jpeg_of_scans(5000, 5000, 2000))),
    "PNG, 950,000 chunks": Bomb(lambda: files(bombs.png_of_chunks(950_000))),
    "JPEG, 5000x5000, 100 refining scans": Bomb(lambda: files(bombs.jpeg_of_scans(5000, 5000, 100, refine=True))),
    "JPEG, 2,000,000 segments": Bomb(lambda: files(bombs.jpeg_of_segments(2_000_000))),
    "JPEG, Exif of 72 GB": Bomb(lambda: files(bombs.jpeg_of_exif(9000, 8_000_000))),
    "JPEG, 6,000,000 stuffed bytes": Bomb(
        lambda: files(bombs.jpeg_of_scans(100, 100, 2)[:-2] + b"\xff\0" * 5_500_000 + b"\xff\xd9")
    ),
    "PNG, texts of 7 GB": Bomb(lambda: files(bombs.png_of_texts(900, 8_000_000))),
    "PNG, 5000x5000 RGBA of 16 bits": Bomb(lambda: files(bombs.png_of_one_colour(5000, 5000, 16, 6))),
    "4 PNG of 5000x5000": Bomb(lambda: files(*[bombs.png_of_one_colour(5000, 5000)] * 4)),
    "128 PNG of 400x400": Bomb(lambda: files(*[bombs.png_of_one_colour(400, 400)] * 128)),
    "GIF, 100,000 frames": Bomb(lambda: files(bombs.gif_of_frames(100_000))),
    "TIFF, 1,000,000 strips": Bomb(lambda: files(bombs.tiff_of_strips(1_000_000))),
    "BMP, 4,000,000 runs": Bomb(lambda: files(bombs.bmp_of_runs(4_000_000))),
    "JSON, nested 8,000,000 times": Bomb(lambda: bombs.nested_json(7_900_000)),
    "JSON, nested 1,000 times": Bomb(lambda: bombs.nested_json(500)),
    "JSON, a number of 15,000,000 digits": Bomb(lambda: bombs.long_number(15_000_000)),
    "JSON, 100,000 instances": Bomb(lambda: bombs.many_instances(100_000)),
    "JSON, 15 MB of escapes": Bomb(lambda: b'{"instances": ["' + b"\\u0041" * 2_500_000 + b'"]}'),
    "base64 of 15 MB, wrong at its end": Bomb(lambda: b'{"instances": [{"b64": "' + b"A" * 15_000_000 + b'#"}]}'),
    "tf.Example of 1,600,000 features": Bomb(lambda: files(bombs.example_of_features(1_600_000), signature="predict_examples")),
    "gzip of 15 GB": Bomb(
        lambda: bombs.gzip_of_zeros(15_000), headers={"Content-Type": "application/json", "Content-Encoding": "gzip"}
    ),
    "16 MB that say binary, of one value": Bomb(
        lambda: b'{"inputs": []}' + bytes(15_900_000), INFER, {"Inference-Header-Content-Length": "14"}
    ),
    "14,000 requests ahead": Bomb(lambda: b"", "RAW", {"raw": "GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n" * 14_000}),
    "15,000 headers": Bomb(lambda: b"", "RAW", {"raw": "GET / HTTP/1.1\r\n" + "a:\r\n" * 15_000}),
    "chunks of one byte, 3 MB": Bomb(
        lambda: b"",
        "RAW",
        {
            "raw": f"POST {PREDICT} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
            + "1\r\nx\r\n" * 500_000
            + "0\r\n\r\n"
        },
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, metavar="DIR")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="PNG and JPEG files for the other clients")
    parser.add_argument("--seconds", type=float, default=5.0, metavar="S", help="for each bomb (5)")
    parser.add_argument("--senders", type=int, default=1, metavar="N", help="of bombs (1)")
    parser.add_argument("--only", metavar="PATTERN", help="bombs in whose names this pattern is found")
    options = parser.parse_args()
    chosen = {name: bomb for name, bomb in BOMBS.items() if not options.only or re.search(options.only, name) or bomb is None}
    pool = ProcessPoolExecutor(2, multiprocessing.get_context("spawn"))
    print("| bomb | bytes | status | answered in, s | requests of others/s | p50, ms | p99 | health, p99 | max |")
    print("| --- " + "| ---: " * 8 + "|")
    with serving(options.model) as server:
        pool.submit(load, server.port, options.images, 2.0).result()
        for name, bomb in chosen.items():
            print(row(name, bomb, server.port, options, pool), flush=True)
        print("|", end=" ")
        bomb = next(each for each in reversed(chosen.values()) if each is None or each.path != "RAW")
        with ThreadPoolExecutor(options.senders) as senders:
            until = time.monotonic() + 2
            asked = [
                senders.submit(send, server.port, bomb, bomb.body() if bomb else b"", until) for _ in range(options.senders)
            ]
            time.sleep(1)
            began = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            status = server.process.wait(120)
            print(f"SIGTERM meanwhile: status {status} after {time.monotonic() - began:.2f} s")
            for each in asked:
                each.exception()


def row(name: str, bomb: Bomb | None, port: int, options: argparse.Namespace, pool: ProcessPoolExecutor) -> str:
    """Sends a bomb for some seconds, and writes what all saw as a row of the table."""
    body = bomb.body() if bomb else b""
    size = len(bomb.headers.get("raw", "")) or len(body) if bomb else 0
    with ThreadPoolExecutor(options.senders) as threads:
        health = pool.submit(ask_health, port, options.seconds)
        others = pool.submit(load, port, options.images, options.seconds)
        until = time.monotonic() + options.seconds
        sent = [threads.submit(send, port, bomb, body, until) for _ in range(options.senders)] if bomb else []
        latencies = np.array(others.result()) * 1000
        answers = [answer for sender in sent for answer in sender.result()]
        waited = np.array(health.result()) * 1000
    statuses = ", ".join(sorted({str(status) for status, _ in answers})) or "-"
    slowest = f"{max(seconds for _, seconds in answers):.2f}" if answers else "-"
    p50, p99 = np.percentile(latencies, [50, 99])
    rate = len(latencies) / options.seconds
    return (
        f"| {name} | {size:,} | {statuses} | {slowest} | {rate:,.0f} | {p50:.0f} | {p99:.0f} "
        f"| {np.percentile(waited, 99):.0f} | {waited.max():.0f} |"
    )


def load(port: int, images: Path, seconds: float) -> list[float]:
    """Latencies of the other clients, in seconds; those not answered with 200 count as endless."""
    found, _ = asyncio.run(drive(port, read_images(images), 1, CLIENTS, seconds=seconds))
    return found.latencies + [float("inf")] * found.errors


def send(port: int, bomb: Bomb | None, body: bytes, until: float) -> list[tuple[int, float]]:
    """Status and seconds of each time that the bomb was answered; 0 for a connection that was cut off."""
    answers = []
    while bomb and time.monotonic() < until:
        began = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        try:
            if bomb.path == "RAW":
                connection.connect()
                connection.sock.sendall(bomb.headers["raw"].encode())
                status = int((connection.sock.recv(1000).split() or [b"", b"0"])[1])
            else:
                connection.request("POST", bomb.path, body, bomb.headers)
                status = connection.getresponse().status
        except (OSError, http.client.HTTPException):
            status = 0
        finally:
            connection.close()
        answers.append((status, time.monotonic() - began))
    return answers


def ask_health(port: int, seconds: float) -> list[float]:
    """Seconds that each question for health took, on a connection of its own."""
    waited = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        began = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        connection.request("GET", "/healthz")
        assert connection.getresponse().status == 200
        connection.close()
        waited.append(time.monotonic() - began)
        time.sleep(0.02)
    return waited


if __name__ == "__main__":
    main()
