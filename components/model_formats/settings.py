"""Settings of ModelFormats. They have no defaults; the configuration sets every value."""

from dataclasses import dataclass

from evaluation.settings import GroupRule, Threshold
from models.choices import Format


@dataclass(frozen=True, kw_only=True)
class FormatSettings:
    """Settings of the component ModelFormats.

    Attributes:
      formats: formats to convert the model to.
      thresholds: a format is shipped if it passes all of them; `change` is against the SavedModel.
      groups: how the answers to the images of a group are combined.
      buckets: for numeric features, the edges between their slices.
      min_slice_size: smallest number of images in a slice that is measured.
      train: splits from which images are sampled for int8.
      test: splits to measure on.
    """

    formats: tuple[Format, ...]
    thresholds: tuple[Threshold, ...]
    groups: GroupRule
    buckets: dict[str, tuple[float, ...]]
    min_slice_size: int
    train: tuple[str, ...]
    test: tuple[str, ...]
