"""Finds properties of files that give the class away, from which a model may learn how the images were collected."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from scipy.stats import beta

from evaluation.predictions import Predictions
from evaluation.results import Metric, Shortcut
from models import features

_NUMBERS: Final = (features.HEIGHT, features.WIDTH, features.ASPECT, features.BYTES)
_FOLDS: Final = 5
_BINS: Final = 256  # bins of a numeric property
_MAX_VALUES: Final = 100  # a meta/ column with more values does not name a source, such as a site or a scanner
_BYTES_FACTOR: Final = 0.2  # for the size in bytes, the distance of the threshold from 1 is reduced to this part
_LEAST_BOUND: Final = 0.55  # the lower bound of the score must be above this
_CONFIDENCE: Final = 0.95
_MIN_OVERLAP: Final = 0.8  # two rules are the same if they both pick this share of the images that either picks
_MAX_NAMED: Final = 4  # largest number of values in the text of a rule


@dataclass(frozen=True)
class _Property:
    """A property of each image, divided into a few cells.

    Attributes:
      feature: the feature that it is read from.
      cells: int64 [images], positions in `values`, or the bins of a number; bin i is from edges[i - 1] to below edges[i].
      values: the texts; empty for a number.
      edges: for a number, in ascending order.
    """

    feature: str
    cells: np.ndarray
    values: list[str]
    edges: np.ndarray

    @property
    def count(self) -> int:
        return len(self.values) or len(self.edges) + 1

    def rule(self, fires: np.ndarray) -> str:
        """Describes a rule in words; `fires`, bool [count], are the cells that it picks."""
        if not self.values:
            return f"{self.feature} {_range_text(fires, self.edges)}"
        picked = [self.values[cell] or "empty" for cell in np.flatnonzero(fires)]
        return f"{self.feature} {'ends in' if self.feature == features.FILENAME else 'is'} {_join_with_or(picked)}"


@dataclass(frozen=True)
class _Found:
    shortcut: Shortcut
    property: _Property
    fires: np.ndarray  # bool [cells]


def find_shortcuts(predictions: Predictions, threshold: float) -> list[Shortcut]:
    """Finds properties of the file that are enough to distinguish a class from all others.

    The properties are the format, the suffix of the file's name, height, width, aspect, channels, size in bytes, and meta/
    columns with at most 100 values. A meta/ column may describe the class for a good reason; the reader has to decide that.
    Brightness, contrast and sharpness belong to the content of the image and are left out.

    Each property and class has a rule. For a number it is the range, from a to below b, with the largest sum of sensitivity
    and specificity. (Numbers are divided into 256 bins with equal numbers of images, or one bin per value if there are fewer
    values.) For any other property the rule picks the values that are more frequent among the images of the class than among
    the others; that is a decision tree with one leaf per value and balanced class weights. The score is the balanced accuracy
    of the rule in five-fold cross-validation by group: images are judged by a rule that was made from other groups.

    The size in bytes also depends on how much there is to see: a handwritten 1 needs fewer bytes than other digits (score
    0.84). So it is reported only from 1 - (1 - threshold) / 5 on, which is 0.95 for the threshold 0.75.

    The 95 % interval of the score combines the exact (Clopper-Pearson) intervals of sensitivity and specificity by the squares
    of their arms (MOVER; Zou and Donner 2008, https://doi.org/10.1002/sim.3095). It counts groups instead of images, because
    the images of a group usually have the same source. A class is reported if its score is at least `threshold` and the lower
    bound is above 0.55, with Bonferroni's correction for all pairs of property and class. So chance alone gives a warning on
    fewer than 5 % of all data sets, and a class of two or three groups gives none.

    If the rules of two properties pick mostly the same images (80 % of those that either picks), only the stronger one is
    reported. If "is jpeg" of one class has a better score, "is png" of the other classes is not reported.

    Args:
      predictions: the images with their features and labels; the answers are not used.
      threshold: `evaluate.max_shortcut`, or the `upper` of a threshold on shortcuts.

    Returns:
      The shortcuts, the strongest first.
    """
    if len(predictions.rows) == 0 or len(predictions.classes) < 2:
        return []
    labels = predictions.labels
    images, classes = np.nonzero(labels) if predictions.multi_label else (np.flatnonzero(labels >= 0), labels[labels >= 0])
    folds = (pd.util.hash_array(predictions.rows[features.GROUP].to_numpy(object)) % _FOLDS).astype(np.int64)
    groups = _group_counts(predictions, images, classes)
    properties = list(_properties(predictions.rows))
    tests = len(properties) * len(predictions.classes)
    found: list[_Found] = []
    for item in properties:
        least = 1 - _BYTES_FACTOR * (1 - threshold) if item.feature == features.BYTES else threshold
        found += _examine(item, images, classes, folds, groups, predictions.classes, least, tests)
    found.sort(key=lambda one: -one.shortcut.score.value)  # stable: equal scores stay in the order of the properties
    return [one.shortcut for one in _drop_repeated(found)]


def _drop_repeated(found: list[_Found]) -> Iterator[_Found]:
    """Drops each rule that picks mostly the same images for the same class as an earlier rule."""
    joint: dict[tuple[str, str], np.ndarray] = {}  # images by the cells of two properties
    kept: dict[str, list[_Found]] = {}
    for one in found:
        same_class = kept.setdefault(one.shortcut.label, [])
        for other in same_class:
            pair, count = (other.property.feature, one.property.feature), one.property.count
            if pair not in joint:
                cells = other.property.cells * count + one.property.cells
                joint[pair] = np.bincount(cells, minlength=other.property.count * count).reshape(-1, count)
            both = other.fires @ joint[pair] @ one.fires
            either = other.fires @ joint[pair].sum(axis=1) + joint[pair].sum(axis=0) @ one.fires - both
            if both >= _MIN_OVERLAP * either:
                break
        else:
            same_class.append(one)
            yield one


def _properties(rows: pd.DataFrame) -> Iterator[_Property]:
    """The properties in which the images differ, the simplest first."""
    for feature in (features.FORMAT, features.FILENAME, features.CHANNELS, *_NUMBERS):
        if feature in rows:
            item = _number(rows[feature]) if feature in _NUMBERS else _category(rows[feature])
            if 1 < item.count <= (_BINS if feature in _NUMBERS else _MAX_VALUES):
                yield item
    for feature in sorted(name for name in rows if name.startswith(features.META_PREFIX)):
        item = _category(rows[feature])
        if 1 < item.count <= _MAX_VALUES:
            yield item


def _category(column: pd.Series) -> _Property:
    texts = column.fillna("").astype(str)
    if column.name == features.FILENAME:
        # Names of pages of a TIFF file end in #1, #2, ...
        texts = texts.str.extract(r"(\.[^./#]*)(?:#\d+)?$", expand=False).fillna("no suffix")
    cells, values = pd.factorize(texts, sort=True)
    return _Property(str(column.name), cells.astype(np.int64), list(values), np.empty(0))


def _number(column: pd.Series) -> _Property:
    numbers = column.to_numpy(np.float64)
    edges = np.unique(numbers)
    if len(edges) > _BINS:
        # Edges are values of images, so that equal values are in one bin.
        edges = np.unique(np.quantile(numbers, np.arange(_BINS) / _BINS, method="higher"))
    edges = edges[1:] if len(edges) and edges[0] == numbers.min() else edges
    return _Property(str(column.name), np.searchsorted(edges, numbers, side="right"), [], edges)


def _group_counts(predictions: Predictions, images: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each class the number of groups with an image of it, and with an image not of it; both int64 [classes]."""
    groups, count = predictions.groups, len(predictions.classes)
    pairs, sizes = np.unique(groups[images] * count + classes, return_counts=True)
    with_class = np.bincount(pairs % count, minlength=count)
    of_class_alone = pairs[sizes == np.bincount(groups)[pairs // count]]
    return with_class, groups.max() + 1 - np.bincount(of_class_alone % count, minlength=count)


def _examine(
    item: _Property,
    images: np.ndarray,
    classes: np.ndarray,
    folds: np.ndarray,
    groups: tuple[np.ndarray, np.ndarray],
    names: list[str],
    threshold: float,
    tests: int,
) -> Iterator[_Found]:
    """Finds the classes that a property distinguishes from the others.

    Args:
      item: the property.
      images, classes: int64, one pair for each class of each image.
      folds: int64 [images].
      groups: as returned by `_group_counts`.
      names: names of the classes.
      threshold: smallest score to report.
      tests: number of all pairs of a property and a class.
    """
    shape = (_FOLDS, item.count, len(names))
    cells = folds * item.count + item.cells
    inside = np.bincount(cells[images] * len(names) + classes, minlength=np.prod(shape)).reshape(shape)
    outside = np.bincount(cells, minlength=shape[0] * shape[1]).reshape(*shape[:2], 1) - inside
    fires = _fires(item, inside.sum(axis=0) - inside, outside.sum(axis=0) - outside)
    sensitivity = _divide((inside * fires).sum(axis=(0, 1)), inside.sum(axis=(0, 1)))
    specificity = _divide((outside * ~fires).sum(axis=(0, 1)), outside.sum(axis=(0, 1)))
    score = (sensitivity + specificity) / 2
    lower, upper = _interval(sensitivity, specificity, groups, 1 - _CONFIDENCE)
    bound, _ = _interval(sensitivity, specificity, groups, (1 - _CONFIDENCE) / tests)
    final = _fires(item, inside.sum(axis=0), outside.sum(axis=0))
    reported = np.flatnonzero((score >= threshold) & (bound > _LEAST_BOUND))
    reported = reported[~_is_complement(final[:, reported], score[reported], np.bincount(item.cells, minlength=item.count))]
    for label in reported:
        metric = Metric(float(score[label]), float(lower[label]), float(upper[label]))
        shortcut = Shortcut(item.feature, names[label], metric, item.rule(final[:, label]))
        yield _Found(shortcut, item, final[:, label])


def _is_complement(fires: np.ndarray, score: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Whether a class's rule picks mostly the images that the rule of a class with a better score does not pick.

    Args:
      fires: bool [cells, classes], the cells that each rule picks.
      score: float [classes].
      sizes: int64 [cells], number of images.

    Returns:
      bool [classes].
    """
    picks, leaves = fires * sizes[:, None], ~fires * sizes[:, None]
    both = picks.T @ ~fires
    either = picks.sum(axis=0)[:, None] + leaves.sum(axis=0) - both
    return ((both >= _MIN_OVERLAP * either) & (score[:, None] < score)).any(axis=1)


def _fires(item: _Property, inside: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """The cells that the rule of each class picks, see `find_shortcuts`.

    Args:
      inside, outside: int64 [..., cells, classes], numbers of images of each class and not of it.

    Returns:
      bool, of the same shape.
    """
    # What a cell adds to sensitivity + specificity, times both numbers of images, so that it is an exact whole number.
    gain = inside * outside.sum(axis=-2, keepdims=True) - outside * inside.sum(axis=-2, keepdims=True)
    if item.values:
        return gain > 0
    before = np.cumsum(np.insert(gain, 0, 0, axis=-2), axis=-2)  # sum over all cells before this one
    least = np.minimum.accumulate(before, axis=-2)
    edges = np.arange(before.shape[-2])[:, None]
    end = (before - least).argmax(axis=-2)[..., None, :]
    start = np.where((before == least) & (edges <= end), edges, 0).max(axis=-2, keepdims=True)
    return (start <= edges[:-1]) & (edges[:-1] < end)


def _divide(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole for counts, and 0 where `whole` is 0."""
    return part / np.maximum(whole, 1)


def _interval(
    sensitivity: np.ndarray, specificity: np.ndarray, groups: tuple[np.ndarray, np.ndarray], error: float
) -> tuple[np.ndarray, np.ndarray]:
    """Two-sided interval of the mean of both rates, with error / 2 outside at each end."""
    pairs = [
        (rate, *_clopper_pearson(rate, count, error)) for rate, count in zip((sensitivity, specificity), groups, strict=True)
    ]
    below = np.sqrt(sum((rate - lower) ** 2 for rate, lower, _ in pairs)) / 2
    above = np.sqrt(sum((upper - rate) ** 2 for rate, _, upper in pairs)) / 2
    score = (sensitivity + specificity) / 2
    return score - below, score + above


def _clopper_pearson(rate: np.ndarray, count: np.ndarray, error: float) -> tuple[np.ndarray, np.ndarray]:
    hits = rate * count
    lower = np.where(hits > 0, beta.ppf(error / 2, hits, count - hits + 1), 0)
    upper = np.where(hits < count, beta.ppf(1 - error / 2, hits + 1, count - hits), 1)
    return lower, upper


def _range_text(fires: np.ndarray, edges: np.ndarray) -> str:
    """A range in words, such as "below 64", "64 to 128" or "from 512"; the picked cells are neighbours."""
    first, last = np.flatnonzero(fires)[[0, -1]]
    if first == 0:
        return f"below {_number_text(edges[last])}"
    return (
        f"from {_number_text(edges[first - 1])}"
        if last == len(edges)
        else f"{_number_text(edges[first - 1])} to {_number_text(edges[last])}"
    )


def _number_text(number: float) -> str:
    return str(int(number)) if number == int(number) else f"{number:.4g}"


def _join_with_or(texts: list[str]) -> str:
    """Joins texts, such as "a, b or c"; if there are many, "a, b, c, d or others"."""
    shown = texts if len(texts) <= _MAX_NAMED + 1 else [*texts[:_MAX_NAMED], "others"]
    return " or ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
