"""Does the pyramid help? Trains the digits with and without it, over several seeds, on all and on a quarter of the data.

    .venv/bin/python benchmarks/pyramid.py --seeds 5

Runs the whole pipeline each time (what is unchanged comes from the cache) and reads TFMA's slices. Writes
docs/pyramid.json, the table docs/pyramid.md and the picture docs/images/pyramid.png.
"""

import argparse
import csv
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from components.image_example_gen import source
from pipeline.config import load_config
from pipeline.digits import write_digits
from pipeline.results import read_evaluation

CONFIG = Path("configs/digits.yaml")
DATA = Path("data/pyramid")  # its own copy: one more manifest in a folder counts as changed data
OUTPUT = Path("output/pyramid")
DOCS = Path("docs")
VARIANTS = {"with pyramid": "sum", "without": "none"}
SLICES = ("all examples", "meta/size=small", "meta/size=medium", "meta/size=large")


def write_quarter(name: str) -> None:
    """Writes a manifest with the same eval and test splits, and a quarter of the source digits of train."""
    write_digits(DATA)
    config = load_config(CONFIG, data=str(DATA))
    rows = source.read_rows(config.data.path, config.data.model_dump(include={"manifest", "columns", "splits", "multi_label"}))
    with (DATA / name).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "label", "size", "group", "split"))
        for row in sorted(rows, key=lambda row: row.path):
            if row.split != "train" or int(row.group) % 4 == 0:
                writer.writerow((row.path, row.label, row.meta["size"], row.group, row.split))


def run(data: str, manifest: str, fusion_type: str, seed: int) -> dict[str, Any]:
    """One run: accuracy by slice, and the number of training images."""
    settings = {"data.manifest": manifest, "model.fusion_type": fusion_type, "train.seed": seed}
    command = ["fpn", "run", "--config", CONFIG, "--data", DATA, "--output", OUTPUT / data, "--json"]
    for key, value in settings.items():
        command += ["--set", f"{key}={value}"]
    done = subprocess.run(
        [Path(sys.executable).parent / command[0], *command[1:]], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode not in (0, 3):  # 3: below a threshold, which is a result here
        raise SystemExit(done.returncode)
    summary = json.loads(done.stdout.splitlines()[-1])
    slices = read_evaluation(summary["evaluation"]).slices
    return {
        "data": data,
        "fusion_type": fusion_type,
        "seed": seed,
        "train": summary["examples"]["train"],
        "accuracy": {item.name: item.metrics["accuracy"].value for item in slices if item.name in SLICES},
    }


def spread(runs: list[dict[str, Any]], data: str, fusion_type: str, name: str) -> tuple[float, float]:
    """Mean and standard deviation over the seeds."""
    values = [item["accuracy"][name] for item in runs if (item["data"], item["fusion_type"]) == (data, fusion_type)]
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def write_table(runs: list[dict[str, Any]], datasets: list[str]) -> None:
    lines = ["| training images | test slice | with pyramid | without | difference |", "| --- | --- | --- | --- | --- |"]
    for data in datasets:
        images = next(item["train"] for item in runs if item["data"] == data)
        for name in SLICES:
            (mean, deviation), (plain, plain_deviation) = (
                spread(runs, data, fusion_type, name) for fusion_type in VARIANTS.values()
            )
            measured = f"{mean:.4f} ± {deviation:.4f} | {plain:.4f} ± {plain_deviation:.4f} | {mean - plain:+.4f}"
            lines.append(f"| {images} | {name} | {measured} |")
    (DOCS / "pyramid.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def draw(runs: list[dict[str, Any]], datasets: list[str]) -> None:
    figure, axes = plt.subplots(1, len(datasets), figsize=(9, 3.4), sharey=True, layout="constrained")
    for axis, data in zip(axes, datasets, strict=True):
        for offset, (label, fusion_type), colour in zip((0.13, -0.13), VARIANTS.items(), ("#1f5fa8", "#c2571a"), strict=True):
            for row, name in enumerate(reversed(SLICES)):
                mean, deviation = spread(runs, data, fusion_type, name)
                axis.errorbar(
                    mean, row + offset, xerr=deviation, fmt="o", color=colour, capsize=4, label=label if row == 0 else None
                )
        images = next(item["train"] for item in runs if item["data"] == data)
        axis.set_title(f"{images:,} training images", fontsize=11)
        axis.set_xlabel("test accuracy")
        axis.grid(axis="x", alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_yticks(range(len(SLICES)), [name.removeprefix("meta/size=") for name in reversed(SLICES)])
    axes[0].legend(loc="upper left", frameon=False)
    seeds = len({item["seed"] for item in runs})
    figure.suptitle(f"The same network with and without a pyramid (mean and standard deviation, {seeds} seeds)", fontsize=11)
    figure.savefig(DOCS / "images" / "pyramid.png", dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    seeds = parser.parse_args().seeds
    write_quarter("manifest-quarter.csv")
    manifests = {"all": "manifest.csv", "quarter": "manifest-quarter.csv"}
    runs = []
    for seed in range(seeds):
        for data, manifest in manifests.items():
            for fusion_type in VARIANTS.values():
                runs.append(run(data, manifest, fusion_type, seed))
                (DOCS / "pyramid.json").write_text(json.dumps(runs, indent=1) + "\n")
    write_table(runs, list(manifests))
    draw(runs, list(manifests))


if __name__ == "__main__":
    main()
