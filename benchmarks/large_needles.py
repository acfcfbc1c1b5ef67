"""Does a network of tiles find a small object in an image of thousands of pixels?

    .venv/bin/python -m benchmarks.large_needles

The images are those of `benchmarks/needle_images.py`, with objects of 16 px. A network learns on canvases as small as a tile,
then its tiles on canvases of 256 px; what it has learned then answers larger and larger ones with the same weights. The clutter
is twelve halves of other objects a canvas, or twelve for each 256x256 px of it. Both the pyramid and the backbone alone
with the pooling that is best for it are measured.

docs/large_needles.md has the table; it is written after all is measured, an hour and more on a core.
"""

import argparse
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import keras
import numpy as np
from scipy import stats

from base.local_files import write_text
from benchmarks.measurement import paragraph, run_apart, table
from benchmarks.needle_images import Needles, make_needles, read_pictures
from benchmarks.needles import CLASSES, LONGER, VARIANTS, train
from models.fpn import build_classifier
from models.tiles import tile_classifier
from pipeline.config.whole import Config
from pipeline.dag.component_settings import classifier_config, train_settings

VARIANTS_HERE: Final = {"pyramid": "sum", "backbone alone": LONGER}
TILE, OVERLAP, OBJECT, LEARNT = 64, 16, 16, 256  # pixels; the last is the canvas on which the tiles learn
TILE_IMAGES, LEARNT_IMAGES, EVAL, HALVES = 3000, 2000, 100, 12
EPOCHS = 4  # on the larger canvas
ANSWERED: Final = {256: 1000, 512: 400, 1024: 200, 2048: 100, 4096: 25}  # canvas -> test images
CLUTTER = ("12 halves", "12 halves for each 256x256 px")


@dataclass(frozen=True)
class Result:
    """Answers of one network to the images of one size and clutter."""

    network: str
    side: int
    clutter: str
    images: int
    right: int
    seconds_an_image: float


def make(side: int, number: int, seed: int, test: bool = False, halves: int = HALVES) -> Needles:
    return make_needles(read_pictures("digits", test), number, side, (OBJECT,), seed, halves)


def answer(network: keras.Model, name: str, sharpness: np.ndarray, side: int, clutter: str) -> Result:
    """The answers to test images of one size, one image at a time."""
    model = tile_classifier(network, (side, side, 1), OVERLAP)
    model.get_layer("tiles").pooling.set_weights(sharpness)
    halves = HALVES if clutter == CLUTTER[0] else HALVES * (side // LEARNT) ** 2
    right, seconds = 0, 0.0
    for number in range(ANSWERED[side]):
        found = make(side, 1, seed=10_000 + number, test=True, halves=halves)
        start = time.process_time()
        right += int(model.predict_on_batch(found.images).argmax() == found.labels[0])
        seconds += time.process_time() - start
    return Result(name, side, clutter, ANSWERED[side], right, seconds / ANSWERED[side])


def measure(name: str) -> list[Result]:
    def config(side: int, **changes: int) -> Config:
        return Config.model_validate(
            {
                "name": "needles",
                "data": {"path": "."},
                "image": {"height": side, "width": side, "channels": 1},
                "model": {"backbone": "small_resnet10", **VARIANTS[VARIANTS_HERE[name]]},
                "train": changes,
            }
        )

    keras.utils.set_random_seed(0)
    sample = make(TILE, 500, seed=1).images
    network = build_classifier(
        classifier_config(config(TILE).model),
        image_shape=(TILE, TILE, 1),
        num_classes=CLASSES,
        channel_mean=[float(sample.mean())],
        channel_variance=[float(sample.var(dtype=np.float64))],
    )
    train(network, make(TILE, TILE_IMAGES, seed=1), make(TILE, EVAL, seed=3), train_settings(config(TILE).train))
    model = tile_classifier(network, (LEARNT, LEARNT, 1), OVERLAP)
    settings = train_settings(config(LEARNT, epochs=EPOCHS).train)
    train(model, make(LEARNT, LEARNT_IMAGES, seed=1), make(LEARNT, EVAL, seed=3), settings)
    sharpness = model.get_layer("tiles").pooling.get_weights()
    return [
        answer(network, name, sharpness, side, clutter)
        for side in ANSWERED
        for clutter in CLUTTER[: 1 if side == LEARNT else None]
    ]


def page(results: list[Result]) -> str:
    text = (
        f"Objects of {OBJECT} px; tiles of {TILE} px that overlap by {OVERLAP}. The networks are small_resnet10 with the "
        f"default pyramid, and alone. They learned on {TILE_IMAGES:,} images of {TILE} px, then as tiles on {LEARNT_IMAGES:,} "
        f"of {LEARNT} px for {EPOCHS} epochs. The larger images were not trained on. One seed; 95 % intervals are Wilson's. "
        "Seconds are processor time for an image on one core. Made by `benchmarks/large_needles.py`."
    )
    lines = ["# Needles in large images", "", paragraph(text), ""]
    rows = []
    for item in results:
        interval = stats.binomtest(item.right, item.images).proportion_ci(method="wilson")
        share = f"{(OBJECT / item.side) ** 2:.4%}"
        cells = [item.network, f"{item.side:,} px", share, item.clutter, f"{item.right / item.images:.3f}"]
        rows.append([*cells, f"{interval.low:.3f} to {interval.high:.3f}", str(item.images), f"{item.seconds_an_image:.2f}"])
    header = ["network", "image", "share of the object", "clutter", "accuracy", "95 % interval", "images", "s an image"]
    return "\n".join([*lines, table(header, rows)]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    parser.add_argument("--one", choices=list(VARIANTS_HERE), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps([asdict(item) for item in measure(options.one)]))
        return
    found = [run_apart("-m", "benchmarks.large_needles", "--one", name).result for name in VARIANTS_HERE]
    results = [Result(**item) for items in found for item in items]
    write_text(options.docs / "large_needles.json", json.dumps([asdict(item) for item in results], indent=1) + "\n")
    write_text(options.docs / "large_needles.md", page(results))
    print(page(results))


if __name__ == "__main__":
    main()
