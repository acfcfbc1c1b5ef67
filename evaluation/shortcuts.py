"""Does a property of the file alone tell the class? Then a model may have learned how the collection was made."""

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
_BINS: Final = 256  # of a number
_VALUES: Final = 100  # a meta/ column with more is no source, such as a site or a scanner
_OF_BYTES: Final = 0.2  # of the way from the threshold to 1, what is left for the size in bytes
_LEAST_BOUND: Final = 0.55  # of the score's lower bound
_CONFIDENCE: Final = 0.95
_ALIKE: Final = 0.8  # images that two rules pick in common, of those that either picks
_NAMED: Final = 4  # values in a rule's words


@dataclass(frozen=True)
class _Property:
    """A property of each image, as one of a few cells.

    Attributes:
      feature: what it is read from.
      cells: int64 [images], positions in `values`, or bins of a number: cell i is from edges[i - 1] to below edges[i].
      values: texts; of a number none.
      edges: of a number, rising.
    """

    feature: str
    cells: np.ndarray
    values: list[str]
    edges: np.ndarray

    @property
    def count(self) -> int:
        return len(self.values) or len(self.edges) + 1

    def rule(self, fires: np.ndarray) -> str:
        """The cells that `fires`, bool [count], picks, in words."""
        if not self.values:
            return f"{self.feature} {_range(fires, self.edges)}"
        picked = [self.values[cell] or "empty" for cell in np.flatnonzero(fires)]
        return f"{self.feature} {'ends in' if self.feature == features.FILENAME else 'is'} {_or(picked)}"


@dataclass(frozen=True)
class _Found:
    shortcut: Shortcut
    property: _Property
    fires: np.ndarray  # bool [cells]


def find_shortcuts(predictions: Predictions, threshold: float) -> list[Shortcut]:
    """Finds properties of the file that alone tell a class from all others.

    Looked at are the format, the ending of the file's name, height, width, aspect, channels, size in bytes, and meta/ columns
    with at most 100 values. Such a column can rightly describe the class; that is for the reader to say. Brightness, contrast
    and sharpness are of the content, and left out.

    For each property and class there is a rule. Of a number it is the range, from a to below b, with the largest sum of
    sensitivity and specificity. (Numbers are cut into 256 bins of as many images, or by value if there are fewer.) Of another
    property it is the values that are more frequent among the class's images than among the others, which is the decision tree
    with a leaf a value and balanced class weights. The score is the rule's balanced accuracy, by five-fold cross-validation by
    group: images are judged by a rule that was made of other groups.

    The size in bytes also tells how much there is to see: a handwritten 1 takes fewer than other digits (score 0.84). So it is
    reported from 1 - (1 - threshold) / 5 only, 0.95 where the threshold is 0.75.

    The score's 95 % interval combines the exact (Clopper-Pearson) intervals of sensitivity and specificity by the squares of
    their arms (MOVER; Zou and Donner 2008, https://doi.org/10.1002/sim.3095), with groups counted instead of images: those of
    one group come out of one camera. A class is reported if its score is at least `threshold`, and if the lower bound is above
    0.55 even where the intervals of all properties and classes are to hold together (Bonferroni's correction). So chance alone
    gives a warning on fewer than 5 % of all data sets, and a class of two or three groups gives none.

    Of two properties whose rules pick mostly the same images (80 % of those that either picks), the stronger is reported; and
    not "is png" of the other classes where "is jpeg" of one class says the same and more.

    Args:
      threshold: `evaluate.max_shortcut`.

    Returns:
      The strongest first.
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
        least = 1 - _OF_BYTES * (1 - threshold) if item.feature == features.BYTES else threshold
        found += _examine(item, images, classes, folds, groups, predictions.classes, least, tests)
    found.sort(key=lambda one: -one.shortcut.score.value)  # stable: of equals the first property
    return [one.shortcut for one in _distinct(found)]


def _distinct(found: list[_Found]) -> Iterator[_Found]:
    """Leaves out what picks mostly the same images for the same class as one before."""
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
            if both >= _ALIKE * either:
                break
        else:
            same_class.append(one)
            yield one


def _properties(rows: pd.DataFrame) -> Iterator[_Property]:
    """Those on which the images differ, the plainest first."""
    for feature in (features.FORMAT, features.FILENAME, features.CHANNELS, *_NUMBERS):
        if feature in rows:
            item = _number(rows[feature]) if feature in _NUMBERS else _category(rows[feature])
            if 1 < item.count <= (_BINS if feature in _NUMBERS else _VALUES):
                yield item
    for feature in sorted(name for name in rows if name.startswith(features.META_PREFIX)):
        item = _category(rows[feature])
        if 1 < item.count <= _VALUES:
            yield item


def _category(column: pd.Series) -> _Property:
    texts = column.fillna("").astype(str)
    if column.name == features.FILENAME:
        # Of a TIFF file's pages the names end in #1, #2, ...
        texts = texts.str.extract(r"(\.[^./#]*)(?:#\d+)?$", expand=False).fillna("no suffix")
    cells, values = pd.factorize(texts, sort=True)
    return _Property(str(column.name), cells.astype(np.int64), list(values), np.empty(0))


def _number(column: pd.Series) -> _Property:
    numbers = column.to_numpy(np.float64)
    edges = np.unique(numbers)
    if len(edges) > _BINS:
        # Edges are values of images, so that a bin begins where a run of equal values does.
        edges = np.unique(np.quantile(numbers, np.arange(_BINS) / _BINS, method="higher"))
    edges = edges[1:] if len(edges) and edges[0] == numbers.min() else edges
    return _Property(str(column.name), np.searchsorted(edges, numbers, side="right"), [], edges)


def _group_counts(predictions: Predictions, images: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Groups that have an image of each class, and groups that have an image that is not of it; int64 [classes] both."""
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
    """What a property tells of each class.

    Args:
      images, classes: int64, one pair for each class of each image.
      folds: int64 [images].
      groups: of `_group_counts`.
      threshold: least score to report.
      tests: pairs of a property and a class in all.
    """
    shape = (_FOLDS, item.count, len(names))
    cells = folds * item.count + item.cells
    inside = np.bincount(cells[images] * len(names) + classes, minlength=np.prod(shape)).reshape(shape)
    outside = np.bincount(cells, minlength=shape[0] * shape[1]).reshape(*shape[:2], 1) - inside
    fires = _fires(item, inside.sum(axis=0) - inside, outside.sum(axis=0) - outside)
    sensitivity = _share((inside * fires).sum(axis=(0, 1)), inside.sum(axis=(0, 1)))
    specificity = _share((outside * ~fires).sum(axis=(0, 1)), outside.sum(axis=(0, 1)))
    score = (sensitivity + specificity) / 2
    lower, upper = _interval(sensitivity, specificity, groups, 1 - _CONFIDENCE)
    bound, _ = _interval(sensitivity, specificity, groups, (1 - _CONFIDENCE) / tests)
    final = _fires(item, inside.sum(axis=0), outside.sum(axis=0))
    reported = np.flatnonzero((score >= threshold) & (bound > _LEAST_BOUND))
    reported = reported[~_is_the_rest(final[:, reported], score[reported], np.bincount(item.cells, minlength=item.count))]
    for label in reported:
        metric = Metric(float(score[label]), float(lower[label]), float(upper[label]))
        shortcut = Shortcut(item.feature, names[label], metric, item.rule(final[:, label]))
        yield _Found(shortcut, item, final[:, label])


def _is_the_rest(fires: np.ndarray, score: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Whether a class's rule picks mostly those images that the rule of a class with a better score does not, bool [classes].

    Args:
      fires: bool [cells, classes].
      score: float [classes].
      sizes: int64 [cells], images.
    """
    picks, leaves = fires * sizes[:, None], ~fires * sizes[:, None]
    both = picks.T @ ~fires
    either = picks.sum(axis=0)[:, None] + leaves.sum(axis=0) - both
    return ((both >= _ALIKE * either) & (score[:, None] < score)).any(axis=1)


def _fires(item: _Property, inside: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """The cells that each class's rule picks, see `find_shortcuts`.

    Args:
      inside, outside: int64 [..., cells, classes], images of each class and not of it.

    Returns:
      bool, of the same shape.
    """
    # What a cell adds to sensitivity + specificity, times both numbers of images: whole numbers, to be exact.
    gain = inside * outside.sum(axis=-2, keepdims=True) - outside * inside.sum(axis=-2, keepdims=True)
    if item.values:
        return gain > 0
    before = np.cumsum(np.insert(gain, 0, 0, axis=-2), axis=-2)  # of all cells before this one
    least = np.minimum.accumulate(before, axis=-2)
    edges = np.arange(before.shape[-2])[:, None]
    end = (before - least).argmax(axis=-2)[..., None, :]
    start = np.where((before == least) & (edges <= end), edges, 0).max(axis=-2, keepdims=True)
    return (start <= edges[:-1]) & (edges[:-1] < end)


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """0 where there is nothing to share."""
    return part / np.maximum(whole, 1)


def _interval(
    sensitivity: np.ndarray, specificity: np.ndarray, groups: tuple[np.ndarray, np.ndarray], error: float
) -> tuple[np.ndarray, np.ndarray]:
    """The mean's two-sided interval: error / 2 is left out at each end."""
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


def _range(fires: np.ndarray, edges: np.ndarray) -> str:
    """ "below 64", "64 to 128", "from 512"; the cells that fire are neighbours."""
    first, last = np.flatnonzero(fires)[[0, -1]]
    if first == 0:
        return f"below {_text(edges[last])}"
    return f"from {_text(edges[first - 1])}" if last == len(edges) else f"{_text(edges[first - 1])} to {_text(edges[last])}"


def _text(number: float) -> str:
    return str(int(number)) if number == int(number) else f"{number:.4g}"


def _or(texts: list[str]) -> str:
    """ "a, b or c"; of many "a, b, c, d or others"."""
    shown = texts if len(texts) <= _NAMED + 1 else [*texts[:_NAMED], "others"]
    return " or ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
