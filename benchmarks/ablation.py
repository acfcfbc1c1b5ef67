"""What do the pyramid and its heads add? Whole runs of every variant, over data sets and seeds.

    .venv/bin/python -m benchmarks.ablation
    .venv/bin/python -m benchmarks.ablation --data digits digits_quarter --variants none sum --seeds 5

Data sets: `digits` (configs/digits.yaml), `digits_quarter` (the same with a quarter of the training digits), `sign_digits`
(configs/sign_digits.yaml), `pasted_signs` (the same hand signs at a third of their size on photographs), `fashion_mnist`
(configs/fashion_mnist.yaml with a quarter of its epochs), and `elpv` (2,624 pictures of solar cells; `--elpv` names the folder
`elpv_dataset` of the package of that name). Those whose folders are absent are left out. The runs of a data set differ by the
network's settings in `VARIANTS` and `train.seed` alone, and share an output folder, so that ingestion and Transform run once.

docs/ablation.json is written after every run: started again, the benchmark goes on where it stopped. Results of other code
under models/ or of other settings are dropped. docs/ablation.md has the tables, docs/images/ablation.png shows the accuracies.
"""

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib.pyplot as plt

from base.local_files import write_text
from benchmarks.ablation_data import QUARTER, write_elpv, write_pasted_signs, write_quarter
from benchmarks.measurement import paragraph
from pipeline.config.loading import load_config
from pipeline.dag.code_digest import code_digest

OUTPUT = Path("output/ablation")
DIGITS = Path("data/digits_quarter")  # its own copy of the digits: one more manifest in a folder counts as changed data
PASTED = Path("data/pasted_signs")
ELPV = Path("data/elpv")


@dataclass(frozen=True)
class Variant:
    """A network: what it is called, and its settings."""

    name: str
    settings: tuple[str, ...]


VARIANTS = {
    "none": Variant("backbone alone, average", ("model.fusion_type=none", "model.pooling=average")),
    "none_gem": Variant("backbone alone, generalized mean", ("model.fusion_type=none",)),
    "sum": Variant("sum", ()),
    "sum_shared": Variant("sum, one shared head", ("model.shared_head=true",)),
    "concat": Variant("concat", ("model.fusion_type=concat",)),
    "bifpn": Variant("bifpn", ("model.fusion_type=bifpn",)),
    "panet": Variant("panet", ("model.fusion_type=panet",)),
}
_SIGNS = Path("configs/sign_digits.yaml")
CONFIGS = {
    "digits": Path("configs/digits.yaml"),
    "digits_quarter": Path("configs/digits.yaml"),
    "sign_digits": _SIGNS,
    "pasted_signs": _SIGNS,
    "fashion_mnist": Path("configs/fashion_mnist.yaml"),
    "elpv": _SIGNS,
}
SETTINGS = {
    "digits_quarter": (f"data.manifest={QUARTER}",),
    "fashion_mnist": ("train.epochs=6", "train.mixed_precision=false"),  # bfloat16 is slower on some processors
    "elpv": (
        "data.splits={train: 13, eval: 2, test: 5, stratify: true}",  # a quarter for test, as published
        "image={height: 160, width: 160, channels: 1}",
        "augment.flip=both",
    ),
}
_LEAST_SPAN = 0.03  # of an axis of accuracies
SIZES = ("small", "medium", "large")  # of the digits; see pipeline/samples/digits.py


@dataclass(frozen=True)
class Result:
    """One run; `digest` is of the code and settings that it depends on, `seconds` None where the model came from the cache."""

    data: str
    variant: str
    seed: int
    digest: str
    train: int
    test: int
    accuracy: float
    cross_entropy: float
    seconds: float | None
    accuracy_by_size: dict[str, float]

    @property
    def key(self) -> tuple[str, str, int]:
        return self.data, self.variant, self.seed


def settings(data: str, variant: str, seed: int, more: list[str]) -> list[str]:
    """Overrides of the data set's configuration. The verdicts do not matter here, nor do intervals of a single run."""
    return [
        *VARIANTS[variant].settings,
        f"train.seed={seed}",
        "evaluate.thresholds=[{metric: accuracy, lower: 0}]",
        "evaluate.confidence_intervals=none",
        *SETTINGS.get(data, ()),
        *more,
    ]


def digest(data: str, variant: str, seed: int, more: list[str]) -> str:
    """Of all that a result depends on but the images themselves."""
    config = load_config(CONFIGS[data], data="", overrides=settings(data, variant, seed, more))
    return hashlib.sha256((config.model_dump_json() + code_digest("models.training")).encode()).hexdigest()[:16]


def run(data: str, variant: str, seed: int, folder: Path | None, more: list[str]) -> Result:
    """One run of the whole pipeline.

    Raises:
      SystemExit: it has failed; it has said why.
    """
    before = digest(data, variant, seed, more)
    command = [sys.executable, "-m", "pipeline.cli", "run", "--json"]
    command += ["--config", str(CONFIGS[data]), "--output", str(OUTPUT / data)]
    command += ["--data", str(folder)] if folder else []
    for setting in settings(data, variant, seed, more):
        command += ["--set", setting]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode not in (0, 3):  # 3: training has diverged, which is a result here
        raise SystemExit(done.returncode)
    summary = json.loads(done.stdout.splitlines()[-1])
    trainer = summary["components"]["Trainer"]
    return Result(
        data=data,
        variant=variant,
        seed=seed,
        digest=before,
        train=summary["examples"]["train"],
        test=summary["examples"]["test"],
        accuracy=summary["metrics"]["accuracy"]["value"],
        cross_entropy=summary["metrics"]["cross_entropy"]["value"],
        seconds=trainer["seconds"] if trainer["state"] == "complete" else None,
        accuracy_by_size=read_sizes(summary["evaluation"]) if data.startswith("digits") else {},
    )


def read_sizes(evaluation: str) -> dict[str, float]:
    from evaluation.results import read_evaluation  # loads TensorFlow

    slices = {item.name: item.metrics["accuracy"].value for item in read_evaluation(evaluation).slices}
    return {size: slices[f"meta/size={size}"] for size in SIZES}


def spread(values: list[float]) -> tuple[float, float]:
    """Mean and sample standard deviation; 0 of a single value."""
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def cell(values: list[float], digits: int) -> str:
    if not values:
        return "-"
    mean, deviation = spread(values)
    return f"{mean:.{digits}f} ± {deviation:.{digits}f}" if len(values) > 1 else f"{mean:.{digits}f}"


def grouped(results: list[Result]) -> dict[str, dict[str, list[Result]]]:
    """Data set -> variant -> its runs, in the order in which they are named above."""
    found: dict[str, dict[str, list[Result]]] = {}
    for data in CONFIGS:
        for variant in VARIANTS:
            if runs := [item for item in results if (item.data, item.variant) == (data, variant)]:
                found.setdefault(data, {})[variant] = runs
    return found


def tables(results: list[Result]) -> str:
    cores = len(os.sched_getaffinity(0))
    text = (
        "The tables show mean and standard deviation over the seeds, on the test split. Within a data set, the runs differ "
        "only by the variant and the seed. Training seconds are those of the Trainer, on "
        f"{cores} CPU core{'s' if cores > 1 else ''}, and depend on what else the machine does. Made by "
        "`benchmarks/ablation.py`, which measures again what has changed."
    )
    lines = [
        "# Ablation: backbone, pyramid, heads",
        "",
        paragraph(text),
        "",
        "![Test accuracy by variant](images/ablation.png)",
    ]
    for data, variants in grouped(results).items():
        first = next(iter(variants.values()))[0]
        lines += ["", f"## {data}: {first.train} training images, {first.test} test images", ""]
        sizes = SIZES if first.accuracy_by_size else ()
        header = ["variant", "accuracy", *(f"accuracy, {size}" for size in sizes), "cross-entropy", "training seconds", "seeds"]
        lines += ["| " + " | ".join(header) + " |", "| " + " | ".join(["---"] * len(header)) + " |"]
        for variant, runs in variants.items():
            row = [
                VARIANTS[variant].name,
                cell([item.accuracy for item in runs], 4),
                *(cell([item.accuracy_by_size[size] for item in runs], 4) for size in sizes),
                cell([item.cross_entropy for item in runs], 4),
                cell([item.seconds for item in runs if item.seconds is not None], 0),
                str(len(runs)),
            ]
            lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


def draw(results: list[Result], path: Path) -> None:
    """A panel a data set, a row a variant: every seed as a dot, and mean and standard deviation."""
    panels = grouped(results)
    figure, axes = plt.subplots(1, len(panels), figsize=(1.8 + 3.6 * len(panels), 3.2), squeeze=False, layout="constrained")
    names = [variant for variant in reversed(VARIANTS) if any(variant in found for found in panels.values())]
    for axis, (data, variants) in zip(axes[0], panels.items(), strict=True):
        for row, variant in enumerate(names):
            if values := [item.accuracy for item in variants.get(variant, [])]:
                mean, deviation = spread(values)
                axis.plot(values, [row] * len(values), "o", color="#9bb3cc", markersize=4)
                axis.errorbar(mean, row, xerr=deviation, fmt="o", color="#1f5fa8", capsize=4)
        axis.set_title(f"{data}: {next(iter(variants.values()))[0].train:,} training images", fontsize=10)
        axis.set_xlabel("test accuracy")
        found = [item.accuracy for runs in variants.values() for item in runs]
        span = max(found) - min(found)
        margin = max(0.005, 0.05 * span, (_LEAST_SPAN - span) / 2)
        axis.set_xlim(min(found) - margin, min(max(found) + margin, 1.0))
        axis.set_yticks(range(len(names)), [VARIANTS[variant].name for variant in names] if axis is axes[0][0] else [])
        axis.set_ylim(-0.6, len(names) - 0.4)
        axis.grid(axis="x", alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle("Mean and standard deviation over the seeds, which are the small dots", fontsize=11)
    figure.savefig(path, dpi=130)


def read_results(path: Path, more: list[str]) -> list[Result]:
    """The results so far, without those that would not come out so any more."""
    stored = [Result(**item) for item in json.loads(path.read_text())] if path.exists() else []
    current = [item for item in stored if item.digest == digest(*item.key, more)]
    if len(current) < len(stored):
        print(f"{path}: {len(stored) - len(current)} results of other code or settings dropped")
    return current


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="runs of each variant (3)")
    parser.add_argument("--data", nargs="+", choices=CONFIGS, default=list(CONFIGS), help="all if not given")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), help="all if not given")
    parser.add_argument("--sign-digits", type=Path, default=Path("../shared/data/sign_digits"), metavar="PATH")
    parser.add_argument("--elpv", type=Path, default=Path("data/elpv_dataset"), metavar="PATH")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change a value for all runs")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="folder for what is written (docs)")
    options = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")

    signs = options.sign_digits
    folders = {"digits_quarter": DIGITS, "sign_digits": signs, "pasted_signs": PASTED, "elpv": ELPV}
    of_signs = ("--sign-digits", signs)
    needed = {"sign_digits": of_signs, "pasted_signs": of_signs, "elpv": ("--elpv", options.elpv)}
    for data, (option, folder) in needed.items():
        if data in options.data and not folder.is_dir():
            print(f"{data} is left out: no folder {folder}; give it with {option} PATH")
            options.data.remove(data)
    if "digits_quarter" in options.data:
        write_quarter(DIGITS)
    if "pasted_signs" in options.data:
        write_pasted_signs(signs, PASTED)
    if "elpv" in options.data:
        write_elpv(options.elpv, ELPV)
    results = read_results(options.docs / "ablation.json", options.set)
    wanted = [(data, name, seed) for seed in range(options.seeds) for data in options.data for name in options.variants]
    missing = [key for key in wanted if key not in {item.key for item in results}]
    for number, (data, variant, seed) in enumerate(missing, start=1):
        print(f"[{number}/{len(missing)}] {data}, {VARIANTS[variant].name}, seed {seed}", flush=True)
        results.append(run(data, variant, seed, folders.get(data), options.set))
        print(f"    accuracy {results[-1].accuracy:.4f}, cross-entropy {results[-1].cross_entropy:.4f}", flush=True)
        write_text(options.docs / "ablation.json", json.dumps([asdict(item) for item in results], indent=1) + "\n")
    if not results:
        raise SystemExit("nothing was measured")

    write_text(options.docs / "ablation.md", tables(results))
    print(tables(results))
    (options.docs / "images").mkdir(parents=True, exist_ok=True)
    draw(results, options.docs / "images" / "ablation.png")


if __name__ == "__main__":
    main()
