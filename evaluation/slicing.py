"""Slices: the images that share values of some features."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np
import pandas as pd

from evaluation.results import SliceKey, slice_order
from models import features

NO_LABEL: Final = "(none)"  # in the place of a label, of images that have none
_FEW_VALUES: Final = 12  # of a whole number that has no more values than these, each is a slice


def slice_images(
    rows: pd.DataFrame, specs: Iterable[Sequence[str]], buckets: Mapping[str, Sequence[float]]
) -> dict[SliceKey, np.ndarray]:
    """The rows of each slice, all images first.

    An image of several labels is in the slice of each, one without any in a slice of its own.

    Args:
      rows: as `Predictions.rows`.
      specs: the features of each kind of slices; those that are numbers are cut into buckets.
      buckets: the edges, rising, of some of them; a bucket takes its lower edge. Of others the quartiles; but whole numbers
        with few values are taken as they are.

    Returns:
      Slice -> int64 [images in it], rising.
    """
    specs = [tuple(spec) for spec in specs]
    values = {name: _values(rows[name], buckets.get(name)) for name in sorted(set(itertools.chain(*specs)))}
    slices: dict[SliceKey, np.ndarray] = {(): np.arange(len(rows))}
    for spec in specs:
        names = sorted(set(spec))
        frame = pd.DataFrame({name: values[name] for name in names})
        if features.LABEL in names:
            frame = frame.assign(**{features.LABEL: frame[features.LABEL].str.split(features.LABEL_SEPARATOR, regex=False)})
            frame = frame.explode(features.LABEL).replace({features.LABEL: {"": NO_LABEL}})
        for key, found in frame.groupby(names, sort=False).groups.items():
            texts = key if isinstance(key, tuple) else (key,)
            slices[tuple(zip(names, texts, strict=True))] = np.sort(found.to_numpy())
    return dict(sorted(slices.items(), key=lambda item: slice_order(item[0])))


def _values(column: pd.Series, edges: Sequence[float] | None) -> pd.Series:
    """As texts."""
    column = column.reset_index(drop=True)
    if not pd.api.types.is_numeric_dtype(column):
        return column.astype(str)
    distinct = column.unique()
    if edges is None:
        if len(distinct) <= _FEW_VALUES and pd.api.types.is_integer_dtype(column):
            return column.astype(str)
        edges = sorted(set(column.quantile([0.25, 0.5, 0.75]).to_list()) - {column.min()})
    return pd.Series(bucket_names(edges))[np.digitize(column, edges)].reset_index(drop=True)


def bucket_names(edges: Sequence[float]) -> list[str]:
    """[64, 128] to "below 64", "64 to 128", "128 and more"."""
    if not edges:
        return ["any"]
    texts = [f"{edge:.4g}" for edge in edges]
    between = [f"{low} to {high}" for low, high in itertools.pairwise(texts)]
    return [f"below {texts[0]}", *between, f"{texts[-1]} and more"]
