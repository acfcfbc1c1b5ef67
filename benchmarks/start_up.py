"""What a second run of the same costs, which takes everything from the cache, against importing TFX."""

import json
import tempfile
from pathlib import Path

from benchmarks import ingestion
from benchmarks.measurement import Figure, run_apart

MOST_TIME = 1.5  # times the import
CONFIG = {
    "name": "start-up",
    "image": {"height": 32, "width": 32, "channels": 3},
    "model": {"backbone": "small_resnet10", "min_level": 2, "max_level": 4, "num_filters": 16},
    "train": {"epochs": 1, "batch_size": 8},
}


def measure(folder: Path, repeats: int) -> list[Figure]:
    """Seconds of `fpn run` with nothing to do, and of a process that imports TFX."""
    data = ingestion.write_images(folder, "small", 500)
    with tempfile.TemporaryDirectory(prefix="start-up-", dir=folder) as work:
        config = Path(work, "config.yaml")
        config.write_text(json.dumps({**CONFIG, "data": {"path": str(data)}}))  # which is YAML, too
        command = ["-m", "pipeline.cli", "run", "--config", config, "--output", f"{work}/output", "--json"]
        first = run_apart(*command, statuses=(0, 3))
        again, imports = [], []
        for repeat in range(repeats):
            print(f"[{repeat + 1}/{repeats}] cached run", flush=True)
            imports.append(run_apart("-c", "from tfx import v1").seconds)
            ended = run_apart(*command, statuses=(0, 3))
            made = [name for name, item in ended.result["components"].items() if item["state"] != "cached"]
            if set(made) - {"Pusher"}:  # which looks each time at what is served
                raise SystemExit(f"the second run was not all from the cache: {', '.join(made)}")
            again.append(ended.seconds)
    return [
        Figure("cached run, against `from tfx import v1`", "s", again, imports, MOST_TIME),
        Figure("the same run the first time", "s", [first.seconds]),
    ]
