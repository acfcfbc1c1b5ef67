"""How accurate is each recipe of `fpn init` on data that nobody has tuned it for?

    .venv/bin/python -m benchmarks.recipes
    .venv/bin/python -m benchmarks.recipes --data digits elpv --recipes probe --seeds 1

For every data set and recipe, the configuration is the one that `fpn init DATA --recipe NAME` writes, and nothing is added to
it but the seed: whole runs, of which the accuracy on the test split counts. `elpv` (2,624 pictures of solar cells; `--elpv`
names the folder `elpv_dataset` of the package of that name) is cross-validated in five stratified folds, so every picture is
tested. Data sets whose folders are absent are left out.

docs/recipes.json is written after every run: started again, the benchmark goes on where it stopped. Results of other code under
models/ or of other settings are measured again. docs/model.md gets the table.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import typing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from base.local_files import write_text
from benchmarks.ablation import cell
from benchmarks.ablation_data import write_elpv
from benchmarks.backbones import write_section
from benchmarks.measurement import paragraph, table
from pipeline.config.loading import load_config
from pipeline.dag.code_digest import code_digest
from pipeline.local.recipe import RecipeName
from pipeline.samples.known import SAMPLES

OUTPUT = Path("output/recipes")
DATA = {  # and where they are
    "digits": Path("data/digits"),
    "sign_digits": Path("../shared/data/sign_digits"),
    "fashion_mnist": Path("data/fashion_mnist"),
    "elpv": Path("data/elpv"),
}
NAMES = {
    "digits": "digits, 32 px",
    "sign_digits": "hand signs, 96 px",
    "fashion_mnist": "Fashion-MNIST, 28 px",
    "elpv": "solar cells, 224 px, 5 folds",
}
RECIPES: tuple[RecipeName, ...] = typing.get_args(RecipeName)
FOLDED = "elpv"


@dataclass(frozen=True)
class Result:
    """A run, or a cross-validation; `digest` is of the code and settings that it depends on."""

    data: str
    recipe: str
    seed: int
    digest: str
    backbone: str
    accuracy: float

    @property
    def key(self) -> tuple[str, str, int]:
        return self.data, self.recipe, self.seed


def fpn(*arguments: str | Path) -> list[str]:
    """Runs a command to its end, and returns the lines that it has printed."""
    command = [sys.executable, "-m", "pipeline.cli", *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: has failed with status {done.returncode}")
    return done.stdout.splitlines()


def write_config(data: str, recipe: str, folder: Path) -> Path:
    """What a stranger gets who names the data and the recipe."""
    path = OUTPUT / f"{data}_{recipe}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    fpn("init", folder, "--recipe", recipe, "--output", path)
    return path


def settings(data: str, seed: int) -> list[str]:
    """The verdict does not matter here."""
    folds = ["data.splits={train: 8, eval: 1, test: 1, stratify: true}"] if data == FOLDED else []
    return [f"train.seed={seed}", "evaluate.thresholds=[{metric: accuracy, lower: 0}]", *folds]


def digest(data: str, seed: int, config: Path) -> str:
    """Of all that a result depends on but the images themselves."""
    read = load_config(config, data="", overrides=settings(data, seed))
    return hashlib.sha256((read.model_dump_json() + code_digest("models.training")).encode()).hexdigest()[:16]


def measure(data: str, recipe: str, seed: int, config: Path) -> Result:
    before = digest(data, seed, config)
    command: list[Any] = ["crossval", "--folds", 5] if data == FOLDED else ["run"]
    command += ["--json", "--config", config, "--output", OUTPUT / data]
    for setting in settings(data, seed):
        command += ["--set", setting]
    accuracy = json.loads(fpn(*command)[-1])["metrics"]["accuracy"]["mean" if data == FOLDED else "value"]
    return Result(data, recipe, seed, before, load_config(config).model.backbone, accuracy)


def section(results: list[Result]) -> str:
    """The section of docs/model.md."""
    text = (
        "Accuracies on the test split, mean and standard deviation over seeds (their number in brackets), of configurations as "
        "`fpn init DATA --recipe NAME` writes them. Of the solar cells, every picture is tested, by a network of the other "
        "four fifths. `scratch` has a small network with random weights, the others EfficientNet-Lite0 with ImageNet weights. "
        "`-` was not measured. Made by `benchmarks/recipes.py`, which measures again what has changed."
    )
    rows = []
    for recipe in RECIPES:
        row = [f"`{recipe}`"]
        for data in DATA:
            values = [item.accuracy for item in results if (item.data, item.recipe) == (data, recipe)]
            row.append(f"{cell(values, 4)} ({len(values)})" if values else "-")
        rows.append(row)
    return f"{paragraph(text)}\n\n{table(['recipe', *(NAMES[data] for data in DATA)], rows)}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="runs of each recipe (3)")
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA), help="all if not given")
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=RECIPES, help="all if not given")
    parser.add_argument("--elpv", type=Path, default=Path("data/elpv_dataset"), metavar="PATH")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="folder for what is written (docs)")
    options = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")

    for data in [*options.data]:
        if data in SAMPLES:
            SAMPLES[data](DATA[data])
        elif data == FOLDED and options.elpv.is_dir():
            write_elpv(options.elpv, DATA[data])
        elif not DATA[data].is_dir():
            print(f"{data} is left out: no folder {options.elpv if data == FOLDED else DATA[data]}")
            options.data.remove(data)
    configs = {(data, recipe): write_config(data, recipe, DATA[data]) for data in options.data for recipe in options.recipes}
    stored = options.docs / "recipes.json"
    results = [Result(**item) for item in json.loads(stored.read_text())] if stored.exists() else []
    missing = [
        (data, recipe, seed)
        for seed in range(options.seeds)
        for data, recipe in configs
        if (data, recipe, seed)
        not in {item.key for item in results if item.digest == digest(data, seed, configs[data, recipe])}
    ]
    for number, (data, recipe, seed) in enumerate(missing, start=1):
        print(f"[{number}/{len(missing)}] {data}, {recipe}, seed {seed}", flush=True)
        found = measure(data, recipe, seed, configs[data, recipe])
        results = [*(item for item in results if item.key != found.key), found]
        print(f"    accuracy {found.accuracy:.4f}", flush=True)
        write_text(stored, json.dumps([asdict(item) for item in results], indent=1) + "\n")
    write_section(options.docs / "model.md", "recipes", section(results))
    print(section(results))


if __name__ == "__main__":
    main()
