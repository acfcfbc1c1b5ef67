"""Slices: the images with the same values of some features."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np
import pandas as pd

from evaluation.results import SliceKey, slice_order
from models import features

NO_LABEL: Final = "(none)"  # stands for the label of images without one
_FEW_VALUES: Final = 12  # if an integer feature has at most this many values, each value is a slice


def slice_images(
    rows: pd.DataFrame, specs: Iterable[Sequence[str]], buckets: Mapping[str, Sequence[float]], multi_label: bool
) -> dict[SliceKey, np.ndarray]:
    """Finds the images of each slice.

    An image with several labels is in the slice of each label. Images without a label have a slice of their own.

    Args:
      rows: as `Predictions.rows`.
      specs: the features of each kind of slice. Numeric features are divided into buckets.
      buckets: for some numeric features the edges of the buckets, in ascending order; a bucket includes its lower edge. The
        others are divided at their quartiles, but integers with few values have one slice per value.
      multi_label: whether an image can have any number of classes.

    Returns:
      Slice to positions of its images, int64 in ascending order; the slice of all images comes first.
    """
    specs = [tuple(spec) for spec in specs]
    values = {name: _values(rows[name], buckets.get(name)) for name in sorted(set(itertools.chain(*specs)))}
    slices: dict[SliceKey, np.ndarray] = {(): np.arange(len(rows))}
    for spec in specs:
        names = sorted(set(spec))
        frame = pd.DataFrame({name: values[name] for name in names})
        if features.LABEL in names:
            labels = [features.split_labels(text, multi_label) or [NO_LABEL] for text in frame[features.LABEL]]
            frame = frame.assign(**{features.LABEL: labels}).explode(features.LABEL)
        for key, images in frame.groupby(names, sort=False).groups.items():
            texts = key if isinstance(key, tuple) else (key,)
            slices[tuple(zip(names, texts, strict=True))] = np.sort(images.to_numpy())
    return dict(sorted(slices.items(), key=lambda item: slice_order(item[0])))


def _values(column: pd.Series, edges: Sequence[float] | None) -> pd.Series:
    """The values of a column as texts; numbers as the names of their buckets."""
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
    """Names of the buckets between edges, for example [64, 128] to "below 64", "64 to 128", "128 and more"."""
    if not edges:
        return ["any"]
    texts = [f"{edge:.4g}" for edge in edges]
    between = [f"{low} to {high}" for low, high in itertools.pairwise(texts)]
    return [f"below {texts[0]}", *between, f"{texts[-1]} and more"]
