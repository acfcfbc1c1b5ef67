"""Do sets of classes cover as promised, and is the risk kept, on real images that the model has not seen?

    .venv/bin/python -m benchmarks.guarantees --signs ../shared/data/sign_digits --clothes /usr/share/datasets/fashion-mnist

One small network is trained on a part of each data set, as the Trainer does it. The other images are dealt ten times, three
quarters to fit thresholds on and a quarter to measure. docs/guarantees.json is written, and the table in docs/guarantees.md.

With thresholds fitted on n images, the coverage of m new ones is beta-binomial (Angelopoulos & Bates 2021, arXiv:2107.07511).
That is wider than the binomial distribution of m images that are each covered with the promised probability. Both 99 % bands
are counted.
"""

import argparse
import gzip
import json
import math
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np
import tensorflow as tf
from PIL import Image
from scipy import stats
from sklearn.datasets import load_digits

from benchmarks.measurement import table
from models import training
from models.abstention import fit_abstention
from models.conformal import fit_sets
from models.fitting import ask, fit_answers
from models.fpn import build_classifier
from models.settings import AbstainSettings, CalibrationSettings, SetSettings
from pipeline.config.network import ModelConfig, TrainConfig
from pipeline.dag.component_settings import classifier_config, train_settings

DOCS: Final = Path("docs")
SEEDS: Final = 10
COVERAGE: Final = 0.95
ABSTAIN: Final = AbstainSettings(risk=0.05, confidence=0.95)
METHODS: Final = ("lac", "aps", "raps")
_BEGIN, _END = "<!-- made by benchmarks/guarantees.py -->\n", "<!-- end of the table -->\n"


def read_digits() -> tuple[np.ndarray, np.ndarray]:
    found = load_digits()
    return (found.images.repeat(4, axis=1).repeat(4, axis=2) * 15.9).astype(np.uint8), found.target


def read_signs(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    files = sorted(folder.glob("*/*"))
    images = [np.asarray(Image.open(file).convert("L").resize((32, 32), Image.Resampling.BILINEAR)) for file in files]
    return np.stack(images), np.array([int(file.parent.name) for file in files])


def read_clothes(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """The 10,000 official test images after as many of the training images as the network sees."""
    parts = []
    for name, number in (("train", TRAINED["Fashion-MNIST"]), ("t10k", 10_000)):
        images = np.frombuffer(gzip.decompress((folder / f"{name}-images-idx3-ubyte.gz").read_bytes()), np.uint8, offset=16)
        labels = np.frombuffer(gzip.decompress((folder / f"{name}-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8)
        parts.append((images.reshape(-1, 28, 28)[:number], labels[:number].astype(np.int64)))
    return np.concatenate([images for images, _ in parts]), np.concatenate([labels for _, labels in parts])


TRAINED: Final = {"digits": 500, "sign_digits": 900, "Fashion-MNIST": 5000}  # images that each network learns from


def held_out(images: np.ndarray, labels: np.ndarray, trained: int, epochs: int) -> tuple[np.ndarray, np.ndarray]:
    """Trains on the first images, and returns float32 logits [N, 10] and labels [N] of the others."""
    model_config, train = (
        ModelConfig(backbone="small_resnet10", num_filters=16),
        train_settings(TrainConfig(epochs=epochs, batch_size=50)),
    )
    one_hot = np.eye(10, dtype=np.float32)[labels]
    data = [tf.data.Dataset.from_tensor_slices((images[part][..., None], one_hot[part])) for part in _parts(trained)]
    model = build_classifier(
        classifier_config(model_config),
        image_shape=(*images.shape[1:], 1),
        num_classes=10,
        channel_mean=[float(images.mean())],
        channel_variance=[float(images.var(dtype=np.float64))],
    )
    batches = training.build_batches(
        data[0], examples=trained, batch_size=50, seed=0, cache_bytes=2**30, augment=lambda *batch: batch
    )
    with tempfile.TemporaryDirectory() as folder:
        strategy = tf.distribute.get_strategy()
        training.fit(model, strategy, batches, data[1].take(100).batch(50), trained // 50, train, folder)
    alone = tf.data.Dataset.from_tensors(tf.constant(-1, tf.int64)).repeat()
    batches_alone = tf.data.Dataset.zip(data[1], alone).batch(250)
    answers = ask(model, ((*pair, group) for pair, group in batches_alone))
    return answers.logits, answers.labels.argmax(axis=-1)


def _parts(trained: int) -> tuple[slice, slice]:
    return slice(None, trained), slice(trained, None)


def measure(logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Coverage, sizes and risk for each of the ten ways to deal the images."""
    fitted, tested = len(labels) * 3 // 4, len(labels) - len(labels) * 3 // 4
    rank = math.ceil((fitted + 1) * COVERAGE)
    bands = {
        "binomial": stats.binom(tested, COVERAGE).interval(0.99),
        "beta_binomial": stats.betabinom(tested, rank, fitted + 1 - rank).interval(0.99),
    }
    found: dict[str, Any] = {"fitted": fitted, "tested": tested, "sets": {}}
    found |= {name: [end / tested for end in map(float, band)] for name, band in bands.items()}
    found["sets"] = {method: {"coverage": [], "size": []} for method in METHODS}
    found["abstain"] = {"answered": [], "risk": [], "accuracy": []}
    for seed in range(SEEDS):
        order = np.random.default_rng(seed).permutation(len(labels))
        known, new = order[:fitted], order[fitted:]
        temperature = _temperature(logits[known], labels[known])
        probabilities = tf.nn.softmax(logits / np.float32(temperature)).numpy()
        for method in METHODS:
            settings = SetSettings(coverage=COVERAGE, method=method, by_class=False)
            sets = fit_sets(probabilities[known], labels[known], known, settings).select(probabilities[new]).numpy()
            found["sets"][method]["coverage"].append(float(sets[np.arange(tested), labels[new]].mean()))
            found["sets"][method]["size"].append(float(sets.sum(axis=1).mean()))
        threshold = fit_abstention(probabilities[known], labels[known], known, ABSTAIN).threshold or 0.0
        answered = probabilities[new].max(axis=1) > threshold
        wrong = probabilities[new].argmax(axis=1) != labels[new]
        for name, value in (("answered", answered), ("risk", wrong[answered]), ("accuracy", ~wrong)):
            found["abstain"][name].append(float(value.mean()))
    return found


def _temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    from models.fitting import Answers

    answers = Answers(logits, np.eye(10, dtype=np.float32)[labels], np.arange(len(labels)))
    with tempfile.TemporaryDirectory() as folder:
        return fit_answers(answers, CalibrationSettings(temperature=True, sets=None, abstain=None), folder).temperature


def tables(results: dict[str, Any]) -> str:
    """The tables of the page."""
    rows = []
    for name, found in results.items():
        for method, sets in found["sets"].items():
            coverage = np.array(sets["coverage"])
            inside = [
                f"{int(((coverage >= found[band][0] - 1e-9) & (coverage <= found[band][1] + 1e-9)).sum())} of {SEEDS}"
                for band in ("binomial", "beta_binomial")
            ]
            rows.append(
                [
                    name,
                    method,
                    f"{coverage.mean():.4f}",
                    f"{coverage.min():.3f} to {coverage.max():.3f}",
                    *inside,
                    f"{np.mean(sets['size']):.2f}",
                ]
            )
    header = ["data", "method", "coverage", "least to largest", "in the binomial band", "in the beta-binomial band", "size"]
    risks = [
        [
            name,
            f"{np.mean(found['abstain']['accuracy']):.3f}",
            f"{np.mean(found['abstain']['answered']):.3f}",
            f"{np.mean(found['abstain']['risk']):.4f}",
            f"{max(found['abstain']['risk']):.4f}",
        ]
        for name, found in results.items()
    ]
    bands = [
        [
            name,
            f"{found['fitted']:,}",
            f"{found['tested']:,}",
            *(f"{found[band][0]:.3f} to {found[band][1]:.3f}" for band in ("binomial", "beta_binomial")),
        ]
        for name, found in results.items()
    ]
    parts = (
        table(["data", "fitted on", "measured on", "binomial band", "beta-binomial band"], bands),
        table(header, rows),
        table(["data", "accuracy", "answered", "risk", "largest risk"], risks),
    )
    return "\n\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--signs", type=Path, required=True, metavar="DIR", help="sign_digits, in folders by class")
    parser.add_argument("--clothes", type=Path, required=True, metavar="DIR", help="Fashion-MNIST's four files")
    options = parser.parse_args()
    data = {
        "digits": (read_digits(), 6),
        "sign_digits": (read_signs(options.signs), 8),
        "Fashion-MNIST": (read_clothes(options.clothes), 4),
    }
    results = {}
    for name, ((images, labels), epochs) in data.items():
        if name != "Fashion-MNIST":
            order = np.random.default_rng(0).permutation(len(labels))
            images, labels = images[order], labels[order]
        results[name] = measure(*held_out(images, labels, TRAINED[name], epochs))
        print(name, json.dumps(results[name]["sets"]["lac"]), flush=True)
    (DOCS / "guarantees.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    page = DOCS / "guarantees.md"
    before, rest = page.read_text(encoding="utf-8").split(_BEGIN)
    page.write_text(before + _BEGIN + "\n" + tables(results) + "\n" + _END + rest.split(_END)[1], encoding="utf-8")


if __name__ == "__main__":
    main()
