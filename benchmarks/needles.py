"""When does the pyramid pay? Networks on images of one small object among clutter (`benchmarks/needle_images.py`).

    .venv/bin/python -m benchmarks.needles                                   the study `default`, three seeds
    .venv/bin/python -m benchmarks.needles --study canvas --variants average sum --seeds 5

Every network is trained as the Trainer does it, with the defaults of the configuration but for what its variant names. The
studies change the size of the objects, the canvas, the number of training images, the source of the pictures, or the pooling.
`longer` is the backbone alone with its best pooling, and with as many more epochs as the pyramid takes more time for an epoch.

docs/needles.json is written after every training: started again, the benchmark goes on where it stopped. Results of other code
under models/ or of other settings are dropped. docs/needles.md has the tables, docs/images/needles.png the plot.
"""

import argparse
import hashlib
import json
import math
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
from scipy import stats

from base.local_files import write_text
from benchmarks.ablation import cell, spread
from benchmarks.backbones import multiply_adds
from benchmarks.measurement import paragraph, run_apart, table
from benchmarks.needle_images import Needles, Source, make_needles, read_pictures
from models import gradcam, training
from models.fpn import build_classifier
from models.settings import TrainSettings
from pipeline.config.loading import load_config
from pipeline.config.whole import Config
from pipeline.dag.code_digest import code_digest
from pipeline.dag.component_settings import classifier_config, train_settings

CLASSES, TEST, EVAL = 10, 10_000, 200
POINTED_AT = 2000  # so many of the test images are explained
BACKBONES_ALONE = ("average", "max", "average_max", "generalized_mean", "log_sum_exp")  # by their pooling
LONGER = "generalized_mean"  # the backbone alone that is trained for the pyramid's time as well


def preset(name: str) -> dict[str, Any]:
    """Pyramid and heads of a preset; the backbone and the training are those of all variants."""
    settings = load_config(Path(f"configs/{name}.yaml")).model.model_dump(exclude_unset=True)
    return {key: value for key, value in settings.items() if key not in ("backbone", "weights", "grey_input")}


VARIANTS: dict[str, dict[str, Any]] = {
    **{pooling: {"fusion_type": "none", "pooling": pooling} for pooling in BACKBONES_ALONE},
    "sum": {},
    "concat": {"fusion_type": "concat"},
    "bifpn": {"fusion_type": "bifpn"},
    "panet": {"fusion_type": "panet"},
    "sum, average": {"pooling": "average"},
    "sum, max": {"pooling": "max"},
    "sum, average_max": {"pooling": "average_max"},
    "sum, generalized_mean": {"pooling": "generalized_mean"},
    "sum, log_sum_exp": {"pooling": "log_sum_exp"},
    "sum, attention": {"pooling": "attention"},
    **{name: preset(name) for name in ("lin2017", "fpn_tensorflow", "covid_ctset")},
}


@dataclass(frozen=True)
class Data:
    """Images of a study: `side` pixels, objects of `sizes` pixels, so many of them for training."""

    source: Source
    side: int
    sizes: tuple[int, ...]
    images: int

    @property
    def name(self) -> str:
        sizes = "-".join(map(str, sorted({min(self.sizes), max(self.sizes)})))
        return f"{self.source}, {self.images:,} images of {self.side} px, objects of {sizes} px"


_SIZES = (8, 12, 16, 20, 28)
STUDIES: dict[str, list[Data]] = {
    "default": [Data("digits", 128, _SIZES, 6000)],
    "fashion": [Data("fashion", 128, (16, 20, 28, 40), 3000)],
    "objects": [Data("digits", 128, (size,), 3000) for size in (8, 16, 32, 64)],
    "canvas": [Data("digits", side, (16,), 3000) for side in (64, 128, 256, 512)],
    "images": [Data("digits", 128, _SIZES, images) for images in (1000, 3000, 10_000)],
}
DATA = {data.name: data for study in STUDIES.values() for data in study}


@dataclass(frozen=True)
class Result:
    """One training; `right` has a hexadecimal digit for each four test images, and a bit for each."""

    data: str
    variant: str
    seed: int
    digest: str
    accuracy: float
    by_size: dict[str, float]
    right: str
    pointing: dict[str, float]
    parameters: int
    multiply_adds: int
    training_seconds: float
    images_per_second: float
    epochs: int


def config_of(data: Data, variant: str, seed: int, epochs: int | None) -> Config:
    """Defaults, with the backbone, the size of the images, and what the variant names."""
    train = {"seed": seed, **({"epochs": epochs} if epochs else {})}
    return Config.model_validate(
        {
            "name": "needles",
            "data": {"path": "."},
            "image": {"height": data.side, "width": data.side, "channels": 1},
            "model": {"backbone": "small_resnet10", **VARIANTS[variant]},
            "train": train,
        }
    )


def digest_of(config: Config, data: Data) -> str:
    text = config.model_dump_json() + repr(data) + code_digest("models.training")
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def make(data: Data, test: bool, number: int, seed: int) -> Needles:
    return make_needles(read_pictures(data.source, test), number, data.side, data.sizes, seed)


def batches(needles: Needles) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices((needles.images, np.eye(CLASSES, dtype=np.float32)[needles.labels]))


def train(model: keras.Model, images: Needles, evaluation: Needles, settings: TrainSettings) -> float:
    """Trains in place, as the Trainer does, without augmentation; the seconds that it took."""
    number, size = len(images.images), settings.batch_size
    read = training.build_batches(
        batches(images),
        examples=number,
        batch_size=size,
        seed=settings.seed,
        cache_bytes=0,
        augment=lambda image, label: (image, label),
    )
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        strategy = tf.distribute.get_strategy()
        training.fit(model, strategy, read, batches(evaluation).batch(size), number // size, settings, folder)
    return time.perf_counter() - start


def measure(data: Data, variant: str, seed: int, epochs: int | None = None) -> Result:
    """Trains one network, and measures it on the test images."""
    config = config_of(data, variant, seed, epochs)
    settings = train_settings(config.train)
    images, test = make(data, False, data.images, seed=1), make(data, True, TEST, seed=2)
    keras.utils.set_random_seed(seed)
    model = build_classifier(
        classifier_config(config.model),
        image_shape=images.images.shape[1:],
        num_classes=CLASSES,
        channel_mean=[float(images.images.mean())],
        channel_variance=[float(images.images.var(dtype=np.float64))],
    )
    seconds = train(model, images, make(data, False, EVAL, seed=3), settings)
    model.predict(test.images[:64], batch_size=64, verbose=0)
    start = time.perf_counter()
    answers = model.predict(test.images, batch_size=64, verbose=0).argmax(axis=-1)
    rate = TEST / (time.perf_counter() - start)
    right = answers == test.labels
    return Result(
        data=data.name,
        variant=variant if epochs is None else "longer",
        seed=seed,
        digest=digest_of(config, data),
        accuracy=float(right.mean()),
        by_size={str(size): float(right[test.sizes == size].mean()) for size in data.sizes},
        right=np.packbits(right).tobytes().hex(),
        pointing=pointing_game(model, test, right[:POINTED_AT]),
        parameters=model.count_params(),
        multiply_adds=multiply_adds(model),
        training_seconds=round(seconds, 1),
        images_per_second=round(rate, 1),
        epochs=settings.epochs,
    )


def pointing_game(model: keras.Model, test: Needles, right: np.ndarray) -> dict[str, float]:
    """Share of the right answers whose map has its maximum inside the object's box, by level (arXiv:1608.00507)."""
    levels, to_maps, head = gradcam.split(model)
    chosen = np.flatnonzero(right)
    hits: dict[str, list[np.ndarray]] = {}
    for part in np.array_split(chosen, max(1, len(chosen) // 64)):
        found = gradcam.explain_maps(to_maps(test.images[part], training=False), levels, head)
        for name, values in {**found.maps, "together": found.combined}.items():
            hits.setdefault(name, []).append(is_inside(np.asarray(values), test.boxes[part], test.images.shape[1]))
    return {name: float(np.concatenate(values).mean()) for name, values in hits.items()}


def is_inside(maps: np.ndarray, boxes: np.ndarray, side: int) -> np.ndarray:
    """For maps [N, h, w] and boxes [N, 4] on images of `side` pixels: whether the largest cell's centre lies in the box [N]."""
    height, width = maps.shape[1:]
    row, column = np.unravel_index(maps.reshape(len(maps), -1).argmax(axis=1), (height, width))
    y, x = (row + 0.5) * side / height, (column + 0.5) * side / width
    top, left, bottom, right = boxes.T
    return (y >= top) & (y < bottom) & (x >= left) & (x < right)


def bits(result: Result) -> np.ndarray:
    return np.unpackbits(np.frombuffer(bytes.fromhex(result.right), np.uint8))[:TEST].astype(float)


def difference(first: Sequence[Result], second: Sequence[Result], chosen: np.ndarray | None = None) -> tuple[float, float]:
    """Mean difference of the accuracies, and the half-width of its 95 % interval.

    Both are measured on the same images, with the same seeds: the differences of each image, averaged over the seeds, have a
    standard error over the images; that over the seeds, which is of the networks, is added to it. The degrees of freedom of
    the sum are Satterthwaite's (10.2307/3002019).
    """
    seeds = sorted({item.seed for item in first} & {item.seed for item in second})
    of = [{item.seed: bits(item) for item in results} for results in (first, second)]
    values = np.stack([of[0][seed] - of[1][seed] for seed in seeds])  # [seeds, images]
    if chosen is not None:
        values = values[:, chosen]
    variances, freedoms = [], []
    for means in (values.mean(axis=1), values.mean(axis=0)):
        if len(means) > 1:
            variances.append(means.var(ddof=1) / len(means))
            freedoms.append(len(means) - 1)
    variance = sum(variances)
    shares = sum(part**2 / freedom for part, freedom in zip(variances, freedoms, strict=True))
    return float(values.mean()), float(stats.t.ppf(0.975, variance**2 / shares) * np.sqrt(variance)) if variance else 0.0


def of_data(results: Sequence[Result]) -> dict[str, dict[str, list[Result]]]:
    """Data -> variant -> its results, in the order of the studies and variants."""
    found: dict[str, dict[str, list[Result]]] = {}
    for data in DATA.values():
        for variant in (*VARIANTS, "longer"):
            if runs := [item for item in results if (item.data, item.variant) == (data.name, variant)]:
                found.setdefault(data.name, {})[variant] = runs
    return found


def fair_backbone(variants: dict[str, list[Result]]) -> str | None:
    """The backbone alone with the pooling that is best for it."""
    known = [name for name in BACKBONES_ALONE if name in variants]
    return max(known, key=lambda name: statistics.mean(item.accuracy for item in variants[name]), default=None)


def gain(runs: Sequence[Result], peer: Sequence[Result] | None, chosen: np.ndarray | None = None) -> str:
    if peer is None:
        return ""
    mean, half = difference(runs, peer, chosen)
    return f"({mean:+.3f} ± {half:.3f})"


def pointing_means(runs: Sequence[Result]) -> dict[str, float]:
    return {level: statistics.mean(item.pointing[level] for item in runs) for level in runs[0].pointing}


def page(results: Sequence[Result]) -> str:
    text = (
        "One object among clutter of its own texture: halves of other pictures of the same sizes. Networks of small_resnet10, "
        "with the defaults but for the variant. `average`, `max` and the other poolings without `sum` are the backbone alone. "
        f"Mean and standard deviation over the seeds, on {TEST:,} test images, of pictures that are not in training. "
        "Differences are to the backbone alone with the pooling that is best for it, with a paired 95 % interval over images "
        "and seeds. "
        "`points at the object` is the share of the right answers whose Grad-CAM map has its maximum in the object's box, by "
        "level, and for the sum of all levels' maps. "
        "Times are of one or two cores that did other work as well. "
        "Made by `benchmarks/needles.py`, which measures again what has changed."
    )
    lines = ["# When the pyramid pays", "", "![Accuracy by the object's share of the image](images/needles.png)", ""]
    lines += [paragraph(text)]
    for name, variants in of_data(results).items():
        sizes = list(next(iter(variants.values()))[0].by_size)
        fair = fair_backbone(variants)
        of_images = make(DATA[name], True, TEST, seed=2).sizes
        header = ["network", "accuracy", "difference", *(f"{size} px" for size in sizes), "points at the object"]
        header += ["parameters, millions", "multiply-adds, billions", "training s", "images/s", "seeds"]
        rows = []
        for variant, runs in variants.items():
            peer = variants[fair] if fair and variant != fair else None
            row = [variant, cell([item.accuracy for item in runs], 3), gain(runs, peer)]
            row += [
                f"{statistics.mean(item.by_size[size] for item in runs):.3f} {gain(runs, peer, of_images == int(size))}".strip()
                for size in sizes
            ]
            row += [", ".join(f"{level} {value:.2f}" for level, value in pointing_means(runs).items())]
            row += [f"{runs[0].parameters / 1e6:.2f}", f"{runs[0].multiply_adds / 1e9:.2f}"]
            row += [f"{statistics.mean(item.training_seconds for item in runs):.0f}"]
            row += [f"{statistics.mean(item.images_per_second for item in runs):.0f}", str(len(runs))]
            rows.append(row)
        lines += ["", f"## {name[0].upper()}{name[1:]}", "", table(header, rows)]
    return "\n".join(lines) + "\n"


def draw(results: Sequence[Result], path: Path) -> None:
    """Accuracy against the object's side as a share of the image's, one panel for each data set with several points."""
    shown = {"sum": "#1f5fa8", "concat": "#5b9bd5", "bifpn": "#2e8b57", "panet": "#8a5fbf"}
    panels = {name: found for name, found in of_data(results).items() if len(next(iter(found.values()))[0].by_size) > 1}
    across = min(2, len(panels))
    down = math.ceil(len(panels) / across)
    figure, axes = plt.subplots(down, across, figsize=(1 + 5 * across, 3.6 * down), squeeze=False, layout="constrained")
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    for axis, (name, variants) in zip(axes.flat, panels.items(), strict=False):
        fair = fair_backbone(variants)
        lines = {variant: (f"pyramid: {variant}", colour) for variant, colour in shown.items() if variant in variants}
        if fair:
            lines[fair] = (f"backbone alone, {fair} pooling", "#c2571a")
        for variant, (label, colour) in lines.items():
            runs = variants[variant]
            sizes = list(runs[0].by_size)
            means, deviations = zip(*(spread([item.by_size[size] for item in runs]) for size in sizes), strict=True)
            shares = [int(size) / DATA[name].side for size in sizes]
            axis.errorbar(shares, means, yerr=deviations, marker="o", markersize=4, capsize=3, color=colour, label=label)
        axis.set_title(name, fontsize=10)
        axis.set_xlabel("side of the object / side of the image")
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, loc="best")
        axis.set_ylabel("test accuracy")
    figure.savefig(path, dpi=130)


def measure_apart(study: str, number: int, variant: str, seed: int, epochs: int | None) -> Result:
    """In a process of its own, so that no training has what another one left."""
    arguments = ["--one", study, number, variant, seed, epochs or 0]
    return Result(**run_apart("-m", "benchmarks.needles", *arguments).result)


def read_results(path: Path) -> list[Result]:
    """Those that still hold."""
    results = [Result(**item) for item in json.loads(path.read_text())] if path.exists() else []
    return [item for item in results if item.data in DATA and item.digest == _digest_now(item, DATA[item.data])]


def _digest_now(item: Result, data: Data) -> str | None:
    longer = item.variant == "longer"
    variant = LONGER if longer else item.variant
    return (
        digest_of(config_of(data, variant, item.seed, item.epochs if longer else None), data) if variant in VARIANTS else None
    )


def longer_epochs(results: Sequence[Result], data: Data, epochs: int) -> int:
    """Epochs of the backbone alone that take the time of the pyramid's."""
    seconds = {
        variant: [item.training_seconds for item in results if (item.data, item.variant) == (data.name, variant)]
        for variant in ("sum", LONGER)
    }
    if not all(seconds.values()):
        raise SystemExit(f"--variants: longer needs results of sum and {LONGER}, whose times it compares; measure them first")
    return round(epochs * statistics.median(seconds["sum"]) / statistics.median(seconds[LONGER]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", nargs="+", choices=list(STUDIES), default=["default"])
    parser.add_argument("--variants", nargs="+", choices=[*VARIANTS, "longer"], default=["average", "sum"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    parser.add_argument("--one", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        study, number, variant, seed, epochs = options.one
        print(json.dumps(asdict(measure(STUDIES[study][int(number)], variant, int(seed), int(epochs) or None))))
        return

    results = read_results(options.docs / "needles.json")
    wanted = [
        (study, number, variant, seed)
        for seed in range(options.seeds)
        for study in options.study
        for number in range(len(STUDIES[study]))
        for variant in options.variants
    ]
    for study, number, variant, seed in wanted:
        data = STUDIES[study][number]
        if any((item.data, item.variant, item.seed) == (data.name, variant, seed) for item in results):
            continue
        print(f"{data.name}: {variant}, seed {seed}", flush=True)
        longer = variant == "longer"
        epochs = longer_epochs(results, data, config_of(data, LONGER, 0, None).train.epochs) if longer else None
        results.append(measure_apart(study, number, LONGER if longer else variant, seed, epochs))
        print(f"    accuracy {results[-1].accuracy:.4f}, {results[-1].by_size}", flush=True)
        write_text(options.docs / "needles.json", json.dumps([asdict(item) for item in results], indent=1) + "\n")
    write_text(options.docs / "needles.md", page(results))
    draw(results, options.docs / "images" / "needles.png")
    print(page(results))


if __name__ == "__main__":
    main()
