"""Measures `fpn serve` against bare batched calls of the same SavedModel, in turns, on the same images.

    .venv/bin/python -m benchmarks.serving --model output/digits/pushed --images data/digits --output docs/serving.json

The clients share the machine with the server: one process, a coroutine for each. Each sends its next request when it has its
answer. Bare calls are those of `serving_default` on batches of as many images as the server puts together, in a process
of their own, one after the other. Beside the figures, the answers to 200 images are compared with those of bare calls.

With `--capture`, it measures what capturing costs instead: two servers, of which one captures, take turns.
"""

import argparse
import asyncio
import base64
import contextlib
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.captured.shards import read_captured

_BATCH = 32  # images; as the server's --max-batch
_COMPARED = 200  # images
_NAME = "fpn"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--model", type=Path, required=True, metavar="DIR", help="a pushed model, or the folder of its versions"
    )
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="PNG and JPEG files")
    parser.add_argument("--seconds", type=float, default=60, help="of serving, for each size of requests (60)")
    parser.add_argument("--turns", type=int, default=3, help="that the two take, for each size of requests (3)")
    parser.add_argument("--clients", type=int, default=32, help="(32)")
    parser.add_argument("--per-request", type=int, nargs="+", default=[1, 8], metavar="N", help="images of a request (1 8)")
    parser.add_argument(
        "--capture", type=float, metavar="SHARE", help="measure a server that captures against one that does not"
    )
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="file to write the figures to")
    parser.add_argument("--bare", type=float, metavar="S", help=argparse.SUPPRESS)
    options = parser.parse_args()
    files = read_images(options.images)
    if options.bare is not None:
        call_bare(options.model, files)
        return
    if options.capture is not None:
        result = measure_capture(options, files)
        print(json.dumps(result, indent=1))
    else:
        result = measure(options, files)
        print(table([result]))
    if options.output:
        options.output.write_text(json.dumps(result, indent=1) + "\n")


def read_images(folder: Path) -> list[bytes]:
    """The first 512 of the folder's images in an order that mixes its parts."""
    paths = sorted(
        (path for path in folder.rglob("*") if path.suffix.lower() in (".png", ".jpg", ".jpeg")), key=lambda path: path.name
    )
    order = np.random.default_rng(0).permutation(len(paths))[:512]
    return [paths[index].read_bytes() for index in order]


def measure(options: argparse.Namespace, files: list[bytes]) -> dict[str, Any]:
    """All figures of one model."""
    with bare_process(options) as bare, server(options.model) as port:
        bare_answers = ask_bare(bare, {"answers": _COMPARED})["probabilities"]
        served, _ = asyncio.run(drive(port, files[:_COMPARED], 1, 1, count=_COMPARED, keep=True))
        difference = float(np.abs(np.array(served.answers) - np.array(bare_answers)).max())
        loads = []
        for per_request in options.per_request:
            turns = []
            asyncio.run(drive(port, files, per_request, options.clients, seconds=2))  # warm-up
            for _ in range(options.turns):
                before = ask_bare(bare, {"seconds": options.seconds / options.turns / 2})["images_per_second"]
                load, seconds = asyncio.run(
                    drive(port, files, per_request, options.clients, seconds=options.seconds / options.turns)
                )
                after = ask_bare(bare, {"seconds": options.seconds / options.turns / 2})["images_per_second"]
                turns.append((load, seconds, (before + after) / 2))
            latencies = np.concatenate([load.latencies for load, _, _ in turns])
            rates = [len(load.latencies) * per_request / seconds for load, seconds, _ in turns]
            ratios = [rate / rate_bare for rate, (_, _, rate_bare) in zip(rates, turns, strict=True)]
            loads.append(
                {
                    "images_per_request": per_request,
                    "clients": options.clients,
                    "seconds": round(sum(seconds for _, seconds, _ in turns), 1),
                    "requests": len(latencies),
                    "errors": sum(load.errors for load, _, _ in turns),
                    "images_per_second": round(float(np.mean(rates)), 1),
                    "bare_images_per_second": round(float(np.mean([rate for _, _, rate in turns])), 1),
                    "ratio": round(float(np.mean(ratios)), 3),
                    "ratios": [round(ratio, 3) for ratio in ratios],
                    "milliseconds": {
                        name: round(float(np.percentile(latencies, at)) * 1000, 1)
                        for name, at in (("p50", 50), ("p90", 90), ("p99", 99))
                    },
                }
            )
    return {
        "model": str(options.model),
        "images": {"number": len(files), "mean_bytes": round(float(np.mean([len(file) for file in files])))},
        "compared_images": _COMPARED,
        "greatest_difference": difference,
        "batch": _BATCH,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "loads": loads,
    }


def table(results: list[dict[str, Any]]) -> str:
    """The figures as Markdown."""
    rows = [
        "| images a request | requests | errors | images/s | bare, images/s | ratio | p50, ms | p90 | p99 |",
        "| ---: " * 9 + "|",
    ]
    for result in results:
        for load in result["loads"]:
            times = load["milliseconds"]
            rows.append(
                f"| {load['images_per_request']} | {load['requests']:,} | {load['errors']} | {load['images_per_second']:,.0f} "
                f"| {load['bare_images_per_second']:,.0f} | {load['ratio']:.2f} "
                f"| {times['p50']} | {times['p90']} | {times['p99']} |"
            )
        rows.append(f"\nGreatest difference of {result['compared_images']} answers: {result['greatest_difference']:.1e}")
    return "\n".join(rows)


# --- what capturing costs


def measure_capture(options: argparse.Namespace, files: list[bytes]) -> dict[str, Any]:
    """Latencies and processor time of a server that captures, by those of one that does not, in pairs of turns.

    Which one is first changes from pair to pair. Of each ratio: the median of all pairs, with its quartiles.
    """
    folder = Path(tempfile.mkdtemp())
    capturing = ["--capture", str(folder / "captured"), "--share", str(options.capture)]
    loads = []
    with server(options.model) as plain, server(options.model, *capturing) as captured:
        for per_request in options.per_request:
            pairs: list[dict[int, dict[str, float]]] = []
            for number in range(-1, options.turns):  # the first pair is a warm-up
                turns = {}
                for port in (plain, captured) if number % 2 else (captured, plain):
                    cpu = read_metrics(port)["process_cpu_seconds_total"]
                    load, seconds = asyncio.run(
                        drive(port, files, per_request, options.clients, seconds=options.seconds / options.turns / 2)
                    )
                    if load.errors:
                        raise SystemExit(f"{load.errors} requests failed")
                    cpu = read_metrics(port)["process_cpu_seconds_total"] - cpu
                    images = len(load.latencies) * per_request
                    p50, p99 = 1000 * np.percentile(load.latencies, [50, 99])
                    turns[port] = {
                        "p50_ms": p50,
                        "p99_ms": p99,
                        "images_per_second": images / seconds,
                        "cpu_ms_per_image": 1000 * cpu / images,
                    }
                pairs += [turns] * (number >= 0)
            figures: dict[str, Any] = {"images_per_request": per_request, "clients": options.clients, "pairs": len(pairs)}
            for name in pairs[0][plain]:
                ratios = [turns[captured][name] / turns[plain][name] for turns in pairs]
                figures[name] = {
                    "plain": round(statistics.median(turns[plain][name] for turns in pairs), 4),
                    "capturing": round(statistics.median(turns[captured][name] for turns in pairs), 4),
                    "ratio": [round(float(ratio), 3) for ratio in np.percentile(ratios, [25, 50, 75])],
                }
            loads.append(figures)
        dropped = {name: value for name, value in read_metrics(captured).items() if name.startswith("fpn_capture_dropped")}
    rows = sum(table.num_rows for table in read_captured(folder / "captured"))
    shutil.rmtree(folder)
    return {"model": str(options.model), "share": options.capture, "loads": loads, "rows": rows, "dropped": dropped}


def read_metrics(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as response:
        lines = [line.rpartition(" ") for line in response.read().decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


# --- the server


@contextlib.contextmanager
def server(model: Path, *arguments: str) -> Iterator[int]:
    """Starts `fpn serve`; gives its port."""
    command = [sys.executable, "-m", "pipeline.cli", "serve", "--model", str(model), "--port", "0", "--name", _NAME]
    command += ["--max-batch", str(_BATCH), *arguments]
    with tempfile.NamedTemporaryFile("w+") as log, subprocess.Popen(command, stderr=log) as process:
        try:
            while not (found := re.search(r"serving version \d+ of \S+ at http://[^:]+:(\d+)", Path(log.name).read_text())):
                if process.poll() is not None:
                    raise SystemExit(Path(log.name).read_text())
                time.sleep(0.1)
            yield int(found[1])
        finally:
            process.terminate()
            process.wait(60)


# --- the clients


class Load:
    """What a number of clients have seen: seconds of each request, and those not answered with 200."""

    def __init__(self) -> None:
        self.latencies: list[float] = []
        self.errors = 0
        self.answers: list[list[float]] = []


async def drive(
    port: int,
    files: list[bytes],
    per_request: int,
    clients: int,
    seconds: float = float("inf"),
    count: int | None = None,
    keep: bool = False,
) -> tuple[Load, float]:
    """Sends requests over as many connections as there are clients; gives what they saw, and the time that it took."""
    encoded = [base64.b64encode(file).decode() for file in files]
    requests = []
    for start in range(0, len(files) - per_request + 1, per_request):
        instances = [{"b64": text} for text in encoded[start : start + per_request]]
        body = json.dumps({"instances": instances}).encode()
        head = f"POST /v1/models/{_NAME}:predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        requests.append(head.encode() + body)
    load = Load()
    began = time.perf_counter()
    until = began + seconds

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
        step = number
        while time.perf_counter() < until and (count is None or step < count):
            started = time.perf_counter()
            writer.write(requests[step % len(requests)])
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(re.search(rb"content-length: (\d+)", head, re.I)[1])  # type: ignore[index]
            body = await reader.readexactly(length)
            load.latencies.append(time.perf_counter() - started)
            if not head.startswith(b"HTTP/1.1 200"):
                load.errors += 1
            elif keep:
                load.answers += [row["probabilities"] for row in json.loads(body)["predictions"]]
            step += clients
        writer.close()

    await asyncio.gather(*(client(number) for number in range(clients)))
    return load, time.perf_counter() - began


# --- bare calls


@contextlib.contextmanager
def bare_process(options: argparse.Namespace) -> Iterator[subprocess.Popen[str]]:
    command = [
        sys.executable,
        "-m",
        "benchmarks.serving",
        "--model",
        str(options.model),
        "--images",
        str(options.images),
        "--bare",
        "1",
    ]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            ask_bare(process, {"seconds": 2})
            yield process
        finally:
            process.stdin.close()  # type: ignore[union-attr]
            process.wait(60)


def ask_bare(process: "subprocess.Popen[str]", question: dict[str, float]) -> dict[str, Any]:
    assert process.stdin
    assert process.stdout
    process.stdin.write(json.dumps(question) + "\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline())


def call_bare(model: Path, files: list[bytes]) -> None:
    """Answers questions on standard input: how many images per second, or the answers to the first images."""
    import tensorflow as tf

    versions = [path.parent for path in model.glob("*/saved_model.pb")]
    loaded = tf.saved_model.load(str(max(versions, key=lambda path: int(path.name)) if versions else model))
    classify = loaded.signatures["serving_default"]
    batches = [files[start : start + _BATCH] for start in range(0, len(files) - _BATCH + 1, _BATCH)]
    for line in sys.stdin:
        question = json.loads(line)
        if "answers" in question:
            chosen = files[: question["answers"]]
            parts = [
                classify(image_bytes=tf.constant(chosen[start : start + _BATCH])) for start in range(0, len(chosen), _BATCH)
            ]
            result: dict[str, Any] = {
                "probabilities": np.concatenate([part["probabilities"].numpy() for part in parts]).tolist()
            }
        else:
            began, calls = time.perf_counter(), 0
            while time.perf_counter() - began < question["seconds"]:
                classify(image_bytes=tf.constant(batches[calls % len(batches)]))["probabilities"].numpy()
                calls += 1
            result = {"images_per_second": calls * _BATCH / (time.perf_counter() - began)}
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
