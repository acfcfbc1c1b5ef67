"""The metrics of this server at /metrics, besides those that prometheus_client has for each Python process."""

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Final

from prometheus_client import Counter, Gauge, Histogram, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

_VERDICT_FILE: Final = "monitor.json"  # of `fpn monitor`, beside what was captured

REQUESTS = Counter("fpn_requests", "Requests answered, by route and HTTP status", ["route", "code"])
SECONDS = Histogram(
    "fpn_request_seconds",
    "From the request's headers to its answer",
    ["route"],
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
)
BATCH_SIZE = Histogram("fpn_batch_size", "Images that the model took at once", buckets=(1, 2, 4, 8, 16, 32, 64, 128))
WAITING = Gauge("fpn_waiting_images", "Images that wait for the model")
VERSION = Gauge("fpn_model_version", "Version of the model that answers", ["name"])
RELOADS = Counter("fpn_model_loads", "Versions that have been put in place of the last one")
CAPTURED = Counter("fpn_captured_images", "Images whose rows are in a complete shard")
NOT_CAPTURED = Counter("fpn_capture_dropped_images", "Images that were to be captured, by why they are not", ["reason"])
CAPTURE_BYTES = Gauge("fpn_capture_bytes", "Size of all shards in the folder")


class Verdict(Collector):
    """The last verdict of `fpn monitor`, read from its file when it is asked for; nothing while there is none."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / _VERDICT_FILE

    def collect(self) -> Iterator[Metric]:
        value = GaugeMetricFamily("fpn_monitor_check", "How far requests are from what the model was made for", labels=["name"])
        failed = GaugeMetricFamily("fpn_monitor_failed", "1 if the check fails, else 0", labels=["name"])
        time = GaugeMetricFamily("fpn_monitor_seconds", "When the checks were made, in seconds since 1970")
        try:
            content = json.loads(self._file.read_bytes())
            time.add_metric([], datetime.fromisoformat(content["time"]).timestamp())
            for check in content["checks"]:
                failed.add_metric([check["name"]], check["failed"])
                if check["value"] is not None:
                    value.add_metric([check["name"]], check["value"])
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return
        yield from (value, failed, time)
