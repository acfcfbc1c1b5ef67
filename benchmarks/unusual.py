"""How well the output `unusual` tells other images from the test split's, beside other methods; and what it costs.

    .venv/bin/python -m benchmarks.unusual --signs /path/to/sign_digits

Small networks are trained as the Trainer does it: on Fashion-MNIST, and on the photos of hands of sign_digits. A method's
figure is the AUROC of its score, test images of the data against others: the other data set, scikit-learn's digits, and noise.
The methods are fitted on the training images; percentiles are left out, as they change no order. The cost is that of a small
ResNet at 128 x 128 pixels with the output against without, in CPU time, both in one process and by turns.

docs/unusual.json is written after every network: started again, the benchmark goes on where it stopped. docs/images/unusual.png
shows the AUROCs. It needs the Debian package `dataset-fashion-mnist`.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
from PIL import Image
from scipy import special
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

from base.local_files import write_text
from benchmarks.export import encoded_images, transform_graph
from benchmarks.measurement import table
from benchmarks.needle_images import read_pictures
from benchmarks.next_labels import train
from models.export import export_model
from models.fitting import Fitted
from models.fpn import build_classifier
from models.inference import InferenceModel
from models.unusual import SAMPLE, Unusual, fit_distance, fit_percentiles
from pipeline.config.data import ImageConfig
from pipeline.config.network import ModelConfig
from pipeline.dag.component_settings import classifier_config, image_settings

SIDE, TRAINED, MOST = 28, 20_000, 3_000
ROUNDS: Final = 300
NEIGHBOUR: Final = 5

Score = Callable[[np.ndarray, np.ndarray], np.ndarray]  # from embeddings and logits to a score, larger for unusual images


@dataclass(frozen=True)
class Result:
    """The AUROCs of one network: {method: {other images: AUROC}}."""

    data: str
    seed: int
    accuracy: float
    aurocs: dict[str, dict[str, float]]


def squares(images: Sequence[Image.Image]) -> np.ndarray:
    """uint8 [N, SIDE, SIDE, 1]."""
    return np.stack([np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for image in images])[
        ..., None
    ]


def read_digits() -> np.ndarray:
    return squares([Image.fromarray((image * (255 / 16)).astype(np.uint8)) for image in load_digits().images])


def read_signs(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    files = sorted(folder.glob("[0-9]/*"))
    return squares([Image.open(file) for file in files]), np.array([int(file.parent.name) for file in files])


def noise() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    shape = (1000, SIDE, SIDE, 1)
    return {
        "uniform noise": random.integers(0, 256, shape).astype(np.uint8),
        "Gaussian noise": random.normal(127, 50, shape).clip(0, 255).astype(np.uint8),
        "one grey": np.broadcast_to(random.integers(0, 256, (1000, 1, 1, 1)), shape).astype(np.uint8),
    }


def look(model: keras.Model, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings and logits."""
    answer = tf.function(InferenceModel(model), autograph=False, reduce_retracing=True)
    parts = [answer(tf.constant(part)) for part in np.array_split(images, max(1, len(images) // 250))]
    logits, embeddings = (np.concatenate([part[number] for part in parts]) for number in range(2))
    return embeddings, logits


def methods(embeddings: np.ndarray, labels: np.ndarray) -> dict[str, Score]:
    """The scores by name, fitted on training images; the first is the model's."""
    embeddings = embeddings.astype(np.float64)
    distance = fit_distance(embeddings)
    means = np.stack([embeddings[labels == label].mean(axis=0) for label in np.unique(labels)])
    within = fit_distance(embeddings - means[labels])  # the classes' common covariance
    neighbours = NearestNeighbors(n_neighbors=NEIGHBOUR).fit(embeddings)

    def of_class(found: np.ndarray, _: np.ndarray) -> np.ndarray:
        return np.min([within(tf.constant(found - mean)) for mean in means], axis=0)

    return {
        "one mean": lambda found, _: distance(tf.constant(found)).numpy(),
        "a mean a class": of_class,
        "relative": lambda found, logits: of_class(found, logits) - distance(tf.constant(found)).numpy(),
        "nearest neighbours": lambda found, _: neighbours.kneighbors(found)[0][:, -1],
        "energy": lambda _, logits: -special.logsumexp(logits, axis=1),
        "confidence": lambda _, logits: -special.softmax(logits, axis=1).max(axis=1),
    }


def measure(data: str, seed: int, images: np.ndarray, labels: np.ndarray, others: dict[str, np.ndarray]) -> Result:
    """Trains on three quarters of the images, at most `TRAINED`, and compares others with the rest."""
    order = np.random.default_rng(seed).permutation(len(images))
    cut = min(TRAINED, len(order) * 3 // 4)
    used, kept = order[:cut], order[cut : cut + MOST]
    model = train(images[used], labels[used], seed)
    scores = methods(look(model, images[used[:SAMPLE]])[0], labels[used[:SAMPLE]])
    inside = look(model, images[kept])
    outside = {name: look(model, some[:MOST]) for name, some in others.items()}

    def auroc(score: Score, other: tuple[np.ndarray, np.ndarray]) -> float:
        values = [score(*map(np.float64, some)) for some in (inside, other)]
        return float(roc_auc_score(np.repeat([0, 1], [len(part) for part in values]), np.concatenate(values)))

    accuracy = float((inside[1].argmax(axis=1) == labels[kept]).mean())
    aurocs = {name: {other: auroc(score, found) for other, found in outside.items()} for name, score in scores.items()}
    return Result(data, seed, accuracy, aurocs)


def cost(rounds: int) -> dict[str, dict[str, float]]:
    """CPU seconds of `serving_default`, by number of images, with and without the output: {"1": {"with": s, "without": s}}."""
    keras.utils.set_random_seed(0)
    shape = (128, 128, 3)
    model = build_classifier(
        classifier_config(ModelConfig(backbone="small_resnet18", min_level=3, max_level=5, num_filters=128)),
        image_shape=shape,
        num_classes=2,
        channel_mean=[127.0] * 3,
        channel_variance=[5000.0] * 3,
    )
    random = np.random.default_rng(0)
    files = encoded_images("JPEG", (128, 128), 3, 16)
    embeddings = look(model, random.integers(0, 256, (250, *shape), dtype=np.uint8))[0]
    distance = fit_distance(embeddings)
    unusual = Unusual(distance, fit_percentiles(distance(tf.constant(embeddings)).numpy(), 250).quantiles, None)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        graph = transform_graph(files[:4], image_settings(ImageConfig(height=128, width=128, channels=3)), folder)
        serve = {}
        for kind, fitted in {"with": Fitted(unusual=unusual), "without": Fitted()}.items():
            export_model(model, graph, str(folder / kind), fitted=fitted)
            serve[kind] = tf.saved_model.load(str(folder / kind)).signatures["serving_default"]
        found = {}
        for size in (1, 16):
            times: dict[str, list[float]] = {kind: [] for kind in serve}
            for number in range(rounds + 10):
                for kind in sorted(serve, reverse=bool(number % 2)):
                    start = time.process_time()
                    serve[kind](image_bytes=tf.constant(files[:size]))["probabilities"].numpy()
                    if number >= 10:
                        times[kind].append(time.process_time() - start)
            found[str(size)] = {kind: statistics.median(values) for kind, values in times.items()}
    return found


def page(results: Sequence[Result], costs: dict[str, dict[str, float]]) -> str:
    """The tables in Markdown: the least AUROC of all seeds, and the cost."""
    parts = []
    for data in dict.fromkeys(item.data for item in results):
        of_data = [item for item in results if item.data == data]
        others = list(of_data[0].aurocs["one mean"])
        rows = [
            [method, *(f"{min(item.aurocs[method][other] for item in of_data):.4f}" for other in others)]
            for method in of_data[0].aurocs
        ]
        parts.append(table([f"{data}, against", *others], rows))
    rows = [
        [size, f"{times['without'] * 1000:.2f}", f"{times['with'] * 1000:.2f}", f"{times['with'] / times['without']:.3f}"]
        for size, times in costs.items()
    ]
    parts.append(table(["images", "without, ms", "with, ms", "ratio"], rows))
    return "\n\n".join(parts)


def draw(results: Sequence[Result], path: Path) -> None:
    data = list(dict.fromkeys(item.data for item in results))
    shown = list(dict.fromkeys(other for item in reversed(results) for other in item.aurocs["one mean"]))
    figure, axes = plt.subplots(1, len(data), figsize=(9.5, 3.2), layout="constrained", sharey=True, squeeze=False)
    for axis, name in zip(axes[0], data, strict=True):
        of_data = [item for item in results if item.data == name]
        names = list(of_data[0].aurocs)
        for place, other in enumerate(shown):
            if other == name:
                continue
            values = [min(item.aurocs[method][other] for item in of_data) for method in names]
            places = np.arange(len(names)) + (place - len(shown) // 2) * 0.12
            axis.plot(values, places, "o", markersize=5, color=f"C{place}", label=other)
        axis.axvline(0.95, color="#5d6470", linewidth=0.8, linestyle=":")
        axis.set_yticks(range(len(names)), names)
        axis.set_xlim(0.1, 1.02)
        axis.set_title(f"trained on {name}", fontsize=10)
        axis.set_xlabel("AUROC")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].invert_yaxis()
    figure.legend(*axes[0][-1].get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=8)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--signs", type=Path, help="folder of the data set sign_digits, one folder a class; left out without")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    options = parser.parse_args()
    file = options.docs / "unusual.json"
    stored = json.loads(file.read_text()) if file.exists() else {"results": [], "cost": {}}
    results = [Result(**item) for item in stored["results"]]
    fashion = [read_pictures("fashion", test=test) for test in (False, True)]
    pictures, labels = np.concatenate([part.images for part in fashion]), np.concatenate([part.labels for part in fashion])
    data = {"Fashion-MNIST": (pictures[..., None], labels)}
    others = {"digits": read_digits(), **noise()}
    if options.signs:
        data["sign_digits"] = read_signs(options.signs)
    costs = stored["cost"] or cost(ROUNDS)
    for seed in range(options.seeds):
        for name, (images, truths) in data.items():
            if any((item.data, item.seed) == (name, seed) for item in results):
                continue
            more = {} if name == "Fashion-MNIST" else {"Fashion-MNIST": pictures[-MOST:, ..., None]}
            results.append(measure(name, seed, images, truths, {**more, **others}))
            write_text(file, json.dumps({"results": [asdict(item) for item in results], "cost": costs}, indent=1) + "\n")
    draw(results, options.docs / "images" / "unusual.png")
    print(page(results, costs))


if __name__ == "__main__":
    main()
