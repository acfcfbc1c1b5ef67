"""The metrics of this server at /metrics, besides those that prometheus_client has for each Python process."""

from prometheus_client import Counter, Gauge, Histogram

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
