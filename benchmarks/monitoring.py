"""How often `fpn monitor` gives an alarm: in weeks in which nothing has changed, and in weeks in which something has.

    .venv/bin/python -m benchmarks.monitoring

A network learns nine of the ten classes of Fashion-MNIST from 12,000 training images, as JPEG files of quality 90. Its
reference are 2,000 others, and the summaries of 5,000 of the images that it has learnt from. A week is 1,000 images, drawn from
20,000 that are neither. All go through the comparison that the command makes; a week has an alarm if any check fails.

docs/monitoring.json is written after every 100 weeks: started again, the benchmark goes on where it stopped. It needs the
Debian package `dataset-fashion-mnist`.
"""

import argparse
import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import tensorflow as tf
from PIL import Image

from base.local_files import write_text
from benchmarks.measurement import table
from benchmarks.needle_images import read_pictures
from benchmarks.next_labels import embed, train
from evaluation.drift import judge
from models import features
from models.summaries import summarize
from pipeline.pushed.drift import compare
from pipeline.pushed.reference import Answers, Reference
from pipeline.samples.fashion_mnist import CLASSES

TRAINING, REFERENCE, POOL, SOME, WEEK, WEEKS = 12_000, 2_000, 20_000, 6_000, 1_000, 100
NEW_SHARE = 0.05
NEW_CLASSES = ("bag", "shirt")  # each is left out of the training of one network
QUIET, BRIGHT, JPEG, DOUBLED, NEW = "nothing", "brightness +10 %", "JPEG quality 30", "one class doubled", "a new class at 5 %"
SITUATIONS = (QUIET, BRIGHT, JPEG, DOUBLED, NEW)


@dataclass(frozen=True)
class Result:
    """The weeks of one network and situation: how many had an alarm, and in how many of them each check failed."""

    new_class: str
    situation: str
    weeks: int
    alarms: int
    checks: dict[str, int]


@dataclass(frozen=True)
class Pool:
    """Images with their summaries and answers, and the position of their true class."""

    images: pd.DataFrame
    answers: Answers
    truth: np.ndarray

    def take(self, rows: np.ndarray) -> "Pool":
        answers = Answers(self.answers.rows.iloc[rows], self.answers.probabilities[rows], self.answers.embeddings[rows])
        return Pool(self.images.iloc[rows], answers, self.truth[rows])

    def __add__(self, other: "Pool") -> "Pool":
        both = [(one.rows, one.probabilities, one.embeddings) for one in (self.answers, other.answers)]
        rows, probabilities, embeddings = zip(*both, strict=True)
        answers = Answers(pd.concat(rows), np.concatenate(probabilities), np.concatenate(embeddings))
        return Pool(pd.concat([self.images, other.images]), answers, np.concatenate([self.truth, other.truth]))


def compress(images: np.ndarray, quality: int) -> tuple[np.ndarray, list[int]]:
    """The images as they are after JPEG, and the sizes of the files."""
    decoded, sizes = np.empty_like(images), []
    for number, image in enumerate(images):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality)
        sizes.append(file.tell())
        decoded[number] = np.asarray(Image.open(file))
    return decoded, sizes


@tf.function(input_signature=[tf.TensorSpec([None, None, None], tf.uint8)])
def summarize_one(pixels: tf.Tensor) -> tf.Tensor:
    return summarize(pixels, 1.0)


def describe(images: np.ndarray, sizes: list[int]) -> pd.DataFrame:
    """What the index of a data set and captured requests tell of images."""
    data = tf.data.Dataset.from_tensor_slices(images[..., np.newaxis]).map(summarize_one).batch(1000)
    names = [name.partition("/")[2] for name in features.SUMMARIES]
    described = pd.DataFrame(np.concatenate(list(data.as_numpy_iterator())), columns=names)
    return described.assign(format="jpeg", width=28, height=28, channels=1, bytes=sizes)


def prepare(new_class: str) -> tuple[Reference, dict[str, Pool]]:
    """Trains a network without one class; returns its reference, and the images of which weeks are made, by situation."""
    pictures = read_pictures("fashion", test=False)
    order = np.random.default_rng(0).permutation(len(pictures.images))
    images, truth = pictures.images[order], pictures.labels[order]
    new = CLASSES.index(new_class)
    known, unknown = np.flatnonzero(truth != new), np.flatnonzero(truth == new)
    truth = truth - (truth > new)
    names = [name for name in CLASSES if name != new_class]
    learnt, held, pool = np.split(known[: TRAINING + REFERENCE + POOL], [TRAINING, TRAINING + REFERENCE])
    decoded, sizes = compress(images[learnt], 90)
    model = train(decoded[..., np.newaxis], truth[learnt], 0, len(names))

    def answer(rows: np.ndarray, gain: float = 1.0, quality: int = 90) -> Pool:
        seen, seen_sizes = compress(np.clip(images[rows] * gain, 0, 255).astype(np.uint8), quality)
        logits = model.predict(seen[..., np.newaxis], batch_size=250, verbose=0)
        probabilities = tf.nn.softmax(logits).numpy()
        labels = pd.DataFrame({"label": np.array(names)[probabilities.argmax(axis=1)], "unusual": np.nan})
        vectors = embed(model, seen[..., np.newaxis]).astype(np.float16).astype(np.float32)
        return Pool(describe(seen, seen_sizes), Answers(labels, probabilities, vectors), truth[rows])

    reference = Reference(Path(), names, describe(decoded, sizes).head(5000), answer(held).answers, {}, {})
    quiet = answer(pool)
    pools = {QUIET: quiet, DOUBLED: quiet, NEW: answer(unknown)}
    return reference, pools | {BRIGHT: answer(pool[:SOME], gain=1.1), JPEG: answer(pool[:SOME], quality=30)}


def draw_week(pools: dict[str, Pool], situation: str, number: int) -> Pool:
    generator = np.random.default_rng([number, SITUATIONS.index(situation)])

    def draw(pool: Pool, rows: int, among: np.ndarray | None = None) -> Pool:
        return pool.take(generator.permutation(np.arange(len(pool.truth)) if among is None else np.flatnonzero(among))[:rows])

    if situation == DOUBLED:
        pool = pools[situation]
        classes = pool.truth.max() + 1
        more, rows = pool.truth == number % classes, 2 * WEEK // classes
        week = draw(pool, rows, more) + draw(pool, WEEK - rows, ~more)
    elif situation == NEW:
        rows = int(NEW_SHARE * WEEK)
        week = draw(pools[QUIET], WEEK - rows) + draw(pools[NEW], rows)
    else:
        week = draw(pools[situation], WEEK)
    return draw(week, WEEK)


def measure(new_class: str, situation: str, reference: Reference, pools: dict[str, Pool]) -> Result:
    alarms, failed = 0, Counter[str]()
    for number in range(WEEKS):
        week = draw_week(pools, situation, number)
        names = [check.name for check in judge(compare(week.images, week.answers, reference)) if check.failed]
        alarms += bool(names)
        failed.update(names)
    print(f"{new_class} left out, {situation}: {alarms} of {WEEKS} weeks", flush=True)
    return Result(new_class, situation, WEEKS, alarms, dict(failed.most_common()))


def page(results: Sequence[Result]) -> str:
    rows = []
    for item in results:
        checks = ", ".join(f"{name.partition(': ')[2]} {count}" for name, count in list(item.checks.items())[:4])
        rows.append([item.situation, item.new_class, f"{item.alarms} of {item.weeks}", checks])
    return table(["what has changed", "class left out", "weeks with an alarm", "by which checks"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    options = parser.parse_args()
    file = options.docs / "monitoring.json"
    results = [Result(**item) for item in json.loads(file.read_text())] if file.exists() else []
    for new_class in NEW_CLASSES:
        wanted = SITUATIONS if new_class == NEW_CLASSES[0] else (QUIET, NEW)
        missing = [item for item in wanted if (new_class, item) not in {(one.new_class, one.situation) for one in results}]
        if missing:
            reference, pools = prepare(new_class)
        for situation in missing:
            results.append(measure(new_class, situation, reference, pools))
            write_text(file, json.dumps([asdict(item) for item in results], indent=1) + "\n")
    print(page(results))


if __name__ == "__main__":
    main()
